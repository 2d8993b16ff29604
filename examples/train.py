"""Trains one language model twice: with a spec's own op, and with a peer's op in its place; everything else is the same.

    python examples/train.py --spec examples/simple_gla.ssm --peer examples/peers/simple_gla.py

The model reads bytes: an embedding, blocks of the spec's generated layer and of a gated MLP, each behind a norm and a residual, a
last norm, the embedding again as the head. Both runs start from the same weights and see the same batches of the same text: this
repository's and Python's own standard library's sources. bfloat16 by autocast on a GPU, float32 on a CPU; weights, moments and the
residual stream are float32. Without a peer, or where it is not installed, the spec's own op is trained alone.

Training amplifies what it starts from, so that two right ops part. How far is measured, not guessed: beside a peer the own op is
trained a second time, from weights rounded to bfloat16, and the report sets the one difference beside the other.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import math
import statistics
import sys
import sysconfig
import time
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ssmgen import compiler
from ssmgen.module import layers_of
from ssmgen.runtime import jit, peers
from ssmgen.runtime.demo import camel
from ssmgen.small import arguments_of
from ssmgen.source import Source

ROOT = Path(__file__).resolve().parent.parent
RATE, WARM = 6e-4, 20
"""Peak learning rate, and the steps that lead up to it; a cosine leads down to a tenth."""
SKIPPED = 5
"""First steps that do not count for the time of a step: kernels are compiled in them."""
ROUNDED = "own, from weights rounded to bfloat16"


# --- text --------------------------------------------------------------------------------------------------------


def corpus() -> bytes:
    """The text of the repository, then of the standard library's modules, in the order of their paths; tests of Python left out."""
    kinds = (".md", ".py", ".ssm", ".jinja", ".lark")
    own = [path for path in ROOT.rglob("*") if path.suffix in kinds and not any(part[0] in "._" for part in path.relative_to(ROOT).parts)]
    library = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"}
    standard = [path for path in library.rglob("*.py") if not skipped & set(path.relative_to(library).parts)]
    return b"\n".join(path.read_bytes() for path in (*sorted(own), *sorted(standard)))


# --- model -------------------------------------------------------------------------------------------------------


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), four thirds of two widths inside."""

    def __init__(self, width: int):
        super().__init__()
        inside = 64 * math.ceil(width * 8 / 3 / 64)
        self.up = nn.Linear(width, 2 * inside, bias=False)
        self.down = nn.Linear(inside, width, bias=False)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class LanguageModel(nn.Module):
    """Bytes [batch, T] -> logits [batch, T, 256]. `layer` makes the mixer of block i from (width, i, depth)."""

    def __init__(self, layer, width: int, depth: int):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.mixers = nn.ModuleList(layer(width, i, depth) for i in range(depth))
        self.mlps = nn.ModuleList(GatedMLP(width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2 * depth + 1))

    def forward(self, tokens):
        x = self.embedding(tokens)
        for i, (mixer, mlp) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            x = x + mixer(self.norms[2 * i](x)).y
            x = x + mlp(self.norms[2 * i + 1](x))
        return F.linear(self.norms[-1](x), self.embedding.weight)


def build(path: Path, dims: dict[str, int]):
    """(package, recurrence, layer) of a spec: `layer(width, index, depth)` makes its generated block."""
    source = Source(path.name, path.read_text(encoding="utf-8"))
    specification = compiler.check(source, dims).after("resolve")[source.name]
    found = [(recurrence, layer) for recurrence in specification.recurrences for layer in layers_of(specification, recurrence)]
    if not found:
        raise SystemExit(f"{path}: declares no layer to train")
    recurrence, layer = found[0]
    package = jit.packages(source, dims)[recurrence.name]
    block = getattr(package, camel(layer.name))
    known = inspect.signature(block).parameters

    def made(width: int, index: int, depth: int):
        place = {"layer": index, "layers": max(depth, 2)}  # for a recurrence whose constants say where in the model it stands
        return block(width, **{name: value for name, value in place.items() if name in known})

    return package, recurrence, made


@contextmanager
def op_replaced(package, recurrence, peer: peers.Peer):
    """The package's modules call the peer's op instead of their own; afterwards their own again. Training reads no state."""
    module = sys.modules[f"{package.__name__}.module"]
    names = [symbol.name for kind in arguments_of(recurrence) for symbol in kind]
    sizes = {**dict(recurrence.dims), **dict(recurrence.counts), **{name: float(value) for name, value in recurrence.constants}}

    def op(*arguments, initial_state=None, cu_seqlens=None, **constants):
        y = peer.call(dict(zip(names, arguments, strict=True)), sizes | constants)
        return package.Output(y, initial_state)

    own = getattr(module, recurrence.name)
    setattr(module, recurrence.name, op)
    try:
        yield
    finally:
        setattr(module, recurrence.name, own)


def difference(losses: list[float], others: list[float]) -> dict:
    """How far two runs' losses are apart: the largest difference, its step from 1, the mean."""
    apart = [abs(a - b) for a, b in zip(losses, others, strict=True)]
    return {"largest": max(apart), "at_step": apart.index(max(apart)) + 1, "mean": statistics.fmean(apart)}


# --- training ----------------------------------------------------------------------------------------------------


