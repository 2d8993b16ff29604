"""A folder of features: every module in it gives one value, under the module's own name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any


@cache
def _load(package: str, path: tuple[str, ...], attribute: str) -> Mapping[str, Any]:
    names = sorted(module.name for module in iter_modules(path) if not module.name.startswith("_"))
    return MappingProxyType({name: getattr(import_module(f"{package}.{name}"), attribute) for name in names})


def load(package: str, path: Iterable[str], attribute: str) -> Mapping[str, Any]:
    """File name -> the module's `attribute`, for every module of the package at `path` that does not start with `_`.

    Sorted by name, read-only. Raises AttributeError when a module lacks the attribute: that is our own mistake.
    """
    return _load(package, tuple(path), attribute)
