"""What the parser refuses."""

from __future__ import annotations

from ._rule import Rule


def _spec(*lines: str) -> str:
    """Linear attention with other lines for its update and output."""
    head = ("dim    N = 64, P = 64", "input  q, k : [N]; v : [P]", "state  S : real [N, P]")
    return "recurrence example {\n" + "".join(f"  {line}\n" for line in (*head, *lines)) + "}\n"


_UPDATE, _OUTPUT = "update S' = S + k v^T", "output y = S'^T q"
_LEGAL = _spec(_UPDATE, _OUTPUT)

RULES = (
    Rule(
        "unexpected-token",
        "a word or sign where it cannot stand",
        "The text follows no rule of the grammar at this place; the label says what could have stood there.",
        "A specification is read once, from left to right, with one word of lookahead. A statement that does not fit is skipped, "
        "and reading goes on at the next one, so that several faults are found in one run.",
        _spec(_UPDATE, "output y == S'^T q"),
        _LEGAL,
    ),
    Rule(
        "unexpected-end",
        "the file ends inside a declaration",
        "The last item of the file is not finished.",
        "An item is a keyword, a name and a block in braces.",
        "recurrence example",
        _LEGAL,
    ),
    Rule(
        "unexpected-character",
        "a sign that the language does not have",
        "The character belongs to no word, number or operator.",
        "The signs are `+ - * / ^ . ' ( ) [ ] { } < > = , ; : @ #`, and `ᵀ ᴴ · ⋅ − × ⊙ ≤ ≥ ∈ ∞ ′`, superscripts and Greek letters mean "
        "their ASCII spelling. Everything else is refused rather than skipped: a character lost in copying changes a formula.",
        _spec("update S' = S + k v$T", _OUTPUT),
        _LEGAL,
    ),
    Rule(
        "unclosed-bracket",
        "a bracket that is never closed",
        "A parenthesis, square bracket or brace has no partner before the statement, the block or the file ends.",
        "Inside ( and [ a line end does not end the statement, so one lost bracket would swallow the lines below it; a line that "
        "begins with a keyword shows where it was lost.",
        _spec("update S' = (S + k v^T", _OUTPUT),
        _spec("update S' = (S + k v^T)", _OUTPUT),
    ),
    Rule(
        "ambiguous-division",
        "a quotient followed by a factor",
        "`a / b c` is `a / (b c)` to one reader and `(a / b) c` to another.",
        "Papers use both. One more sign removes the doubt.",
        _spec(_UPDATE, "output y = 1 / 8 S'^T q"),
        _spec(_UPDATE, "output y = (1 / 8) S'^T q"),
    ),
    Rule(
        "missing-value",
        "an operator or `=` without a value",
        "A value has to follow and does not.",
        "A line that ends in an operator, a comma, `=` or `:` goes on in the next line, so a forgotten right side meets the next "
        "statement's keyword.",
        _spec("update S' = S +", _OUTPUT),
        _LEGAL,
    ),
    Rule(
        "misplaced-keyword",
        "a keyword as a name, or a statement in the wrong block",
        "A reserved word stands where a name belongs, or a statement stands in an item that does not have it.",
        "The words that begin the statements of a recurrence are reserved everywhere, so that a lost line end or bracket is found "
        "where it happens.",
        _spec("let state = k", _UPDATE, _OUTPUT),
        _spec("let state_key = k", "update S' = S + state_key v^T", _OUTPUT),
    ),
    Rule(
        "unknown-statement",
        "a line that begins with no keyword",
        "The line begins with a word that is no keyword, followed by another word.",
        "Every statement begins with its keyword. A line without one continues the statement above it, with one more declaration "
        "or equation, and then begins with a name and `=`, `'`, `:` or a comma.",
        _spec(_UPDATE, "outptu y = S'^T q"),
        _LEGAL,
    ),
    Rule(
        "number-too-large",
        "a constant beyond a double",
        "A number has more than 40 digits, an exponent beyond 300, or a power of constants exceeds 10^300.",
        "Constants are exact rationals inside the compiler, where `9^9^9` would have 369 million digits, and doubles in what it emits.",
        _spec("update S' = 9^9^9 * S + k v^T", _OUTPUT),
        _spec("update S' = 9^-2 * S + k v^T", _OUTPUT),
    ),
    Rule(
        "too-deep",
        "a formula nested too deep",
        "Brackets or operations are nested more than 200 deep. A sum or product counts one level a term.",
        "Every pass walks the tree of the formula; a bound keeps the walk within the interpreter's stack.",
        _spec(_UPDATE, f"output y = {'(' * 201}S'^T q{')' * 201}"),
        _LEGAL,
    ),
    Rule(
        "too-large",
        "a file or name too large",
        "The file has more than a million characters or 50,000 words and signs, or a name more than 80 letters.",
        "A specification is a page of text. What repeats is written with `for j in 1..n` and `sum r in 1..R`, sizes with `dim`.",
        _spec(f"let {'key' * 30} = k", _UPDATE, _OUTPUT),
        _spec("let key = k", "update S' = S + key v^T", _OUTPUT),
    ),
    Rule(
        "invalid-target",
        "a left side that cannot be set",
        "The left side of an update is no state after the token, or that of an output is no name.",
        "An update sets states after the token, `S' = ...`, one equation a state. An output names what the recurrence gives, "
        "`y = ...`, or `y[r] = ...` for the rows of several.",
        _spec("update S = S + k v^T", _OUTPUT),
        _LEGAL,
    ),
)
