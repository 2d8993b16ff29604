"""`module.py` and `__init__.py` of an emitted package: the context that `templates/torch/module.py.jinja` lays out.

Python decides here what is emitted, the template lays it out: a helper, an import or an argument that nothing uses is
not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from .. import layer_spec, spec
from ..backends.torch_text import HELPERS
from .layer import LayerClass, layer_class
from .recurrence import RecurrenceClass, recurrence_class

if TYPE_CHECKING:
    from ..triton_form.decode_package import Line
    from .decode_layer import Launch

NO_LAUNCHES: Mapping[str, Launch] = MappingProxyType({})


@dataclass(frozen=True)
class ModuleFile:
    """Everything `module.py` of one package says."""

    recurrence: RecurrenceClass
    layers: tuple[LayerClass, ...]
    summary: str
    imports: tuple[str, ...]
    has_functional: bool
    op_names: str
    has_unit: bool
    has_whole: bool
    has_conv: bool
    has_conv_step: bool
    has_shift: bool
    has_shift_step: bool
    has_memory_step: bool
    has_advance: bool
    has_packing: bool
    has_block_rmsnorm: bool
    has_block_layernorm: bool
    helpers: tuple[str, ...]
    launches: tuple[LaunchText, ...]


@dataclass(frozen=True)
class LaunchText:
    """The operator that runs the kernel of a layer."""

    operator: str
    file: str
    arguments: str
    schema: tuple[str, ...]
    sizes: tuple[Line, ...]
    like: str
    shape: str


@dataclass(frozen=True)
class PackageFile:
    """Everything `__init__.py` of one package says."""

    title: str
    function: str
    op_names: str
    module_names: str
    exports: tuple[str, ...]


def layers_of(specification: spec.Specification, recurrence: spec.Recurrence) -> tuple[layer_spec.Layer, ...]:
    """The layers that are emitted beside a recurrence: those that call it and nothing else."""
    return tuple(layer for layer in specification.layers if layer.callees == (recurrence.name,))


def module_file(
    recurrence: spec.Recurrence, layers: tuple[layer_spec.Layer, ...], launches: Mapping[str, Launch] = NO_LAUNCHES
) -> ModuleFile:
    """The context of `module.py` for a recurrence and the layers around it; `launches` has the kernels of layers by name."""
    core = recurrence_class(recurrence)
    classes = tuple(layer_class(layer, {recurrence.name: core}, launches.get(layer.name)) for layer in layers)
    uses = {name: None for layer in classes for name in sorted(layer.uses)}
    called = dict.fromkeys((*core.helpers, *(h for layer in classes for h in layer.helpers)))
    lines = [line for layer in classes for line in (*layer.parts, *layer.forward_lines, *layer.step_lines)]
    helpers = tuple(HELPERS[name].rstrip() for name in called if name != "_unit")
    body = "\n".join([*lines, *helpers, *(p.fill for layer in classes for p in layer.parameters)])
    imports = ("import math",) if core.uses_math or "math." in body else ()
    imports += ("from typing import NamedTuple",) if classes else ()
    has_steps = any(layer.has_step for layer in classes)
    op_names = ["Output", "State", core.function] + ([f"{core.function}_step"] if core.has_step else [])
    if launches:
        op_names += ["_arithmetic", "_decode", "_library", "_operators", "NAMESPACE"]
    return ModuleFile(
        recurrence=core,
        layers=classes,
        summary=_summary(core, classes),
        imports=imports,
        has_functional="F." in body or "conv" in uses or "blocks_rmsnorm" in uses or "blocks_layernorm" in uses,
        op_names=", ".join(sorted(op_names, key=lambda name: (not name.isupper(), name.islower(), name))),
        has_unit=bool(core.units) or "_unit" in called,
        has_whole=any(part in uses for part in ("whole", "blocks_rmsnorm", "blocks_layernorm")),
        has_conv="conv" in uses,
        has_conv_step="conv" in uses and has_steps,
        has_shift="shift" in uses,
        has_shift_step="shift" in uses and has_steps,
        has_memory_step=("shift" in uses or "conv" in uses) and has_steps,
        has_advance="_advance(" in body,
        has_packing="conv" in uses or "shift" in uses,
        has_block_rmsnorm="blocks_rmsnorm" in uses,
        has_block_layernorm="blocks_layernorm" in uses,
        helpers=helpers,
        launches=tuple(_launch_text(launch) for launch in launches.values()),
    )


def _launch_text(launch: Launch) -> LaunchText:
    return LaunchText(
        launch.operator,
        launch.file,
        ", ".join(launch.arguments),
        launch.registration.schema,
        launch.fake,
        launch.like,
        launch.shape,
    )


def _summary(core: RecurrenceClass, layers: tuple[LayerClass, ...]) -> str:
    blocks = ", ".join(f"`{layer.name}`" for layer in layers)
    around = f"; around it stands {blocks}" if len(layers) == 1 else f"; around it stand {blocks}" if layers else ""
    return f"`{core.name}` is the op with its learned parameters{around}."


def package_file(recurrence: spec.Recurrence, layers: tuple[layer_spec.Layer, ...]) -> PackageFile:
    """The context of `__init__.py`."""
    module = module_file(recurrence, layers)
    classes = [module.recurrence.name]
    for layer in module.layers:
        classes += [layer.name, layer.state_name]
    op_names = [name for name in module.op_names.split(", ") if not name.startswith("_") and name != "NAMESPACE"]
    return PackageFile(
        title=module.recurrence.title,
        function=recurrence.name,
        op_names=", ".join(op_names),
        module_names=", ".join(classes),
        exports=tuple(sorted({*op_names, *classes, f"{recurrence.name}_reference"}, key=lambda name: (name.islower(), name))),
    )


def render_module(recurrence: spec.Recurrence, layers: tuple[layer_spec.Layer, ...], launches: Mapping[str, Launch] = NO_LAUNCHES) -> str:
    """The text of `module.py`."""
    from .._environment import render

    return render("torch/module.py.jinja", module=module_file(recurrence, layers, launches))


def render_package(recurrence: spec.Recurrence, layers: tuple[layer_spec.Layer, ...]) -> str:
    """The text of `__init__.py`."""
    from .._environment import render

    return render("package/__init__.py.jinja", package=package_file(recurrence, layers))
