"""Packages for tests: as a build gives them, or with the eager reference as the op, so that a fault is one of the module."""

from __future__ import annotations

import importlib
import sys
import tempfile
from functools import cache
from pathlib import Path

from ssmgen.compiler import build
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


def {name}_step(*tensors, state, slots=None, **constants):
    rows = torch.arange(len(tensors[0])) if slots is None else slots
    there = rows >= 0
    inputs = (x[there].unsqueeze(1) for x in tensors[:INPUTS])
    held = State(*(part[rows[there]] for part in state))
    out = {name}_reference(*inputs, *tensors[INPUTS:], initial_state=held, **constants)
    for part, following in zip(state, out.final_state):
        part[rows[there]] = following
    y = out.y.new_zeros(len(rows), *out.y.shape[2:])
    y[there] = out.y.squeeze(1)
    return y
'''


@cache
def built_package(path: Path):
    """The imported package of the one recurrence of a specification, as a build gives it; imported once, as are its operators."""
    ((name, files),) = build(Source(path.name, path.read_text(encoding="utf-8"))).packages.items()
    return _imported(f"{name}_built", files, Path(tempfile.mkdtemp()))


def package_over_reference(text: str, folder: Path, name: str = "spec.ssm"):
    """The imported package of the one recurrence of `text` and its layers, over the reference as its op."""
    specification = resolve(parse(Source(name, text)))
    (recurrence,) = specification.recurrences
    layers = layers_of(specification, recurrence)
    inputs = [s for s in recurrence.symbols if s.kind in ("input", "gate") and s.definition is None]
    files = {
        "op.py": OP.format(name=recurrence.name, inputs=len(inputs)),
        "reference.py": render_reference(recurrence),
        "module.py": render_module(recurrence, layers),
        "__init__.py": render_package(recurrence, layers),
    }
    return _imported(f"{recurrence.name}_over_reference", files, folder)


def _imported(name: str, files: dict[str, str], folder: Path):
    (folder / name).mkdir()
    for path, text in files.items():
        (folder / name / path).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
            del sys.modules[loaded]
        importlib.invalidate_caches()
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
