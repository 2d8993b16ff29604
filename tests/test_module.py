"""The emitted modules: a whole block against an oracle of its own, and the invariances of state."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
from conftest import ROOT

torch = pytest.importorskip("torch")

from oracles.mamba2_block import mamba2_block  # noqa: E402
from packages import built_package, package_over_reference  # noqa: E402

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.ssm") if "\nlayer " in path.read_text(encoding="utf-8"))
SHAPE = dict(d_model=8, N=3, P=4)

BLOCK = """
recurrence mamba2 {
  dim        N = 128, P = 64
  input      B, C : [N] per group; x : [P]; dt_raw : scalar
  param      A_log : scalar per head init log(uniform(1, 16))
             dt_bias : scalar per head init inv_softplus(loguniform(1e-3, 1e-1))
             D : scalar per head init 1
  gate       dt > 0 = softplus(dt_raw + dt_bias)
  state      S : real [N, P]
  dynamics   dS/dt = -exp(A_log) * S + B x^T
  discretize exp_euler(dt)
  output     y = S'^T C + D * x
}

layer mamba2_block(d_model, expand = 2) {
  heads H = expand * d_model / P, groups 2
  z, x, B, C, dt_raw = linear(u)
  x, B, C = silu(conv(4, bias))
  y = mamba2(B, C, x, dt_raw)
  out = linear(rmsnorm(y * silu(z), per group))
}
"""

RETENTION = """
recurrence retention(layer = 0, layers = 4) {
  dim    N = 4, P = 6
  input  q : [N] unit; k : [N] unit; v : [P]; b : scalar in (0, 1)
  param  gamma : scalar per head = 1 - 2^(-5 - head) * (1 - layer / layers)
  param  w : [P] per head init normal(1, 0.1)
  state  S : real [N, P]
  update S' = gamma * S + b * k v^T
  output o = w * (S'^T q)
}
"""

KITCHEN_SINK = (
    RETENTION
    + """
# A block that uses every operation of a layer
layer everything(d_model, rank = 2) {
  heads H = d_model / P
  param mu : [d_model] init 1/2; scale : scalar init 2; lam : scalar per head init uniform(0, 1)
  s = u * mu + u[-1] * (1 - mu)
  q, k, v = linear(s)
  q, k = unit(silu(conv(3)))
  v = conv(v, 2, bias) - v[-1]
  b = sigmoid(linear(s, rank = rank, bias))
  z = linear(s)
  y = retention(q, k, v * b, b) * lam
  y = groupnorm(y, per head) + layernorm(y, per head, bias = false) * N^-1/2
  h = rmsnorm(y * silu(z), per head, eps = 1e-6)
  out = u + scale * linear(layernorm(h)) / 2
}
"""
)

CHANNELS = """
recurrence mamba1 {
  dim    N = 16
  input  x : scalar per channel; dt : scalar per channel > 0; B, C : [N] per layer
  param  A_log : [N] per channel init log(1..N); D : scalar per channel init 1
  state  h : real [N] per channel
  dynamics   dh/dt = -exp(A_log) * h + B * x
  discretize exp_euler(dt)
  output y = C . h' + D * x
}

layer mamba1_block(d_model, expand = 2) {
  heads E = expand * d_model
  x, z = linear(u)
  x = silu(conv(4, bias))
  B, C = linear(x)
  dt = softplus(linear(x, rank = d_model / 4, bias))
  y = mamba1(x, dt, B, C)
  out = linear(y * silu(z))
}
"""

TWICE = (
    RETENTION
    + """
layer twice(d_model, decay = 1) {
  heads H = 2
  dim N = d_model / (2 * H), P = d_model / H
  q, k = linear(u) * u[-1]
  q, k = linear(q * k)
  v, b = sigmoid(linear(u))
  v = v * v[-1] + retention(q, k, v, b) - retention(k, q, v, b) / 2
  out = linear(v ^ 2) * decay
}
"""
)

BLOCKS = {
    "channels": (CHANNELS, "Mamba1Block", dict(d_model=4, N=3)),
    "twice": (TWICE, "Twice", dict(d_model=8)),
    "block": (BLOCK, "Mamba2Block", SHAPE),
    "everything": (KITCHEN_SINK, "Everything", dict(d_model=12)),
}


@pytest.fixture(scope="module", params=sorted(BLOCKS))
def block(request, tmp_path_factory):
    text, name, sizes = BLOCKS[request.param]
    package = package_over_reference(text, tmp_path_factory.mktemp(request.param))
    torch.manual_seed(0)
    return getattr(package, name)(**sizes).double()


def tokens(block, *shape: int) -> torch.Tensor:
    torch.manual_seed(1)
    # what gives the block's result is the last of its projections; one that is split has a gate beside it
    last = [name for name, part in block.named_children() if isinstance(part, torch.nn.Linear)][-1]
    width = getattr(block, f"{last}_split", [getattr(block, last).out_features])[0]
    return torch.randn(*shape, width, dtype=torch.float64)


def leaves(state) -> list[torch.Tensor]:
    return torch.utils._pytree.tree_leaves(state)


def assert_same_state(left, right) -> None:
    for a, b in zip(leaves(left), leaves(right), strict=True):
        torch.testing.assert_close(a, b)


def random_state(block, batch: int, seed: int = 2):
    torch.manual_seed(seed)
    state = block.allocate_state(batch)
    counts = torch.arange(batch) * 5 + 2  # every sequence has its windows turned otherwise
    return torch.utils._pytree.tree_map(lambda x: torch.randn_like(x) if x.is_floating_point() else counts, state)


# --- against the oracle ------------------------------------------------------------------------------------------


def test_block_equals_oracle(tmp_path):
    package = package_over_reference(BLOCK, tmp_path)
    torch.manual_seed(0)
    block = package.Mamba2Block(d_model=8, N=3, P=4).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    u = tokens(block, 2, 7)
    weights = {
        "in_proj": block.in_proj.weight,
        "conv_weight": block.conv.weight[:, 0],
        "conv_bias": block.conv.bias,
        "A_log": block.mamba2.A_log,
        "dt_bias": block.mamba2.dt_bias,
        "D": block.mamba2.D,
        "norm": block.norm.weight,
        "out_proj": block.out_proj.weight,
    }
    weights = {name: weight.detach().numpy() for name, weight in weights.items()}
    out = block(u)
    for row in range(2):
        y, tail, states = mamba2_block(u[row].numpy(), weights, heads=4, groups=2, n=3, p=4)
        np.testing.assert_allclose(out.y[row].detach(), y, rtol=1e-10, atol=1e-12)
        # of 7 tokens the last three, 4 to 6, lie in rows 0 to 2 of 4
        np.testing.assert_allclose(out.final_state.conv[row, :3].mT.detach(), tail, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(out.final_state.mamba2.S[row].detach(), states, rtol=1e-10, atol=1e-12)


def everything_by_hand(block, u):
    """The block of KITCHEN_SINK for u [T, 12], 2 heads, written out token by token."""
    silu = torch.nn.functional.silu
    core, rows, state = block.retention, [], torch.zeros(2, 4, 6, dtype=u.dtype)
    s = u * block.mu + torch.cat([torch.zeros_like(u[:1]), u[:-1]]) * (1 - block.mu)
    q0, k0, v0 = (s @ block.qkv_proj.weight.T).split([8, 8, 12], dim=-1)
    both = torch.cat([torch.zeros(2, 16, dtype=u.dtype), torch.cat([q0, k0], dim=-1)])
    both = sum(both[i : i + len(u)] * block.conv_qk.weight[:, 0, i] for i in range(3))
    late = torch.cat([torch.zeros_like(v0[:1]), v0[:-1]])
    v1 = late * block.conv_v.weight[:, 0, 0] + v0 * block.conv_v.weight[:, 0, 1] + block.conv_v.bias - late
    b = torch.sigmoid(s @ block.b_proj[0].weight.T @ block.b_proj[1].weight.T + block.b_proj[1].bias)
    for t in range(len(u)):
        heads = []
        for h in range(2):
            q, k = (silu(x[t, 4 * h : 4 * h + 4]) for x in both.split(8, dim=-1))
            for _ in range(2):  # once in the layer, once because the inputs are declared `unit`
                q, k = (x / (x.square().sum() + 1e-6).sqrt() for x in (q, k))
            v = v1[t, 6 * h : 6 * h + 6] * b[t, h]
            gamma = 1 - 2.0 ** (-5 - h) * (1 - core.layer / core.layers)
            state[h] = gamma * state[h].clone() + b[t, h] * torch.outer(k, v)
            y = core.w[h] * (state[h].T @ q) * block.lam[h]
            normed = (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt()
            own = slice(6 * h, 6 * h + 6)
            y = normed * block.norm.weight[own] + block.norm.bias[own] + normed * block.norm_2.weight[own] / 2
            gated = y * silu(s[t] @ block.z_proj.weight[own].T)
            heads.append(gated / (gated.square().mean() + 1e-6).sqrt() * block.norm_3.weight[own])
        h = torch.cat(heads)
        h = (h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt() * block.norm_4.weight + block.norm_4.bias
        rows.append(u[t] + block.scale * (block.out_proj.weight @ h) / 2)
    return torch.stack(rows)


def test_every_operation_equals_its_meaning(tmp_path):
    package = package_over_reference(KITCHEN_SINK, tmp_path)
    torch.manual_seed(0)
    block = package.Everything(d_model=12).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        u = tokens(block, 1, 7)
        torch.testing.assert_close(block(u).y[0], everything_by_hand(block, u[0]))


# --- invariances -------------------------------------------------------------------------------------------------


def test_step_equals_forward(block):
    u = tokens(block, 2, 6)
    whole = block(u)
    state = block.allocate_state(2)
    rows = [block.step(u[:, t], state=state) for t in range(6)]
    torch.testing.assert_close(torch.stack(rows, dim=1), whole.y)
    assert_same_state(state, whole.final_state)


@pytest.mark.parametrize("slots", [[3, -1, 0], [-1, -1, -1], [0, 1, 2], [-1, 2, -1]])
def test_slots_choose_rows_of_every_part_of_a_state(block, slots):
    """Paged states: windows, values of the token before and the recurrence's own; an absent sequence leaves no trace."""
    u, pool = tokens(block, 3, 4), random_state(block, 4)
    own = torch.utils._pytree.tree_map(lambda x: x[[slot for slot in slots if slot >= 0]], pool)
    before = [part.clone() for part in leaves(pool)]
    for t in range(4):
        y = block.step(u[:, t], state=pool, slots=torch.tensor(slots))
        there = [i for i, slot in enumerate(slots) if slot >= 0]
        torch.testing.assert_close(y[there], block.step(u[there, t], state=own))
        assert (y[[i for i in range(3) if i not in there]] == 0).all()
    for part, old, moved in zip(leaves(pool), before, leaves(own), strict=True):
        torch.testing.assert_close(part[[slot for slot in slots if slot >= 0]], moved)
        rest = [row for row in range(4) if row not in slots]
        assert torch.equal(part[rest], old[rest])


@pytest.mark.parametrize("at", [0, 1, 2, 5, 6])
def test_split_equals_whole(block, at):
    u, start = tokens(block, 2, 6), random_state(block, 2)
    whole = block(u, state=start)
    first = block(u[:, :at], state=start)
    second = block(u[:, at:], state=first.final_state)
    torch.testing.assert_close(torch.cat([first.y, second.y], dim=1), whole.y)
    assert_same_state(second.final_state, whole.final_state)


@pytest.mark.parametrize("lengths", [(6,), (1, 2, 3), (2, 0, 1, 4), (0, 3)])
def test_packed_equals_separate(block, lengths):
    u, start = tokens(block, 1, sum(lengths)), random_state(block, len(lengths))
    ends = torch.tensor([0, *lengths]).cumsum(0)
    packed = block(u, state=start, cu_seqlens=ends)
    rows, states = [], []
    for i in range(len(lengths)):
        own = torch.utils._pytree.tree_map(lambda x, i=i: x[i : i + 1], start)
        out = block(u[:, ends[i] : ends[i + 1]], state=own)
        rows.append(out.y)
        states.append(leaves(out.final_state))
    torch.testing.assert_close(packed.y, torch.cat(rows, dim=1))
    for part, pieces in zip(leaves(packed.final_state), zip(*states, strict=True), strict=True):
        torch.testing.assert_close(part, torch.cat(pieces))


def test_forward_leaves_the_given_state_alone(block):
    start = random_state(block, 1)
    before = [part.clone() for part in leaves(start)]
    block(tokens(block, 1, 3), state=start)
    for part, old in zip(leaves(start), before, strict=True):
        assert torch.equal(part, old)


def test_gradients_are_exact(block):
    start = random_state(block, 1)
    flat, layout = torch.utils._pytree.tree_flatten(start)
    differentiable = [part.requires_grad_() for part in flat if part.is_floating_point()]
    u = tokens(block, 1, 4).requires_grad_()

    def run(u, *parts):
        given = iter(parts)
        state = torch.utils._pytree.tree_unflatten([next(given) if p.is_floating_point() else p for p in flat], layout)
        out = block(u, state=state, cu_seqlens=None)
        return (out.y, *(p for p in leaves(out.final_state) if p.is_floating_point()))

    assert torch.autograd.gradcheck(run, (u, *differentiable))


def test_packed_gradients_are_exact(block):
    start, ends = random_state(block, 2), torch.tensor([0, 1, 3])
    flat, layout = torch.utils._pytree.tree_flatten(start)
    parts = [part.requires_grad_() for part in flat if part.is_floating_point()]
    u = tokens(block, 1, 3).requires_grad_()

    def run(u, *parts):
        given = iter(parts)
        state = torch.utils._pytree.tree_unflatten([next(given) if p.is_floating_point() else p for p in flat], layout)
        out = block(u, state=state, cu_seqlens=ends)
        return (out.y, *(p for p in leaves(out.final_state) if p.is_floating_point()))

    assert torch.autograd.gradcheck(run, (u, *parts))


# --- the module around the op ------------------------------------------------------------------------------------


def test_initial_values_are_those_of_the_spec(tmp_path):
    package = package_over_reference(BLOCK, tmp_path)
    torch.manual_seed(0)
    core = package.Mamba2(512, N=3, P=4)
    rate, dt = core.A_log.exp(), torch.nn.functional.softplus(core.dt_bias)
    assert 1 <= rate.min() < 1.2 and 15.8 < rate.max() <= 16
    assert 0.999e-3 <= dt.min() < 1.1e-3 and 0.09 < dt.max() <= 0.1001
    # log-uniform: half of the steps lie below the geometric mean of the ends
    assert 0.4 < (dt < 1e-2).double().mean() < 0.6
    assert torch.equal(core.D, torch.ones(512))


def test_a_cast_to_half_precision_spares_the_parameters_of_the_recurrence(tmp_path):
    package = package_over_reference(BLOCK, tmp_path)
    block = package.Mamba2Block(**SHAPE).bfloat16()
    assert block.in_proj.weight.dtype == torch.bfloat16
    assert block.mamba2.A_log.dtype == torch.float32
    out = block(torch.randn(1, 5, 8, dtype=torch.bfloat16))
    assert out.y.dtype == torch.bfloat16
    assert out.final_state.conv.dtype == torch.bfloat16 and out.final_state.mamba2.S.dtype == torch.float32
    assert block.double().mamba2.A_log.dtype == torch.float64


def test_unit_inputs_are_brought_to_length_one(tmp_path):
    package = package_over_reference(RETENTION, tmp_path)
    core = package.Retention(2).double()
    q, k, v = (torch.randn(1, 5, 2, n, dtype=torch.float64) for n in (4, 4, 6))
    b = torch.rand(1, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(core(3 * q, 5 * k, v, b).y, core(q, k, v, b).y, rtol=1e-4, atol=1e-5)


def test_constants_are_arguments(tmp_path):
    package = package_over_reference(KITCHEN_SINK, tmp_path)
    torch.manual_seed(0)
    first = package.Everything(d_model=12, layer=0).double()
    torch.manual_seed(0)
    last = package.Everything(d_model=12, layer=3).double()
    u = tokens(first, 1, 9)
    assert not torch.allclose(first(u).y, last(u).y)
    assert "layer=3" in repr(last)


def test_sizes_that_are_not_whole_are_refused(tmp_path):
    package = package_over_reference(BLOCK, tmp_path)
    with pytest.raises(ValueError, match="heads = 18 / 4 is not a whole number"):
        package.Mamba2Block(d_model=9, N=3, P=4)
    with pytest.raises(ValueError, match="2 groups cannot share 3 heads"):
        package.Mamba2Block(d_model=6, N=3, P=4)


def test_module_says_its_sizes(tmp_path):
    package = package_over_reference(BLOCK, tmp_path)
    assert "heads=4, groups=2, N=3, P=4" in repr(package.Mamba2Block(**SHAPE))


# --- the examples, with their own op -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: path.stem)
def example(request):
    """The layer of an example at small sizes."""
    package = built_package(request.param)
    (layer,) = (value for name, value in vars(package).items() if name.endswith("Block"))
    small = {"N": 4, "P": 6}
    torch.manual_seed(0)
    return layer(d_model=24, **{n: v for n, v in small.items() if n in inspect.signature(layer).parameters}).double()


def test_example_steps_splits_and_packs(example):
    u = tokens(example, 1, 70)
    whole = example(u)
    state = example.allocate_state(1)
    rows = [example.step(u[:, t], state=state) for t in range(70)]
    torch.testing.assert_close(torch.stack(rows, dim=1), whole.y)
    assert_same_state(state, whole.final_state)
    first = example(u[:, :33])
    second = example(u[:, 33:], state=first.final_state)
    torch.testing.assert_close(torch.cat([first.y, second.y], dim=1), whole.y)
    packed = example(u, cu_seqlens=torch.tensor([0, 33, 70]))
    alone = example(u[:, 33:])
    torch.testing.assert_close(packed.y, torch.cat([first.y, alone.y], dim=1))
    assert_same_state(torch.utils._pytree.tree_map(lambda x: x[1:], packed.final_state), alone.final_state)


def test_example_trains_every_parameter(example):
    example.zero_grad()
    example(tokens(example, 2, 9)).y.square().sum().backward()
    for name, parameter in example.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_example_learns(example):
    """What the token before held, from a few dozen steps: a residual block of every example finds it."""
    fresh = copy.deepcopy(example).float()
    u = torch.randn(4, 24, 24, generator=torch.Generator().manual_seed(1))
    target = torch.cat([torch.zeros_like(u[:, :1]), u[:, :-1]], 1)
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (fresh(u).y - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0] and losses[-1] < 0.8, (losses[0], losses[-1])


def test_block_compiles_whole_and_exports():
    torch._dynamo.reset()
    package = built_package(ROOT / "examples" / "mamba2.ssm")
    torch.manual_seed(0)
    block = package.Mamba2Block(d_model=8, N=3, P=4).double()
    u, ends = tokens(block, 1, 70), torch.tensor([0, 20, 70])
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for given in ({}, {"state": random_state(block, 1)}, {"cu_seqlens": ends}):
        mine, theirs = compiled(u, **given), block(u, **given)
        torch.testing.assert_close(mine.y, theirs.y)
        assert_same_state(mine.final_state, theirs.final_state)
    compiled(u).y.sum().backward()
    step = torch.compile(block.step, fullgraph=True, backend="aot_eager")
    state = block.allocate_state(1)
    rows = [step(u[:, t], state=state) for t in range(5)]
    torch.testing.assert_close(torch.stack(rows, dim=1), block(u[:, :5]).y)
    length = torch.export.Dim("length", min=2, max=4096)
    exported = torch.export.export(block, (u[:, :40].contiguous(),), dynamic_shapes=({1: length},))
    torch.testing.assert_close(exported.module()(u).y, block(u).y)
