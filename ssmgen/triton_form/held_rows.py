"""A chunk's rows in registers, where every key fades at its own rate: the program that makes their operands fades them, and multiplies
what its rows read of each other. What is kept for backward it writes then alone."""

from __future__ import annotations

from ..torch_form.tokens import level
from .operands import column
from .row_operands import RowOperands
from .row_places import ZERO, Placed
from .rows_package import Held, HeldOperand, HeldRead, HeldReader, HeldRow, Reader
from .site import CodeLine

NOTHING = "tl.zeros((CT, BK), tl.float32)"


def alternating(names: list[str]) -> str:
    """The tile whose rows are in turn those of each of 2^n tiles."""
    if len(names) == 1:
        return names[0]
    return f"_alternating({alternating(names[::2])}, {alternating(names[1::2])})"


def held_rows(writer: RowOperands, readers: list[Reader], kept: tuple[str, ...]) -> Held:
    """The rows of a walk; kept: the stores of what backward reads."""
    numbers, places = range(writer.count), {}
    for number in numbers:
        places[number] = f"o_i * {writer.count} + {number}" if writer.count > 1 else "o_i"
    tail = {number: f"_{number + 1}" if writer.count > 1 else "" for number in numbers}
    lines, sums, before = _sums(writer, tail, any(reader.is_before for reader in readers))
    tiles: dict[str, CodeLine] = {}

    def columns(letter: str, number: int) -> str:
        """What an operand has at the rows of a number; '' for zeros."""
        if _is_zero(writer, letter, number):
            return ""
        if letter not in writer.places:
            return writer.columns_of[letter, number]
        placed = writer.places[letter]
        own = f"b_row_{'k' if letter == 'e' else letter}" + (tail[number] if placed.stride else "")
        text = f"_tile({placed.argument}, {_place(placed, number)}, {writer.K}, BK, o_n, m_t)"
        tiles[own] = CodeLine("", own, text, "[CT, BK]")
        factor = writer.factors_of.get((letter, number))
        return f"({own} * {column(factor)})" if factor else own

    keys = {number: columns("k", number) for number in numbers}
    key_tiles = tuple(tiles.values())
    rows = tuple(HeldRow(tail[n], places[n], sums[n], (before if readers and readers[0].is_before else sums)[n], keys[n]) for n in numbers)
    faded = [
        HeldOperand("made_faded_k", places[n], "BC", f"{keys[n]} * tl.exp2(b_last[None, :] - {sums[n]})" if keys[n] else NOTHING)
        for n in numbers
    ]
    found = []
    for reader in readers:
        reads, lone = [], writer.lone(reader.name)
        for n in numbers:
            stands = reader.is_erase or n == reader.place
            text = columns(reader.name, n) if stands else ""
            later = before[n] if reader.is_before else sums[n]
            reads.append(HeldRead(tail[n], text, sums[n], later))
            if lone is None or n == lone:
                place, size = (places[n], "BC") if lone is None else ("o_i", "CT")
                faded.append(HeldOperand(f"made_{reader.faded}", place, size, f"{text} * tl.exp2({later})" if text else NOTHING))
        # two rows a token: tiles of half the rows are still wide enough for products
        is_narrow = lone is not None and writer.count == 2
        at = f"({places[lone]})" if is_narrow else "o_r"
        tile = f"b_x{tail[lone]}" if is_narrow else alternating([f"b_x{read.tail}" if read.columns else "b_zero" for read in reads])
        own = f"b_a{reader.index}"
        has_others = is_narrow and reader.is_erase
        pairs = alternating([own if n == lone else "b_none" for n in numbers]) if has_others else own
        found.append(
            HeldReader(
                index=reader.index,
                is_erase=reader.is_erase,
                is_lone=not reader.is_erase and lone is not None,
                place=reader.place,
                is_narrow=is_narrow,
                has_others=has_others,
                rows=at,
                pairs=pairs,
                sees=reader.sees.replace("o_i[:", f"{at}[:").replace("o_i[None", "o_r[None"),
                made=f"made_{reader.made}",
                reads=tuple(reads),
                tile=tile,
            )
        )
    key_tile = alternating([f"b_y{row.tail}" if row.key else "b_zero" for row in rows])
    return Held(
        sums=tuple(lines),
        tiles=tuple(tiles.values()),
        key_tiles=key_tiles,
        made=kept,
        has_made=bool(kept),
        rows=rows,
        faded=tuple(faded),
        readers=tuple(found),
        key_tile=key_tile,
        has_zeros=any("b_zero" in text for text in (key_tile, *(reader.tile for reader in found))),
        is_stacked=len(found) == 2 and found[0].is_narrow == found[1].is_narrow,
    )


def _sums(writer: RowOperands, tail: dict[int, str], needs_before: bool) -> tuple[list[CodeLine], dict[int, str], dict[int, str]]:
    """Lines for the running sums of log decays; the names of those at the rows of every number, and before their own decay."""
    shape = "[CT, BK]"
    logs = {number: text for number, text in writer.logs.items() if text}
    lines, sums, before = [], {}, {}
    if writer.count == 1:
        lines.append(CodeLine("", "b_f", logs[0], shape))
    else:
        lines += [CodeLine("", f"b_f{tail[n]}", text, shape) for n, text in logs.items()]
        lines.append(CodeLine("", "b_f", " + ".join(f"b_f{tail[n]}" for n in logs), shape))
    lines.append(CodeLine("", "b_G, b_end", "_running(b_f, CT, BK, RUN)", shape))
    lines.append(CodeLine("", "b_Gx", "b_G - b_f", shape))
    name = earlier = "b_Gx"
    for number in range(writer.count):
        if number % writer.step == 0:
            earlier = name
        if number in logs:
            last = number == max(logs)
            own = "b_G" if last else f"b_G{tail[number]}"
            if not last:
                lines.append(CodeLine("", own, f"{name} + b_f{tail[number]}", shape))
            name = own
        sums[number], before[number] = name, earlier
    used = {*sums.values(), *(before.values() if needs_before else ())}
    return [line for line in lines if line.target != "b_Gx" or "b_Gx" in used or any("b_Gx" in other.text for other in lines)], sums, before


def _is_zero(writer: RowOperands, letter: str, number: int) -> bool:
    """Whether the rows of a number have no operand of keys."""
    row = writer.walk.rows[number]
    return (letter == "k" and writer.key_of(row) is ZERO) or (letter == "e" and row.erase is None)


def _place(placed: Placed, number: int) -> str:
    """Where a token's column lies among those of the input."""
    own = {"h": "row * H + i_h", "g": "row * G + i_g", "": "row"}[level(placed.symbol.per)]
    if placed.count == 1:
        return own
    first = placed.first + number * placed.stride
    return f"({own}) * {placed.count}" + (f" + {first}" if first else "")
