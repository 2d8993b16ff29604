"""The tests that an emitted package carries: what `templates/package/test_op.py.jinja` lays out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import layer_spec, spec
from ..backends.torch_text import attribute, identifier
from ..intervals import Interval
from ..module.text import camel
from ..small import arguments_of, small_sizes
from .lengths import LengthsFile

HEADS, GROUPS = 4, 2


@dataclass(frozen=True)
class Draw:
    """One random argument: its name, and the text that draws it."""

    name: str
    text: str


@dataclass(frozen=True)
class SelfTest:
    """Everything that the tests of a package say."""

    function: str
    inputs: tuple[Draw, ...]
    params: tuple[Draw, ...]
    has_functional: bool
    has_step: bool
    first_part: str  # the tokens that come first in the order of the recurrence
    second_part: str
    joined: str
    modules: str
    layers: tuple[LayerTest, ...]
    has_frame: bool  # `lengths.py` knows another frame of the recurrence's state
    levels: str  # more arguments of `canonical`, one tuple a call
    has_canonical: bool  # or of a layer's


@dataclass(frozen=True)
class LayerTest:
    """A layer of the package that has a step: its class, and the sizes to make it at."""

    name: str
    sizes: str


def self_test(recurrence: spec.Recurrence, layers: tuple[layer_spec.Layer, ...], lengths: LengthsFile) -> SelfTest:
    """The context of the test template for one recurrence, the layers around it, and the frames of their states."""
    inputs, params = arguments_of(recurrence)
    sizes = small_sizes(recurrence)
    drawn = tuple(Draw(identifier(s.name), _draw(s, sizes)) for s in inputs)
    learned = tuple(Draw(identifier(s.name), _draw(s, sizes)) for s in params)
    is_reversed = recurrence.time == "reversed"
    return SelfTest(
        function=recurrence.name,
        inputs=drawn,
        params=learned,
        has_functional=any("F." in draw.text for draw in (*drawn, *learned)),
        has_step=not is_reversed,
        first_part="[:, CHUNK - 1 :]" if is_reversed else "[:, : CHUNK - 1]",
        second_part="[:, : CHUNK - 1]" if is_reversed else "[:, CHUNK - 1 :]",
        joined="second.y, first.y" if is_reversed else "first.y, second.y",
        modules="lengths, module, op, reference" if layers and not is_reversed else "lengths, op, reference",
        layers=() if is_reversed else tuple(_layer_test(layer, sizes) for layer in layers),
        has_frame=lengths.has_frame,
        levels="((), (3.0,))" if lengths.has_maxima else "((),)",
        has_canonical=lengths.has_canonical,
    )


def _layer_test(layer: layer_spec.Layer, sizes: dict[str, int]) -> LayerTest:
    given = [f"{attribute(name)}={sizes[name]}" for name, _ in layer.dims if name in sizes]
    given += [f"{attribute(name)}=2" for name, default in layer.params[1:] if default is None]
    return LayerTest(camel(layer.name), f"dict({', '.join(given)})")


def render_self_test(recurrence: spec.Recurrence, layers: tuple[layer_spec.Layer, ...], lengths: LengthsFile) -> str:
    """The text of `test_<name>.py`."""
    from .._environment import render

    return render("package/test_op.py.jinja", test=self_test(recurrence, layers, lengths))


def _draw(symbol: spec.Symbol, sizes: dict[str, int]) -> str:
    lead = [] if symbol.kind == "param" else ["batch", "length"]
    lanes = {"layer": [], "group": [str(GROUPS)]}.get(symbol.per, [str(HEADS)])
    tail = [str(int(size.value(sizes))) for size in (symbol.type.rows, symbol.type.cols) if size != spec.ONE]
    noise = f"_randn({', '.join([*lead, *lanes, *tail])})"
    if symbol.type.field == "complex":
        return f"torch.complex({noise}, {noise})"
    if "unit" in symbol.flags:
        return f"F.normalize({noise}, dim=-1)"
    return _inside(noise, symbol.domain) if symbol.domain is not None else noise


def _inside(noise: str, domain: Interval) -> str:
    low, high = domain.low, domain.high
    if math.isfinite(low) and math.isfinite(high):
        scaled = f"torch.sigmoid({noise})" if high - low == 1 else f"{high - low:.12g} * torch.sigmoid({noise})"
        return scaled if low == 0 else f"{low:.12g} + {scaled}"
    if math.isfinite(low):
        return f"F.softplus({noise})" if low == 0 else f"{low:.12g} + F.softplus({noise})"
    if math.isfinite(high):
        return f"-F.softplus({noise})" if high == 0 else f"{high:.12g} - F.softplus({noise})"
    return noise
