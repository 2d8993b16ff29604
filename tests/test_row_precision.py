"""How far kernels err in bfloat16, interpreted with a GPU's rounding, beside the eager reference in the same dtype."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from built import write
from test_kernels import EXAMPLES, fused, interpreted, interpreting

pytest.importorskip("torch")

import torch  # noqa: E402

from ssmgen.runtime import verify_checks  # noqa: E402
from ssmgen.runtime.short_floats import as_on_a_gpu  # noqa: E402


def measure(name: str, folder: Path, keys: int, tokens: int) -> None:
    """Called where triton interprets: what every gradient errs by, in units of what is allowed."""
    written, spec = write(EXAMPLES[name], folder)
    subject, _ = fused(written, spec)
    subject.sizes |= {size: keys for size, _ in spec.dims}
    op = sys.modules[f"{subject.package.__name__}.op"]
    op._is_fused = lambda *tensors: tensors[0].dtype == torch.bfloat16
    verify_checks.LONG = tokens  # of a process of its own
    with as_on_a_gpu():
        rows = [row for row in verify_checks.op_precision(subject) if "bfloat16" in row.check]
    print(json.dumps({row.compared: row.error / row.tolerance for row in rows}))


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keys", "tokens"), [("kda", 40, verify_checks.LONG), ("gated_deltaproduct", 5, verify_checks.LONG), ("mamba3", 16, 300)]
)
def test_bfloat16_errs_at_most_twice_as_far_as_the_eager_reference(name, keys, tokens, tmp_path):
    """An angle moves all that comes after: what rounding leaves of its gradient adds up over the tokens, unless it cancels."""
    shares = json.loads(interpreting(name, tmp_path, keys, tokens, function="measure", module="test_row_precision"))
    assert len(shares) > 7
    assert {n: share for n, share in shares.items() if not share <= 1} == {}
