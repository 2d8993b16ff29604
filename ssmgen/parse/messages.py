"""Syntax faults in words: what was found, what could have stood there, what to type."""

from __future__ import annotations

import re
from difflib import get_close_matches

from ..diagnostics import Label, Report
from ..source import Span
from .driver import SyntaxFault
from .layout import ITEMS, NEWLINE, RESERVED, SEMICOLON, STATEMENTS
from .tables import END
from .tokens import Token, shown

_VALUES = ("NAME", "FUNCTION", "NUMBER", "(", "-", "sum")
_OPERATORS = ("+", "-", "*", "/", ".", "^", "POWER", "TRANSPOSE", "[", "'")
_DOMAINS = ("<", "<=", ">", ">=", "in")
_ENDS = (NEWLINE, SEMICOLON, "}")
_WANT_VALUE = ("=", "+", "-", "*", "/", ".", "^", "(", "[", ",", ":", "<", "<=", ">", ">=", "..", "in", "init")
_HOMES = (("update", "a recurrence"), ("score", "an attention"), ("heads", "a layer"), ("repeat", "a stack"))
_HOME_OF = {
    **dict.fromkeys(("score", "mask"), "an attention"),
    "heads": "a layer",
    **dict.fromkeys(("repeat", "between", "head", "embedding", "norm"), "a stack"),
    "for": "an `update`",
    "in": "a domain",
    "per": "a type",
    "init": "a `param`",
}


def explain(fault: SyntaxFault, report: Report) -> None:
    """Report one fault under the narrowest slug that fits."""
    for attempt in (_outside, _statement, _next_token, _missing_value, _keyword, _end, _unexpected):
        if attempt(fault, report):
            return


def _outside(fault: SyntaxFault, report: Report) -> bool:
    """Between the items of a file."""
    if "recurrence" not in fault.expected or "update" in fault.expected:
        return False
    token, written = fault.token, _written(fault.token, report)
    if token.kind == "word" and token.text in STATEMENTS:
        report.error(
            "misplaced-keyword",
            f"`{written}` stands outside of every recurrence",
            token.span,
            "no recurrence is open here",
            note="statements stand between the braces of a `recurrence`, `attention`, `layer` or `stack`",
            help="open one first: `recurrence name { ... }`",
        )
        return True
    if token.kind == "word" and token.text not in ITEMS:
        _unknown(token, ITEMS, "a file holds `recurrence`, `attention`, `layer` and `stack`", report)
        return True
    return False


def _statement(fault: SyntaxFault, report: Report) -> bool:
    """A line that begins with a word that begins no statement here."""
    home = next((name for keyword, name in _HOMES if keyword in fault.expected), "")
    token = fault.token
    if home and token.kind == "word" and "recurrence" not in fault.expected:
        if token.text in STATEMENTS or token.text in ITEMS or token.text in RESERVED:
            _misplaced_statement(token, home, report)
        else:
            known = [word for word in STATEMENTS if word in fault.expected]
            _unknown(token, known, f"{home} has {_listed([f'`{word}`' for word in known], 'and')}", report)
        return True
    line = fault.line
    is_second = fault.before is line and line.kind == "word" and line.text not in RESERVED
    if is_second and token.kind in ("word", "NUMBER") and not token.is_first and "{" not in fault.expected:
        _unknown(line, STATEMENTS, "a line begins with a keyword, or with the name of one more declaration or equation", report)
        return True
    return False


def _misplaced_statement(token: Token, home: str, report: Report) -> None:
    if token.text in ITEMS:
        right, edit = "the top of a file", "close the braces before it"
    else:
        right = _HOME_OF.get(token.text, "a recurrence")
        edit = f"move it to {right}, or delete it"
    report.error(
        "misplaced-keyword",
        f"`{token.text}` does not belong in {home}",
        token.span,
        f"not a statement of {home}",
        note=f"`{token.text}` belongs to {right}",
        help=edit,
    )


_OTHER_WORDS = {
    "return": "the last statement of a layer is its result, with a name like any other: `out = ...`",
    "channels": "of a recurrence of channels `heads` is their number: `heads C = expand * d_model`",
}
"""Words that begin a statement elsewhere."""


