"""What the template of kernels.py is given in the form of rows: text, and booleans for what a recurrence has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .fused_package import Output, Summed, Walked
from .site import CodeLine


@dataclass(frozen=True)
class Buffer:
    """A tensor that the launcher allocates."""

    name: str
    allocation: str
    size: str = ""  # its numbers, of one that shares memory with others


@dataclass(frozen=True)
class Totals:
    """Partial sums of one shape: the buffer of all, its shape, and the names of each."""

    name: str
    allocation: str
    names: str
    count: int
    sums: str  # the text of each one's sum

    @property
    def has_several(self) -> bool:
        """Whether they share it."""
        return self.count > 1


@dataclass(frozen=True)
class Turns:
    """What the heads of a group share of the arguments' gradients, where a program takes some of them in turn."""

    before: tuple[CodeLine, ...]
    summed: tuple[Summed, ...]
    behind: tuple[CodeLine, ...]
    stores: tuple[str, ...]

    @property
    def is_taken(self) -> bool:
        """Whether they share any."""
        return bool(self.stores)


@dataclass(frozen=True)
class Tuned:
    """A kernel that is launched as one of several configurations: its name in a table, who lists them, who chooses."""

    name: str
    listing: str
    choice: str


@dataclass(frozen=True)
class Reader:
    """Something that reads the state and what earlier rows of the chunk write: a query, or an erase key."""

    index: int
    name: str  # the buffer of its keys
    columns: str  # the tile of them
    paired: str  # the same for pairs: without the number that multiplies a row where products can be multiplied by it
    pair_pointers: str
    pair_numbers: str
    pair_factor: str  # which then is this
    walked: str  # the tile that the walk reads
    is_erase: bool
    is_before: bool  # stands before what its row writes
    moves_before: bool  # and a decay lies between
    is_by_row: bool  # its keys lie row by row, not token by token
    place: int  # the row of a token at which a query stands
    mask: str  # which rows are at that place
    later: str  # the sum at which it stands
    sees: str  # which sources a row sees
    pairs: str  # what the walk reads: weights of sources, or the inverse
    pair_tile: str
    made: str  # what the pairs make
    pair_gradient: str
    own: str  # the gradient of a row's read of itself, where it is kept apart
    faded: str
    passed: str  # to what makes them, where the same kernel has made operands
    when: str
    fade: str
    faded_gradient: str
    given_tile: str  # of the walk from the right: the gradient of what is read, its pairs, and its keys
    asked_pairs: str
    asked: str
    read: str
    read_gradient: str
    gradient: str
    pair_math: str
    gradient_math: str
    math: tuple[str, ...]
    is_query: bool  # of keys
    is_value: bool  # a query of values; going backward the gradient of what it reads is a query of keys
    given: str  # that gradient
    buffers: tuple[Buffer, ...]  # what that query has


