"""S' = diag(a_t) S + ...  Every key forgets at its own rate; the weights of a chunk no longer factor out of the product.

exp(G_in - G_jn) stays inside the sum over keys, one node with its exponents: exp(G_i) exp(-G_j) would overflow.
"""

from ...kernel import SOURCE, AsSource, Causal, Contract, Faded, Sight, Step, Tile
from .._base import Feature
from .._facts import Facts
from ._sight import sight_text


def matches(facts: Facts) -> bool:
    """A diagonal factor in some term."""
    return any(g.kind == "diagonal" for t in facts.decay_terms for g in t.left + t.right)


FEATURE = Feature("one factor per key and token", matches, is_lowered=True, priority=50, evidence=lambda f: f.transitions[0])


IS_WIDE = True
"""One log decay a row and key."""


def pair(target: Tile, left: Tile, right: Tile, later: Tile, earlier: Tile, sight: Sight) -> list[Step]:
    """sum_n q_in k_jn exp(G_in - G_jn)."""
    row = left.axes[0]
    product = f"sum_n {left.name}_{row}n {right.name}_jn exp({later.name}_{row}n - {earlier.name}_jn)"
    return [
        Step(
            f"{target.name}_{row}j = {product}, {sight_text(sight, row)}",
            target,
            Faded(left, AsSource(right), later, AsSource(earlier), sight, target.axes),
        )
    ]


def recall(target: Tile, left: Tile, written: Tile, keys: Tile, later: Tile, earlier: Tile, sight: Sight) -> list[Step]:
    """sum_j (u_i . w_j) k_jn exp(G_in - G_jn): the products do not fade, their keys do."""
    row, products = left.axes[0], Tile(f"B{target.name[1:]}", (left.axes[0], SOURCE))
    visible = Causal(Contract(left, AsSource(written), products.axes), sight, "0")
    faded = f"sum_j {products.name}_{row}j {keys.name}_jn exp({later.name}_{row}n - {earlier.name}_jn)"
    return [
        Step(f"{products.name}_{row}j = {left.name}_{row} . {written.name}_j, {sight_text(sight, row)}", products, visible),
        Step(f"{target.name}_{row}n = {faded}", target, Faded(products, AsSource(keys), later, AsSource(earlier), sight, target.axes)),
    ]
