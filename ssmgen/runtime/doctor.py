"""What is installed, and whether it is known to give wrong results."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from . import known_bad


@dataclass(frozen=True)
class Finding:
    """One line: what, its value, 'ok' | 'note' | 'bad'."""

    name: str
    value: str
    state: str = "ok"


def examine() -> list[Finding]:
    """Look at this machine. Imports torch when it is installed; changes nothing."""
    found = [
        Finding("ssmgen", __version__),
        Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
    ]
    found += [_package(name) for name in ("lark", "jinja2", "click", "rich")]
    torch = _package("torch", "not installed: `check`, `explain` and `build` work; pip install 'ssmgen[torch]' for the rest")
    found.append(torch)
    triton = _package("triton", "not installed: the op runs its torch form")
    found.append(triton)
    ptxas = _ptxas()
    found.append(Finding("ptxas", ptxas or "not found", "ok" if ptxas else "note"))
    driver = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0]
    found.append(Finding("driver", driver or "no NVIDIA driver", "ok" if driver else "note"))
    archs = _archs() if torch.state == "ok" else []
    found += [Finding("device", words) for _, words in archs] or [
        Finding("device", "no GPU: the op runs its torch form on the CPU", "note")
    ]
    for arch in sorted({arch for arch, _ in archs}):
        version = known_bad.version(triton.value) if triton.state == "ok" else None
        for row in known_bad.matching(arch, version, known_bad.version(ptxas)):
            words = f"{row.pattern}: {row.symptom} (reported: {row.source}); rule: {row.rule}"
            found.append(Finding(f"known bad on {arch}", words, "bad"))
    return found


def _package(name: str, missing: str = "not installed") -> Finding:
    try:
        return Finding(name, installed(name))
    except PackageNotFoundError:
        return Finding(name, missing, "note")


def _ptxas() -> str:
    """The version of the assembler that Triton would run: its own, or the one on the path."""
    spec = find_spec("triton")
    own = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "ptxas" if spec and spec.origin else None
    program = os.environ.get("TRITON_PTXAS_PATH") or (str(own) if own and own.is_file() else "ptxas")
    match = re.search(r"V(\d+\.\d+\.\d+)", _run(program, "--version"))
    return match[1] if match else ""


def _run(program: str, *arguments: str) -> str:
    """What a program prints; empty when there is none or it fails."""
    if shutil.which(program) is None:
        return ""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _archs() -> list[tuple[str, str]]:
    """(target, words) of every GPU that torch sees."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        arch = getattr(properties, "gcnArchName", "").split(":")[0] if torch.version.hip else f"sm_{properties.major}{properties.minor}"
        found.append((arch, f"{properties.name}, {arch}, {properties.total_memory / 2**30:.0f} GiB"))
    return found


def main() -> int:
    """Print the findings as a table; 1 when a row of the known-bad table applies or torch is broken."""
    from rich.console import Console
    from rich.table import Table

    found = examine()
    table = Table(show_header=False, box=None, pad_edge=False)
    colours = {"ok": "green", "note": "yellow", "bad": "red"}
    for finding in found:
        table.add_row(f"[{colours[finding.state]}]{finding.state}[/]", finding.name, finding.value)
    Console().print(table)
    return 1 if any(finding.state == "bad" for finding in found) else 0