def _unknown(token: Token, known, note: str, report: Report) -> None:
    close = get_close_matches(token.text, known, 1, 0.6)
    edit = "begin the line with one of them" if "`" in note else "begin it with a keyword such as `let`, `gate`, `update` or `output`"
    if not close:
        close = [word for word in known if token.text.startswith(word) or (len(token.text) > 2 and word.startswith(token.text))][:1]
    report.error(
        "unknown-statement",
        f"`{_written(token, report)}` begins no statement",
        token.span,
        "not a keyword",
        note=note,
        help=_OTHER_WORDS.get(token.text) or (f"did you mean `{close[0]}`?" if close else edit),
    )


def _next_token(fault: SyntaxFault, report: Report) -> bool:
    """`x[+1]`."""
    if fault.token.kind != "+" or fault.before is None or fault.before.kind != "[":
        return False
    report.error(
        "time-index",
        "a recurrence cannot read the next token",
        fault.before.span.to(fault.token.span),
        "a token that has not come yet",
        note="the output at a token depends on that token and the ones before it; `time reversed` runs the whole recurrence backwards",
        help="read this token, `x`, or the previous one, `x[-1]`",
    )
    return True


def _missing_value(fault: SyntaxFault, report: Report) -> bool:
    """Something that wants a value has none."""
    token, before = fault.token, fault.before
    if before is None or before.kind not in (*_WANT_VALUE, "word") or not {"NAME", "NUMBER"} <= {*fault.expected}:
        return False
    if before.kind == "word" and before.text not in ("in", "init", "score"):
        return False
    if token.text in RESERVED and not token.is_first:
        return False
    if _pair(before, token) or token.kind in _NEVER_FIRST:
        return False
    report.error(
        "missing-value",
        f"`{_written(before, report)}` is followed by no value",
        before.span,
        "a value is missing after this",
        secondary=() if token.kind in (*_ENDS, END) or token.is_first else (Label(token.span, f"{_found(token, report)} comes next"),),
        help="write a number, a name or a formula there",
    )
    return True


def _keyword(fault: SyntaxFault, report: Report) -> bool:
    """A reserved word where a name belongs."""
    token = fault.token
    if token.kind in ("=", "'", ":", ",") and fault.before and fault.before.text in RESERVED:
        token = fault.before  # `output = ...`
    if token.kind != "word" or token.text not in RESERVED or "NAME" not in fault.expected:
        return False
    report.error(
        "misplaced-keyword",
        f"`{token.text}` is a keyword and cannot be a name",
        token.span,
        "used as a name",
        note="reserved are " + ", ".join(f"`{word}`" for word in RESERVED),
        help=f"the name follows the keyword: `{token.text} y = ...`" if token is fault.before else "choose another name",
    )
    return True


def _end(fault: SyntaxFault, report: Report) -> bool:
    if fault.token.kind != END:
        return False
    before = fault.before
    place = Span(before.span.end, before.span.end) if before else Span(0, 0)
    report.error(
        "unexpected-end",
        "the file ends too early",
        place,
        f"expected {_expected(fault.expected)}",
        help="write the rest: `recurrence name { ... }`",
    )
    return True


_PAIRS = {
    ("=", "="): "write `=` once",
    ("*", "*"): "a power is `x^2`",
    ("/", "/"): "a quotient is `a / b`; a comment begins with `#`",
    (":", "="): "write `=`",
    ("-", ">"): "name the value with `=`",
    ("'", "'"): "one prime: `S` is the state before the token, `S'` after it",
}
_NEVER_FIRST = (".", "{", "[", "'", "TRANSPOSE")
_HINTS = {
    ".": "a number begins with a digit, `0.5`; the inner product stands between two values, `p . q`",
    "{": "group with parentheses",
    "[": "an index follows a name: `k[j]`",
    "'": "a prime follows the name of a state: `S'`",
    "=": "one `=` an equation, one equation a line",
    "@": "the matrix product is a space, `k v^T`; the inner product is `p . q`",
    ",": "one value an equation: begin a new line for the next one, or write `;`",
    **dict.fromkeys(("<", "<=", ">", ">="), "nothing is compared in a formula: `max`, `min`, `relu` and `clamp` choose between values"),
    ":": "types stand in declarations: `let a : [N] = ...`",
    ")": "delete it, or open it before",
    "]": "delete it, or open it before",
    "}": "delete it, or open it before",
    "TRANSPOSE": "a transpose follows what it turns: `v^T`",
}


