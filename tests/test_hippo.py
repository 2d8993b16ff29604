"""Initial values along the modes of HiPPO-LegS, as emitted modules have them, against an eigenvalue solver."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
from built import example

torch = pytest.importorskip("torch")

from ssmgen.hippo import modes  # noqa: E402

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)


def legs(size: int):
    """(HiPPO-LegS as it is printed, p of its low rank, frequencies and eigenvectors of what is left, those above 0)."""
    n = torch.arange(size, dtype=torch.float64)
    matrix = -torch.tril(torch.outer(2 * n + 1, 2 * n + 1).sqrt(), -1) - torch.diag(n + 1)
    p = torch.sqrt(n + 0.5)
    values, vectors = torch.linalg.eigh(-1j * (matrix + 0.5 * torch.eye(size) + torch.outer(p, p)))
    return matrix, p, values[size // 2 :], vectors[:, size // 2 :]


def test_the_modes_of_s4_and_their_low_rank(tmp_path):
    layer = example("s4", tmp_path)[0].S4(channels=2, N=16)
    matrix, p, frequencies, vectors = legs(16)
    low_rank = (vectors.mH @ p.to(vectors.dtype)).abs()
    wanted = (layer.im, frequencies), (layer.P.real, low_rank), (layer.B.real, 2**0.5 * low_rank), (layer.P.imag, 0 * low_rank)
    for found, column in wanted:
        close(found.detach().double(), column.expand(2, 8))
    close(torch.tensor(modes(8), dtype=torch.float64).T, torch.stack([frequencies, low_rank]), rtol=1e-12, atol=1e-12)
    # both members of every pair: what the system does to p, power by power, is what the printed matrix does
    rates, along = torch.complex(-layer.log_re.exp(), layer.im)[0].detach(), layer.P[0].detach()
    rates, along = (torch.cat([x, x.conj()]).to(torch.complex128) for x in (rates, along))
    system = torch.diag(rates) - torch.outer(along, along.conj())
    for power in range(4):
        moment = along.conj() @ torch.linalg.matrix_power(system, power) @ along
        exact = p @ torch.linalg.matrix_power(matrix, power) @ p
        close(moment / exact, torch.ones_like(moment), rtol=3e-6, atol=3e-6)


def test_blocks_of_modes_and_matrices_along_them(tmp_path):
    torch.manual_seed(0)
    layer = example("s5", tmp_path)[0].S5(heads=1, N=64, P=256)
    _, p, frequencies, vectors = legs(8)
    close(layer.im[0].detach().double(), frequencies.repeat(8))
    # the solver's phases are any; ours are those of p
    along = vectors.mH @ p.to(vectors.dtype)
    vectors = torch.block_diag(*[vectors * (along / along.abs())] * 8)
    emitted, x = inspect.getmodule(type(layer)), torch.randn(64, 5, dtype=torch.float64)
    close(emitted._legs_modes(x, 8), vectors.mH @ x.to(vectors.dtype))
    close(emitted._legs_reads(x.mT, 8), x.mT.to(vectors.dtype) @ vectors)
    for found, deviation in ((layer.B, 256**-0.5), (layer.C, 64**-0.5)):
        assert float(found.detach().abs().square().mean().sqrt()) == pytest.approx(deviation, rel=0.03)
