"""What a layer needs to know of the recurrences and attentions it calls: the widths they take and give."""

from __future__ import annotations

from dataclasses import dataclass

from .. import layer_spec, spec
from ..intervals import Interval
from . import sizes


@dataclass(frozen=True)
class Port:
    """One input or output of a callee; `domain` is what an input is declared to lie in."""

    name: str
    width: layer_spec.Width
    domain: Interval | None = None


@dataclass(frozen=True)
class Callee:
    """A recurrence or an attention as a function of the token's values."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dims: tuple[tuple[str, int], ...]
    counts: tuple[tuple[str, int], ...]


def of_recurrence(recurrence: spec.Recurrence) -> Callee:
    """A recurrence: inputs (and gates without an expression) in declared order."""
    per = "channel" if any(state.per == "channel" for state in recurrence.states) else "head"
    inputs = tuple(_port(s.name, s.type, s.per, domain=s.domain) for s in _given(recurrence.symbols))
    outputs = tuple(_port(o.name, o.value.type, per, () if o.count is None else (o.count,)) for o in recurrence.outputs)
    return Callee(recurrence.name, inputs, outputs, recurrence.dims, recurrence.counts)


def of_attention(attention: spec.Attention) -> Callee:
    """An attention: its output is a weighted sum of values, the last column among its inputs (`v` where there is one)."""
    inputs = _given(attention.symbols)
    values = [s for s in inputs if s.name == "v"] or [s for s in inputs if s.type.is_column] or inputs
    ports = tuple(_port(s.name, s.type, s.per, domain=s.domain) for s in inputs)
    return Callee(attention.name, ports, (_port("o", values[-1].type, "head"),), attention.dims, ())


def _given(symbols: tuple[spec.Symbol, ...]) -> list[spec.Symbol]:
    return [s for s in symbols if s.kind in ("input", "gate") and s.definition is None]


def _port(name: str, type: spec.Type, per: str, rank: tuple[spec.Dim, ...] = (), domain: Interval | None = None) -> Port:
    shape = rank + tuple(dim for dim in (type.rows, type.cols) if dim != spec.ONE)
    return Port(name, layer_spec.Width("none" if per == "layer" else per, tuple(sizes.of_dim(dim) for dim in shape)), domain)
