"""Builds a package whose op is the eager reference itself: a fault in what surrounds the op is then a fault of the module."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from ssmgen.module import layers_of, render_module, render_package
from ssmgen.parse import parse
from ssmgen.reference import render_reference
from ssmgen.resolve import resolve
from ssmgen.source import Source

OP = '''\
"""The op of this package: the reference."""

import torch

from .reference import Output, State, {name}_reference

INPUTS = {inputs}


def {name}(*tensors, initial_state=None, cu_seqlens=None, chunk=64, **constants):
    return {name}_reference(*tensors, initial_state=initial_state, cu_seqlens=cu_seqlens, **constants)


def {name}_step(*tensors, state, **constants):
    inputs = (x.unsqueeze(1) for x in tensors[:INPUTS])
    out = {name}_reference(*inputs, *tensors[INPUTS:], initial_state=state, **constants)
    for part, following in zip(state, out.final_state):
        part.copy_(following)
    return out.y.squeeze(1)
'''


def package_over_reference(text: str, folder: Path, name: str = "spec.ssm"):
    """The imported package of the one recurrence of `text` and its layers, written under `folder`."""
    specification = resolve(parse(Source(name, text)))
    (recurrence,) = specification.recurrences
    layers = layers_of(specification, recurrence)
    inputs = [s for s in recurrence.symbols if s.kind in ("input", "gate") and s.definition is None]
    target = folder / f"{recurrence.name}_over_reference"
    target.mkdir(exist_ok=True)
    (target / "op.py").write_text(OP.format(name=recurrence.name, inputs=len(inputs)))
    (target / "reference.py").write_text(render_reference(recurrence))
    (target / "module.py").write_text(render_module(recurrence, layers))
    (target / "__init__.py").write_text(render_package(recurrence, layers))
    sys.path.insert(0, str(folder))
    try:
        for loaded in [m for m in sys.modules if m.split(".")[0] == target.name]:
            del sys.modules[loaded]
        importlib.invalidate_caches()
        return importlib.import_module(target.name)
    finally:
        sys.path.remove(str(folder))
