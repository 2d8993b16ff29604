"""ssmgen: a compiler from recurrences, written as a paper prints them, to stand-alone PyTorch packages.

`ssmgen.compile(text_or_path)` builds a specification and returns the imported package; the command line is `ssmgen`.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__", "compile"]


def __getattr__(name: str):
    # Lazy: the compiler's core must import without torch, and the command line must start without either.
    if name == "compile":
        from .runtime.jit import compile

        return compile
    raise AttributeError(f"module 'ssmgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "compile"])


def load_ipython_extension(ipython) -> None:
    """`%load_ext ssmgen` in a notebook: registers the cell magic `%%ssm`."""
    from .runtime.magic import load_ipython_extension

    load_ipython_extension(ipython)
