"""The cell magic `%%ssm`: a cell that holds a specification becomes the package of that name.

%load_ext ssmgen

%%ssm N=64 P=32
recurrence retention { ... }
"""

from __future__ import annotations

import sys

from ..diagnostics import SpecError
from ..source import Source


def run_cell(line: str, cell: str, namespace: dict) -> None:
    """Compile `cell` with the sizes of `line` and bind each package in `namespace`; faults are printed, as in a terminal."""
    from .. import render
    from .jit import packages

    words = line.split()
    pairs = [word.partition("=") for word in words]
    if not all(name.isidentifier() and size.isdecimal() for name, _, size in pairs):
        print(f"%%ssm: sizes are written `N=64 P=32`, not `{line.strip()}`", file=sys.stderr)
        return
    try:
        found = packages(Source("<cell>", cell), {name: int(size) for name, _, size in pairs})
    except SpecError as error:
        for diagnostic in error.diagnostics:
            print(render.as_text(error.source, diagnostic), file=sys.stderr)
        return
    namespace.update(found)
    print("compiled: " + ", ".join(found))


def load_ipython_extension(ipython) -> None:
    """Register `%%ssm`."""
    ipython.register_magic_function(lambda line, cell: run_cell(line, cell, ipython.user_ns), "cell", "ssm")
