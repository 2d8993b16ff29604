"""What the gates of a trained module are: its weights from a checkpoint, what it reads from a sample, the gates by the second oracle.

A gate depends on learned parameters and on inputs, and a checkpoint has only the former. So either the sample says what the module
reads, or the inputs stand at 0 and the drawing says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import algebra, compiler
from ..backends.torch_text import identifier
from ..expressions import references
from ..figures.portrait import Measured, histogram
from ..initial_values import typical
from ..module import layers_of
from ..module.text import camel
from ..recurrence import Recurrence
from ..source import Source
from ..spec import Expr, Ref, Symbol

if TYPE_CHECKING:
    from torch import Tensor

LIMIT = 1 << 16
"""Values of a gate that a histogram counts: more are thinned evenly."""


class CheckpointError(Exception):
    """A checkpoint or a sample that does not belong to the spec: what is wrong, and what would do."""


def measured(source: Source, sizes: Mapping[str, int], checkpoint: Path, sample: Path | None) -> dict[str, tuple[Measured, ...]]:
    """Histograms of every recurrence's gates, and of the factor its state is multiplied by, where that is one number an entry.

    checkpoint: the state_dict of an emitted module or layer, or of a model that has some, as `torch.save` writes it.
    sample: what it reads, `u` [batch, T, d_model] for a layer, or the recurrence's inputs by name, [batch, T, heads, ...].
    Raises CheckpointError, and SpecError where the text is at fault.
    """
    import torch

    weights = _weights(_loaded(checkpoint), checkpoint)
    read = None if sample is None else _loaded(sample)
    trace = compiler.check(source, sizes)
    found = {}
    for name, recurrence in trace.after("derive").items():
        instances = _instances(recurrence, weights, checkpoint)
        if read is None:
            calls = [_at_rest(recurrence, params, checkpoint) for _, params in instances]
        else:
            if len(instances) > 1:
                places = ", ".join(f"`{prefix}`" for prefix, _ in instances)
                words = f"has {len(instances)} of `{name}` ({places}), and a sample is read by one"
                raise CheckpointError(f"{checkpoint}: {words}: save the state_dict of one layer")
            given = (
                _inputs(recurrence, read, sample) if isinstance(read, dict) else _through_layer(trace, source, sizes, name, weights, read)
            )
            calls = [{**given, **instances[0][1]}]
        wanted = _wanted(recurrence)
        with torch.no_grad():
            parts = [_values(recurrence, values, wanted) for values in calls]
        found[name] = tuple(_histogram(label, [part[label] for part in parts]) for label in wanted)
    return found


# --- files -------------------------------------------------------------------------------------------------------


def _loaded(path: Path) -> Any:
    import pickle

    import torch

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a file of tensors that `torch.save` wrote ({str(error).splitlines()[0][:120]})") from None


def _weights(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state_dict itself, or the one in a dict of a training run under `model` or `state_dict`."""
    import torch

    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path}: no state_dict: save `module.state_dict()`")
    return loaded


def _instances(recurrence: Recurrence, weights: dict[str, Tensor], path: Path) -> list[tuple[str, dict[str, Tensor]]]:
    """Where in the state_dict the recurrence's parameters stand: (prefix, parameters by name). One without any where it has none."""
    params = [s for s in recurrence.written.symbols if s.kind == "param" and s.definition is None]
    if not params:
        return [("", {})]
    prefixes: dict[str, None] = {}
    for symbol in params:
        name = identifier(symbol.name)
        prefixes |= {key.removesuffix(name): None for key in weights if key == name or key.endswith(f".{name}")}
    whole = [prefix for prefix in prefixes if all(prefix + identifier(s.name) in weights for s in params)]
    if not whole:
        place = max(prefixes, key=lambda prefix: sum(prefix + identifier(s.name) in weights for s in params), default="")
        missing = ", ".join(f"`{place}{identifier(s.name)}`" for s in params if place + identifier(s.name) not in weights)
        raise CheckpointError(f"{path}: lacks {missing} of `{recurrence.written.name}`; it has {_some(list(weights))}")
    return [(prefix, {s.name: weights[prefix + identifier(s.name)].double() for s in params}) for prefix in whole]


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


# --- inputs ------------------------------------------------------------------------------------------------------


def _given(recurrence: Recurrence) -> list[Symbol]:
    return [s for s in recurrence.written.symbols if s.kind != "param" and s.definition is None]


