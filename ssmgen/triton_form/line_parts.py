"""What a value is taken apart into where its line would be too long."""

from __future__ import annotations

from .. import algebra
from ..backends.triton_pointwise import is_map
from ..expressions import nodes
from ..spec import ONE, Add, Expr, MatMul


def part_of(value: Expr) -> Expr | None:
    """The largest part of a value that occurs more than once; failing that, its largest bracket. None when it has neither.

    A matrix that is never formed, as a diagonal or `I - k k^T`, is no part: it has no value of its own on the tile.
    """
    sized = [(sum(1 for _ in nodes(n)), n) for n in nodes(value) if n is not value]
    parts = [(size, n) for size, n in sized if size > 3 and not is_map(n)]
    repeated = [(size, n) for size, n in parts if sum(n == other for _, other in sized) > 1]
    brackets = [(size, n) for size, n in parts if isinstance(n, (Add, MatMul)) and not (isinstance(n, MatMul) and _is_outer(n))]
    return max(repeated or brackets, key=lambda pair: pair[0], default=(0, None))[1]


def from_the_right(node: Expr) -> Expr | None:
    """`(A B) X` as `A (B X)`, where neither matrix is ever formed: what stands in brackets has a value of its own."""
    is_product = isinstance(node, MatMul) and isinstance(node.left, MatMul) and is_map(node.left.left) and is_map(node.left.right)
    return algebra.regrouped(node) if is_product and not is_map(node) else None


def _is_outer(product: MatMul) -> bool:
    return product.left.type.cols == ONE
