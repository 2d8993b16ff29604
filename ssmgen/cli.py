"""The command line. Everything slow is imported inside the command that needs it.

Exit codes: 0, 1 (the user's text, files or arguments), 2 (a bug in ssmgen).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from . import __version__
from .diagnostics import SpecError
from .source import Source

_DEFAULT_OUT = "generated"


class UserError(click.ClickException):
    """A fault in files or arguments: one line, exit code 1."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ssmgen", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of a bug in ssmgen.")
def cli() -> None:
    """Compile recurrences, written as a paper prints them, to stand-alone PyTorch packages."""


# --- arguments ---------------------------------------------------------------------------------------------------


class _Dim(click.ParamType):
    name = "NAME=SIZE"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        name, _, size = value.partition("=")
        if not name.isidentifier() or not size.isdecimal() or not 1 <= int(size) <= 1 << 20:
            self.fail(f"`{value}`: write a size as in `N=64`", param, ctx)
        return name, int(size)


_dims = click.option("--dim", "dims", type=_Dim(), multiple=True, help="Another size than the spec's default: --dim N=64.")
_out = click.option(
    "--out", default=_DEFAULT_OUT, show_default=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of packages."
)
_file = click.argument("file", type=click.Path(path_type=Path))


def _read(path: Path) -> Source:
    """A spec's text, line ends normalised; `-` is standard input, a bare example's name the example that ships."""
    if str(path) == "-":
        name, data = "<stdin>", sys.stdin.buffer.read()
    else:
        found = _find(path)
        name, data = path.as_posix() if found == path else f"examples/{found.name}", found.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 text (byte {error.start})") from None
    return Source(name, text.replace("\r\n", "\n").replace("\r", "\n"))


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path}: a folder, where a .ssm file is expected")
    shipped = _examples().get(str(path))
    if shipped is not None:
        return shipped
    raise UserError(f"{path}: no such file{_did_you_mean(str(path), [*_examples()])}")


def _examples() -> dict[str, Path]:
    from ._resources import folder

    return {path.stem: path for path in sorted(folder("examples").glob("*.ssm"))}


