"""Lines and brackets: where statements end, and which words are declared.

A line end ends a statement. It does not inside ( and [, after an operator, a comma, `=`, `:` or a keyword that wants more,
nor before a line that begins with an operator. A line that begins without a keyword continues the statement above it, as
after `;`.
"""

from __future__ import annotations

from ..diagnostics import Label, Report
from ..source import Span
from ..syntax import BUILT_IN
from .tokens import BROKEN, MAX_ERRORS, Token, time_index

MAX_NESTING = 200

ITEMS = ("recurrence", "attention", "layer", "stack")
DECLARATIONS = ("dim", "param", "input", "let", "gate", "state")
RESERVED = (*DECLARATIONS, "update", "dynamics", "discretize", "output", "recurrence", "attention", "stack", "for", "in", "per", "init")
"""Never names. The other keywords are names wherever the grammar does not expect them."""
STATEMENTS = (
    *DECLARATIONS, "update", "dynamics", "discretize", "output", "transition", "field", "write", "taps", "readout", "mimo", "time",
    "normaliser", "form", "reset", "score", "mask", "heads", "repeat", "between", "head", "embedding", "norm",
)  # fmt: skip
NEWLINE, SEMICOLON = "_NEWLINE", ";"

_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_OPERATORS = ("+", "-", "*", "/", "^", ".", "=", ":", ",", "<", ">", "<=", ">=", "..")
_AFTER = (*_OPERATORS, "{", ";")
_BEFORE = (*_OPERATORS, "POWER", "TRANSPOSE", "'", ")", "]", "{")
_JOINING = ("in", "per", "init")
_NAME_FOLLOWS = ("'", "=", ",", ":", "[", "<", ">", "<=", ">=")


def begins_statement(token: Token, following: Token | None) -> bool:
    """Whether a line that begins with `token` is a statement of its own."""
    if token.kind == "@":
        return True
    if token.kind != "word" or following is None:
        return token.text in STATEMENTS
    if token.text in STATEMENTS:
        return token.text in RESERVED or not (following.kind in _NAME_FOLLOWS or following.text == "in")
    # Two words in a row begin no declaration or equation: a keyword misspelt.
    is_operand = following.kind == "NUMBER" or (following.kind == "word" and following.text != "in")
    return is_operand and not following.is_first and token.text != "for"


def _begins_item(tokens: list[Token], index: int) -> bool:
    """`recurrence name {` or `recurrence name (` at the beginning of a line."""
    if tokens[index].kind != "word" or tokens[index].text not in ITEMS or not tokens[index].is_first or index + 2 >= len(tokens):
        return False
    return tokens[index + 1].kind == "word" and tokens[index + 2].kind in ("{", "(")


class _Lines:
    """One walk over the tokens with the stack of open brackets."""

    def __init__(self, tokens: list[Token], report: Report):
        self.tokens = tokens
        self.report = report
        self.result: list[Token] = []
        self.open: list[tuple[Token, bool]] = []  # bracket, and whether it opens an interval `in (0, 1]`
        self.item = ""
        self.statement = ""

    @property
    def braces(self) -> int:
        return sum(token.kind == "{" for token, _ in self.open)

    @property
    def in_round(self) -> bool:
        return bool(self.open) and self.open[-1][0].kind != "{"

    def run(self) -> list[Token]:
        for index, token in enumerate(self.tokens):
            following = self.tokens[index + 1] if index + 1 < len(self.tokens) else None
            if _begins_item(self.tokens, index):
                self._close_until(0, token, virtual=True)
                self.item = token.text
            elif token.is_first and self.in_round and token.text in RESERVED and token.text in STATEMENTS:
                self._close_until(self.braces, token, virtual=True)
            if self.braces == 1 and self.result[-1].kind == "{":
                self.statement = token.text
            if token.is_first and self.result:
                self._line_end(token, following)
            if token.kind == ";" and not self.in_round:
                if following is not None and not following.is_first and following.kind != "}":
                    self._separate(following, self.tokens[index + 2] if index + 2 < len(self.tokens) else None, token.span, is_line=False)
            else:
                self._bracket(token)
                self.result.append(token)
        if self.open:
            self._close_until(0, None, virtual=True)
        return self.result

    def _line_end(self, token: Token, following: Token | None) -> None:
        last = self.result[-1]
        wants_more = last.kind in _AFTER or last.text in _JOINING or (last.is_first and last.text in STATEMENTS)
        if self.in_round or not self.open or wants_more or token.kind in _BEFORE or token.kind == "}" or token.text in _JOINING:
            return
        self._separate(token, following, Span(last.span.end, token.span.start), is_line=True)

    def _separate(self, token: Token, following: Token | None, span: Span, is_line: bool) -> None:
        starts = self.braces == 1 and begins_statement(token, following)
        layer = self.braces == 1 and self.item == "layer" and (is_line or self.statement not in DECLARATIONS)
        if starts or layer:
            self.statement = token.text
        self.result.append(Token(NEWLINE if starts or layer else SEMICOLON, ";", span))

    def _bracket(self, token: Token) -> None:
        if token.kind in _CLOSERS:
            if len(self.open) >= MAX_NESTING:
                self.report.error(
                    "too-deep",
                    f"brackets are nested more than {MAX_NESTING} deep",
                    token.span,
                    f"level {MAX_NESTING + 1}",
                    help="name the inner parts with `let`",
                )
                self.report.raise_if_errors()
            is_interval = bool(self.result) and self.result[-1].text == "in"
            self.open.append((token, is_interval))
        elif token.kind in _CLOSERS.values() and self.open:
            opener, is_interval = self.open[-1]
            if _CLOSERS[opener.kind] == token.kind or (is_interval and token.kind in ")]"):
                self.open.pop()
                return
            for level in range(len(self.open) - 1, -1, -1):
                if _CLOSERS[self.open[level][0].kind] == token.kind:
                    self._close_until(level + 1, token)
                    self.open.pop()
                    return
                if self.open[level][0].kind == "{":
                    return

    def _close_until(self, level: int, token: Token | None, virtual: bool = False) -> None:
        """Report the innermost bracket still open above `level` and close them all; a brace gets its `}`."""
        if len(self.open) <= level:
            return
        opener = self.open[-1][0]
        end = len(self.report.source.text.rstrip())
        where = Label(token.span, f"`{token.text}` comes first") if token else Label(Span(max(end - 1, 0), end), "the file ends")
        self.report.error(
            "unclosed-bracket",
            f"`{opener.kind}` is never closed",
            opener.span,
            "opened here",
            secondary=(where,),
            help=f"add `{_CLOSERS[opener.kind]}`",
        )
        if len(self.report.found) >= MAX_ERRORS:
            self.report.raise_if_errors()
        place = Span(where.span.start, where.span.start)
        if opener.kind != "{":
            self.result.append(Token(BROKEN, "", place))
        for closing, _ in reversed(self.open[level:]):
            if closing.kind == "{" and virtual:
                self.result.append(Token("}", "}", place))
        del self.open[level:]


