"""Products of matrices outside of a scan, as torch text: what is made of the arguments before the operator, and the output behind it.

Both are torch's own functions of all tokens at once, and of one token; gradients through them are autograd's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import algebra
from ..backends.torch_pointwise import ATOM, Place, Text
from ..backends.torch_text import identifier
from ..expressions import is_made_outside, nodes
from ..plan import Classified
from ..recurrence import Dense
from ..spec import Add, Const, Expr, MatMul, Mul, Neg, Ref, Transpose
from .tokens import Line, Returned, TokenFunction, TokenWriter


@dataclass(frozen=True)
class DenseText:
    """The functions before and behind an operator, and what they are given in a call and in a step."""

    made: str  # the names of what is made; empty where nothing is
    before: TokenFunction
    behind: TokenFunction
    has_before: bool
    has_behind: bool
    before_call: str
    before_step: str
    behind_call: str
    behind_step: str


NOTHING = TokenFunction("", "", "", (), ())


def dense_text(classified: Classified, outer: TokenWriter, like: str) -> DenseText | None:
    """What stands around the scan of `classified`; None where nothing does. `outer`: names and arguments of the whole recurrence;
    `like`: the argument in whose type the output is."""
    dense = classified.recurrence.dense
    if dense is None:
        return None
    returns = _made(outer, dense)
    names = [returned.comment for returned in returns]
    before = NOTHING
    if names:
        before = outer.assemble("_products", "Products of matrices that the operator takes, of all tokens at once.", (), [], returns)
        before = replace(_shared(_once(before)), is_single=len(dense.before) == 1)
    behind = _behind(outer, dense.reads, like) if dense.outputs else NOTHING
    calls = [_calls(outer, function) for function in (before, behind)]
    return DenseText(
        made=", ".join(names), before=before, behind=behind, has_before=bool(names), has_behind=bool(dense.outputs),
        before_call=calls[0][0], before_step=calls[0][1], behind_call=calls[1][0], behind_step=calls[1][1],
    )  # fmt: skip


def _made(outer: TokenWriter, dense: Dense) -> list[Returned]:
    """What is made before the operator; what several matrices make of the same values together."""
    together: dict[tuple[str, bool], list[tuple[str, str]]] = {}
    returns: list[Returned] = []
    for name, product in dense.before:
        is_exact = name in dense.bent or _is_of_matrix_function(product, outer)
        mapped = outer.printer.mapped(product.left, product.right) if isinstance(product, MatMul) else None
        if mapped is None:
            returns.append(Returned(_exact(outer.printer.text(product), is_exact), identifier(name)))
        else:
            together.setdefault((mapped[1].text, is_exact), []).append((mapped[0], identifier(name)))
    for (values, is_exact), own in together.items():
        matrices, names = (", ".join(each) for each in zip(*own, strict=True))
        text = f"*_mapped_together(({matrices}), {values})" if len(own) > 1 else f"_mapped({matrices}, {values})"
        returns.append(Returned(_exact(text, is_exact), names))
    return returns


def _exact(text: str, is_exact: bool) -> str:
    """The text of a product, which is not rounded to half precision where a function is taken of it, or of a matrix in it."""
    is_product = text.startswith(("_product(", "_mapped(", "*_mapped_together("))
    return f"{text[:-1]}, is_exact=True)" if is_exact and is_product else text


def _once(function: TokenFunction) -> TokenFunction:
    """The function with what it reads in float32 at least read so once, in front: a gradient is rounded once then."""
    read = [name for name in function.arguments.split(", ") if any(f"_exact({name})" in part.text for part in _parts(function))]
    for name in read:
        plain = lambda part, name=name: replace(part, text=part.text.replace(f"_exact({name})", name))  # noqa: E731
        function = replace(function, lines=tuple(map(plain, function.lines)), returns=tuple(map(plain, function.returns)))
    return replace(function, lines=(*(Line("", name, f"_exact({name})") for name in read), *function.lines))


def _shared(function: TokenFunction) -> TokenFunction:
    """The function with a matrix of which several entries are read made once."""
    known: dict[str, str] = {}
    lines: list[Line] = []
    for line in function.lines:
        whole, bracket, entry = line.text.rpartition("[..., ")
        if "_entries(" in whole:
            if whole not in known:
                known[whole] = f"matrices{len(known) + 1}"
                lines.append(Line("", known[whole], whole))
            line = replace(line, text=f"{known[whole]}{bracket}{entry}")
        lines.append(line)
    return replace(function, lines=tuple(lines))


def _parts(function: TokenFunction) -> tuple[Line | Returned, ...]:
    return (*function.lines, *function.returns)


def _is_of_matrix_function(product: Expr, outer: TokenWriter) -> bool:
    """Whether a function of a whole matrix is in a product, perhaps under a name."""
    found = (outer.definitions.get(node.name, node) if isinstance(node, Ref) else node for node in nodes(product))
    return any(map(is_made_outside, found))


def _calls(outer: TokenWriter, function: TokenFunction) -> tuple[str, str]:
    """The text of a call for all tokens, and for one: what the token before had stands under a name of its own there."""
    before = {identifier(f"{s.name}[-1]") for s in outer.delayed}
    given = function.arguments.split(", ")
    own = [f"own_{name}" if name in before else name for name in given]
    return f"{function.name}({', '.join(given)})", f"{function.name}({', '.join(own)})"


def _behind(outer: TokenWriter, reads: tuple[str, ...], like: str) -> TokenFunction:
    """The output from the rows that the scan gives."""
    lines: list[Line] = []
    for number, name in enumerate(reads):
        outer.printer.places[name] = Place(True, "h", True)
        if len(reads) == 1:
            outer.printer.texts[name] = "y"
        else:
            lines.append(Line("", identifier(name), f"y[..., {number}, :]"))
    values = [_scaled(outer, _joined(outer, value, reads)) for _, value in outer.outputs]
    place = Place(True, "h", not values[0].type.is_scalar)
    texts = [outer.printer.placed(value, place) for value in values]
    text = f"torch.stack([{', '.join(texts)}], {-2 if place.has_vector else -1})" if outer.has_rows else outer.printer.text(values[0])
    added = None if outer.has_rows else _added(outer, values[0], like)
    # the type is that of an argument which the text may not read
    returned = Returned(f"({text}).to({like}.dtype)" if added is None else added, "")
    function = outer.assemble("_output", "The output from what the operator gives.", ("y",), lines, [returned])
    arguments = [a for a in function.arguments.split(", ") if a]
    arguments += [like] if like not in arguments else []
    return replace(function, arguments=", ".join(arguments), is_single=True)


def _added(outer: TokenWriter, value: Expr, like: str) -> str | None:
    """A sum with the argument `like`, entry by entry times what all tokens share, as one pass; None where it is none."""
    for term in value.terms if isinstance(value, Add) else ():
        if not isinstance(term, Mul) or not isinstance(term.right, Ref) or identifier(term.right.name) != like:
            continue
        rest = algebra.add(*(t for t in value.terms if t is not term))
        factor, place = outer.printer.print(term.left), outer.printer.place(term.right)
        if outer.printer.place(rest) == place == outer.printer.place(value) and not (factor.place.has_time or factor.place.is_number):
            return f"_added({outer.printer.text(rest)}, {outer.printer.adapted(factor, place)}, {like})"
    return None


def _scaled(outer: TokenWriter, value: Expr) -> Expr:
    """The output with powers of two, times what a matrix makes, as what the matrix times that makes: the same to the last bit."""

    def inside(expr: Expr) -> Expr | None:
        if not isinstance(expr, Mul) or not isinstance(expr.left, Const) or not isinstance(expr.right, MatMul):
            return None
        factor, matrix = expr.left.value, expr.right.left
        is_exact = abs(factor.numerator).bit_count() == factor.denominator.bit_count() == 1
        if not is_exact or isinstance(matrix, Transpose) or outer.printer.mapped(matrix, expr.right.right) is None:
            return None
        printed = outer.printer.print(Mul(matrix.type, expr.span, expr.left, matrix))
        name = f"scaled {printed.text}"
        outer.printer.places[name], outer.printer.texts[name] = printed.place, printed.text
        return replace(expr.right, left=Ref(matrix.type, expr.span, name))

    return algebra.rewrite(value, inside)


def _joined(outer: TokenWriter, value: Expr, reads: tuple[str, ...]) -> Expr:
    """The output with the products of all rows as one: matrices side by side, and the rows behind each other as they lie."""
    return algebra.rewrite(value, lambda node: _joined_sum(outer, node, reads))


def _joined_sum(outer: TokenWriter, value: Expr, reads: tuple[str, ...]) -> Expr | None:
    terms = value.terms if isinstance(value, Add) else ()
    own: dict[str, tuple[str, Expr]] = {}
    for term in terms:
        sign, inside = ("-", term.operand) if isinstance(term, Neg) else ("", term)
        if isinstance(inside, MatMul) and isinstance(inside.right, Ref) and inside.right.name in reads and inside.right.name not in own:
            own[inside.right.name] = sign, inside
    rest = [t for t in terms if (t.operand if isinstance(t, Neg) else t) not in [inside for _, inside in own.values()]]
    read = {n.name for t in rest for n in nodes(t) if isinstance(n, Ref)}
    matrices = [own[name][1].left for name in reads if name in own]
    if len(reads) == 1 or set(own) != set(reads) or read & set(reads) or len({outer.printer.place(m) for m in matrices}) != 1:
        return None
    if any(isinstance(m, Transpose) for m in matrices):
        return None
    first = own[reads[0]][1]
    printed: list[Text] = [outer.printer.print(m) for m in matrices]
    text = ", ".join(f"{own[name][0]}{m.at(ATOM)}" for name, m in zip(reads, printed, strict=True))
    whole, rows = "joined matrices", "joined rows"
    outer.printer.places[whole], outer.printer.texts[whole] = printed[0].place, f"torch.cat([{text}], -1)"
    outer.printer.places[rows], outer.printer.texts[rows] = Place(True, "h", True), "y.flatten(-2)"
    product = MatMul(first.type, first.span, Ref(first.left.type, first.span, whole), Ref(first.right.type, first.span, rows))
    return algebra.add(product, *rest)
