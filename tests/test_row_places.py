"""Which operands of rows are copied, and which are read where an input lies."""

from __future__ import annotations

import re

import pytest
from built import write
from test_kernels import EXAMPLES, walk

DELTA = walk("q, k, f : [N]; v : [P]; raw : scalar", "S'^T q", "S' = S - b * k (f^T S) + b * k v^T", more="gate b in (0, 1) = sigmoid(raw)")
SHARED = walk("q, k : [N]; v : [P]; raw : scalar", "S'^T q", "S' = S - b * k (k^T S) + k v^T", more="gate b in (0, 1) = sigmoid(raw)")


@pytest.mark.parametrize(
    ("text", "placed", "numbers", "copied"),
    [
        (EXAMPLES["deltanet"], {"q": "q", "k": "k", "v": "v"}, {"q", "k", "v", "e"}, set()),
        # a decay within the erase key moves to the sum at which the key stands
        (EXAMPLES["kda"], {"q": "q", "k": "k", "v": "v"}, {"q", "k", "v", "e"}, set()),
        (EXAMPLES["gla"], {"q": "q", "k": "k", "v": "v"}, {"q"}, set()),
        # rows of two kinds: one writes by its key, one erases by another
        (EXAMPLES["rwkv7"], {"q": "r", "v": "v"}, set(), {"k", "e"}),
        (EXAMPLES["gated_deltaproduct"], {"q": "q", "k": "k", "v": "v"}, {"q", "v", "e"}, set()),
        (DELTA, {"q": "q", "k": "k", "v": "v"}, {"v"}, {"e"}),
        (SHARED, {"q": "q", "k": "k", "v": "v"}, {"e"}, set()),
    ],
    ids=["all", "wide", "no numbers", "rows of two kinds", "rows of one kind", "another erase key", "a multiple of the key"],
)
def test_what_is_a_number_times_an_input_is_not_copied(text, placed, numbers, copied, tmp_path):
    folder, _ = write(text, tmp_path)
    text = (folder / "kernels.py").read_text(encoding="utf-8")
    made = re.findall(r'^ +"(\w+)": (\w+)', text, re.MULTILINE)
    buffers = {name for name, value in made if value == "torch"}
    # numbers alone are kept for backward, in one buffer
    kept = " ".join(re.findall(r"^ +(made.*) = kept\b", text, re.MULTILINE))
    buffers |= set(re.findall(r'"(\w+)"', kept))
    assert {name: value for name, value in made if len(name) == 1 and value != "torch"} == placed
    assert {name.removeprefix("factor_") for name in buffers if name.startswith("factor_")} == numbers
    assert buffers & {"q", "k", "v", "e"} == copied
