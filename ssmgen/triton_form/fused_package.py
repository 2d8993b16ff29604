"""What the template of kernels.py is given: text, and booleans for what a recurrence has."""

from __future__ import annotations

from dataclasses import dataclass

from .site import CodeLine


@dataclass(frozen=True)
class Walked:
    """What a kernel reads (arguments of the operator), what stands before its loop over chunks, what each chunk makes."""

    pointers: str
    head: tuple[CodeLine, ...]
    rows: tuple[CodeLine, ...]


@dataclass(frozen=True)
class Narrow:
    """A column of width one beside the matrix; its state is a vector over keys."""

    index: int
    pair: str  # text of the weights that its read sums
    source: str  # text of what a token adds to its state


@dataclass(frozen=True)
class Part:
    """One part of the gradients' kernel: A_ij from x and y, then d_i = sum_j A_ij z_j + fade_i S^T x_i, some columns at a time."""

    name: str
    title: str
    pointers: str
    outputs: str
    index: str
    when: str
    program: str
    blocks: str
    is_shared: bool
    uses_slot: bool
    has_dots: bool
    has_pairs: bool
    has_output: bool
    pairs: tuple[CodeLine, ...]
    x: str
    y: str
    z: str
    own: str
    gradient: str
    state: str
    other: str
    state_offsets: str
    state_mask: str
    state_shape: str
    seen: str
    pair_math: str
    pair: tuple[str, ...]
    fade: str
    faded: str
    out_math: str
    moved: str
    narrow_dot: tuple[str, ...]
    narrow: tuple[str, ...]
    narrow_moved: tuple[str, ...]
    source_sums: tuple[CodeLine, ...]
    weighed: str
    has_own: bool
    group: tuple[CodeLine, ...]
    head: tuple[CodeLine, ...]
    rows: tuple[CodeLine, ...]
    block: tuple[CodeLine, ...]
    after: tuple[CodeLine, ...]
    stores: tuple[str, ...]
    early_sums: tuple[str, ...]  # what stands before the products
    sums: tuple[str, ...]
    sum_starts: tuple[str, ...]
    row_stores: tuple[str, ...]
    later: tuple[str, ...]  # what later tokens make of an angle: before the pairs of a chunk are added
    loads: tuple[str, ...]
    whole_axis: str
    whole_block: str
    whole_width: str
    out_axis: str
    out_block: str
    out_width: str


@dataclass(frozen=True)
class Angle:
    """The gradient of a running angle: what the parts of queries and of keys leave of it, and its width; empty where nothing turns."""

    query: str
    key: str
    width: str
    sign: str = ""  # of how the state turns against its adjoint
    even: str = ""  # places of the two members of every pair in a state
    odd: str = ""


@dataclass(frozen=True)
class Output:
    """A gradient that the launcher allocates, and the text that makes the argument's gradient of it."""

    name: str
    allocation: str


@dataclass(frozen=True)
class Summed:
    """A gradient that the heads of a group share: zeros before them, and the store behind them."""

    target: str
    zeros: str
    value: str
    store: str


@dataclass(frozen=True)
class ColumnsPackage:
    """What the template of the columns' kernels is given."""

    made: tuple[Output, ...]  # the buffers and their allocations
    names: str
    reread: str  # what the gradients take of it as it was
    unread: str  # the rest, without a comma behind
    gradient_names: str
    kernel: Walked
    shared: tuple[CodeLine, ...]  # of the kernel: what the heads of a group share
    fewest: str  # tokens of a tile
    fewest_in_gradients: str
    takes_turns: bool  # a program of it takes some heads in turn
    sharers: str  # of so many, which share what stands before them
    stores: tuple[str, ...]
    gradient: Walked
    before_heads: tuple[CodeLine, ...]  # of the gradients: what the heads of a group share
    gradient_stores: tuple[str, ...]
    summed: tuple[Summed, ...]
    behind_heads: tuple[CodeLine, ...]  # what is made of their sums
    behind_stores: tuple[str, ...]
    gradient_pointers: str  # the buffers that the second kernel fills
    outputs: tuple[Output, ...]
    partials: tuple[Output, ...]
    results: tuple[tuple[str, str], ...]  # (argument, its gradient)
    lanes: str
    uses_heads: bool
    uses_group: bool
    uses_values: bool
    has_groups: bool
    takes_heads_in_turn: bool
    row_bytes: str  # of a column's rows of one token
    masks_keys: bool
    gradients_mask_keys: bool
    gradients_use_device: bool
    key_width: str
    value_width: str
    numbers: str
    number_arguments: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Front:
    """The arguments of kernels.py's functions: of the operator, also where the walk has others, which are made of them."""

    argument_list: str
    given_list: str
    vectors: str
    first: str
    heads: str
    groups: str
    sizes: tuple[CodeLine, ...]


