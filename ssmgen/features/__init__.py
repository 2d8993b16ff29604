"""The axes of the space, one folder an axis, one file a value. A file owns what is true of its value and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from .._registry import load
from ._base import Feature


def values(axis: str) -> Mapping[str, Feature]:
    """The values of `axis` by name."""
    package = import_module(f"{__name__}.{axis}")
    return load(package.__name__, package.__path__, "FEATURE")
