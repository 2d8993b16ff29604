"""Packages built from examples or from text, written where a test says, and loaded."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT

from ssmgen.compiler import build
from ssmgen.runtime.load import load
from ssmgen.source import Source


def write(text: str, folder: Path, name: str = "test.ssm"):
    """Build every recurrence of `text` below `folder`: (folder of the package, spec) of the first."""
    built = build(Source(name, text))
    specification = built.trace.after("resolve")[name]
    for package, files in built.packages.items():
        (folder / package).mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            (folder / package / path).write_text(content, encoding="utf-8")
    return folder / specification.recurrences[0].name, specification.recurrences[0]


def example(name: str, folder: Path):
    """The loaded package of an example, and its spec."""
    path = ROOT / "examples" / f"{name}.ssm"
    target, spec = write(path.read_text(encoding="utf-8"), folder, path.name)
    return load(target), spec
