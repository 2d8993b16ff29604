"""How far op and peers are from the definition, so that no time of a wrong result is compared with a right one's.

The definition is the sequential reference in float64, at the very values that the others get. Distances are root mean squares
of differences over those of the expected values, one for the output and one for the gradient of every argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .bench_subject import Subject
from .measure import typical
from .peers import first_line

if TYPE_CHECKING:
    from torch import Tensor

TOKENS, HEADS = 512, 4
"""At most so large: several chunks of any chunk length in use, and few enough for autograd through the reference."""

LIMITS = {"bfloat16": 5e-2, "float32": 1e-3}
"""Above this a result is wrong: roundings of the dtype leave a tenth of it."""


def accuracy(subject: Subject, tokens: int, heads: int) -> list[dict]:
    """A row for each tensor of the op and of every peer that is installed.

    `error` is None where a peer gave no result, and `is_wrong` then holds, too. `known` says why a peer's gradients are known
    to be wrong on this machine.
    """
    import torch

    case = subject.case(1, min(tokens, TOKENS), min(heads, HEADS), seed=3)
    names = subject.names(case)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        shape = subject.op(*case.arguments).shape
    cotangent = torch.randn(shape, generator=generator, dtype=torch.float64).to(subject.dtype).to(subject.device)
    expected = _results(subject.reference, names, case.to(torch.float64, subject.device).arguments, cotangent.double())
    dtype = str(subject.dtype).split(".")[-1]
    rows = _compared(subject, "op", "", _results(subject.op, names, case.arguments, cotangent), expected, dtype)
    for peer in subject.peers:
        if peer.missing:
            continue

        def called(*arguments: Tensor, peer=peer) -> Tensor:
            return peer.call(dict(zip(names, arguments, strict=True)), subject.sizes)

        known = failure = ""
        found: dict = {}
        try:
            known = peer.known_wrong()
            found = _results(called, names, case.arguments, cotangent)
        except Exception as error:
            failure = f"{type(error).__name__}: {first_line(error)}"
        rows += _compared(subject, peer.name, known, found, expected, dtype, failure)
    return rows


def _results(function: Callable, names: list[str], arguments, cotangent) -> dict[str, Tensor]:
    """The output as `y` and the gradient of every argument as `d name`; zeros where none arrives."""
    import torch

    leaves = [x.detach().clone().requires_grad_() for x in arguments]
    y = function(*leaves)
    found = torch.autograd.grad(y, leaves, cotangent.to(y.dtype), allow_unused=True)
    gradients = {f"d {n}": torch.zeros_like(x) if g is None else g for n, x, g in zip(names, leaves, found, strict=True)}
    return {"y": y.detach(), **gradients}


def _compared(subject: Subject, what: str, known: str, found: dict, expected: dict, dtype: str, failure: str = "") -> list[dict]:
    rows = []
    for tensor, value in expected.items():
        error = typical(found[tensor].to(value.device), value) if tensor in found else float("inf")
        finite = error if error != float("inf") else None
        rows.append({
            "what": what, "dtype": dtype, "tensor": tensor, "error": finite, "limit": LIMITS[dtype],
            "is_wrong": finite is None or finite > LIMITS[dtype], "known": known if tensor != "y" else "", "failure": failure,
        })  # fmt: skip
    return rows


def verdict(rows: list[dict], what: str) -> dict:
    """Of one contender: its worst tensor, and whether output and gradients can be trusted. Empty when it was not compared."""
    own = [row for row in rows if row["what"] == what]
    if not own:
        return {}
    worst = max(own, key=lambda row: float("inf") if row["error"] is None else row["error"])
    return {
        "error": worst["error"],
        "tensor": worst["tensor"],
        "output_is_wrong": any(row["is_wrong"] for row in own if row["tensor"] == "y"),
        "gradients_are_wrong": any(row["is_wrong"] for row in own if row["tensor"] != "y"),
        "known": next((row["known"] for row in own if row["known"]), ""),
        "failure": own[0]["failure"],
    }
