"""Products of matrices around an operator: written where they stay, in types, gradients and traffic."""

from __future__ import annotations

import importlib

import pytest
from built import example

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from ssmgen.runtime.sample import Shape, draw  # noqa: E402


@pytest.fixture(scope="module")
def op(tmp_path_factory):
    return importlib.import_module(f"{example('lru', tmp_path_factory.mktemp('dense'))[0].__name__}.op")


@pytest.mark.parametrize("heads", [(), (3,), (1,)], ids=["all heads", "a head's own", "one head"])
@pytest.mark.parametrize("lead", [(2, 5), (4,), (2, 0)], ids=["tokens", "one token", "no token"])
def test_products_are_sums(op, heads, lead):
    """Values and gradients of several matrices of the same values, in float64, also where one of them has no gradient."""
    one, two, x = (
        torch.randn(*heads, 6, 4).double(),
        torch.randn(*heads, 4, 5).double().mT,
        torch.randn(*lead, *(heads or (3,)), 4).double(),
    )
    leaves = [t.requires_grad_() for t in (one, two, x)]
    wanted = [(matrix @ x[..., None])[..., 0] for matrix in (one, two)]
    found = op._mapped_together((one, two), x)
    for weights in ((1, 1), (1, 0), (0, 1)):
        expected = torch.autograd.grad(sum((w * y.square()).sum() for w, y in zip(weights, wanted)), leaves, retain_graph=True)
        used = sum(y.square().sum() for w, y in zip(weights, found) if w)
        slopes = torch.autograd.grad(used, leaves, retain_graph=True, materialize_grads=True)
        torch.testing.assert_close(slopes, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, tuple(wanted), rtol=1e-12, atol=1e-12)
    assert all(y.is_contiguous() and y._base is None for y in found)


def test_types_are_those_of_a_product(op):
    """What is written in place has the type of what einsum gives, and is the same but for rounding."""
    short, single, double = torch.bfloat16, torch.float32, torch.float64
    for own in (short, single, double, torch.float16):
        for other in (short, single, double):
            for is_exact in (False, True):
                matrix, x = torch.randn(2, 5, 7).to(own), torch.randn(3, 2, 7).to(other)
                found, wanted = op._mapped(matrix, x, is_exact), op._product("hnm,...hm->...hn", matrix, x, is_exact)
                assert found.dtype == wanted.dtype
                # each is rounded once or twice
                torch.testing.assert_close(found, wanted, rtol=3 * torch.finfo(found.dtype).eps, atol=8 * torch.finfo(found.dtype).eps)


def test_gradients_of_short_values(op):
    """A float32 matrix beside bfloat16 values: gradients in their own types, right to the rounding of results and not to the matrix's."""
    matrices, x = [torch.randn(2, 64, 64, requires_grad=True) for _ in range(2)], torch.randn(33, 2, 64).bfloat16().requires_grad_()
    dy = [torch.randn(33, 2, 64).bfloat16() for _ in matrices]
    *found, d_x = torch.autograd.grad(op._mapped_together(tuple(matrices), x), (*matrices, x), dy)
    truth = sum(torch.einsum("hnm,thn->thm", m.double(), y.double()) for m, y in zip(matrices, dy))
    rounding = (truth.bfloat16().double() - truth).square().mean().sqrt()
    # two large terms are each rounded in turn, and the first of them is smaller than the sum
    assert (d_x.double() - truth).square().mean().sqrt() < 1.5 * rounding and d_x.dtype == torch.bfloat16
    for gradient, y in zip(found, dy):
        expected = torch.einsum("thn,thm->hnm", y.double(), x.double())
        assert gradient.dtype == torch.float32
        assert (gradient - expected).square().mean() < (2**-8) ** 2 * expected.square().mean()


def test_second_derivatives(op):
    """Products and sums are differentiated twice, as torch's own are."""
    matrices, x = [torch.randn(2, 3, 4).double().requires_grad_() for _ in range(2)], torch.randn(5, 2, 4).double().requires_grad_()
    y, d = torch.randn(5, 2, 4).double().requires_grad_(), torch.randn(2, 4).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda *given: op._mapped_together(given[:2], given[2]), (*matrices, x))
    assert torch.autograd.gradgradcheck(op._added, (y, d, x))
    # where one of the results is not used
    d_one, d_x = torch.autograd.grad(op._mapped_together(tuple(matrices), x)[0].square().sum(), (matrices[0], x), create_graph=True)
    expected = torch.autograd.grad((matrices[0] @ x[..., None]).square().sum(), (matrices[0], x), create_graph=True)
    found = torch.autograd.grad((d_one.sum() + d_x.square().sum()), (matrices[0], x))
    torch.testing.assert_close(found, torch.autograd.grad(expected[0].sum() + expected[1].square().sum(), (matrices[0], x)))


