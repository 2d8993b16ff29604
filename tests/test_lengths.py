"""`lengths.py` of a package: frames of a state, noise, passing, remembrance, on a stack of layers as a user writes it."""

from __future__ import annotations

import importlib
import importlib.util
import math

import pytest
from built import example
from conftest import ROOT

from ssmgen import compiler
from ssmgen.explain import summary
from ssmgen.gauges import Gauge, gauges, turned_by_position
from ssmgen.source import Source

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

SPEC = """
recurrence held {{
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]; i, f_raw, j : {m}
  let    g : {m} = logsigmoid(f_raw)
  state  C : real [N, P]; n : real [N]; m : real {m}
  update m' = max(g + m, i)
         C' = {C}
         n' = {n}
  output h = {h}
}}
"""
SCALED = {
    "m": "scalar",
    "C": "exp(g + m - m') * C + exp(i - m') * k v^T",
    "n": "exp(g + m - m') * n + exp(i - m') * k",
    "h": "C'^T q / max(abs(n'^T q), exp(-m'))",
}


def proved(**changes: str) -> tuple[Gauge, ...]:
    source = Source("held.ssm", SPEC.format(**(SCALED | changes)))
    return gauges(compiler.check(source).after("derive")["held"])


@pytest.mark.parametrize(
    "changes, powers",
    [
        ({}, {"C": 1, "n": 1}),
        # a correction commutes with one factor a head; a state that m scales twice; one that reads it to the other side
        ({"C": "exp(g + m - m') * (C - k (k^T C)) + exp(i - m') * k v^T"}, {"C": 1, "n": 1}),
        ({"n": "exp(2 * g + 2 * m - 2 * m') * n + exp(2 * i - 2 * m') * k", "h": "C'^T q / sqrt(max(abs(n'^T q), exp(-2 * m')))"},
         {"C": 1, "n": 2}),
        ({"C": "exp(j + m' - m) * C + exp(m') * k v^T", "h": "exp(-m') * C'^T q / exp(m') * max(abs(n'^T q), exp(-m'))"}, None),
        ({"C": "exp(j + m' - m) * C + exp(m') * k v^T", "h": "C'^T q * max(abs(n'^T q), exp(-m'))"}, {"C": -1, "n": 1}),
        # 1 is not scaled by m, nor is an epsilon; a factor that m is missing from; m itself in the output
        ({"h": "C'^T q / max(abs(n'^T q), 1)"}, None),
        ({"h": "C'^T q / (max(abs(n'^T q), exp(-m')) + 1e-6)"}, None),
        ({"n": "exp(g + m - m') * n + exp(i) * k"}, None),
        ({"h": "m' * C'^T q / max(abs(n'^T q), exp(-m'))"}, None),
    ],
)  # fmt: skip
def test_a_running_maximum_is_a_gauge_where_it_cancels(changes, powers):
    expected = () if powers is None else (Gauge("m", tuple(powers.items())),)
    assert proved(**changes) == expected


def test_explain_names_the_gauges():
    text, _ = summary(Source("held.ssm", SPEC.format(**SCALED)), {})
    (line,) = (line.split() for line in text.split("\n") if line.strip().startswith("gauge"))
    assert " ".join(line) == "gauge m (C, n, m) and (C e^(-d), n e^(-d), m + d) are one state for every d: canonical is m = 0"


def test_a_maximum_of_every_key_is_no_gauge_of_a_state_whose_keys_meet():
    own = {"m": "[N]", "C": "diag(exp(g + m - m')) C + (exp(i - m') * k) v^T"}
    own["n"] = "diag(exp(g + m - m')) n + exp(i - m') * k"
    # sums over keys of one query are undone key by key
    free = own | {"h": "C'^T (exp(m') * q) / max(abs(n'^T (exp(m') * q)), 1)"}
    assert proved(**free) == (Gauge("m", (("C", 1), ("n", 1))),)
    assert proved(**own, h="C'^T q / max(abs(n'^T q), 1)") == ()
    assert proved(**free | {"C": "diag(exp(g + m - m')) (C - k (k^T C)) + (exp(i - m') * k) v^T"}) == ()


