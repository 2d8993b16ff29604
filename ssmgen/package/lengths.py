"""`lengths.py` of an emitted package: the context that `templates/package/lengths.py.jinja` lays out.

In which ways one state can be written is decided here: by what `gauges` proves of running maxima and of the position, and by the
windows of a layer, which lie in a ring that the number of tokens turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .. import spec
from ..backends.torch_text import identifier
from ..gauges import Gauge, gauges, turned_by_position
from ..module.layer import LayerClass
from ..recurrence import Recurrence
from ..spec import ONE


@dataclass(frozen=True)
class Entry:
    """A part of the state and its value in another frame."""

    name: str
    value: str


@dataclass(frozen=True)
class LayerFrame:
    """The state of a layer that has windows: their names as a tuple's text, and the parts that change with the frame."""

    state: str
    windows: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class LengthsFile:
    """Everything `lengths.py` of one package says."""

    frame: tuple[str, ...]  # what the canonical frame is, for people
    has_canonical: bool
    has_frame: bool  # a state of the recurrence itself has several
    has_maxima: bool
    has_position: bool
    has_windows: bool
    module_names: str
    layers: tuple[LayerFrame, ...]
    maxima: str  # for people: `m = 0`
    levels: str  # a tuple of one level for every maximum
    highest: str  # the same, of what a fit sees
    zero_maxima: str
    shifts: tuple[Entry, ...]
    entries: tuple[Entry, ...]


def lengths_file(recurrence: Recurrence, layers: tuple[LayerClass, ...]) -> LengthsFile:
    """The context of `lengths.py` for a recurrence and the classes of the layers around it."""
    found, turned = gauges(recurrence), turned_by_position(recurrence)
    maxima = [identifier(gauge.maximum) for gauge in found]
    frames = tuple(_layer_frame(layer) for layer in layers if layer.has_windows)
    words = [line for _, line in frame_words(recurrence)]
    words += ["windows of convolutions begin with the oldest token, and `tokens` is 0"] if frames else []
    return LengthsFile(
        frame=tuple(f"- {line}{'.' if line is words[-1] else ';'}" for line in words),
        has_canonical=bool(words),
        has_frame=bool(found or turned),
        has_maxima=bool(found),
        has_position=bool(turned),
        has_windows=bool(frames),
        module_names=", ".join([*(frame.state for frame in frames), *(["_turned"] if frames else [])]),
        layers=frames,
        maxima=" and ".join(f"{name} = 0" for name in maxima),
        levels=f"({', '.join('level' for _ in maxima)},)",
        highest=f"({', '.join(f'_highest(part.{name}, granularity)' for name in maxima)},)",
        zero_maxima=", ".join(f"{name}=torch.zeros_like(part.{name})" for name in maxima),
        shifts=tuple(Entry(_shift(name, maxima), f"state.{name} - levels[{i}]") for i, name in enumerate(maxima)),
        entries=_entries(recurrence.written, found, turned),
    )


def frame_words(recurrence: Recurrence) -> list[tuple[str, str]]:
    """Every part of the state that is a gauge, with the ways in which it lets one state be written and the canonical one."""
    words = [(identifier(gauge.maximum), _words(gauge)) for gauge in gauges(recurrence)]
    if turned := turned_by_position(recurrence):
        names = ", ".join(identifier(name) for name in turned)
        words.append(("position", f"{names} and position stand in the frame of the last token; turned back by it, position is 0"))
    return words


def _layer_frame(layer: LayerClass) -> LayerFrame:
    windows = [field.name for field in layer.fields if field.is_window]
    quoted = "".join(f'"{name}", ' for name in windows)
    entries = [
        *(Entry(name, f"_turned(state.{name}, state.tokens)") for name in windows),
        Entry("tokens", "torch.zeros_like(state.tokens)"),
    ]
    return LayerFrame(layer.state_name, f"({quoted.rstrip(' ' if len(windows) == 1 else ', ')})", tuple(entries))


def _words(gauge: Gauge) -> str:
    """`m` and what it scales, as a sentence's part."""
    m = identifier(gauge.maximum)
    held = ", ".join([*(identifier(state) for state, _ in gauge.powers), m])
    moved = ", ".join([*(f"{identifier(state)} e^({_times(-power)}d)" for state, power in gauge.powers), f"{m} + d"])
    return f"({held}) and ({moved}) are one state for every d: canonical is {m} = 0"


def _times(power: Fraction) -> str:
    """`2 *`, `-`, or nothing, before what is multiplied."""
    return {1: "", -1: "-"}.get(power, f"{power} * ")


def _shift(name: str, maxima: list[str]) -> str:
    return "shift" if len(maxima) == 1 else f"shift_{name}"


def _entries(written: spec.Recurrence, found: tuple[Gauge, ...], turned: tuple[str, ...]) -> tuple[Entry, ...]:
    """The parts of the state that another frame changes: turned back, multiplied by the power of e that each maximum gives them."""
    maxima = [identifier(gauge.maximum) for gauge in found]
    entries = []
    for state in written.states:
        part = f"state.{identifier(state.name)}"
        factors = [_factor(gauge, maxima, written, state, power) for gauge in found for name, power in gauge.powers if name == state.name]
        if state.name in turned:
            is_matrix = _rank(state) == 2
            wide = f"{part}.double()" if is_matrix else f"{part}.double()[..., None]"
            part = f"_rope({wide}, position, -2){'' if is_matrix else '[..., 0]'}.to({part}.dtype)"
        if factors or state.name in turned:
            entries.append(Entry(identifier(state.name), " * ".join([part, *factors])))
    entries += [Entry(name, f"torch.zeros_like(state.{name}) + levels[{i}]") for i, name in enumerate(maxima)]
    entries += [Entry("position", "torch.zeros_like(state.position)")] if turned else []
    return tuple(entries)


def _factor(gauge: Gauge, maxima: list[str], written: spec.Recurrence, state: spec.State, power: Fraction) -> str:
    missing = _rank(state) - _rank(written.state(gauge.maximum))
    behind = f"[...{', None' * missing}]" if missing else ""
    return f"torch.exp({_times(power)}{_shift(identifier(gauge.maximum), maxima)}){behind}"


def _rank(state: spec.State) -> int:
    """How many axes a state has behind batch and heads."""
    return sum(size != ONE for size in (state.type.rows, state.type.cols))
