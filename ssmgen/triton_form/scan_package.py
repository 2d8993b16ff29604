"""What the template of a scan's kernels.py is given: text, and booleans for what a recurrence has."""

from __future__ import annotations

from dataclasses import dataclass

from .site import CodeLine


@dataclass(frozen=True)
class Load:
    """A value of a token: its place in memory, the mask and the shape."""

    name: str
    place: str
    mask: str
    shape: str


@dataclass(frozen=True)
class Pass:
    """What a kernel reads once, what it reads of every token, and what it makes of it."""

    pointers: str
    launched: str  # what is given for them
    head: tuple[CodeLine, ...]
    ahead: tuple[Load, ...]  # of its lanes: loaded for a whole block of tokens at once
    beside: tuple[Load, ...]  # of all lanes: from a cache when the token's turn comes
    lines: tuple[CodeLine, ...]
    gradients: tuple[str, ...]  # of the outputs


@dataclass(frozen=True)
class State:
    """A state: its place in the operator's tensor, an entry's place in the buffers, and its tile."""

    number: int
    shape: str
    place: str
    entry: str
    width: str
    buffer: str
    dims: str
    mask: str
    one: str  # of what a state is multiplied by


@dataclass(frozen=True)
class Row:
    """What is stored of every token: its name, its value, those of a block that have been made, and its place."""

    name: str
    text: str
    made: str
    place: str
    mask: str


@dataclass(frozen=True)
class LaneSum:
    """The gradient of a vector that all lanes share: the tile [16, keys] that gathers a block of tokens, and its store."""

    tile: str
    store: str


@dataclass(frozen=True)
class Gradient:
    """The gradient of an argument: the buffer that kernels write, and what it becomes."""

    argument: str
    target: str
    buffer: str
    result: str


@dataclass(frozen=True)
class Cut:
    """What the segments of a sequence leave each other."""

    entered: tuple[str, ...]  # the state that enters a segment, carried over one before it
    left: tuple[str, ...]  # what two of them leave together
    reached: tuple[str, ...]  # the gradient that reaches a segment, carried over one behind it
    summary: Pass
    summary_next: tuple[str, ...]
    asking: Pass
    asks_states: bool  # what outputs ask of a state depends on it
    pulled: tuple[str, ...]
    asking_next: tuple[str, ...]


@dataclass(frozen=True)
class ScanPackage:
    """Everything kernels.py says of a scan."""

    title: str
    equations: tuple[str, ...]
    helpers: tuple[str, ...]
    lane_words: str
    key_words: str
    has_keys: bool
    head_words: str
    has_head_groups: bool
    has_lane_groups: bool
    has_position: bool
    shared: tuple[CodeLine, ...]  # inputs that all lanes share, made wide once
    by_head: bool
    is_reversed: bool
    lanes: str
    key: str
    states: tuple[State, ...]
    carries: bool  # entries run by themselves: sequences may be cut
    cut: Cut | None
    splits: bool  # the warps of a program walk pieces of a block one behind the other
    wider: str  # going backward, so many times the lanes, where the values of a token are few
    both: tuple[Load, ...]  # what that reads for what a piece leaves, and for its outputs
    pieces: str  # what every piece leaves and adds
    pair: str  # the same of two pieces
    made: str  # of the one that a warp walked
    reaching: str  # the states that reach a piece
    brought: str  # those that reach a block
    part: str  # the segment of a program
    parts: str
    segments: str
    warps: str
    walk: Pass
    outputs: tuple[Row, ...]
    walk_next: tuple[str, ...]
    again: Pass
    again_next: tuple[str, ...]
    gradient: Pass
    stores: tuple[str, ...]
    delayed: tuple[Row, ...]  # stores of a block's tokens together
    over: tuple[LaneSum, ...]
    starts: tuple[str, ...]
    sums: tuple[str, ...]
    before: tuple[str, ...]
    ends: tuple[CodeLine, ...]
    end_stores: tuple[str, ...]
    edge: str
    edge_ahead: str  # of the block before
    edge_count: str
    targets: str
    buffers: tuple[CodeLine, ...]
    numbers: str
    argument_list: str
    given_list: str
    constants: str
    size_names: str
    size_arguments: str
    sizes: tuple[CodeLine, ...]
    first: str
    heads: str
    has_matrices: bool
    fitting: str
    keeps_each: bool  # states of every block
    shares: bool  # lanes share a matrix of every token
    largest: int
    share: int
    most_warps: int
    least: int
    most: int
    like: str
    group: str
    programs: str
    forward_programs: int
    forward_programs_few: int
    backward_programs: int
    enough: int
    finals: str
    output_shape: str
    results: tuple[str, ...]
    entries: str
    held: int
    beside: int
    blocks: int
    few: int
    longest: int
    most_keys: int
    key_block: str
