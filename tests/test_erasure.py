"""The order of forgetting and measuring is read off the normal form, however the equation is written."""

from __future__ import annotations

import pytest
from test_derive import MATRIX, READ, spec_of

from ssmgen.derive import derive
from ssmgen.erasure import erasure
from ssmgen.spec_text import expr_text

FORGET, READS = "forget_first", "read_first"
CASES = {
    "(I - beta * k k^T) (exp(g) * S) + beta * k v^T": ("key", FORGET, "-beta", "k", "k"),
    "exp(g) * S - exp(g) * beta * k (k^T S) + beta * k v^T": ("key", FORGET, "-beta", "k", "k"),
    "exp(g) * S + beta * k (v - S^T e)^T": ("key", READS, "-beta", "k", "e"),
    "(I - beta * k e^T) diag(w) S + k v^T": ("key", FORGET, "-beta", "k", "e"),
    "diag(w) S - beta * k (e^T S) + k v^T": ("key", READS, "-beta", "k", "e"),
    "diag(w) (S - beta * k (e^T S)) + k v^T": ("key", READS, "-beta", "w * k", "e"),
    "(I - k (e * k)^T) rot(theta) S + k v^T": ("key", FORGET, "-1", "k", "e * k"),
    "(S diag(b)) (I - beta * u u^T) + k v^T": ("value", FORGET, "-beta", "u", "u"),
    "S diag(b) - beta * (S u) u^T + k v^T": ("value", READS, "-beta", "u", "u"),
    "S - beta * k (k^T S) + beta * k v^T": ("key", FORGET, "-beta", "k", "k"),
}


@pytest.mark.parametrize("value", CASES)
def test_erasure(value):
    decay, term = derive(spec_of(MATRIX + f"  update S' = {value}\n" + READ)).steps[0].transitions
    found = erasure(term, decay)
    assert (found.side, found.order, *map(expr_text, (found.coefficient, found.write_key, found.erase_key))) == CASES[value]