def layout(tokens: list[Token], keywords: frozenset[str], report: Report) -> list[Token]:
    """The tokens with statement ends between them and every word's possible readings.

    Reports unclosed-bracket, too-deep and time-index.
    """
    tokens = _Lines(tokens, report).run()
    tokens = _merged(tokens)
    start = 0
    for index in range(1, len(tokens) + 1):
        if index == len(tokens) or _begins_item(tokens, index):
            _read_words(tokens, start, index, keywords, report)
            start = index
    return tokens


def _merged(tokens: list[Token]) -> list[Token]:
    """`dS / dt =` as one token, and `, conjugate` without its comma."""
    result: list[Token] = []
    index = 0
    while index < len(tokens):
        token, ahead = tokens[index], tokens[index + 1 : index + 4]
        texts = [t.text for t in ahead]
        if token.kind == "word" and token.text[0] == "d" and len(token.text) > 1 and texts[:2] == ["/", "dt"] and texts[2:] == ["="]:
            result.append(Token("DERIVATIVE", token.text[1:], token.span.to(ahead[1].span), token.is_first))
            index += 3
        elif token.kind == "," and texts[:1] in (["conjugate"], ["rotates"], ["unit"]) and texts[1:2] not in ([":"], ["("]):
            index += 1
        else:
            result.append(token)
            index += 1
    return result


def _read_words(tokens: list[Token], start: int, end: int, keywords: frozenset[str], report: Report) -> None:
    """Give every word of one item its readings."""
    declared = _declared(tokens[start:end])
    for index in range(start, end):
        token = tokens[index]
        if token.kind != "word":
            continue
        following = tokens[index + 1].kind if index + 1 < end else ""
        if token.text in RESERVED:
            token.kinds = (token.text,)
            continue
        if token.kinds == ("index",):
            time_index(report, token.text, token.span, is_state=declared.get(token.text) == "state")
            if len(report.found) >= MAX_ERRORS:
                report.raise_if_errors()
        kinds = []
        if token.text in keywords and _may_be_keyword(tokens, index, following):
            kinds.append(token.text)
        if following == "(" and token.text not in declared and token.text not in BUILT_IN:
            kinds.append("FUNCTION")
        token.kinds = (*kinds, "NAME")


def _may_be_keyword(tokens: list[Token], index: int, following: str) -> bool:
    if tokens[index].text == "sum":  # `sum r in 1..R:`, anything else is a name
        return [t.text for t in tokens[index + 2 : index + 3]] == ["in"]
    return following not in ("=", "'", ",") or tokens[index].text in ("unit", "conjugate", "scalar", "real", "complex")


def _declared(tokens: list[Token]) -> dict[str, str]:
    """The names that an item declares and the keywords that do it: after a declaring keyword, `,` or `;` outside brackets; its
    parameters and loop indices."""
    names: dict[str, str] = {}
    depth, declaring, expects, in_header = 0, "", False, True
    for index, token in enumerate(tokens):
        if token.kind in ("(", "["):
            depth += 1
        elif token.kind in (")", "]"):
            depth -= 1
        if in_header:
            if token.kind == "word" and depth == 1 and tokens[index - 1].kind in ("(", ","):
                names[token.text] = "parameter"
            in_header = token.kind != "{"
        elif token.kind == NEWLINE:
            declaring = ""
        elif token.kind == "word" and token.text in ("for", "sum") and index + 1 < len(tokens):
            names[tokens[index + 1].text] = token.text
        elif token.kind == "word" and token.text in DECLARATIONS:
            declaring, expects = token.text, True
        elif declaring and depth == 0 and token.kind in (",", SEMICOLON):
            expects = True
        elif declaring and expects:
            if token.kind == "word":
                names[token.text] = declaring
            expects = False
    return names