POSITIONED = """
recurrence placed {{
  dim    N = 4, P = 3
  input  q, k, g_raw : [N]; v : [P]; raw : scalar
  gate   a in (0, 1) = sigmoid(raw); g : [N] in (0, 1) = sigmoid(g_raw)
  let    kr : [N] = rope(k)
  state  S : real [N, P]; n : real [N]
  update S' = {}
         n' = a * n + {}
  output h = {}
}}
"""


@pytest.mark.parametrize(
    "S, n, h, turned",
    [
        ("a * S + kr v^T", "kr", "N^-1/2 * S'^T rope(q) / max(n'^T rope(q), 1)", ("S", "n")),
        ("a * S + kr v^T", "k", "S'^T rope(q) / max(n'^T q, 1)", ("S",)),
        # a correction along the turned key turns with the state; a read before the token; an inner product of turned values
        ("a * (S - kr (kr^T S)) + kr v^T", "kr", "S'^T rope(q) / max(n'^T rope(q), 1)", ("S", "n")),
        ("a * S + kr v^T", "k", "(S'^T rope(q) + (kr . rope(q)) * v) / max(n'^T q, 1)", ("S",)),
        # a factor for every key does not turn; one side alone; the value; a key of the token before; the position itself
        ("diag(g) S + kr v^T", "k", "S'^T rope(q) / max(n'^T q, 1)", ()),
        ("a * S + kr v^T", "k", "S'^T q / max(n'^T q, 1)", ()),
        ("a * S + k rope(q)^T", "k", "S' q / max(n'^T q, 1)", ()),
        ("a * (S - k (k^T S)) + kr v^T", "k", "S'^T rope(q) / max(n'^T q, 1)", ()),
        ("a * S + k v^T", "k", "S'^T q / max(n'^T q, 1) * position", ()),
        ("a * S + k v^T", "k", "S'^T q / max(n'^T q, 1)", ()),
    ],
)  # fmt: skip
def test_the_position_is_a_gauge_where_keys_and_queries_turn_alike(S, n, h, turned):
    text = POSITIONED.format(S, n, h)
    text = text.replace("S : real [N, P]", "S : real [N, N]").replace("v : [P]", "v : [N]") if "rope(q)^T" in S else text
    assert turned_by_position(compiler.check(Source("placed.ssm", text)).after("derive")["placed"]) == turned


# --- packages ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lengths")


def lengths_of(name: str, folder):
    package, _ = example(name, folder)
    return package, importlib.import_module(f"{package.__name__}.lengths")


class Stack(nn.Module):
    """Token ids to logits through two layers, their states in a list: what a user may write around any package."""

    def __init__(self, layer, width: int, **sizes):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, width), nn.Linear(width, 7)
        self.layers = nn.ModuleList(layer(width, **sizes) for _ in range(2))

    def forward(self, tokens, state=None, cu_seqlens=None):
        x, following = self.embedding(tokens), []
        for number, layer in enumerate(self.layers):
            y, last = layer(x, state=None if state is None else state[number], cu_seqlens=cu_seqlens)
            x, following = x + y, [*following, last]
        return self.head(x), following


@pytest.fixture(scope="module")
def stabilised(folder):
    """The package of a recurrence with a running maximum, its lengths.py, a stack of its layers in float64."""
    torch.manual_seed(0)
    package, lengths = lengths_of("mlstm", folder)
    stack = Stack(package.MlstmBlock, 6, N=4, P=3).double()
    for layer in stack.layers:
        nn.init.uniform_(layer.if__proj.bias, 1, 3)  # exponents above 0, which the maximum follows
    return package, lengths, stack


def test_a_stack_goes_on_from_the_canonical_state(stabilised):
    package, lengths, stack = stabilised
    tokens = torch.randint(7, (3, 20))
    whole, _ = stack(tokens)
    _, state = stack(tokens[:, :9])
    assert state[0].mlstm.m.min() > 0.1
    framed = lengths.canonical(state)
    assert not framed[0].mlstm.m.any() and isinstance(framed[1], package.MlstmBlockState)
    torch.testing.assert_close(framed[1].mlstm.C, state[1].mlstm.C * state[1].mlstm.m.exp()[..., None, None])
    rest, _ = stack(tokens[:, 9:], framed)
    torch.testing.assert_close(rest, whole[:, 9:], rtol=1e-10, atol=1e-10)


