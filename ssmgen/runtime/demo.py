"""The demonstration: from a spec to a model that writes.

Builds the example that `examples/demo.txt` names, compares its op with the reference, trains a small character model of
its layers on text that comes with Python, and lets it write with `step`, one token at a time.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from .._resources import folder
from ..source import Source

SIZES = {"N": 32, "P": 32}
"""Sizes for a laptop's two cores; the spec's own defaults are those of a large model."""
WIDTH, LAYERS, WINDOW, BATCH = 128, 2, 128, 16
BUDGET = 75.0
"""Seconds of training when `steps` is not given."""
PROMPT, WRITTEN = "The ", 320


def corpus() -> str:
    """Plain English that ships with Python: the help texts of its language topics, and its licence where installed."""
    import os

    parts = []
    licence = Path(os.__file__).parent / "LICENSE.txt"
    if licence.is_file():
        parts.append(licence.read_text(encoding="utf-8", errors="ignore"))
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave the topics out
        import pydoc

        topics = {name: pydoc.plain(pydoc.render_doc(name)) for name in ("argparse", "asyncio", "logging", "os", "typing", "unittest")}
    parts += [topics[name] for name in sorted(topics)]
    text = re.sub(r"[^\n -~]", "", "\n".join(parts))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" {5,}", "    ", text))


def example() -> Source:
    """The example that the demonstration builds."""
    name = (folder("examples") / "demo.txt").read_text(encoding="utf-8").strip()
    path = folder("examples") / f"{name}.ssm"
    return Source(f"examples/{path.name}", path.read_text(encoding="utf-8"))


def character_model(layer, vocabulary: int):
    """A language model over characters: embedding, residual blocks of the generated `layer`, head."""
    import torch
    from torch import nn

    class CharacterModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, WIDTH)
            self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(LAYERS))
            self.blocks = nn.ModuleList(layer(WIDTH) for _ in range(LAYERS))
            self.norm = nn.RMSNorm(WIDTH)
            self.head = nn.Linear(WIDTH, vocabulary)
            nn.init.normal_(self.embedding.weight, std=0.02)

        def forward(self, tokens):
            """[B, T] -> logits [B, T, vocabulary]"""
            x = self.embedding(tokens)
            for norm, block in zip(self.norms, self.blocks, strict=True):
                x = x + block(norm(x)).y
            return self.head(self.norm(x))

        def allocate_state(self, batch):
            weight = self.embedding.weight
            return [block.allocate_state(batch, weight.device, weight.dtype) for block in self.blocks]

        def step(self, token, states):
            """[B] -> logits [B, vocabulary]; `states` advance in place."""
            x = self.embedding(token)
            for norm, block, state in zip(self.norms, self.blocks, states, strict=True):
                x = x + block.step(norm(x), state=state)
            return self.head(self.norm(x))

    torch.manual_seed(0)
    return CharacterModel()


def train(model, tokens, held_out, steps: int | None, report) -> tuple[list, list]:
    """AdamW with a cosine schedule over `steps`, or over BUDGET seconds.

    Returns (step, loss) of every batch and of held-out text now and then; `report(fraction, words)` shows progress.
    """
    import math

    import torch
    from torch.nn.functional import cross_entropy

    generator = torch.Generator().manual_seed(0)

    def loss_of(text, starts):
        windows = torch.stack([text[i : i + WINDOW + 1] for i in starts]).to(model.embedding.weight.device)
        return cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())

    @torch.no_grad()
    def held_out_loss():
        return loss_of(held_out, range(0, len(held_out) - WINDOW - 1, max(1, (len(held_out) - WINDOW - 1) // 32))).item()

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    losses, checks = [], [(0, held_out_loss())]
    begin, step, fraction = time.perf_counter(), 0, 0.0
    while fraction < 1:
        rate = 3e-3 * min(1.0, (step + 1) / 20) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(tokens, torch.randint(len(tokens) - WINDOW, (BATCH,), generator=generator).tolist())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        losses.append((step, loss.item()))
        if not math.isfinite(losses[-1][1]):
            raise AssertionError(f"the loss became {losses[-1][1]} at step {step}")
        fraction = step / steps if steps else (time.perf_counter() - begin) / BUDGET
        if step % 25 == 0 or fraction >= 1:
            checks.append((step, held_out_loss()))
        report(min(fraction, 1.0), f"step {step}  loss {losses[-1][1]:.3f}  held out {checks[-1][1]:.3f}")
    return losses, checks


def write(model, vocabulary: list[str], prompt: str, length: int) -> tuple[str, float]:
    """Text sampled with `step`, and how far stepping is from one forward over the same text, relative to the logits."""
    import torch

    torch.manual_seed(0)
    device = model.embedding.weight.device
    tokens, stepped = [vocabulary.index(c) for c in prompt], []
    with torch.no_grad():
        states = model.allocate_state(1)
        for position in range(len(prompt) + length - 1):
            logits = model.step(torch.tensor([tokens[position]], device=device), states)
            stepped.append(logits)
            if position + 1 == len(tokens):
                tokens.append(torch.multinomial(torch.softmax(logits[0] / 0.7, -1), 1).item())
        whole = model(torch.tensor([tokens[:-1]], device=device))[0]
        difference = ((torch.cat(stepped) - whole).abs().max() / whole.abs().max()).item()
    return "".join(vocabulary[t] for t in tokens), difference


def smooth(points: list[tuple[int, float]], count: int = 50) -> list[tuple[int, float]]:
    """About `count` means of neighbours: one batch's loss is noise."""
    means, width = [], max(1, len(points) // count)
    for start in range(0, len(points), width):
        part = points[start : start + width]
        means.append((part[len(part) // 2][0], sum(y for _, y in part) / len(part)))
    return means


def main(out: Path, steps: int | None) -> int:
    """Run the demonstration; writes the package, the picture of the losses and the text below `out`."""
    import torch
    from rich.markup import escape

    from .. import compiler
    from ..figures.figure import line_chart
    from ..module import layers_of
    from ..write import Origin, write_package
    from .commands import consoles
    from .load import load
    from .verify import verify

    console, _ = consoles()
    begin = time.perf_counter()
    source = example()
    console.print(f"[bold]1. The spec[/] ({source.name})")
    console.print(escape(source.text.strip()), style="dim")
    build = compiler.build(source, SIZES)
    options = tuple(f"--dim {name}={SIZES[name]}" for name in sorted(SIZES))
    for name in sorted(build.packages):
        write_package(out / name, build.packages[name], Origin(source.name, source.text, build.format, options))
        files = ", ".join(sorted(build.packages[name]))
        console.print(f"\n[bold]2. The package[/] {out / name}: {files} ({sum(build.timings.values()):.1f} s)")
    specification = build.trace.after("resolve")[source.name]
    layer = specification.layers[0]
    (spec,) = (each for each in specification.recurrences if layer in layers_of(specification, each))
    package = load(out / spec.name)

    console.print("\n[bold]3. The proof[/] at every build, exactly: " + str(build.trace.after("validate")[spec.name]))
    console.print("   and by running it, against the reference, a second oracle and itself:")
    report = verify(package, spec)
    for name in dict.fromkeys(row.check for row in report.rows):
        rows = [row for row in report.rows if row.check == name]
        worst = max(rows, key=lambda row: row.error / row.tolerance if row.tolerance else row.error)
        verdict = "pass" if all(row.passed for row in rows) else "FAIL"
        console.print(f"   {verdict}  {name:<22} error {worst.error:.1e}, at most {worst.tolerance:.1e} ({worst.reason})")
    if not report.passed:
        raise AssertionError(f"{len(report.failures)} comparisons failed")

    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = corpus()
    vocabulary = sorted(set(text))
    index = {c: i for i, c in enumerate(vocabulary)}
    tokens = torch.tensor([index[c] for c in text])
    cut = len(tokens) * 95 // 100
    model = character_model(getattr(package, camel(layer.name)), len(vocabulary)).to(device)
    count = sum(p.numel() for p in model.parameters())
    console.print(
        f"\n[bold]4. Training[/] {LAYERS} layers, {count:,} parameters, {len(text):,} characters of Python's own documentation, {device}"
    )
    losses, checks = _with_bar(console, lambda report: train(model, tokens[:cut], tokens[cut:], steps, report))
    tokens_second = len(losses) * BATCH * WINDOW
    console.print(
        f"   held-out loss {checks[0][1]:.3f} -> {checks[-1][1]:.3f} nats a character after {len(losses)} steps, {tokens_second:,} tokens"
    )
    chart = out / "loss.svg"
    curves = {"training": smooth(losses), "held out": checks}
    drawing = line_chart(f"{layer.name}: {count:,} parameters", "step", "nats a character", curves)
    chart.write_text(drawing, encoding="utf-8", newline="\n")
    console.print(f"   {chart}")

    written, difference = write(model, vocabulary, PROMPT, WRITTEN)
    console.print("\n[bold]5. Writing[/] with `step`, one character at a time")
    console.print(escape(written), style="cyan")
    console.print(f"\n   step by step against one forward: relative difference {difference:.1e}")
    if difference > 1e-3:
        raise AssertionError(f"stepping and forward disagree by {difference:.1e}")
    console.print(f"\nDone in {time.perf_counter() - begin:.0f} s.")
    return 0


def camel(name: str) -> str:
    """`short_conv` -> `ShortConv`: how emitted classes are named."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _with_bar(console, work):
    """Run `work(report)` under a progress bar; without a terminal, a line now and then."""
    if not console.is_terminal:
        shown = -1

        def report(fraction: float, words: str) -> None:
            nonlocal shown
            if int(fraction * 10) > shown:
                shown = int(fraction * 10)
                print(f"   {fraction:4.0%}  {words}", file=sys.stdout, flush=True)

        return work(report)

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("  "), BarColumn(30), TextColumn("{task.percentage:3.0f}%  {task.description}"), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("", total=1.0)
        return work(lambda fraction, words: bar.update(task, completed=fraction, description=words))
