"""Discretizations: a file is a method, and the method is its formula. The file's name is the word in the language."""

from __future__ import annotations

from collections.abc import Mapping

from .._registry import load
from ._method import Method


def methods() -> Mapping[str, Method]:
    """Every method by name."""
    return load(__name__, __path__, "METHOD")