def _did_you_mean(word: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _expand(paths: tuple[Path, ...]) -> list[Path]:
    """Folders stand for the .ssm files below them."""
    files: list[Path] = []
    for path in paths:
        files.extend(sorted(path.rglob("*.ssm")) if path.is_dir() else [path])
    if paths and not files:
        raise UserError(f"no .ssm file below {', '.join(map(str, paths))}")
    return files


# --- check -------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True)
@_dims
def check(files: tuple[Path, ...], style: str, dims: tuple[tuple[str, int], ...]) -> int:
    """Check specs (files, folders, or `-`). Takes well under a second; needs no torch."""
    from . import compiler

    found, good, failed = [], [], 0
    for path in _expand(files):
        source = _read(path)
        try:
            trace = compiler.check(source, dict(dims))
        except SpecError as error:
            failed += 1
            found.extend((error.source, diagnostic) for diagnostic in error.diagnostics)
        else:
            found.extend((source, diagnostic) for diagnostic in trace.warnings)
            good.append(f"{source.name}: ok ({_contents(trace)})")
    if style == "text":
        _show(found)
        for line in good:
            click.echo(line)
        if failed:
            click.echo(f"{failed} of {failed + len(good)} files at fault", err=True)
    else:
        from . import render

        click.echo({"json": render.as_json, "sarif": render.as_sarif}[style](found))
    return 1 if failed else 0


def _contents(trace) -> str:
    specification = trace.after("resolve")[trace.source.name]
    kinds = ("recurrences", "attentions", "layers", "stacks")
    return ", ".join(f"{kind[:-1]} {item.name}" for kind in kinds for item in getattr(specification, kind)) or "nothing declared"


def _show(found: list) -> None:
    from . import render

    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    for source, diagnostic in found:
        click.echo(render.as_text(source, diagnostic, colour=colour), err=True)


# --- build -------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@_out
@_dims
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail when what is there is not what a build gives.")
@click.option(
    "--targets",
    metavar="NAME,NAME",
    help="Then compile every kernel for these GPUs, such as sm_90: none need be here. Needs torch and triton.",
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write what `--targets` finds here, as JSON.")
def build(
    files: tuple[Path, ...], out: Path, dims: tuple[tuple[str, int], ...], only_check: bool, targets: str | None, report: Path | None
) -> int:
    """Build packages from specs. `--check` without files rebuilds everything below --out from the sources in the headers."""
    if not files and not only_check:
        raise UserError("which spec? `ssmgen build FILE.ssm`; to check what is built: `ssmgen build --check`")
    if only_check and targets is not None:
        raise UserError("`--check` writes no package that `--targets` could compile: run one after the other")
    if report is not None and targets is None:
        raise UserError("`--report` takes what `--targets` finds: name the targets, too")
    chosen = () if targets is None else _targets(targets)
    if only_check:
        return _check_built(files, out, dict(dims))
    from .write import write_package

    owners: dict[str, Path] = {}
    for path in _progress(_expand(files), "building"):
        packages, origin, seconds = _build(path, out, dict(dims))
        for name, package in packages.items():
            if name in owners:
                raise UserError(f"{path}: `{name}` is also declared in {owners[name]}, and packages are named after recurrences")
            owners[name] = path
            changed = write_package(out / name, package, origin)
            state = f"{len(package)} files written" if changed else "unchanged"
            click.echo(f"{(out / name).as_posix()}: {state} ({seconds:.1f} s)")
    if not chosen:
        return 0
    from .runtime import target_check

    code, found = target_check.check([_read(path) for path in _expand(files)], dict(dims), out, chosen, report)
    _show(found)
    return code


def _targets(names: str) -> tuple:
    """The GPUs of a list such as `sm_80,gfx942`."""
    from .runtime.targets import TARGETS

    for name in names.split(","):
        if name not in TARGETS:
            raise UserError(f"no target `{name}`{_did_you_mean(name, [*TARGETS])} (there are {', '.join(TARGETS)})")
    return tuple(TARGETS[name] for name in dict.fromkeys(names.split(",")))


def _build(path: Path, out: Path, dims: dict[str, int]):
    """A file's packages with where they come from. Emitted text names the source as headers do, messages as the user does."""
    from dataclasses import replace

    from . import compiler
    from .write import Origin, relative

    if not path.is_file():  # headers record a source that can be built again: no standard input, no example by its bare name
        hint = f"; to start from the example: ssmgen new NAME --like {path}" if str(path) in _examples() else ""
        raise UserError(f"{path}: no such file{hint}")
    source = _read(path)
    recorded = relative(path, out)
    try:
        result = compiler.build(replace(source, name=recorded), dims)
    except SpecError as error:
        raise SpecError(replace(error.source, name=source.name), error.diagnostics) from None
    if not result.packages:
        raise UserError(f"{path}: declares no recurrence, so there is nothing to build")
    _show([(source, diagnostic) for diagnostic in result.trace.warnings])
    options = tuple(f"--dim {name}={dims[name]}" for name in sorted(dims))
    return result.packages, Origin(recorded, source.text, result.format, options), sum(result.timings.values())


def _check_built(files: tuple[Path, ...], out: Path, dims: dict[str, int]) -> int:
    from .write import check_package, packages

    if files:
        jobs = [(path, dims) for path in _expand(files)]
    else:
        headers = packages(out)
        if not headers:
            raise UserError(f"nothing built by ssmgen below `{out}`")
        jobs = sorted({(out.parent / header.source, header.options) for header in headers.values()})
        jobs = [(path, _recorded_dims(options)) for path, options in jobs]
    differences, seen = [], set()
    for path, sizes in _progress(jobs, "rebuilding", lambda job: str(job[0])):
        if not files and not path.is_file():
            raise UserError(f"{path}: the source of a package below `{out}` is gone; delete the package or bring the spec back")
        built, origin, _ = _build(path, out, sizes)
        accept = " ".join(
            ["ssmgen build", path.as_posix(), *origin.options, *([] if str(out) == _DEFAULT_OUT else ["--out", out.as_posix()])]
        )
        for name, package in built.items():
            seen.add(name)
            found = check_package(out / name, package, origin)
            differences.extend((difference, accept) for difference in found)
    for difference, accept in differences:
        click.echo(f"{difference.path}: {difference.kind}; to accept: {accept}")
        if difference.diff:
            click.echo(difference.diff, nl=False)
    orphans = [] if files else [name for name in headers if name not in seen]
    for name in orphans:
        click.echo(f"{(out / name).as_posix()}: stale; its source no longer declares it; to accept: delete the folder")
    if not differences and not orphans:
        click.echo(f"{len(seen)} packages are what a build gives")
    return 1 if differences or orphans else 0


def _recorded_dims(options: tuple[str, ...]) -> dict[str, int]:
    """The sizes in a header's options, `--dim N=64 --dim P=32`."""
    pairs = [word.partition("=") for word in options if word != "--dim"]
    return {name: int(size) for name, _, size in pairs}


def _progress(items: list, verb: str, label=str):
    """`items`, with a bar on a terminal when there are several."""
    if len(items) < 2 or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=len(items))
        for item in items:
            bar.update(task, description=f"{verb} {label(item)}")
            yield item
            bar.advance(task)


# --- explain, list, new ------------------------------------------------------------------------------------------


@cli.command()
@click.argument("subject")
@click.option("--after", type=click.Choice(["parse", "resolve", "derive", "classify", "schedule", "lower", "validate", "emit"]),
              help="Print the value after this pass.")  # fmt: skip
@click.option("--plot", is_flag=False, flag_value=Path(), type=click.Path(dir_okay=True, path_type=Path), metavar="[OUT.svg]",
              help="Draw eigenvalues, what is left of a write, half-lives (default: NAME.svg); stands behind SUBJECT.")  # fmt: skip
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Draw the gates of a trained module, too: its state_dict. Needs torch.")
@click.option("--sample", type=click.Path(path_type=Path),
              help="What that module reads: [batch, T, d_model] for a layer, or the recurrence's inputs by name (default: 0).")  # fmt: skip
@_dims
def explain(
    subject: str, after: str | None, plot: Path | None, checkpoint: Path | None, sample: Path | None, dims: tuple[tuple[str, int], ...]
) -> int:
    """What a spec means and how it will run, or what a rule says: SUBJECT is a file or a slug."""
    from . import explain as explaining

    for option, given, needed in (("--checkpoint", checkpoint, plot), ("--sample", sample, checkpoint)):
        if given is not None and needed is None:
            raise UserError(
                f"`{option}` is for the drawing: {'add `--plot`' if option == '--checkpoint' else 'add `--checkpoint FILE.pt`'}"
            )
    if not subject.endswith(".ssm") and not Path(subject).exists() and subject not in _examples():
        from .rules import RULES

        if subject not in RULES:
            raise UserError(f"`{subject}`: neither a file nor a rule{_did_you_mean(subject, [*RULES, *_examples()])}")
        if plot is not None:
            raise UserError(f"`{subject}` is a rule: there is nothing to draw")
        click.echo(explaining.rule(RULES[subject]))
        return 0
    source = _read(Path(subject))
    if plot is not None:
        if after is not None:
            raise UserError("`--plot` draws and `--after` prints: run one after the other")
        return _plot(source, plot if plot != Path() else Path(f"{Path(source.name).stem}.svg"), dict(dims), checkpoint, sample)
    text, warnings = explaining.after(source, after, dict(dims)) if after else explaining.summary(source, dict(dims))
    click.echo(text)
    _show([(source, diagnostic) for diagnostic in warnings])
    return 0


def _plot(source: Source, out: Path, dims: dict[str, int], checkpoint: Path | None, sample: Path | None) -> int:
    from . import compiler
    from .figures.portrait import portrait

    trace, gates = compiler.check(source, dims), None
    if checkpoint is not None:
        from .runtime.gates import CheckpointError, measured

        try:
            gates = measured(source, dims, checkpoint, sample)
        except CheckpointError as error:
            raise UserError(str(error)) from None
    out.write_text(portrait(trace.after("derive"), gates, has_sample=sample is not None), encoding="utf-8", newline="\n")
    click.echo(f"{out.as_posix()} written")
    _show([(source, diagnostic) for diagnostic in trace.warnings])
    return 0


@cli.command("list")
@click.argument("section", required=False, type=click.Choice(["examples", "functions", "discretizations", "features", "rules"]))
def list_(section: str | None) -> int:
    """What there is: examples, functions, discretizations, features, rules."""
    from . import explain as explaining

    for title, rows in explaining.catalogue(_examples(), section).items():
        click.echo(click.style(title, bold=True))
        width = max((len(name) for name, _ in rows), default=0)
        for name, words in rows:
            click.echo(f"  {name:<{width}}  {words}".rstrip())
    return 0


@cli.command()
@click.argument("name")
@click.option("--like", help="The example to start from; `ssmgen list examples` shows them.")
def new(name: str, like: str | None) -> int:
    """Start a spec NAME.ssm from an example."""
    import re

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(f"`{name}` cannot name a recurrence: letters, digits and `_`, a letter first")
    examples = _examples()
    if like not in examples:
        close = _did_you_mean(like, [*examples]) if like else ""
        start = f"no example `{like}`{close}" if like else "which example to start from?"
        raise UserError(f"{start}\n  ssmgen new {name} --like EXAMPLE, with one of: {', '.join(examples)}")
    text = examples[like].read_text(encoding="utf-8")
    declared = re.findall(r"^(?:recurrence|attention)\s+(\w+)", text, re.MULTILINE)
    for old in declared[:1]:
        text = re.sub(rf"\b{old}(?=\w*\s*[({{])", name, text)
    try:
        with open(f"{name}.ssm", "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{name}.ssm exists already") from None
    click.echo(f"{name}.ssm written; next: ssmgen check {name}.ssm")
    return 0


# --- what runs ---------------------------------------------------------------------------------------------------

_table = click.option(
    "--table", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Configurations of the kernels, as `tune` wrote them."
)


@cli.command()
@_file
@click.option(
    "--device", default=None,
    help="cpu, cuda (default: a GPU when there is one), or interpreter: the GPU's kernels, interpreted on the processor at small sizes.",
)  # fmt: skip
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here, too.")
@click.option("--jobs", type=click.IntRange(1), help="Processes on a GPU, 2 to 3 GiB each (default: one a core, at most seven).")
@click.option("--quick", "is_quick", is_flag=True, help="A few trials of the kernels alone: two dtypes, odd sizes, packed, in slices.")
@click.option("--synchronize", "is_synchronised", is_flag=True, help="Wait for every launch: a fault on a GPU names the kernel it is in.")
@_table
def verify(
    file: Path, device: str | None, path: Path | None, jobs: int | None, is_quick: bool, is_synchronised: bool, table: Path | None
) -> int:
    """Test a spec's package against two oracles and itself: values, gradients, invariances. Needs torch."""
    from .runtime import commands

    try:
        return commands.verify(_read(file), device, path, table, jobs, is_quick, is_synchronised)
    except (commands.TableError, commands.DeviceError) as error:
        raise UserError(str(error)) from None


class _Shape(click.ParamType):
    name = "B,T,H"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        words = value.split(",")
        if len(words) != 3 or not all(word.isdecimal() and 1 <= int(word) <= 1 << 24 for word in words):
            self.fail(f"`{value}`: write batch, tokens and heads as in `4,8192,16`", param, ctx)
        return tuple(int(word) for word in words)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_dims
@click.option("--shape", "shapes", type=_Shape(), multiple=True, help="Batch, tokens and heads; again for another table.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default=None, help="Default: a GPU when there is one.")
@click.option("--peer", type=click.Path(path_type=Path),
              help="An adapter to another implementation, or a folder with NAME.py for NAME.ssm (default: peers/ beside it).")  # fmt: skip
@click.option("--first-call/--no-first-call", "first", default=None, help="Time the first call, nothing cached (default: on a GPU).")
@click.option("--kernels", "is_profiled", is_flag=True, help="On a GPU: also every kernel's time, launches and share, of a profiled run.")
@click.option("--only", type=click.Choice(["operator", "decode", "first-call"]),
              help="Forward and backward, or one token at a time, or first calls (default: all).")  # fmt: skip
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the measurements here, too.")
@_table
def bench(
    files: tuple[Path, ...], dims: tuple[tuple[str, int], ...], shapes: tuple[tuple[int, int, int], ...], device: str | None,
    peer: Path | None, first: bool | None, is_profiled: bool, only: str | None, path: Path | None, table: Path | None,
) -> int:  # fmt: skip
    """Time specs' ops against the floor of the device, their sequential references, a hand-written form, their peers. Needs torch."""
    from .runtime import commands, peers
    from .runtime.bench_kernels import ProfileError

    left_out = {
        "decode": {"--kernels": is_profiled, "--first-call": first, "--no-first-call": first is False, "--peer": peer is not None},
        "first-call": {"--kernels": is_profiled, "--no-first-call": first is False},
    }
    for option, given in left_out.get(only or "", {}).items():
        if given:
            raise UserError(f"`{option}` is about what `--only {only}` leaves out: take one of them away")
    paths = _expand(files)
    if peer is not None and not peer.is_dir() and len(paths) > 1:
        raise UserError(f"{peer}: an adapter is for one spec, and there are {len(paths)}; name the folder that holds theirs")
    sources = [_read(path) for path in paths]
    folder = peer if peer is not None and peer.is_dir() else None
    adapters = [peer if folder is not peer else None if str(path) == "-" else peers.beside(_find(path), folder) for path in paths]
    try:
        jobs = list(zip(sources, _own_dims(sources, dict(dims)), adapters, strict=True))
        parts = ("operator", "decode") if only is None else (only,)
        return commands.bench(jobs, device, shapes, first, path, table, (*parts, "kernels") if is_profiled else parts)
    except (peers.AdapterError, commands.TableError, commands.DeviceError, ProfileError) as error:
        raise UserError(str(error)) from None


def _own_dims(sources: list[Source], dims: dict[str, int]) -> list[dict[str, int]]:
    """Of the sizes asked for, those of each source; what no source has is left for the first to refuse."""
    from . import compiler

    if len(sources) == 1:
        return [dims]
    names = [compiler.sizes(source) for source in sources]
    known = {name for own in names for name in own}
    for source, own in zip(sources, names, strict=True):
        left = [f"--dim {name}={size}" for name, size in dims.items() if name in known and name not in own]
        if left:
            click.echo(f"{source.name}: has no such size, and is measured without {' '.join(left)}", err=True)
    return [{name: size for name, size in dims.items() if name in own or name not in known} for own in names]


@cli.command()
@click.argument("reports", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--into", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A document whose tables are to be exchanged.")
@click.option("--check", is_flag=True, help="Write nothing; fail when the document would change.")
def report(reports: tuple[Path, ...], into: Path | None, check: bool) -> int:
    """Reports that `bench --json` wrote, as Markdown tables: a row a recurrence and shape, beside its best peer."""
    from .runtime import bench_report

    try:
        text = bench_report.tables(bench_report.read(reports))
        if into is None:
            click.echo(text)
            return 0
        old = into.read_text(encoding="utf-8")
        new = bench_report.placed(old, text, into)
    except bench_report.ReportError as error:
        raise UserError(str(error)) from None
    if check and new != old:
        raise UserError(f"{into}: its tables are not those of the reports; `ssmgen report ... --into {into}` writes them")
    if not check:
        into.write_text(new, encoding="utf-8")
    return 0


@cli.command()
@_file
@_dims
@_out
@click.option("--shape", type=_Shape(), default="4,8192,16", show_default=True, help="Batch, tokens and heads of the calls that are timed.")
@click.option("--dtype", "dtypes", type=click.Choice(["bfloat16", "float16", "float32"]), multiple=True, help="Default: bfloat16.")
def tune(file: Path, dims: tuple[tuple[str, int], ...], out: Path, shape: tuple[int, int, int], dtypes: tuple[str, ...]) -> int:
    """Find the fastest right configuration of a built package's kernels on this GPU; its launcher reads what is written."""
    from .runtime import commands

    return commands.tune(_read(file), dict(dims), out, shape, dtypes or ("bfloat16",))


@cli.command()
@click.option(
    "--out", default="demo", show_default=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for what it makes."
)
@click.option("--steps", default=None, type=click.IntRange(1), help="Training steps (default: what fits two minutes).")
def demo(out: Path, steps: int | None) -> int:
    """Build an example, verify it, train a small character model with it, write text token by token. Needs torch."""
    from .runtime import demo as demonstrating

    return demonstrating.main(out, steps)


@cli.command()
def doctor() -> int:
    """What is installed, and whether it is known to give wrong results."""
    from .runtime import doctor as diagnosing

    return diagnosing.main()


# --- the rim of the rim ------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the only place where an exception becomes a message and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments  # wherever it stands: who meets a bug adds it at the end
    try:
        code = cli.main(args=[word for word in arguments if word != "--debug"], prog_name="ssmgen", standalone_mode=False)
    except SpecError as error:
        _show([(error.source, diagnostic) for diagnostic in error.diagnostics])
        code = 1
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:  # `ssmgen explain ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        click.echo(f"Error: {error.filename or 'input or output'}: {(error.strerror or str(error)).lower()}", err=True)
        code = 1
    except ModuleNotFoundError as error:
        code = _missing(error, debug)
    except Exception as error:
        code = _bug(error, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _missing(error: ModuleNotFoundError, debug: bool) -> int:
    extras = {"torch": "torch", "triton": "cuda"}
    module = (error.name or "").split(".")[0]
    if module not in extras:
        return _bug(error, debug)
    click.echo(f"Error: this command needs {module}, which is not installed: pip install 'ssmgen[{extras[module]}]'", err=True)
    click.echo("`check`, `explain`, `build`, `list` and `new` work without it.", err=True)
    return 1


def _bug(error: Exception, debug: bool) -> int:
    """One line for the user; the traceback in a file that can be sent."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    words = " ".join(str(error).split())
    line = f"this is a bug in ssmgen: {type(error).__name__}{f': {words[:160]}' if words else ''}"
    if debug:
        click.echo(text, err=True, nl=False)
        click.echo(line, err=True)
        return 2
    try:
        with tempfile.NamedTemporaryFile("w", prefix="ssmgen-bug-", suffix=".txt", delete=False, encoding="utf-8") as file:
            file.write(f"ssmgen {__version__}, Python {sys.version}\narguments: {sys.argv[1:]}\n\n{text}")
        line += f" (details in {file.name})"
    except OSError:
        line += " (run with --debug for details)"
    click.echo(line, err=True)
    return 2


if __name__ == "__main__":
    main()