def rate(step: int, steps: int) -> float:
    """The learning rate of a step."""
    if step < WARM:
        return RATE * (step + 1) / WARM
    fraction = (step - WARM) / max(1, steps - WARM)
    return RATE * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * fraction)))


def train(model, text, starts, length: int, report) -> dict:
    """AdamW over the windows of `text` at `starts` [steps, batch]; every loss, the time of a step, the peak of memory.

    `report(step, loss)` is called after each step. Raises SystemExit when a loss is not finite.
    """
    device = text.device
    is_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=is_gpu)
    offsets = torch.arange(length + 1, device=device)
    losses, seconds = [], []
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    for step, batch in enumerate(starts):
        begin = time.perf_counter()
        windows = text[batch[:, None] + offsets].long()
        for group in optimizer.param_groups:
            group["lr"] = rate(step, len(starts))
        with torch.autocast(device.type, torch.bfloat16, enabled=is_gpu):
            logits = model(windows[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())  # waits for the device
        if is_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"the loss became {losses[-1]} at step {step + 1}")
        report(step + 1, losses[-1])
    counted = seconds[SKIPPED:] or seconds
    median = statistics.median(counted)
    return {
        "losses": losses, "step_seconds": median, "tokens_per_second": starts.shape[1] * length / median,
        "first_step_seconds": seconds[0], "peak_bytes": torch.cuda.max_memory_allocated() if is_gpu else None,
    }  # fmt: skip


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "simple_gla.ssm")
    parser.add_argument("--peer", type=Path, help="an adapter, as those in examples/peers")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--d-model", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=2048, help="a sequence's length")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=SIZE", help="another size than the spec's default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--every", type=int, default=20, help="steps between two lines")
    parser.add_argument("--json", type=Path, help="write losses and times here")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> dict:
    """Train, print, write; returns what is written."""
    chosen = arguments(words)
    dims = {name: int(size) for name, _, size in (word.partition("=") for word in chosen.dim)}
    package, recurrence, layer = build(chosen.spec, dims)
    device = torch.device(chosen.device)
    whole = corpus()
    text = torch.frombuffer(bytearray(whole), dtype=torch.uint8).to(device)
    generator = torch.Generator().manual_seed(chosen.seed)
    starts = torch.randint(len(text) - chosen.tokens, (chosen.steps, chosen.batch), generator=generator).to(device)

    def model():
        torch.manual_seed(chosen.seed)
        return LanguageModel(layer, chosen.d_model, chosen.layers).to(device)

    def rounded():
        made = model()
        with torch.no_grad():
            for weight in made.parameters():
                weight.copy_(weight.bfloat16())
        return made

    peer = None
    if chosen.peer is not None:
        peer = peers.load(chosen.peer)[0]
        if peer.missing:
            print(f"{peer.name}: {peer.missing}; the spec's own op is trained alone")
            peer = None
        elif peer.known_wrong():
            print(f"note: {peer.name}: {peer.known_wrong()}")
    built = model()
    count = sum(p.numel() for p in built.parameters())
    print(
        f"{recurrence.name}: {count:,} parameters, {len(whole):,} bytes of text, {chosen.batch} x {chosen.tokens} tokens a step, {device}"
    )

    def shown(step: int, loss: float, others: list[float] | None = None) -> None:
        if step % chosen.every and step != chosen.steps:
            return
        beside = "" if others is None else f"  own {others[step - 1]:.4f}  difference {loss - others[step - 1]:+.1e}"
        print(f"step {step:4d}  {'peer' if others else 'own'} {loss:.4f}{beside}", flush=True)

    runs = {"own": train(built, text, starts, chosen.tokens, shown)}
    del built
    if peer is not None:
        with op_replaced(package, recurrence, peer):
            runs[peer.name] = train(model(), text, starts, chosen.tokens, lambda step, loss: shown(step, loss, runs["own"]["losses"]))
        runs[ROUNDED] = train(rounded(), text, starts, chosen.tokens, lambda *_: None)
    for name, run in runs.items():
        memory = "" if run["peak_bytes"] is None else f", peak {run['peak_bytes'] / 2**20:,.0f} MiB"
        print(f"{name}: {run['step_seconds'] * 1e3:.1f} ms a step (median), {run['tokens_per_second']:,.0f} tokens/s{memory}")
    report = {
        "spec": chosen.spec.name, "peer": peer and peer.name, "peer_gradients": peer and peer.known_wrong(), "parameters": count,
        "layers": chosen.layers, "d_model": chosen.d_model, "tokens": chosen.tokens, "batch": chosen.batch, "steps": chosen.steps,
        "seed": chosen.seed, "sizes": dict(recurrence.dims), "text": {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "torch": torch.__version__,
        "versions": dict(peer.versions) if peer else {}, "runs": runs,
    }  # fmt: skip
    if peer is not None:
        report["difference"], report["rounding"] = (
            difference(runs["own"]["losses"], runs[name]["losses"]) for name in (peer.name, ROUNDED)
        )
        faster = runs[peer.name]["step_seconds"] / runs["own"]["step_seconds"]
        for words, found in (("losses differ", report["difference"]), (f"{ROUNDED}: they differ", report["rounding"])):
            print(f"{words} by {found['largest']:.1e} at most (step {found['at_step']}), {found['mean']:.1e} on average")
        print(f"a step of the peer takes {faster:.2f} times ours")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"{chosen.json} written")
    return report


if __name__ == "__main__":
    main()