@dataclass(frozen=True)
class TritonPackage:
    """Everything kernels.py says. What ends in a comma is a piece of an argument list."""

    front: Front
    walk: Front  # of what the walk takes: the same, where nothing is made before it
    columns: ColumnsPackage | None  # what is made before the walk
    has_columns: bool
    columns_result: str
    column_gradient_lanes: str
    column_results: tuple[CodeLine, ...]
    walk_gradients: str
    front_results: tuple[str, ...]
    prefix: str  # before the names of the functions that walk
    name: str
    title: str
    equations: tuple[str, ...]
    legend: tuple[str, ...]
    weights: tuple[str, ...]
    helpers: tuple[str, ...]
    has_decay: bool
    needs_decay: bool
    is_exclusive: bool
    has_groups: bool
    has_own: bool  # a token's own rows have another weight where it reads them
    late: tuple[CodeLine, ...]  # of the forward kernel: what the output alone needs
    is_apart: bool  # the gradient of what was read is made before the walk
    gradient_dy: str
    has_output: bool  # of the forward kernel: it is not made behind the walk
    readout: Walked
    readout_store: str
    readout_gradient: Walked
    readout_sums: tuple[Summed, ...]
    readout_stores: tuple[str, ...]
    readout_outputs: str
    readout_uses_group: bool
    readout_shape: str
    walked_reads: str
    is_folded: bool  # a token has several rows, which lie along the axis of rows
    padded: int
    BR: str
    o_t: str
    m_end: str
    m_length: str
    m_size: str
    token: str
    m_token: str
    o_c: str
    token_row: str
    tile_rows: str  # rows of a tile
    row_factor: str
    per_row: str
    token_place: str
    has_narrow: bool
    keeps_rests: bool  # in float32, what rounding leaves of the sums of log decays stands beside them
    has_kept_slots: bool
    kept_words: str
    unkept: tuple[Narrow, ...]
    vector_keys: Walked
    vector_queries: Walked
    vector_reads: Walked
    vector_query_loads: tuple[str, ...]
    vector_read_loads: tuple[str, ...]
    decay_pointer: str
    narrow_sums: str
    makes_do: bool
    do_pointer: str
    states_gradient: str
    narrow_reads: str
    forward_reads: str
    has_rows: bool
    has_gates: bool
    gates: Walked
    gate_stores: tuple[str, ...]
    gates_use_group: bool
    gates_use_row: bool
    rows_use_group: bool
    gate_rows: str
    kept_target: str
    kept_sizes: str
    forward_loads: tuple[str, ...]
    source_loads: tuple[str, ...]
    query_loads: tuple[str, ...]
    stores_reads: bool
    joins_reads: bool  # what the rows of a token read is kept in one tensor
    uses_position: bool
    key_block: str
    value_block: str
    gradient_stages: str
    is_crowded: bool  # more stands in registers than a walk's own
    has_partial: bool
    has_row_room: bool
    has_angle: bool  # the walk gives the gradient of a running angle
    angle: Angle
    narrow_behind: str
    row_targets: str  # what the gradients of a chunk leave to those of its rows
    row_sizes: str
    segment_targets: str  # what a segment leaves to those behind it
    segment_sizes: str
    narrows: tuple[Narrow, ...]
    K: str
    V: str
    has_shared: bool
    states_limit: int
    state_factors: str
    known_widths: str
    state_shape: str
    row: str
    numbers: str
    number_arguments: str
    sized: str
    state_offsets: str
    forward_title: str
    pair_math: str
    output_math: str
    carry_math: str
    adjoint_math: str
    seen: str
    pair: tuple[str, ...]
    entry: str
    entry_fade: str
    entry_weight: str
    faded: str
    faded_before: str
    source_weight: str
    forward: Walked
    output_store: str
    read_stores: tuple[str, ...]
    summary: Walked
    states: Walked
    source_states: Walked
    query_states: Walked
    read_gradient: Walked
    narrow_stores: tuple[str, ...]
    parts: tuple[Part, ...]
    shared_count: str
    part_count: str
    gradient_programs: str
    rows: Walked
    row_stores: tuple[str, ...]
    partial_count: int
    reads_pointer: str
    row_reads_pointer: str
    reads_target: str
    reads_kept: str
    splits_reads: bool
    rows_pointers: str
    row_rows_pointer: str
    row_outputs: str
    part_outputs: str
    gradient_pointers: str
    narrow_initials: str
    narrow_finals: str
    narrow_gradients: str
    narrow_moved: str
    narrow_states: str
    narrow_adjoints: str
    narrow_d_initials: str
    state_list: str
    state_gradient_list: str
    constants: str
    scale: str
    output_shape: str
    output_like: str
    read_width: str
    outputs: tuple[Output, ...]
    partials: tuple[Output, ...]
    results: tuple[str, ...]
    state_results: str
    state_gradients: tuple[str, ...]
