"""`ssmgen.compile`: a specification's package, built once, imported from a cache of files.

Real files, because Triton reads a kernel's source and because a person wants to open what runs.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from .. import __version__, compiler
from ..source import Source
from ..write import Origin, write_package
from .load import load


def cache_folder() -> Path:
    """`$SSMGEN_CACHE`, else `ssmgen` in the user's cache folder."""
    if chosen := os.environ.get("SSMGEN_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ssmgen"


def compile(text_or_path: str | os.PathLike, **dims: int) -> ModuleType:
    """The package of a specification, imported: its op, `step`, reference and modules.

    `text_or_path` is the text itself (it contains a `{`) or the path of a `.ssm` file; `dims` replace its default sizes.
    With several recurrences in one text the module has one package for each, under its name.
    Raises SpecError when the text is at fault, OSError when the file cannot be read.
    """
    modules = packages(_source(text_or_path), dims)
    if len(modules) == 1:
        return next(iter(modules.values()))
    whole = ModuleType("ssmgen_packages", f"Packages: {', '.join(modules)}.")
    whole.__dict__.update(modules)
    return whole


def packages(source: Source, dims: Mapping[str, int]) -> dict[str, ModuleType]:
    """The packages of a source, imported, by the name of their recurrence; built when the cache has them not."""
    folder = cache_folder() / _key(source, dims)
    names = _cached(folder)
    if not names:
        build = compiler.build(source, dims)
        options = tuple(f"--dim {name}={dims[name]}" for name in sorted(dims))
        names = sorted(build.packages)
        for name in names:
            write_package(folder / name, build.packages[name], Origin(source.name, source.text, build.format, options))
        _record(folder, names)
    return {name: load(folder / name) for name in names}


def _source(text_or_path: str | os.PathLike) -> Source:
    if isinstance(text_or_path, str) and "{" in text_or_path:
        return Source("<text>", text_or_path.replace("\r\n", "\n"))
    path = Path(text_or_path)
    return Source(path.name, path.read_text(encoding="utf-8-sig"))


def _key(source: Source, dims: Mapping[str, int]) -> str:
    sizes = [f"{name}={dims[name]}" for name in sorted(dims)]
    parts = (__version__, _compiler_stamp(), source.name, source.text, *sizes)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compiler_stamp() -> str:
    """The newest change of the compiler's own files, so that a checkout under work never serves an older build."""
    from .._resources import folder

    package = Path(compiler.__file__).parent
    files = [*package.rglob("*.py"), *folder("templates").rglob("*"), *folder("grammar").rglob("*")]
    return str(max(file.stat().st_mtime_ns for file in files))


def _cached(folder: Path) -> list[str]:
    """The names of a complete build; empty when there is none. The record is written last."""
    try:
        names = (folder / "packages.txt").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []
    return names if all((folder / name / "__init__.py").is_file() for name in names) else []


def _record(folder: Path, names: list[str]) -> None:
    partial = folder / f".packages.{os.getpid()}"
    partial.write_text("\n".join(names) + "\n", encoding="utf-8")
    os.replace(partial, folder / "packages.txt")
