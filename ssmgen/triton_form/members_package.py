"""What the template of kernels.py is given where states feed each other: what it is for rows, and how members move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .rows_package import PairKernel, Reader, RowsPackage


@dataclass(frozen=True)
class Part:
    """What is read of one member as it entered the chunk."""

    member: int


@dataclass(frozen=True)
class MemberReader(Reader):
    """A reader of one member: by way of it, of every member that reaches it. `at`: rows at which it reads, 0 before the first; `lands`:
    tokens whose state it reads, counted from 0 (before the first it reads what no token makes); `landed`: what it asks of a part there."""

    member: int
    at: str
    lands: str
    landed: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Source:
    """A member that another takes over, or keeps of itself; `place` of that number among those of a token."""

    index: int
    place: int
    is_own: bool


@dataclass(frozen=True)
class MovedMember:
    """How a member moves. `carried`: the text of the state one chunk on; `pulled`: of its gradient one chunk back."""

    index: int
    is_written: bool  # by rows, by way of others too
    has_share: bool  # by itself
    share_place: int
    sources: tuple[Source, ...]
    carried: str
    pulled: str


@dataclass(frozen=True)
class MemberPair:
    """A member that keeps something of `source` over a chunk."""

    member: int
    source: int


@dataclass(frozen=True)
class MembersPackage(RowsPackage):
    """Everything kernels.py says in this form."""

    TEMPLATE: ClassVar[str] = "triton/members.py.jinja"

    member_count: int
    pairs: PairKernel
    lanes: int  # a power of two that holds the members
    legend_names: str
    members: tuple[MovedMember, ...]
    forward_members: tuple[MovedMember, ...]  # each before those that it takes over
    backward_members: tuple[MovedMember, ...]
    written_members: tuple[MovedMember, ...]
    member_pairs: tuple[MemberPair, ...]
    member_readers: tuple[MemberReader, ...]
    member_queries: tuple[MemberReader, ...]
    eraser: MemberReader | None
    written: str
    state_sizes: str
    made_member_pairs: str
    pair_gradients_target: str
