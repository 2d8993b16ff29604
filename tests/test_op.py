"""The emitted operator at its rims: absent states, forward-mode derivatives, arguments with names that its text uses."""

from __future__ import annotations

import pytest
from built import write

torch = pytest.importorskip("torch")

from torch._subclasses import FakeTensor, FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from ssmgen.backends.torch_text import identifier  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402

SPEC = """
recurrence {name} {{
  dim    N = 4, P = 3
  input  {query}, k : [N]; v : [P]; raw : scalar
  gate   g <= 0 = logsigmoid(raw)
  state  S : real [N, P]
  update S' = exp(g) * S + k[-1] v^T
  output o = S'^T {query}
}}
"""


def package(folder, name: str = "walk", query: str = "q", update: str = "k[-1]"):
    written, _ = write(SPEC.format(name=name, query=query).replace("k[-1]", update), folder)
    return load(written)


def arguments(seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 9, 2, 4), (2, 9, 2, 4), (2, 9, 2, 3), (2, 9, 2))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("query", ["k_previous", "gates", "found", "is_given", "any", "forward_ad", "super"])
def test_an_argument_may_have_a_name_that_the_text_uses(query, tmp_path):
    name = f"walk_{query}_read"
    made = package(tmp_path, name, query)
    given = arguments()
    y, expected = made.__dict__[name](*given).y, made.__dict__[f"{name}_reference"](*given).y
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    found, wanted = (torch.autograd.grad(tensor.square().sum(), given) for tensor in (y, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert identifier(query) == f"{query}_"


def test_an_absent_state_is_zero(tmp_path):
    made = package(tmp_path, "absent", update="k")
    given = arguments(1)
    start = made.State(S=torch.zeros(2, 2, 4, 3, dtype=torch.float64, requires_grad=True))
    bare, zero = made.absent(*given), made.absent(*given, initial_state=start)
    assert torch.equal(bare.y, zero.y) and torch.equal(bare.final_state.S, zero.final_state.S)
    for part in (0, 1):  # the output, the final state
        found, wanted = (torch.autograd.grad((run.y, run.final_state.S)[part].sum(), given, retain_graph=True, allow_unused=True)
                         for run in (bare, zero))  # fmt: skip
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    empty = torch.ops.__getattr__(made.op.NAMESPACE).backward(torch.ones_like(bare.y), None, *given, None, torch.empty(0), None, 64)
    assert empty[-1].numel() == 0 and empty[0].shape == given[0].shape
    [slope] = torch.autograd.grad(zero.y.sum(), [start.S])
    assert slope.shape == start.S.shape and slope.abs().max() > 0


def test_a_forward_mode_derivative_is_refused(tmp_path):
    made = package(tmp_path, "forwards")
    q, *others = (x.detach() for x in arguments(2))

    def run(x):
        return made.forwards(x, *others).y

    with pytest.raises(RuntimeError, match="forwards has no forward-mode derivative"):
        torch.func.jvp(run, (q,), (torch.ones_like(q),))
    with torch.autograd.forward_ad.dual_level():
        assert run(q).shape == (2, 9, 2, 3), "without a tangent it runs"
        with pytest.raises(RuntimeError, match="gradients are taken backwards"):
            run(torch.autograd.forward_ad.make_dual(q, q))


def test_operators_are_left_out_only_where_nothing_listens(tmp_path, monkeypatch):
    """A call goes straight to the operator's function; a mode that watches operators sees them, and stand-ins are left to them."""
    made = package(tmp_path, "direct")
    given, seen = arguments(3), []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function.name().removeprefix(f"{made.op.NAMESPACE}::"))
            return function(*args, **(kwargs or {}))

    def run():
        y = made.direct(*given).y
        return y, *torch.autograd.grad(y.square().sum(), given)

    with Watch():
        watched = run()
    assert {"forward", "backward"} <= set(seen)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert isinstance(made.direct(*(mode.from_tensor(x.detach()) for x in given)).y, FakeTensor)
    assert not made.op._is_direct(mode.from_tensor(given[0].detach())), "what is fake, out of its mode too"
    monkeypatch.setattr(made.op, "_operators", None)
    torch.testing.assert_close(run(), watched, rtol=0, atol=0)