@dataclass(frozen=True)
class PairKernel:
    """A kernel of what some readers read of the rows of a chunk."""

    name: str
    title: str
    math: str
    helper: str  # the function of it, where keys fade at their own rates
    readers: tuple[Reader, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    made_outputs: tuple[str, ...]  # as the kernel names them that makes operands
    passed: tuple[str, ...]  # and everything that it passes on
    makes_operands: bool
    fades_keys: bool  # to the end of a chunk
    is_before: bool  # somebody reads before a row's own decay
    has_readers: bool
    count: int  # of the readers
    has_parts: bool  # several
    is_followed: bool


@dataclass(frozen=True)
class HeldRow:
    """The rows of one number in their tokens."""

    tail: str  # of names
    at: str  # their places among a chunk's rows
    sum: str
    later: str  # the sum at which the first reader stands there
    key: str  # their keys, '' where they are zero


@dataclass(frozen=True)
class HeldOperand:
    """An operand as it fades, at the rows of one number."""

    buffer: str
    at: str
    rows: str  # of a chunk's place
    value: str


@dataclass(frozen=True)
class HeldRead:
    """A reader's keys at the rows of one number: what stands there, the sum at which it reads, and that number's tail; columns '': zero."""

    tail: str
    columns: str
    sum: str
    later: str


@dataclass(frozen=True)
class HeldReader:
    index: int
    is_erase: bool
    is_lone: bool  # reads at one row of a token
    place: int
    is_narrow: bool  # its tiles have a row a token, not one for each of its rows
    has_others: bool  # which then are rows of zeros of what it reads
    rows: str  # the places of a tile's rows
    pairs: str  # what it reads, of all rows
    sees: str
    made: str
    reads: tuple[HeldRead, ...]
    tile: str  # of all rows, of the tiles of each number


@dataclass(frozen=True)
class Held:
    """What the template says of rows in registers."""

    sums: tuple[CodeLine, ...]
    tiles: tuple[CodeLine, ...]  # of columns that lie where an input does
    key_tiles: tuple[CodeLine, ...]  # of keys, of these
    made: tuple[str, ...]  # stores of what backward reads
    has_made: bool
    rows: tuple[HeldRow, ...]
    faded: tuple[HeldOperand, ...]
    readers: tuple[HeldReader, ...]
    key_tile: str
    has_zeros: bool
    is_stacked: bool  # two readers share products


@dataclass(frozen=True)
class RowsPackage:
    """Everything kernels.py says in this form."""

    TEMPLATE: ClassVar[str] = "triton/rows.py.jinja"

    title: str
    is_part: bool  # one walk of several: its reads are made an output elsewhere
    is_whole: bool
    prefix: str  # of the names of kernels, which a package has once
    gives: tuple[str, ...]  # the arguments whose gradients backward gives
    asked: str  # a gradient that backward is always given
    equations: tuple[str, ...]
    legend: tuple[str, ...]
    helpers: tuple[str, ...]
    count: int
    has_factors: bool  # numbers that multiply operands where inputs lie
    has_token_buffers: bool  # a column a token, of which a token's rows are several
    has_steps: bool  # rows that act together
    reader_count: int  # of keys: what they read of the rows of a chunk is kept
    keeps_pairs: bool
    pair_programs: str
    pair_kernels: tuple[PairKernel, ...]
    is_narrow: bool  # one decay a head
    is_held: bool  # a chunk's rows stay in registers while operands and pairs are made
    holds_rows: tuple[Held, ...]  # how, where that is so
    pair_keys_parameter: str  # keys at a time, of operands in memory
    pair_keys_argument: str
    reads_pairs: bool  # what rows read of each other is made of operands in memory
    chunk_divisor: int  # a tile's rows to a chunk's tokens
    fills_tiles: bool  # whatever number of tokens that makes
    token_tile: str  # the tile that holds a chunk's tokens
    token_mask: str
    tile_parameter: str
    tile_argument: str
    chunk_tokens: str  # of BC rows
    is_single: bool  # row a token
    is_several: bool
    chunk_mask: str  # rows that there are
    base: str  # a chunk's first token
    head_token: str  # a row's token from there, and the head
    query_tile: str  # holds a chunk's tokens where each has several rows
    leaves_before: bool  # the walk from the right reads a sum before a row's own
    count_text: str
    step: int
    names_step: bool  # whether something depends on which rows act together
    block: str
    span_parameters: str
    span_arguments: str
    span_values: str
    spans: str
    all_sums: str
    is_falling: bool
    sums_pointer: str
    given_pointer: str
    pair_gradient_names: tuple[str, ...]
    written_inputs: tuple[str, ...]
    made_written: str
    made_sums: str
    is_wide: bool
    has_decay: bool
    has_erase: bool
    has_groups: bool
    has_readout: bool
    stores_reads: bool
    uses_position: bool
    reads_before: bool
    erases_before: bool
    moves_before: bool
    is_first: str
    erasing: str  # which of 16 rows correct what others write
    row: str
    numbers: str
    number_arguments: str
    sizes: tuple[CodeLine, ...]
    width_sizes: tuple[CodeLine, ...]  # those of keys and values
    key_width: str
    value_width: str
    K_value: str
    V_value: str
    known_widths: str
    first: str
    first_state: str
    state_count: int
    state_tuple: str
    moved_tuple: str
    joined_sizes: str
    heads: str
    name: str
    groups: str
    vectors: str
    argument_list: str
    given_list: str
    states: str
    state_gradient_list: str
    constants: str
    pack: str
    unpack: str
    unpack_arguments: str
    unpack_call: str
    unpack_gradient_call: str
    state_offsets: str
    operands: Walked
    operand_names: tuple[str, ...]
    operand_stores: tuple[str, ...]
    operand_offsets: str
    operand_masks: str
    scale_pointer: str
    scale_value: str
    prepared: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    keeps_factors: bool  # operands are numbers a row, which forward leaves to backward
    makes_operands_again: bool
    factor_targets: str
    made_operands: str
    made_pairs: str
    pair_outputs: str  # of these, what the kernel gives
    kept_pairs: str
    keeps_rows: bool
    kept_sizes: str  # of these pairs and factors, in numbers of 32 bits
    pair_gradient_list: str
    made_parameter: str
    made_argument: str
    made_walk: str
    made_gradient: str
    readers: tuple[Reader, ...]
    queries: tuple[Reader, ...]
    askers: tuple[Reader, ...]  # what a read's gradient reaches the state through
    duals: tuple[Reader, ...]  # queries of values
    reads_values: bool
    left_behind: str  # what the walk leaves for them
    asks: tuple[str, ...]  # these queries
    ask_pairs: tuple[str, ...]
    ask_gradients: tuple[str, ...]
    value_inputs: tuple[str, ...]
    made_keys: str
    value_reads: tuple[str, ...]
    dual_gradients: tuple[str, ...]
    dual_queries: tuple[str, ...]
    made_dual_queries: str
    dual_inputs: tuple[str, ...]
    made_duals: str
    made_dual_pairs: str
    made_value_gradients: str
    dual_programs: str
    made_now: str
    results_read: tuple[str, ...]
    given_gradients: tuple[str, ...]
    walk_inputs: tuple[str, ...]
    entering_inputs: tuple[str, ...]  # what the summary of a segment reads of them
    leaving_inputs: tuple[str, ...]  # and that of what its reads ask
    made_entering: str
    made_leaving: str
    total_pointer: str  # what a segment leaves of the state that enters it: a matrix, or exponents
    total_size: str  # of all of them
    has_total: bool
    kept_of_segments: str  # parts of what backward is given
    summary_programs: str
    enough: int  # segments from which on a sequence is cut
    key_columns: str  # tiles, as those of readers
    paired_key: str
    key_tile: str
    walked_key: str
    walked_erase: str
    value_columns: str
    written_columns: str
    written_allocation: str
    placed: tuple[Buffer, ...]  # operands that are arguments
    has_operands: bool  # that a kernel of their own makes
    joins_operands: bool  # where they are numbers a row, the kernel of pairs makes them
    has_token_kernels: bool
    has_placed_keys: bool
    reads_groups: bool
    group_parameter: str
    group_argument: str
    place_parameters: str
    place_arguments: str
    place_numbers: str
    place_values: str
    token_specialization: str
    token_parameters: str
    token_arguments: str
    token_numbers: str
    token_values: str
    read_names: tuple[str, ...]
    own_reads: tuple[str, ...]
    read_list: str
    kept_names: tuple[str, ...]
    read_gradient_names: tuple[str, ...]
    forward_title: str
    write_math: str
    carry_math: str
    written_gradient_math: str
    key_gradient_math: str
    given_gradient_math: str
    erase_fade: str
    key_fade: str
    carried_write: str
    erased_gradient: str
    state_fade: str
    state_fade_assigned: str
    written_output: str
    gradient_inputs: tuple[str, ...]
    gradient_outputs: tuple[str, ...]
    gradient_buffers: tuple[Buffer, ...]
    taken_buffers: tuple[Buffer, ...]  # of these, the ones that stand in an operand's place
    gradient_targets: str
    gradient_sizes: str
    walked_targets: str
    walked_sizes: str
    writes_over: bool
    readout: Walked
    readout_store: str
    readout_gradient: Walked
    readout_gradient_stores: tuple[str, ...]
    output_shape: str
    output_like: str
    gradient: Walked
    gradient_stores: tuple[str, ...]
    turns: Turns
    token_inputs: tuple[str, ...]
    token_outputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    share_parameter: str  # blocks of keys that each have a share of the gradient of a decay
    share_count: str
    totals: tuple[Totals, ...]  # of parameters, a sum a program
    results: tuple[str, ...]
    pair_block: str
    pair_warps: str
    stage_keys: str  # tiles of keys by rows that a walk's stage holds
    stage_inverse: str
    stage_others: str  # and of queries, or of values
    has_narrow_gradients: bool  # whether tiles of 32 keys were seen right on a GPU: of one row a token
    pair_registers: str  # of a thread, at most
    operand_warps: str
    makes_pair_gradients: bool  # in a kernel of their own
    tuned: tuple[Tuned, ...]