_EDITS = {
    "a type": "write `scalar`, `[N]` or `[N, P]`",
    "the end of the line": "begin a new line",
    "the end of the statement": "begin a new line",
    "`dS/dt`": "write `dynamics dS/dt = ...`, with the state's name for S",
}


def _pair(before: Token, token: Token) -> str:
    """The edit for two signs that other languages write together."""
    return _PAIRS.get((before.kind, token.kind), "") if before.span.end == token.span.start else ""


def _unexpected(fault: SyntaxFault, report: Report) -> bool:
    token, before = fault.token, fault.before
    place = token.span
    if token.kind in (NEWLINE, SEMICOLON) and "\n" in report.source.slice(place) or token.span.start == token.span.end:
        place = Span(before.span.end, before.span.end) if before else place
    pair = _pair(before, token) if before else ""
    wanted = _expected(fault.expected)
    edit = pair or _EDITS.get(wanted) or _opening(fault, report) or _third_size(fault, report)
    hint = "" if token.kind == "," and "the end of the statement" not in wanted else _HINTS.get(token.kind)
    if report.source.slice(Span(token.span.start, token.span.start + 2)) == ":=":
        hint = "write `=`"
    report.error(
        "unexpected-token",
        f"{_found(token, report)} cannot stand here",
        place,
        f"expected {wanted}",
        help=edit or hint or f"write {wanted} here, or delete {_found(token, report)}",
    )
    return True


def _opening(fault: SyntaxFault, report: Report) -> str:
    """The edit for an item whose statements begin without a brace."""
    if "{" not in fault.expected or not fault.token.is_first or fault.before is None:
        return ""
    return f"open the item behind `{_written(fault.before, report)}` with `{{`, and close it with `}}` behind its last statement"


def _third_size(fault: SyntaxFault, report: Report) -> str:
    """The edit for `x : [B, T, N]`."""
    written = report.source.slice(Span(fault.line.span.start, fault.token.span.start))
    if fault.token.kind != "," or "]" not in fault.expected or not re.search(r":[^;:]*\[[^\]]*,[^\]]*$", written):
        return ""
    return "a type has one size or two, `[N]` or `[N, P]`: batch, time and heads are never written"


def _written(token: Token, report: Report) -> str:
    return shown(report, token.span) or token.text


def _found(token: Token, report: Report) -> str:
    """The token as a reader calls it."""
    if token.kind == END:
        return "the end of the file"
    if token.kind in (NEWLINE, SEMICOLON) and "\n" in report.source.slice(token.span):
        return "the end of the line"
    return f"`{_written(token, report)}`"


def _expected(kinds: tuple[str, ...]) -> str:
    """The kinds that could have followed, gathered under common words."""
    left = list(kinds)
    words: list[str] = []

    def gather(members: tuple[str, ...], word: str, least: int) -> None:
        if sum(member in left for member in members) >= least:
            words.append(word)
            left[:] = [kind for kind in left if kind not in members]

    if "*" in left and "+" in left:
        gather((*_OPERATORS, *_VALUES), "an operator", 3)
    if "NUMBER" in left:
        gather(_VALUES, "a value", 3)
    gather(("real", "complex", "scalar", "["), "a type", 3)
    gather(_DOMAINS, "a domain", 4)
    gather(ITEMS, "an item such as `recurrence`", 3)
    gather(STATEMENTS, "a statement", 4)
    gather(("@",), "an option", 1) if "a statement" not in words else gather(("@",), "", 0)
    gather(("per", "unit", "conjugate", "rotates"), "a word such as `per head`", 3)
    gather(("NAME", "FUNCTION"), "a name", 1)
    gather(("DERIVATIVE",), "`dS/dt`", 1)
    gather(("NUMBER",), "a number", 1)
    ends = [kind for kind in _ENDS if kind in left]
    left = [kind for kind in left if kind not in (*_ENDS, END)]
    words = [word for word in words if word and word != "an option"]
    words += [{"POWER": "a power", "TRANSPOSE": "`^T`"}.get(kind, f"`{kind}`") for kind in left if kind != "@"]
    if len(ends) > 1:
        words.append("the end of the statement")
    elif ends:
        words.append("`}`" if ends[0] == "}" else "the end of the line")
    return _listed(words, "or")


def _listed(words: list[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else "nothing more"
