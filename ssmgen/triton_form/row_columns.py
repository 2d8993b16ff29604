"""Tiles of the operands of rows, as texts: where an input lies or a buffer, at every row of a chunk or at its tokens alone."""

from __future__ import annotations

from .row_operands import RowOperands
from .row_places import token_index

CHUNK = "i_s, o_i, o_n, K, BK, BC"
"""What places the columns of a chunk's rows in a buffer of keys."""


class RowColumns(RowOperands):
    def _columns_text(self, letter: str, place: int | None = None, is_bare: bool = False) -> str:
        """The tile of an operand of a chunk's rows; bare: without the number that multiplies a placed one."""
        width, columns = ("V, BV", "o_p") if letter == "v" else ("K, BK", "o_n")
        if letter not in self.places:
            if place is not None:
                return f"_at_tokens({letter}, i_s, o_i, {columns}, {width}, BC, {self.count}, {place})"
            return f"_rows({letter}, i_s, o_i, {columns}, {width}, BC)"
        own = "k" if letter == "e" else letter
        placed = self.places[letter]
        mask = placed.mask if place is None else f"m_t & {self._standing(place)}"
        size, block = width.split(", ")
        row = placed.row(self._token, self.plan.is_reversed)
        tile = f"_tile({own}{placed.start(size)}, {row}, {size}, {block}, {columns}, {mask})"
        factor = "" if is_bare else self._factor(letter)
        if letter == "v" and self.has_erase:
            # what is erased is taken from it before it is rounded
            return f"({tile} * {self._number(letter)}[:, None])" if factor else tile
        if self.is_wide and factor and letter != "v":
            # it fades before it is rounded: twice would show in the gradient of what moves all decays
            return f"({tile} * {self._number(letter)}[:, None])"
        return f"({tile} * {self._number(letter)}[:, None]).to(DOT)" if factor else f"{tile}.to(DOT)"

    def _faded_text(self, letter: str) -> str:
        """The tile of an operand as it fades."""
        place = self.lone(letter)
        if place is None:
            return f"_rows(faded_{letter}, {CHUNK})"
        return f"_at_tokens(faded_{letter}, i_s, o_i, o_n, K, BK, BC, {self.count}, {place})"

    def _pairs_text(self, pairs: str, name: str) -> str:
        """What a chunk's rows read of each other."""
        place = self.lone(name)
        if place is None:
            return f"_rows({pairs}, i_s, o_i, o_i, BT, BT, BT)"
        return f"_at_tokens({pairs}, i_s, o_i, o_i, BT, BT, BC, {self.count}, {place})"

    @property
    def _token(self) -> str:
        """The token of a chunk that a row belongs to."""
        return "o_i" if self.count == 1 else f"o_i // {self.count}"

    def _asking(self, name: str, place: int, pairs: str, read_gradient: str) -> dict[str, str]:
        """What the gradient of a read meets on the walk from the right: of several rows a token, at the tokens alone."""
        at = self._token if self.count == 1 else "o_j"
        mask = "m_t" if self.count == 1 else "m_j"
        given = f"_tile({read_gradient} + base * (H * V), {token_index(at, 'h', self.plan.is_reversed)}, V, BV, o_p, {mask})"
        if self.count == 1:
            asked = self._faded_text(name) if self.is_wide else self._columns_text(name, is_bare=True)
            return {"given_tile": given, "asked_pairs": f"_rows({pairs}, i_s, o_i, o_i, BT, BT, BT)", "asked": asked}
        row = f"o_j * {self.count} + {place}" if place else f"o_j * {self.count}"
        if self.lone(name) is not None:
            tokens = f"BC // {self.count}"
            pairs = f"_rows({pairs}, i_s, o_j, o_i, BT, BT, {tokens})"
            return {"given_tile": given, "asked_pairs": pairs, "asked": f"_rows(faded_{name}, i_s, o_j, o_n, K, BK, {tokens})"}
        if self.is_wide:
            asked = f"_rows(faded_{name}, i_s, {row}, o_n, K, BK, BC)"
        elif name not in self.places:
            asked = f"_rows({name}, i_s, o_j, o_n, K, BK, BC // {self.count})"
        else:
            placed = self.places[name]
            asked = f"_tile({name}{placed.start('K')}, {placed.row('o_j', self.plan.is_reversed)}, K, BK, o_n, m_j).to(DOT)"
        return {"given_tile": given, "asked_pairs": f"_rows({pairs}, i_s, {row}, o_i, BT, BT, BT)", "asked": asked}

    def _asked_fade(self, name: str, place: int, later: str) -> str:
        """What multiplies the gradient of a read there."""
        if self.count == 1:
            return self._fade(name, later)
        if self.is_wide:
            return ""
        row = f"o_j * {self.count} + {place}"
        row = f"({row}) // STEP * STEP - 1" if later == "b_Gx" else row
        parts = [f"_numbers({self._factor(name)}, i_s, o_j, BC // {self.count})"] if self._factor(name) else []
        parts += [f"tl.exp2(_sum_row(sums, i_s, {row}, BC))"] if self.has_decay else []
        return _beside_columns(parts)

    @property
    def whole_count(self) -> int:
        """Rows a token, up to the next power of two."""
        return 1 << (self.count - 1).bit_length()

    @property
    def query_share(self) -> int:
        """A tile's rows to those of the one that holds its tokens."""
        return self.whole_count // 2 if self.fills_tiles else self.whole_count

    def _standing(self, place: int) -> str:
        """Which rows are the ones at that place among their token's."""
        return f"(o_i % {self.count} == {place})"

    def _number(self, letter: str) -> str:
        """What a placed operand's rows are multiplied by; a query's is one a token."""
        if self.count > 1 and letter.startswith("q"):
            return f"_numbers({self._factor(letter)}, i_s, o_i // {self.count}, BC // {self.count})"
        return f"_numbers({self._factor(letter)}, i_s, o_i, BC)"

    def _of_key_tile(self, letter: str, columns: str) -> str:
        """The columns of an operand, where `b_t` is the tile of keys: an erase key that is a multiple of the key is made of the same."""
        if letter not in ("k", "e") or (letter == "e" and letter not in self.places):
            return columns
        return f"b_t * {self._number(letter)}[:, None]" if self._factor(letter) else "b_t"

    def _fade(self, letter: str, later: str) -> str:
        """What multiplies a product with the state, row by row: the decay up to `later`, and the number of a placed operand."""
        if self.is_wide:
            return ""
        parts = [self._number(letter)] if self._factor(letter) else []
        parts += [f"tl.exp2({later})"] if self.has_decay else []
        return _beside_columns(parts)


def _beside_columns(parts: list[str]) -> str:
    """What multiplies columns by the product of some numbers of every row; nothing by none."""
    return f" * ({' * '.join(parts)})[:, None]" if len(parts) > 1 else "".join(f" * {part}[:, None]" for part in parts)
