"""Who may import whom, as data, held against every module's syntax tree; and what starting up really loads."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGE = ROOT / "ssmgen"

PASSES = ("parse", "resolve", "derive", "classify", "schedule", "lower", "validate", "emit")
RIM = ("cli", "__main__", "__init__", "compiler", "explain", "render", "runtime", "write")

# Modules that may import these parts of ssmgen and no others.
INSIDE = {
    "source": (),
    "intervals": (),
    "_registry": (),
    "_resources": (),
    "_environment": ("_resources",),
    "diagnostics": ("source",),
    "even_odd": ("intervals",),
    "functions": ("even_odd", "intervals"),
    "syntax": ("source", "syntax_text"),
    "spec": ("source", "intervals", "layer_text"),
    "recurrence": ("source", "spec", "recurrence_text"),
    "response": ("spec",),
    "plan": ("source", "diagnostics", "spec", "recurrence", "response", "plan_text"),
    "scan": ("expressions", "response", "spec", "scan_text"),
    "kernel": ("plan", "scan", "kernel_text"),
    "discretizations": ("_registry",),
    "features": ("_registry", "algebra", "bounds", "expressions", "kernel", "logarithm", "recurrence", "source", "spec"),
    "rules": ("_registry",),
    "render": ("__init__", "diagnostics", "source", "rules"),
    "write": ("diagnostics", "source"),
    "resize": ("diagnostics", "source", "syntax"),
    "compiler": ("diagnostics", "source", "spec", "resize", *PASSES),
}

# Folders from the ground up: none imports one that stands behind it in this list.
FLOORS = ("identities", "backends", "reference", "torch_form", "triton_form", "module", "package")

# Outside modules that only these parts may import; a `*` allows it inside functions alone.
OUTSIDE = {
    "lark": ("parse",),
    "jinja2": ("_environment",),
    "click": ("cli",),
    "rich": ("cli*", "runtime*"),
    "sympy": (),
    "torch": ("runtime*",),
    "triton": ("runtime*",),
    "numpy": ("runtime*",),
    "matplotlib": (),
    "setuptools": (),
    "pkg_resources": (),
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part(path) -> str:
    """The part of ssmgen that a file belongs to: its top-level folder or module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """(line, is at top level, 'ssmgen' part or None, outside module or None) of every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for node in ast.walk(test)
    }
    package = ("ssmgen", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, id(node) not in inner, *_split(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield node.lineno, id(node) not in inner, *_split([*base, alias.name])


def _split(words: list[str]) -> tuple[str | None, str | None]:
    if words[0] != "ssmgen":
        return None, words[0]
    name = words[1] if len(words) > 1 else "__init__"
    exists = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
    return (name if exists else "__init__"), None


def names(path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_imports_inside(path):
    own, found = part(path), []
    for line, _, target, _ in imports(path):
        if target is None or target == own:
            continue
        if own in INSIDE:
            allowed = target in INSIDE[own]
        elif own == "runtime":
            allowed = target != "cli"
        elif own in ("cli", "__main__", "__init__", "explain"):
            allowed = True
        elif own in PASSES:
            allowed = target not in (*RIM, *PASSES)
        elif own in FLOORS:
            allowed = target not in (*RIM, *FLOORS[FLOORS.index(own) + 1 :])
        else:  # the core's shared algebra and text
            allowed = target not in RIM
        if not allowed:
            found.append(f"line {line}: {own} imports {target}")
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_imports_outside(path):
    own, found = part(path), []
    for line, is_top, _, module in imports(path):
        if module in OUTSIDE:
            owners = OUTSIDE[module]
            if own not in owners and not (f"{own}*" in owners and not is_top):
                found.append(f"line {line}: {module}" + (" at top level" if f"{own}*" in owners else ""))
        elif module is not None and module not in sys.stdlib_module_names:
            found.append(f"line {line}: {module} is no dependency")
    assert found == []


def loaded_by(*arguments: str) -> set[str]:
    """The modules in memory after a command line, seen by an exit hook."""
    code = (
        "import atexit, sys; atexit.register(lambda: print('\\nLOADED', *sys.modules)); "
        f"from ssmgen.cli import main; main({list(arguments)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return set(done.stdout.rsplit("LOADED ", 1)[1].split())


def test_help_loads_nothing_heavy():
    assert not loaded_by("--help") & {"torch", "sympy", "lark", "jinja2", "rich", "numpy", "ssmgen.compiler"}


def test_check_loads_no_torch(tmp_path):
    (tmp_path / "a.ssm").write_text("recurrence a {\n  dim N = 4\n  input k : [N]\n  state s : [N]\n  update s' = k\n  output s'\n}\n")
    assert not loaded_by("check", str(tmp_path / "a.ssm")) & {"torch", "triton", "numpy", "rich", "jinja2"}
