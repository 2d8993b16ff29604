"""The kernels of ops that are going to be timed, compiled before it, several at a time: one after the other they take longer than
what is measured. A peer's are its own affair.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from . import bench_decode
from .bench_accuracy import HEADS, TOKENS
from .bench_subject import Subject
from .cross_compile import compile_ahead
from .launches import Launch, has_kernels, recorded


def compiled(
    subjects: Iterable[Subject], shapes: tuple[tuple[int, int, int], ...], parts: Collection[str], say: Callable[[str], object]
) -> None:
    """Compile into Triton's cache what the ops launch at some shapes (batch, tokens, heads), where they are compared, and in steps.

    parts: of `commands.PARTS`, those that will be timed. What cannot be run or compiled is left: it says so where it is measured.
    """
    found: dict[tuple[str, str], Launch] = {}
    for subject in subjects if importlib.util.find_spec("triton") else ():
        folder = Path(subject.package.__file__).parent
        if not has_kernels(folder):
            continue
        say(f"what {subject.spec.name} launches")
        compared = (1, min(shapes[0][1], TOKENS), min(shapes[0][2], HEADS))
        is_whole = "operator" in parts and (folder / "kernels.py").exists()  # the torch form would run, and launch nothing
        whole = [_both(subject, shape) for shape in (compared, *shapes) if is_whole]
        for run in (*whole, *(_steps(subject, shapes[0][2]) if "decode" in parts else ())):
            with recorded({"dtype": "", "call": "", "is_packed": False}) as launches, suppress(Exception):
                run()
            found = {**launches, **found}
    for number, _ in enumerate(compile_ahead(list(found.values()), os.cpu_count() or 1), 1):
        say(f"{number} of {len(found)} kernels compiled")


def _both(subject: Subject, shape: tuple[int, int, int]) -> Callable[[], None]:
    def run() -> None:
        import torch

        arguments = _arguments(subject, *shape)
        with torch.no_grad():
            subject.op(*arguments)
        y = subject.op(*(x.requires_grad_() for x in arguments))
        y.backward(torch.empty_like(y))

    return run


def _steps(subject: Subject, heads: int) -> Iterator[Callable[[], None]]:
    step = getattr(subject.package, f"{subject.spec.name}_step", None)
    for batch in bench_decode.BATCHES["cuda"] if step is not None else ():

        def run(batch=batch) -> None:
            import torch

            arguments = _arguments(subject, batch, 1, heads)
            with torch.no_grad():
                state = getattr(subject.package, subject.spec.name)(*arguments).final_state
                count = len(subject.case(1, 1, heads).inputs)
                step(*(x[:, 0].contiguous() if i < count else x for i, x in enumerate(arguments)), state=state)

        yield run


def _arguments(subject: Subject, batch: int, tokens: int, heads: int) -> list:
    """Arguments of a call, their numbers whatever the memory holds."""
    import torch

    case = subject.case(1, 1, heads)
    inputs = [torch.empty(batch, tokens, *x.shape[2:], dtype=x.dtype, device=x.device) for x in case.inputs.values()]
    return [*inputs, *case.params.values()]
