"""What a chunk gives to a query of its value columns, where the decay comes out of the products."""

from __future__ import annotations

from collections.abc import Callable

from ...kernel import SOURCE, AsSource, Contract, Sight, Step, Tile


def through(pair: Callable[..., list[Step]]) -> Callable[..., list[Step]]:
    """The law `sum_j (u_i . w_j) k_j` with the weights that `pair` gives to products of rows and sources."""

    def recall(target: Tile, left: Tile, written: Tile, keys: Tile, later: Tile, earlier: Tile, sight: Sight) -> list[Step]:
        row = left.axes[0]
        weights = Tile(f"B{target.name[1:]}", (row, SOURCE))
        inside = Step(
            f"{target.name}_{row} = sum_j {weights.name}_{row}j {keys.name}_j", target, Contract(weights, AsSource(keys), target.axes)
        )
        return [*pair(weights, left, written, later, earlier, sight), inside]

    return recall
