"""Imports an emitted folder as a package under a name made of what its files say: two packages of one name never meet, and
two copies of one package, whose operators could not be registered twice, are one module."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from ..module.text import camel


def load(folder: str | Path) -> ModuleType:
    """The package in `folder`. The same files give the same module again, from wherever they are loaded.

    Raises FileNotFoundError when there is no `__init__.py`; whatever the package raises while it is imported passes through.
    """
    folder = Path(folder).resolve()
    start = folder / "__init__.py"
    if not start.is_file():
        raise FileNotFoundError(f"no package at {folder}: it has no __init__.py")
    name = f"ssmgen_loaded_{re.sub(r'[^0-9A-Za-z_]', '_', folder.name)}_{_fingerprint(folder)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[str(folder)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for loaded in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise
    return module


def layer_classes(package: ModuleType, recurrence: str) -> list[type]:
    """The classes of a package's layers: its modules without the recurrence's own."""
    import torch

    found = [getattr(package, name) for name in package.__all__ if name != camel(recurrence)]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, torch.nn.Module)]


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
