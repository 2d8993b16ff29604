"""kernels -> the files of a package, path -> text. The header with its hashes is `write`'s."""

from __future__ import annotations

import hashlib

from ._environment import render
from .kernel import Kernels
from .module import layers_of, module_file, render_module, render_package
from .module.decode_layer import layer_launches
from .package.lengths import lengths_file
from .package.selftest import render_self_test
from .reference import reference_package
from .spec import Specification
from .text.wrap import wrapped
from .torch_form.op import op_package
from .triton_form.decode import decode_package
from .triton_form.forms import form_of
from .triton_form.running import running_package

FORMAT = 3
"""Number of the output format: part of the operators' namespace, so that packages of two formats can live in one process."""


def emit(kernels: Kernels, specification: Specification) -> dict[str, str]:
    """Render the package of one recurrence with the layers that use it."""
    # a token's launch applies the equations as they are written
    recurrence = kernels.plan.classified.recurrence.upright
    spec = recurrence.written
    parts = (FORMAT, spec.dims, spec.counts, specification.source.name, specification.source.text)
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:8]
    inner = kernels.plan.classified.recurrence
    # products of matrices stand outside of a step as well; one token's launch gives one column
    decode = decode_package(inner) if inner.dense is not None else None if spec.has_rows else decode_package(recurrence)
    form = form_of(kernels)
    running = running_package(kernels) if form.files else None
    op = op_package(kernels, f"ssmgen_{spec.name}_{digest}", bool(form.files), decode is not None, running, form.joins_reads)
    layers = layers_of(specification, spec)
    # a layer's launch takes the recurrence's own inputs, to which neither a running maximum nor a real part belongs
    is_whole = decode is not None and not recurrence.maxima and not recurrence.pairs and not recurrence.rows and inner.dense is None
    launches = layer_launches(recurrence, layers) if is_whole else {}
    lengths = lengths_file(recurrence, module_file(spec, layers).layers)
    files = {
        "__init__.py": render_package(spec, layers),
        "lengths.py": render("package/lengths.py.jinja", lengths=lengths),
        "module.py": render_module(spec, layers, launches),
        "op.py": wrapped(render("torch/op.py.jinja", op=op)),
        "reference.py": render("torch/reference.py.jinja", package=reference_package(spec)),
        f"test_{spec.name}.py": render_self_test(spec, layers, lengths),
    }
    files |= {name: wrapped(render(template, **context)) for name, template, context in form.files}
    if form.files:
        files["tuning.py"] = render("triton/tuning.py.jinja")
    if running is not None:
        files["running.py"] = wrapped(render("triton/running.py.jinja", running=running))
    if decode is not None:
        files["decode.py"] = wrapped(render("triton/decode.py.jinja", decode=decode))
    for launch in launches.values():
        files[f"{launch.file}.py"] = render("triton/decode.py.jinja", decode=launch.decode)
    return dict(sorted(files.items()))