def _at_rest(recurrence: Recurrence, params: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """One token of inputs at 0 (inside their domain), in as many lanes as the parameters have."""
    import torch

    if not params:
        name = recurrence.written.name
        raise CheckpointError(f"{path}: `{name}` has no parameters of its own, so its gates depend on what it reads alone: give `--sample`")
    spec = recurrence.written
    sizes = dict((*spec.dims, *spec.counts))
    lanes = max((params[s.name].shape[0] for s in spec.symbols if s.name in params and s.per in ("head", "channel")), default=1)
    values = dict(params)
    for symbol in _given(recurrence):
        lead = {"layer": [], "group": [1]}.get(symbol.per, [lanes])
        tail = [int(size.value(sizes)) for size in (symbol.type.rows, symbol.type.cols) if str(size) != "1"]
        dtype = torch.complex128 if symbol.type.field == "complex" else torch.float64
        values[symbol.name] = torch.full((1, 1, *lead, *tail), typical(symbol.interval), dtype=dtype)
    return values


def _inputs(recurrence: Recurrence, read: dict, path: Path) -> dict[str, Tensor]:
    """The inputs that a sample has by name; a unit input is brought to its length by the module, and so here."""
    import torch

    values = {}
    for symbol in _given(recurrence):
        value = read.get(symbol.name, read.get(identifier(symbol.name)))
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path}: lacks the input `{symbol.name}` of `{recurrence.written.name}`; it has {_some([*map(str, read)])}"
            )
        rank = 2 + (symbol.per != "layer") + sum(str(size) != "1" for size in (symbol.type.rows, symbol.type.cols))
        if value.dim() != rank:
            raise CheckpointError(f"{path}: `{symbol.name}` has {value.dim()} axes, where batch, tokens, lanes and its own make {rank}")
        wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
        values[symbol.name] = wide / (wide.square().sum(-1, keepdim=True) + 1e-6).sqrt() if "unit" in symbol.flags else wide
    return values


def _through_layer(trace, source: Source, sizes: Mapping[str, int], name: str, weights: dict[str, Tensor], read: Any) -> dict[str, Tensor]:
    """What the recurrence inside a layer is given when the layer, with these weights, reads `read` [batch, T, d_model]."""
    import torch

    from . import jit

    if not isinstance(read, torch.Tensor) or read.dim() != 3:
        raise CheckpointError(
            "the sample is neither what a layer reads, a tensor [batch, T, d_model], nor inputs by name, a dict of tensors"
        )
    recurrence = trace.after("derive")[name]
    specification = trace.after("resolve")[source.name]
    layers = layers_of(specification, recurrence.written)
    if not layers:
        raise CheckpointError(f"`{name}` has no layer in {source.name} that could read [batch, T, d_model]: give its inputs by name")
    package, faults = jit.packages(source, sizes)[name], []
    core = getattr(package, camel(name))
    for layer in layers:
        caught: dict[str, Tensor] = {}
        try:
            module = getattr(package, camel(layer.name))(read.shape[-1])
            module.load_state_dict(weights)
        except (RuntimeError, ValueError, TypeError) as error:
            faults.append(f"`{layer.name}` of width {read.shape[-1]}: {' '.join(str(error).split())[:200]}")
            continue
        inside = next(each for each in module.modules() if isinstance(each, core))

        def keep(_, arguments, caught=caught):
            caught.update(zip((s.name for s in _given(recurrence)), arguments, strict=True))

        inside.register_forward_pre_hook(keep)
        with torch.no_grad():
            module(read.to(next(module.parameters()).dtype))
        return _inputs(recurrence, caught, Path("sample"))
    raise CheckpointError("the weights are of no layer of the spec: " + "; ".join(faults))


# --- values ------------------------------------------------------------------------------------------------------


def _wanted(recurrence: Recurrence) -> dict[str, Expr]:
    """What is measured, by label: gates, and the factor of every state that forgets entry by entry."""
    gates = {s.name: Ref(s.type, s.span, s.name) for s in recurrence.written.symbols if s.kind == "gate" and s.type.field == "real"}
    hoisted, maxima = dict(recurrence.hoisted), {n for m in recurrence.maxima for n in (m.before, m.after)}
    factors: dict[Expr, list[str]] = {}
    for state in recurrence.spec.states:
        own = [t for step in recurrence.steps for t in step.transitions if t.target == state.name]
        kinds = {g.kind for t in own for g in t.left + t.right} | {f"from {t.source}" for t in own if t.source != state.name}
        if len(recurrence.steps) != 1 or len(own) != 1 or kinds - {"diagonal"} or own[0].right:
            continue
        factor = own[0].coefficient
        for generator in own[0].left:
            factor = algebra.mul(factor, generator.column)
        factor = algebra.rewrite(factor, lambda node: hoisted.get(node.name) if isinstance(node, Ref) else None)
        if not maxima & set(references(factor)) and not algebra.is_one(factor) and factor.type.field == "real":
            factors.setdefault(factor, []).append(state.name)
    return {**gates, **{f"a of {', '.join(states)}": factor for factor, states in factors.items() if factor not in gates.values()}}


def _values(recurrence: Recurrence, values: dict[str, Tensor], wanted: dict[str, Expr]) -> dict[str, Tensor]:
    from .interpret import evaluate

    return evaluate(recurrence.written, values, wanted)


def _histogram(label: str, parts: list[Tensor]) -> Measured:
    import torch

    values = torch.cat([part.flatten() for part in parts])
    step = -(-len(values) // LIMIT)
    try:
        return histogram(label, values[::step].tolist())
    except ValueError as error:
        raise CheckpointError(f"{error} on this sample") from None