def test_a_state_too_large_for_its_frame_is_refused(stabilised):
    package, lengths, _ = stabilised
    state = package.State(torch.full((2, 1, 4, 3), 2.0), torch.ones(2, 1, 4), torch.tensor([[100.0], [90.0]]))
    with pytest.raises(OverflowError, match="take a level nearer"):
        lengths.canonical(state)
    # at the level of the largest nothing overflows, and the states keep their ratio
    fit = lengths.fitted([state], "channel")
    assert fit.mean.m.item() == 100 and fit.deviation.m.item() == 0
    assert fit.mean.n[0, 0, 0].item() == pytest.approx((1 + math.exp(-10)) / 2)


def test_random_noise_is_drawn_where_the_maximum_is_zero(stabilised):
    _, lengths, stack = stabilised
    _, state = stack(torch.randint(7, (400, 5)))
    noise = lengths.random_noise(state, 0.3, torch.Generator().manual_seed(1))
    for layer in noise:
        assert not layer.mlstm.m.any()
        assert layer.mlstm.C.std().item() == pytest.approx(0.3, rel=0.05) and abs(layer.mlstm.C.mean().item()) < 0.01
    again = lengths.random_noise(state, 0.3, torch.Generator().manual_seed(1))
    assert torch.equal(again[1].mlstm.n, noise[1].mlstm.n)


def test_statistics_are_of_the_granularity_asked_for_and_free_of_the_frame(stabilised):
    package, lengths, _ = stabilised
    torch.manual_seed(2)
    means = torch.tensor([1.0, -2.0])[:, None, None]
    drawn = [(means + torch.randn(50, 2, 4, 3), torch.randn(50, 2, 4), torch.zeros(50, 2)) for _ in range(2)]
    states = [package.State(*(part.double() for part in parts)) for parts in drawn]
    values = torch.cat([state.C for state in states])
    for granularity, axes in (("layer", (0, 1, 2, 3)), ("head", (0, 2, 3)), ("channel", (0,))):
        fit = lengths.fitted(states, granularity)
        torch.testing.assert_close(fit.mean.C, values.mean(axes, keepdim=True).expand(1, 2, 4, 3))
        torch.testing.assert_close(fit.deviation.C, values.std(axes, keepdim=True, correction=0).expand(1, 2, 4, 3))
    # the same states, each written with a maximum of its own
    moved = [lengths._framed(state, (torch.rand(50, 2).double() * 4,)) for state in states]
    fit, again = lengths.fitted(states, "head"), lengths.fitted(moved, "head")
    for one, other in zip(lengths.canonical(fit.mean), lengths.canonical(again.mean), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="granularity 'row': one of layer, head, channel"):
        lengths.fitted(states, "row")
    with pytest.raises(ValueError, match="no states to fit"):
        lengths.fitted([], "head")


