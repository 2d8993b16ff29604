"""A model fails beyond the length that it was trained at; of four interventions on its first state two repair it.

    python examples/lengths.py

The task is a register: among noise, a symbol now and then sets it to one of eight values, and at a query the model has to say
which. Values stand for 25 tokens on average, some for over a hundred. One layer of Mamba-2 learns it on sequences of 32 tokens that
start from the zero state, where no value has to last longer. It then goes on for some steps more in five ways: from zeros as
before, from noise (`lengths.random_noise`), from noise like the states it ends in (`lengths.fitted`), from the final state of another
sequence (`lengths.shuffled`), and from that of the chunk before (`lengths.carried`). The last two bring their register's value
along, noise brings none. What is drawn is how many queries are answered right, by how many tokens came before.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssmgen.figures.figure import line_chart
from ssmgen.runtime import jit
from ssmgen.source import Source

ROOT = Path(__file__).resolve().parent.parent
VALUES, NOISE = 8, 8
QUERY, SYMBOLS = VALUES, VALUES + 1 + NOISE
SET_RATE, QUERY_RATE = 0.04, 0.2
WIDTH, BATCH, LENGTH = 32, 64, 32
RATE, DEVIATION = 3e-3, 0.3
EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048)
"""Between two of these, queries are counted together."""


def register(batch: int, length: int, held: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols [batch, length], the value to answer at each query (-100 elsewhere and where there is none), the values at the end.

    held: [batch], the values at the beginning, -1 for none yet.
    """
    chance = torch.rand(batch, length, generator=generator)
    symbols = torch.randint(QUERY + 1, SYMBOLS, (batch, length), generator=generator)
    values = torch.randint(VALUES, (batch, length), generator=generator)
    sets = chance < SET_RATE
    symbols = torch.where(chance < SET_RATE + QUERY_RATE, QUERY, symbols)
    symbols = torch.where(sets, values, symbols)
    last = torch.where(sets, torch.arange(length), -1).cummax(1).values
    now = torch.where(last >= 0, values.gather(1, last.clamp(min=0)), held[:, None])
    return symbols, torch.where((symbols == QUERY) & (now >= 0), now, -100), now[:, -1]


class Model(nn.Module):
    """Symbols [batch, T] to logits of the register's value [batch, T, VALUES]: embedding, layers, head; states in a list."""

    def __init__(self, layer, count: int = 1):
        super().__init__()
        self.embedding, self.head = nn.Embedding(SYMBOLS, WIDTH), nn.Linear(WIDTH, VALUES)
        self.layers = nn.ModuleList(layer(WIDTH) for _ in range(count))
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(count + 1))

    def forward(self, symbols: Tensor, state: list | None = None, cu_seqlens: Tensor | None = None) -> tuple[Tensor, list]:
        x, following = self.embedding(symbols), []
        for number, (norm, layer) in enumerate(zip(self.norms, self.layers)):
            y, last = layer(norm(x), state=None if state is None else state[number], cu_seqlens=cu_seqlens)
            x, following = x + y, [*following, last]
        return self.head(self.norms[-1](x)), following


def train(model: Model, lengths, steps: int, start: str, seed: int) -> float:
    """AdamW on batches of LENGTH tokens whose first state is `start`: 'zeros', 'noise', 'fitted', 'passed', 'carried'. The last loss."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    nothing = torch.full((BATCH,), -1)
    state, held, loss = None, nothing, torch.tensor(0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20, 1.1 - step / steps)
        symbols, answers, held = register(BATCH, LENGTH, held, generator)
        logits, state = model(symbols, state)
        loss = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), ignore_index=-100)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if start == "carried":
            state = lengths.carried(state)
        elif start == "passed":
            # the register's value goes where its state goes
            state, (held,) = lengths.shuffled((state, (held,)), generator)
        elif start == "fitted":
            state, held = lengths.fitted([state], "head").sample(BATCH, generator), nothing
        elif start == "noise":
            state, held = lengths.random_noise(state, DEVIATION, generator), nothing
        else:
            state, held = None, nothing
    return loss.item()


@torch.no_grad()
def accuracy(model: Model, sequences: int) -> list[float]:
    """The share of right answers between the edges, on sequences of the last edge's length from zeros."""
    symbols, answers, _ = register(sequences, EDGES[-1], torch.full((sequences,), -1), torch.Generator().manual_seed(99))
    right = model(symbols)[0].argmax(-1) == answers
    asked = answers >= 0
    return [(right[:, a:b].sum() / asked[:, a:b].sum()).item() for a, b in zip(EDGES, EDGES[1:])]


def remembrance(model: Model, lengths, back: tuple[int, ...]) -> list[float]:
    """Effective Remembrance at a query after 256 tokens whose value was set 100 tokens before, for starts so far back."""
    generator = torch.Generator().manual_seed(98)
    symbols = torch.randint(QUERY + 1, SYMBOLS, (32, 256), generator=generator)
    symbols[:, 155] = torch.randint(VALUES, (32,), generator=generator)
    symbols[:, 255] = QUERY
    return lengths.effective_remembrance(model, symbols, [256 - tokens for tokens in back]).mean(0).tolist()


def main(words: list[str] | None = None) -> dict[str, list[float]]:
    """Train, print, draw; returns the accuracies by name."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=400, help="from zeros; half as many follow in each way")
    parser.add_argument("--sequences", type=int, default=64, help="of a test")
    parser.add_argument("--out", type=Path, default=Path("lengths.svg"))
    chosen = parser.parse_args(words)
    begin = time.perf_counter()
    path = ROOT / "examples" / "mamba2.ssm"
    package = jit.packages(Source(path.name, path.read_text(encoding="utf-8")), {"N": 16, "P": 16})["mamba2"]
    lengths = importlib.import_module(f"{package.__name__}.lengths")
    torch.manual_seed(0)
    trained = Model(package.Mamba2Block)
    train(trained, lengths, chosen.steps, "zeros", seed=0)
    found, back = {}, (64, 128, 192)
    print("right answers after    " + "".join(f"{f'{a}-{b}':>11}" for a, b in zip(EDGES, EDGES[1:])))
    names = {None: "from zeros", "zeros": "more from zeros", "noise": "random noise", "fitted": "fitted noise",
             "passed": "state passing", "carried": "truncated BPTT"}  # fmt: skip
    memories = {}
    for start, name in names.items():
        model = copy.deepcopy(trained)
        if start is not None:
            train(model, lengths, chosen.steps // 2, start, seed=1)
        found[name], memories[name] = accuracy(model, chosen.sequences), remembrance(model, lengths, back)
        print(f"{name:<23}" + "".join(f"{share:11.3f}" for share in found[name]), flush=True)
    print("\nEffective Remembrance at a query, the value set 100 tokens before; starts " + ", ".join(map(str, back)) + " tokens back")
    for name, values in memories.items():
        print(f"{name:<23}" + "".join(f"{value:11.3f}" for value in values))
    curves = {name: list(zip(EDGES[1:], shares)) for name, shares in found.items()}
    title = f"A register, trained at {LENGTH} tokens: answers right, by the tokens before"
    chosen.out.write_text(line_chart(title, "tokens", "share of right answers", curves, is_log=True), encoding="utf-8", newline="\n")
    print(f"\n{chosen.out} written ({time.perf_counter() - begin:.0f} s)")
    return found


if __name__ == "__main__":
    main()