def test_one_pass_adds(op):
    """y + d * x in the type of x, rounded once; gradients in float64."""
    y, d, x = torch.randn(2, 9, 3, 4).double(), torch.randn(3, 4).double(), torch.randn(2, 9, 3, 4).double()
    assert torch.autograd.gradcheck(op._added, [t.requires_grad_() for t in (y, d, x)])
    y, d, x = y.bfloat16().detach(), d.float().detach(), x.bfloat16().detach()
    assert torch.equal(op._added(y, d, x), (y.double() + d.double() * x.double()).float().bfloat16())


def test_what_is_traced_or_transformed_is_einsum(op):
    """Where memory is not to be written, values and derivatives are the same."""
    matrix, x = torch.randn(3, 6, 4).double(), torch.randn(5, 3, 4).double()
    wanted = op._mapped(matrix, x)
    torch.testing.assert_close(torch.func.vmap(lambda row: op._mapped(matrix, row))(x), wanted)
    y, slope = torch.func.jvp(lambda x: op._mapped(matrix, x), (x,), (x,))
    torch.testing.assert_close((y, slope), (wanted, wanted))
    torch.testing.assert_close(torch.func.grad(lambda m: op._mapped(m, x).sum())(matrix), x.sum(0)[:, None].expand_as(matrix))


class Traffic(TorchDispatchMode):
    """The bytes that operations other than products of matrices read and write, views and new memory left out."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        name = function._schema.name.removeprefix("aten::")
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
        if not is_view and "empty" not in name and name not in ("bmm", "baddbmm", "mm", "_unsafe_view", "new_zeros"):
            held = torch.utils._pytree.tree_leaves((arguments, keywords, result))
            # one that is written and returned counts once
            self.bytes += sum(each.nbytes for each in {id(t): t for t in held if isinstance(t, torch.Tensor)}.values())
        return result


def answering(op, monkeypatch):
    """The operator as if its kernels ran, and answered with new memory."""

    class Kernels:
        gates_shape = staticmethod(lambda *operands: (0,))
        forward = staticmethod(lambda *operands: op._forward_fake(*operands, 64))
        backward = staticmethod(lambda *operands: op._backward_fake(*operands, 64))

    monkeypatch.setattr(op, "_kernels", lambda: Kernels)
    monkeypatch.setattr(op, "_is_fused", lambda *operands: True)
    monkeypatch.setattr(op, "_is_direct", lambda *operands: True)


@pytest.mark.parametrize("name", ["lru", "s5", "linoss"])
def test_copies_around_products(name, tmp_path, monkeypatch):
    """Around the kernels no more is read and written than a few times the values: of shapes alone, in bfloat16 beside float32."""
    package, spec = example(name, tmp_path)
    op = importlib.import_module(f"{package.__name__}.op")

    answering(op, monkeypatch)
    sizes = {dim: 32 for dim, _ in spec.dims}
    case = draw(spec, Shape(1, 1, 4, 1, sizes), device="cpu").to(torch.bfloat16, params_dtype=torch.float32)
    arguments = [x.to("meta") for x in case.arguments]
    arguments = [x.expand(4, 8192, *x.shape[2:]).clone() if x.dtype == torch.bfloat16 else x for x in arguments]
    leaves = [x.requires_grad_() for x in arguments]
    with Traffic() as forward:
        y = getattr(package, name)(*leaves).y
    with Traffic() as backward:
        torch.autograd.grad(y, leaves, torch.empty_like(y))
    # in units of the values: forward the sum with D * u, which reads two and writes one; backward that sum's gradients, which read two
    # and write twice as long a product, read that, and read and write one, and a sum of two gradients of the input
    unit = leaves[0].nbytes
    assert 3 <= forward.bytes / unit < 3.5
    assert 11 <= backward.bytes / unit < 11.5


def test_strided_inputs_are_copied_once(tmp_path, monkeypatch):
    """Backward is given the copies that forward made for the kernels: of both halves of a projection here."""
    package, _ = example("hgrn", tmp_path)
    answering(importlib.import_module(f"{package.__name__}.op"), monkeypatch)
    projected = torch.randn(2, 9, 10, device="meta", requires_grad=True)
    gamma = torch.randn(5, device="meta", requires_grad=True)
    with Traffic() as forward:
        y = package.hgrn(*projected.split(5, -1), gamma).y
    halves = torch.empty_like(projected), torch.empty_like(projected)
    assert forward.bytes == sum(each.nbytes for each in halves)
    with Traffic() as backward:
        torch.autograd.grad(y, (projected, gamma), torch.empty_like(y))
    # the gradient of the projection is both of its halves side by side
    assert backward.bytes == sum(each.nbytes for each in halves)