def test_windows_are_part_of_the_state_and_turn_with_it(folder):
    torch.manual_seed(3)
    package, lengths = lengths_of("mamba2", folder)
    stack = Stack(package.Mamba2Block, 4, N=4, P=4).double()
    tokens = torch.randint(7, (6, 17))
    whole, _ = stack(tokens)
    _, state = stack(tokens[:, :7])
    framed = lengths.canonical(state)
    assert not framed[0].tokens.any() and not torch.equal(framed[0].conv, state[0].conv)
    # token 3 is the oldest of a window of four, in row 3 % 4 before and first after
    torch.testing.assert_close(framed[0].conv[:, 0], state[0].conv[:, 3])
    torch.testing.assert_close(stack(tokens[:, 7:], framed)[0], whole[:, 7:], rtol=1e-10, atol=1e-10)
    per_channel = lengths.fitted([state], "head").mean[0].conv
    torch.testing.assert_close(per_channel[0, 2], state[0].conv.mean((0, 1)))
    # every sequence goes on from another's whole state, and no gradient flows into it
    order = torch.randperm(6, generator=torch.Generator().manual_seed(4))
    passed = lengths.shuffled(state, torch.Generator().manual_seed(4))
    assert order.tolist() != list(range(6)) and not passed[1].mamba2.S.requires_grad
    torch.testing.assert_close(stack(tokens[order, 7:], passed)[0], whole[order, 7:], rtol=1e-10, atol=1e-10)
    # a document that begins starts from zeros, the others go on
    begins = torch.tensor([True] + [False] * 5)
    carried, _ = stack(tokens[:, 7:], lengths.carried(state, begins))
    torch.testing.assert_close(carried[1:], whole[1:, 7:], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(carried[:1], stack(tokens[:1, 7:])[0], rtol=1e-10, atol=1e-10)


def test_a_state_turned_by_the_position_is_turned_back(folder):
    package, lengths = lengths_of("retnet", folder)
    torch.manual_seed(5)
    q, k, v = (torch.randn(2, 11, 2, size).double() for size in (4, 4, 3))
    starts = [package.State(torch.zeros(2, 2, 4, 3).double(), torch.tensor([0, at])) for at in (0, 500)]
    early, late = (package.retnet(q, k, v, initial_state=start) for start in starts)
    # the same tokens at other positions are other states, which turn back into one
    assert (early.final_state.S - late.final_state.S).abs()[1].max() > 0.1
    for one, other in zip(lengths.canonical(early.final_state), lengths.canonical(late.final_state), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    stack = Stack(package.RetnetBlock, 16, N=4, P=8).double()
    tokens = torch.randint(7, (2, 20))
    _, state = stack(tokens[:, :9])
    framed = lengths.canonical(state)
    assert state[0].retnet.position.tolist() == [9, 9] and framed[0].retnet.position.tolist() == [0, 0]
    torch.testing.assert_close(stack(tokens[:, 9:], framed)[0], stack(tokens)[0][:, 9:], rtol=1e-9, atol=1e-9)


def test_remembrance_of_a_stack_and_of_a_window(folder, stabilised):
    _, lengths, stack = stabilised
    tokens, starts = torch.randint(7, (3, 12)), [1, 5, 11]
    found = lengths.effective_remembrance(stack, tokens, starts, limit=30)
    with torch.no_grad():
        for row in range(3):
            whole = stack(tokens[row : row + 1])[0][0, -1].softmax(-1)
            for place, start in enumerate(starts):
                later = stack(tokens[row : row + 1, start:])[0][0, -1].softmax(-1)
                assert found[row, place].item() == pytest.approx((whole - later).abs().sum().item() / 2, abs=1e-12)
    assert found[:, 2].min() > 1e-3

    def window(ids, cu_seqlens):
        """Sees the last two tokens of its document and nothing else."""
        begins = torch.isin(torch.arange(ids.shape[1]), cu_seqlens)
        before = torch.where(begins, torch.zeros_like(ids), ids.roll(1, 1))
        return torch.stack([ids, 2.0 * before], -1)

    reach = lengths.effective_remembrance(window, tokens + 1, [0, 9, 10, 11])
    assert not reach[:, :3].any()
    first, last = tokens[0, -2].item() + 1, tokens[0, -1].item() + 1
    chance = [1 / (1 + math.exp(before - last)) for before in (2 * first, 0)]
    assert reach[0, 3].item() == pytest.approx(abs(chance[0] - chance[1]), abs=1e-6)
    with pytest.raises(ValueError, match="0 to 11"):
        lengths.effective_remembrance(window, tokens, [12])


def test_a_package_without_a_choice_of_frames_has_no_function_for_it(folder):
    _, lengths = lengths_of("simple_gla", folder)
    assert not hasattr(lengths, "canonical")


def test_the_example_keeps_a_register_and_draws(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("examples_lengths", ROOT / "examples" / "lengths.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    symbols, answers, held = module.register(3, 200, torch.tensor([5, -1, 2]), torch.Generator().manual_seed(0))
    for row, value in enumerate((5, -1, 2)):
        for symbol, answer in zip(symbols[row].tolist(), answers[row].tolist(), strict=True):
            value = symbol if symbol < module.VALUES else value
            assert answer == (value if symbol == module.QUERY and value >= 0 else -100)
        assert held[row] == value
    found = module.main(["--steps", "2", "--sequences", "8", "--out", str(tmp_path / "lengths.svg")])
    assert [*found] == ["from zeros", "more from zeros", "random noise", "fitted noise", "state passing", "truncated BPTT"]
    assert all(len(shares) == 8 and 0 <= min(shares) <= max(shares) <= 1 for shares in found.values())
    assert (tmp_path / "lengths.svg").read_text().count("<polyline") == 6 and "Effective Remembrance" in capsys.readouterr().out
