"""Products with a named outer product: `M = k v^T` met by a column is `k (v . x)`, and no matrix of the token is ever made."""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..spec import Assignment, Expr, MatMul, MicroLoop, Recurrence
from .chains import chain_expr, collect, product
from .expand import Expander


def opened(spec: Recurrence) -> Recurrence:
    """The recurrence with every product of an outer product and a column (or a row) of the token written out; itself without any."""
    expander = Expander({s.name: s for s in spec.symbols})

    def written_out(node: Expr) -> Expr | None:
        is_vector = isinstance(node, MatMul) and (node.type.is_scalar or node.type.is_column or node.type.is_row)
        if not is_vector or expander.reads_state(node):
            return None
        left, right = expander.token(node.left), expander.token(node.right)
        if not any([f.kind for f in item.factors][:2] == ["column", "row"] for item in (*left, *right)):
            return None
        return renewed(algebra.add(*(chain_expr(item) for item in collect(product(a, b, node.span) for a in left for b in right))))

    def renewed(expr: Expr) -> Expr:
        return algebra.rewrite(expr, written_out)

    def assigned(item: Assignment | MicroLoop) -> Assignment | MicroLoop:
        if isinstance(item, MicroLoop):
            return replace(item, body=tuple(assigned(a) for a in item.body))
        return replace(item, value=renewed(item.value))

    return replace(
        spec,
        symbols=tuple(s if s.definition is None else replace(s, definition=renewed(s.definition)) for s in spec.symbols),
        update=tuple(assigned(item) for item in spec.update),
        dynamics=tuple(replace(item, value=renewed(item.value)) for item in spec.dynamics),
        outputs=tuple(replace(output, value=renewed(output.value)) for output in spec.outputs),
    )
