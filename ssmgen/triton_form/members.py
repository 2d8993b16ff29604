"""kernels -> what kernels.py says where states feed each other: members of one walk, as a memory and its momentum.

A token moves the members by numbers and writes one row to them. What a member has at row i of what row j writes to it and to those
that it takes over, f_a(i, j), obeys the members' own recurrence, and so does what it has of a member as it entered, V_ab(i): both are
walked over the tokens of a chunk, and going backward their adjoint. Nothing is divided by. With these numbers in the place of one
decay the rest is the form of rows: queries and erase keys are held against keys, and what rows really write is the inverse's.
`templates/triton/members.py.jinja` lays it out.
"""

from __future__ import annotations

from dataclasses import fields

from ..backends.torch_pointwise import UnsupportedOperand
from ..bounds import bounds_of
from ..kernel import ROW, Kernels
from .gradients import made
from .members_package import MemberPair, MemberReader, MembersPackage, MovedMember, Part, Source
from .row_operands import FLOOR
from .rows import RowWriter
from .rows_package import Buffer, Reader, Tuned
from .site import Site
from .tokens import Gradients, number_line


class MembersWriter(RowWriter):
    """`walk.numbers` are operands too: g of a member's own share (its logarithm), c of what it takes over, s of the row."""

    def __init__(self, kernels: Kernels, number: int = 0, module: str = ""):
        super().__init__(kernels, number, module)
        self.program = kernels.walks[number].forward
        self.members = self.walk.members
        self.numbers = self.walk.numbers
        self.reached = [self._reached(a) for a in range(len(self.members))]
        self.numbered: dict[str, int] = {}
        for a, member in enumerate(self.members):
            place = a * (len(self.members) + 1)
            self.numbered |= {f"g{a}": place + a, f"s{a}": place + len(self.members)} | {f"c{a}{b}": place + b for b, _ in member.takes}

    def _reached(self, a: int) -> tuple[int, ...]:
        """The members that this one has something of, after a few tokens: itself, and what those that it takes over have."""
        found = {a}
        while True:
            more = found | {b for x in found for b, _ in self.members[x].takes}
            if more == found:
                return tuple(sorted(found))
            found = more

    # --- token by token ---

    def _places(self) -> dict:
        """Every operand is made: the walk's own kernels know nothing of tokens."""
        return {}

    def _number_stores(self, site: Site) -> list[str]:
        count = len(self.members) * (len(self.members) + 1)
        stores = []
        values = {}
        for name, expr in self.numbers:
            value = number_line(site, f"b_number_{name}", self._named(expr), name)
            if name.startswith("g"):
                is_bounded = bounds_of(self.spec).of(expr).low > -FLOOR
                value = f"tl.exp({value})" if is_bounded else f"tl.exp(tl.maximum({value}, -{FLOOR}))"
            values[self.numbered[name]] = value
        for place in range(count):
            value = values.get(place, "tl.zeros((CT,), tl.float32)")
            stores.append(f"tl.store(made_numbers + (i_s * {count} + {place}) * CT + o_i, {value})")
        return stores

    def _number_gradients(self, gradients: Gradients, load) -> None:
        count = len(self.members) * (len(self.members) + 1)
        for name, expr in self.numbers:
            at = f"(i_s * {count} + {self.numbered[name]}) * CT + o_i"
            load(f"grad_number_{name}", "grad_numbers", f"tl.load(grad_numbers + {at}, mask=m_t, other=0.0)", (ROW,))
            gradients.spread("", expr, made(f"grad_number_{name}"))

    def _gradient_names(self) -> list[str]:
        return [*super()._gradient_names(), "grad_numbers"]

    # --- how members move ---

    def _moved(self, written: list[int]) -> list[MovedMember]:
        def total(tile: str, a: int, others: list[tuple[int, int, int]]) -> str:
            parts = [(a, a, a), *others]
            return " + ".join(f"_kept(factors, i_s, {into}, {of}, BT, BT) * {tile}{b}" for into, of, b in parts)

        found = []
        for a, member in enumerate(self.members):
            sources = [Source(a, self.numbered[f"g{a}"], True)]
            sources += [Source(b, self.numbered[f"c{a}{b}"], False) for b, _ in member.takes]
            found.append(
                MovedMember(
                    index=a,
                    is_written=a in written,
                    has_share=member.share is not None,
                    share_place=self.numbered[f"s{a}"],
                    sources=tuple(sources),
                    carried=total("b_s", a, [(a, b, b) for b in self.reached[a] if b != a]),
                    pulled=total("b_d", a, [(b, a, b) for b, reached in enumerate(self.reached) if a in reached and b != a]),
                )
            )
        return found

    def _order(self) -> list[int]:
        """Members, each before those that it takes over: moved one after the other, each finds the others as they were."""
        return sorted(range(len(self.members)), key=lambda a: -len(self.reached[a]))

    # --- the package ---

    def _member_reader(self, reader: Reader, member: int, names: list[str]) -> MemberReader:
        letter = "J" if reader.is_erase else f"A{reader.name[1:]}"
        at, order = ("i-1", "j < i") if reader.is_before else ("i", "j <= i")
        state, pull = names[member], "-r" if reader.is_erase else "do"
        reads = " + ".join(f"V_{state}{names[b]}({at}) S_{names[b]}" for b in self.reached[member])
        own = {
            "pair_math": f"{letter}_ij = f_{state}({at}, j) {reader.name}_i . k_j, {order}",
            "gradient_math": f"d{letter} = {pull} w^T, d{reader.name} = {pull} ({reads})^T + f d{letter} k",
            "math": f"o{reader.name[1:]}_i = sum_j {letter}_ij w_j + ({reads})^T {reader.name}_i",
        }
        values = {f.name: getattr(reader, f.name) for f in fields(Reader)} | own
        asks = "tl.sum(b_q * b_x, 1)"
        return MemberReader(
            **values,
            member=member,
            at="o_i" if reader.is_before else "(o_i + 1)",
            lands="((o_i + BT - 1) % BT)" if reader.is_before else "o_i",
            landed=f"tl.where(o_i > 0, {asks}, 0.0)" if reader.is_before else asks,
            parts=tuple(Part(b) for b in self.reached[member]),
        )

    def _listing(self, kernel: Tuned) -> str:
        """All members' tiles leave room for one stage."""
        return kernel.listing

    def package(self) -> MembersPackage:
        base, count = super().package(), len(self.members)
        if not base.pair_kernels:
            raise UnsupportedOperand("members that nobody reads")
        (pairs,) = base.pair_kernels
        names = [m.state for m in self.members]
        readers = []
        for reader in base.readers:
            member = self.walk.rows[0].erases if reader.is_erase else self.walk.readings[reader.index].member
            readers.append(self._member_reader(reader, member, names))
        written = [a for a in range(count) if any(self.members[b].share is not None for b in self.reached[a])]
        moved, order = self._moved(written), self._order()
        eraser = next((r for r in readers if r.is_erase), None)
        queries = tuple(r for r in readers if not r.is_erase)
        own = {f.name: getattr(base, f.name) for f in fields(base)} | {
            "readers": tuple(readers),
            "queries": queries,
            "legend": self._member_legend(readers, names),
            "operand_names": (*base.operand_names, "made_numbers"),
            "made_operands": f'{base.made_operands}made["numbers"], ',
            "buffers": (
                *base.buffers,
                Buffer("numbers", f"{count * (count + 1)}, BT"),
                Buffer("factors", f"{count}, BT + 1, BT + LANES.value"),
            ),
            "forward_title": self.program.title,
            "write_math": self._write_math(eraser, names),
            "carry_math": "S_a = sum_b V_ab(C) S_b + sum_j f_a(C, j) k_j w_j^T",
            "written_gradient_math": "dw = A^T do + sum_a f_a(C, j) k D_a, D_b = sum_a V_ab(C) D_a",
            "key_gradient_math": "dk = sum_a f_a(C, j) w D_a^T + sum (f dA)^T q",
        }
        return MembersPackage(
            **own,
            member_count=count,
            pairs=pairs,
            lanes=1 << (count - 1).bit_length(),
            legend_names=" and ".join([", ".join(names[:-1]), names[-1]]),
            members=tuple(moved),
            forward_members=tuple(moved[a] for a in order),
            backward_members=tuple(moved[a] for a in reversed(order)),
            written_members=tuple(moved[a] for a in written),
            member_pairs=tuple(MemberPair(a, b) for a in range(count) for b in self.reached[a]),
            member_readers=tuple(readers),
            member_queries=queries,
            eraser=eraser,
            written="written" if self.has_erase else "v",
            state_sizes=f"sequences, H, {self.K}, {self.V}",
            made_member_pairs="".join(
                [
                    *(f'made["{n}"], ' for n in (*pairs.inputs, "factors")),
                    *("erased, " if n == "erased" else f'made["{n}"], ' for n in pairs.outputs),
                ]
            ),
            pair_gradients_target=", ".join(base.pair_gradient_names) + "," * (len(base.pair_gradient_names) == 1),
        )

    @staticmethod
    def _write_math(eraser: MemberReader | None, names: list[str]) -> str:
        if eraser is None:
            return "w = v"
        state = names[eraser.member]
        return (
            f"w_i = (1 + J)^-1 (v_i - ({' + '.join(f'V_{state}{names[p.member]}(i-1) S_{names[p.member]}' for p in eraser.parts)})^T e_i)"
        )

    def _member_legend(self, readers: list[MemberReader], names: list[str]) -> tuple[str, ...]:
        lines = [
            "f_a(i, j) = what member a has at row i of what row j writes; V_ab(i) = what it has of member b as it entered the chunk",
            *(r.pair_math for r in readers),
            self._write_math(next((r for r in readers if r.is_erase), None), names),
            *(r.math for r in readers if not r.is_erase),
        ]
        return (*lines, "C is the last row")
