"""Text to tokens. Several spellings of one thing (`ᵀ` and `^T`, `β` and `beta`) become one token here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..diagnostics import Report
from ..source import Span

MAX_CHARACTERS = 1_000_000
MAX_TOKENS = 50_000
MAX_NAME = 80
MAX_DIGITS = 40
MAX_EXPONENT = 300
MAX_ERRORS = 20
"""Of one pass over the text: what comes later is mostly a consequence."""

BROKEN = "BROKEN"
"""The kind of a token that was reported already: its statement is dropped without a second message."""


@dataclass(slots=True)
class Token:
    """`kind` is what the grammar calls it, `kinds` every reading of a word, best first. `is_first`: first on its line."""

    kind: str
    text: str
    span: Span
    is_first: bool = False
    kinds: tuple[str, ...] = ()


_GREEK = {
    **dict(zip("αβγδεζηθικ", "alpha beta gamma delta epsilon zeta eta theta iota kappa".split(), strict=True)),
    **dict(zip("λμνξπρσςτυφχψω", "lam mu nu xi pi rho sigma sigma tau upsilon phi chi psi omega".split(), strict=True)),
    **dict(zip("ΓΔΘΛΞΠΣΦΨΩ", "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split(), strict=True)),
    **dict(zip("ϵϑϕϱ", "epsilon theta phi rho".split(), strict=True)),
}
"""`λ` is `lam`: `lambda` cannot be a name in the emitted Python."""

_LETTER = f"A-Za-z_{''.join(_GREEK)}"
_WORD = f"[{_LETTER}][{_LETTER}0-9\u2080-\u2089]*"
_PATTERN = re.compile(
    "|".join(
        f"(?P<{name}>{pattern})"
        for name, pattern in (
            ("space", r"[ \t\r\u00a0\u2009\u202f]+"),
            ("newline", r"\n"),
            ("comment", r"#[^\n]*"),
            ("index", rf"{_WORD}(?<=_)\{{[^{{}}\n]*\}}"),
            ("word", _WORD),
            ("number", r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"),
            ("power", r"\^(?:[-\u2212][0-9]+|1)/0*[1-9][0-9]*(?![A-Za-z_0-9.])"),  # x^1 alone says nothing
            ("superscript", r"\u207b?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+"),
            ("transpose", r"\^[ \t]*[TH](?![A-Za-z_0-9])|\u1d40|\u1d34"),
            ("operator", r"\.\.|<=|>=|[-+*/^.()\[\]{}<>=,;:@']|[\u2212\u00d7\u2299\u00b7\u22c5\u2264\u2265\u2032\u2019\u2208\u221e]"),
        )
    )
)
_SPELLINGS = {"−": "-", "×": "*", "⊙": "*", "·": ".", "⋅": ".", "≤": "<=", "≥": ">=", "′": "'", "’": "'", "∈": "in", "∞": "inf"}
_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def spelled(word: str) -> str:
    """A word in ASCII."""
    return word if word.isascii() else "".join(_GREEK.get(letter, letter) for letter in word).translate(_SUBSCRIPTS)


def tokenise(report: Report) -> list[Token]:
    """The tokens of the source without spaces and comments; newlines become `is_first`.

    Reports unexpected-character and number-too-large and goes on; stops at a file that is too large. `S_{t-1}` becomes the
    word `S` with the reading `index`.
    """
    text = report.source.text
    if len(text) > MAX_CHARACTERS:
        _too_large(report, f"the file has {len(text):,} characters", Span(0, 1), f"more than {MAX_CHARACTERS:,}")
    tokens: list[Token] = []
    position, is_first = 0, True
    while position < len(text) and len(report.found) < MAX_ERRORS:
        match = _PATTERN.match(text, position)
        if match is None:
            start, position = position, _unexpected(report, position)
            tokens.append(Token(BROKEN, "", Span(start, position), is_first))
            is_first = False
            continue
        position = match.end()
        group = match.lastgroup
        if group == "newline":
            is_first = True
        elif group not in ("space", "comment"):
            tokens.append(_token(report, group, match.group(), Span(match.start(), match.end()), is_first))
            is_first = False
            if len(tokens) > MAX_TOKENS:
                _too_large(report, f"the file has more than {MAX_TOKENS:,} words and signs", tokens[-1].span, "the limit is here")
    if len(report.found) >= MAX_ERRORS:
        report.raise_if_errors()
    return tokens


def _too_large(report: Report, title: str, span: Span, label: str) -> None:
    report.error(
        "too-large",
        title,
        span,
        label,
        note="a specification is a page of text; sizes that grow are a `dim`",
        help="split the file, or write what repeats as `for j in 1..n` or `sum r in 1..R`",
    )
    report.raise_if_errors()


def shown(report: Report, span: Span) -> str:
    """The text under `span` for a message: on one line, cut when long."""
    text = " ".join(report.source.slice(span).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _token(report: Report, group: str, text: str, span: Span, is_first: bool) -> Token:
    if group == "word":
        return Token("word", _name(report, text, span), span, is_first)
    if group == "number":
        return Token("NUMBER", text if _fits(report, text, span) else "1", span, is_first)
    if group in ("power", "superscript"):
        text = text.lstrip("^").replace("−", "-").translate(_SUPERSCRIPTS)
        return Token("POWER", text if _fits(report, text, span) else "1", span, is_first)
    if group == "transpose":
        return Token("TRANSPOSE", "H" if text[-1] in "Hᴴ" else "T", span, is_first)
    if group == "index":
        name = text.partition("{")[0].rstrip("_") or "_"
        return Token("word", _name(report, name, span), span, is_first, ("index",))
    kind = _SPELLINGS.get(text, text)
    return Token("word" if kind in ("in", "inf") else kind, kind, span, is_first)


def _name(report: Report, text: str, span: Span) -> str:
    if len(text) > MAX_NAME:
        report.error(
            "too-large",
            f"the name has {len(text):,} letters",
            span,
            f"more than {MAX_NAME}",
            note="names become names of the emitted package",
            help="choose a shorter name",
        )
        return text[:MAX_NAME]
    return spelled(text)


def _fits(report: Report, text: str, span: Span) -> bool:
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) <= MAX_DIGITS and len(exponent) <= 5 and abs(int(exponent or "0")) <= MAX_EXPONENT:
        return True
    has_many_digits = len(mantissa) > MAX_DIGITS
    report.error(
        "number-too-large",
        f"the number has {len(mantissa):,} digits" if has_many_digits else "the number does not fit a double",
        span,
        f"more than {MAX_DIGITS} digits" if has_many_digits else f"an exponent beyond {MAX_EXPONENT}",
        note="constants are exact rationals while the compiler computes and doubles when it emits",
        help="write fewer digits, or the formula that the number comes from",
    )
    return False


def time_index(report: Report, name: str, span: Span, is_state: bool) -> None:
    """The error that every paper's notation runs into once: `S_{t-1}`, `x[t]`."""
    if is_state:
        edit = f"write `{name}` for the state before the token, `{name}'` for the state after it"
    else:
        edit = f"write `{name}` for this token's value, `{name}[-1]` for the previous token's"
    report.error(
        "time-index",
        f"`{shown(report, span)}` carries a time index",
        span,
        "time is not written",
        note="an equation holds for one token: `S` is the state before it, `S'` the state after it, other names are its values",
        help=edit,
    )


_HINTS = {
    '"': "names and options are written bare, without quotes",
    "`": "names and options are written bare, without quotes",
    "!": "a comment begins with `#`",
    "%": "a comment begins with `#`",
    "&": "domains are written `in (0, 1)`",
    "|": "the absolute value is `abs(x)`, the length `norm(x)`",
    "\\": "Greek letters are written out or as themselves: `beta` or `β`",
    "⊗": "the outer product is `k v^T`",
    "√": "the root is `sqrt(x)`",
    "∑": "the sum is `sum r in 1..R: k[r]`",
    "~": "write the relation with `=`",
    "?": "there is no conditional; `max`, `min` and `clamp` choose",
}


def _unexpected(report: Report, position: int) -> int:
    text = report.source.text
    character = text[position]
    end = position + 1
    while end < len(text) and text[end] == character:
        end += 1
    shown = f"`{character}`" if character.isprintable() else f"U+{ord(character):04X}"
    report.error(
        "unexpected-character",
        f"{shown} is not a sign of the language",
        Span(position, end),
        "not read",
        help=_HINTS.get(character)
        or ("names are ASCII letters and Greek ones that look like no other" if character.isalpha() else "delete it"),
    )
    return end
