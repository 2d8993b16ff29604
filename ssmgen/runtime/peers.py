"""Peers: other implementations of a recurrence, called through an adapter, a small Python file beside the spec.

An adapter of `FILE.ssm` is `peers/FILE.py` in the same folder, or any file given by hand. It holds

    NAME = "the peer's name"
    REQUIRES = ("a.module", ...)            what must be importable for it to run
    VARIANTS = {"chunk 128": {"chunk": 128}}    optional: keywords of `run`, one contender each
    def prepare(arguments, sizes)           optional: the peer's inputs from the op's arguments, in differentiable torch
    def run(inputs, sizes, **variant)       the peer's call; the output y as the op lays it out
    def known_wrong()                       optional: why gradients are known to be wrong here; empty when they are not

`arguments` maps the op's arguments to tensors, `sizes` the spec's sizes and constants to numbers; what `prepare` gives is a
dict again. `run` imports the peer by itself: reading an adapter needs nothing installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class AdapterError(Exception):
    """An adapter that cannot be read or does not fit: one line for its author."""


@dataclass(frozen=True)
class Peer:
    """One contender of an adapter. `missing` says why it cannot run here; empty when it can."""

    name: str
    path: Path
    missing: str
    versions: Mapping[str, str]
    prepares: bool
    _prepare: Callable
    _run: Callable
    _known_wrong: Callable[[], str]

    def prepare(self, arguments: Mapping[str, Tensor], sizes: Mapping[str, float]) -> dict[str, Tensor]:
        """The peer's inputs, with the path of gradients back to the arguments."""
        return dict(self._prepare(dict(arguments), dict(sizes)))

    def run(self, inputs: Mapping[str, Tensor], sizes: Mapping[str, float]) -> Tensor:
        """The output y [B, T, H, ...] from inputs of `prepare`."""
        return self._run(dict(inputs), dict(sizes))

    def call(self, arguments: Mapping[str, Tensor], sizes: Mapping[str, float]) -> Tensor:
        """The output y from the op's own arguments."""
        return self.run(self.prepare(arguments, sizes), sizes)

    def known_wrong(self) -> str:
        """Why the peer's gradients are known to be wrong on this machine, or nothing."""
        return self._known_wrong()


def beside(spec: Path, folder: Path | None = None) -> Path | None:
    """The adapter that belongs to a spec's file, if it has one: in the folder `peers` beside it, or in another."""
    path = (folder or spec.parent / "peers") / f"{spec.stem}.py"
    return path if path.is_file() else None


def load(path: Path) -> list[Peer]:
    """The peers of an adapter, one a variant, importable or not. Raises AdapterError when the file is no adapter."""
    adapter = _imported(path)
    for name, kind in (("NAME", str), ("REQUIRES", tuple)):
        if not isinstance(getattr(adapter, name, None), kind):
            raise AdapterError(f"{path}: an adapter says `{name}`, a {kind.__name__}")
    if not callable(getattr(adapter, "run", None)):
        raise AdapterError(f"{path}: an adapter defines `run(inputs, sizes)`, which gives the output")
    missing = _missing(adapter.REQUIRES)
    versions = {} if missing else {root: version(root) for root in dict.fromkeys(name.split(".")[0] for name in adapter.REQUIRES)}
    found = []
    for label, keywords in getattr(adapter, "VARIANTS", {"": {}}).items():
        found.append(
            Peer(
                ", ".join(filter(None, (adapter.NAME, label))), path, missing, versions, hasattr(adapter, "prepare"),
                getattr(adapter, "prepare", lambda arguments, sizes: arguments),
                functools.partial(adapter.run, **keywords), getattr(adapter, "known_wrong", lambda: ""),
            )
        )  # fmt: skip
    return found


def version(module: str) -> str:
    """The version of the distribution that a top-level module comes from, of the module where there is none."""
    for name in metadata.packages_distributions().get(module, ()):
        return metadata.version(name)
    return str(getattr(importlib.import_module(module), "__version__", "unknown"))


def _imported(path: Path):
    spec = importlib.util.spec_from_file_location(f"ssmgen_peer_{path.stem}", path)
    adapter = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(adapter)
    except FileNotFoundError:
        raise AdapterError(f"{path}: no such file") from None
    except Exception as error:
        raise AdapterError(f"{path}: {type(error).__name__}: {error}") from error
    return adapter


def _missing(names: tuple[str, ...]) -> str:
    """Why a module cannot be imported, or nothing. Any exception counts: a peer's own import is none of our business."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            return f"not installed: no module `{error.name}`"
        except Exception as error:
            return f"cannot be imported: {type(error).__name__}: {first_line(error)}"
    return ""


def first_line(error: BaseException) -> str:
    """The first line of an exception's words, short enough for a cell."""
    return (str(error).strip().splitlines() or [""])[0][:120]
