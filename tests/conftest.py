"""Shared by all tests: where things are, and a loud word when GPU tests do not run."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path

import pytest
from workers import pytest_runtestloop  # noqa: F401 (a hook: modules are dealt to processes on every core)

# Tensors in tests are small: threads would only wait for each other. Set before torch is first imported, and inherited.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Hypothesis also draws constants of every module that is loaded, emitted packages among them: reading those takes longer than most
# tests, and what a test draws would depend on which ran before it in its process.
with contextlib.suppress(ImportError, AttributeError):
    from hypothesis.internal.conjecture import providers

    providers._get_local_constants = lambda: providers._local_constants

ROOT = Path(__file__).resolve().parent.parent


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(config, items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or _has_gpu():
        return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="no GPU here: the kernel itself was NOT tested"))
    config.stash[_skipped] = len(marked)


_skipped = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter, config):
    count = config.stash.get(_skipped, 0)
    if count:
        terminalreporter.section("GPU", sep="!")
        terminalreporter.line(f"{count} GPU tests were skipped: no GPU here. Kernels were NOT tested by this run.")


@pytest.fixture
def root() -> Path:
    """The top of the checkout."""
    return ROOT
