"""The closed set of functions as torch text. A table: name of the language -> text of the call.

Arguments arrive as text of any precedence: every entry puts them inside a call. A function over a column takes the axis
to work along; those longer than a call are printed once, from `HELPERS`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?")


def _call(name: str) -> Callable[..., str]:
    return lambda *args: f"{name}({', '.join(args)})"


def _least(x: str, y: str) -> str:
    if is_number(y):
        return f"torch.clamp({x}, max={y})"
    return f"torch.clamp({y}, max={x})" if is_number(x) else f"torch.minimum({x}, {y})"


def _greatest(x: str, y: str) -> str:
    if is_number(y):
        return f"torch.clamp({x}, min={y})"
    return f"torch.clamp({y}, min={x})" if is_number(x) else f"torch.maximum({x}, {y})"


def _clamp(x: str, low: str, high: str) -> str:
    if is_number(low) and is_number(high):
        return f"torch.clamp({x}, {low}, {high})"
    return _least(_greatest(x, low), high)


def is_number(text: str) -> bool:
    """True for the text of a literal number, with or without a sign."""
    return _NUMBER.fullmatch(text) is not None


FUNCTIONS: dict[str, Callable[..., str]] = {
    "exp": _call("torch.exp"),
    "log": _call("torch.log"),
    "log1p": _call("torch.log1p"),
    "expm1": _call("torch.expm1"),
    "sigmoid": _call("torch.sigmoid"),
    "logsigmoid": _call("F.logsigmoid"),
    # Above its threshold the library's softplus is linear; at the default 20 that costs 2e-9, at 50 less than float64 shows.
    "softplus": lambda x: f"F.softplus({x}, threshold=50.0)",
    "inv_softplus": _call("_inv_softplus"),
    "silu": _call("F.silu"),
    "gelu": _call("F.gelu"),
    "elu": _call("F.elu"),
    "relu": _call("torch.relu"),
    "tanh": _call("torch.tanh"),
    "abs": _call("torch.abs"),
    "sqrt": _call("torch.sqrt"),
    "bounded_sqrt": _call("_bounded_sqrt"),
    "rsqrt": _call("torch.rsqrt"),
    "square": _call("torch.square"),
    "sin": _call("torch.sin"),
    "cos": _call("torch.cos"),
    "atan2": _call("torch.atan2"),
    "heavy_tail": _call("_heavy_tail"),
    "phi1": lambda x: f"_phi({x}, 1)",
    "phi2": lambda x: f"_phi({x}, 2)",
    "exp_even": lambda x, d: f"_even_odd({x}, {d}, 0)[0]",
    "exp_odd": lambda x, d: f"_even_odd({x}, {d}, 0)[1]",
    "phi1_even": lambda x, d: f"_even_odd({x}, {d}, 1)[0]",
    "phi1_odd": lambda x, d: f"_even_odd({x}, {d}, 1)[1]",
    "min": _least,
    "max": _greatest,
    "clamp": _clamp,
    "Re": _call("torch.real"),
    "Im": _call("torch.imag"),
    "conj": _call("torch.conj"),
    "cis": _call("_cis"),
}
"""Pointwise functions: the same text whatever the layout."""

OF_TENSORS = ("atan2", "exp_even", "exp_odd", "phi1_even", "phi1_odd")
"""Functions of several arguments that take no Python number beside a tensor."""

AXIS_FUNCTIONS: dict[str, Callable[[str, str], str]] = {
    "unit": lambda x, axis: f"_unit({x}, {axis})",
    "rmsnorm": lambda x, axis: f"_rmsnorm({x}, {axis})",
    "softmax": lambda x, axis: f"torch.softmax({x}, {axis})",
    "norm": lambda x, axis: f"_norm({x}, {axis})",
    "pairs": lambda x, axis: f"torch.repeat_interleave({x}, 2, {axis})",
}
"""Functions over the entries of a column; `axis` is the text of the axis that holds them."""

SQUARE_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "matrix_exp": _call("_matrix_exp"),
    "matrix_phi1": _call("_phi_matrix"),
    "matrix_inverse": _call("torch.linalg.inv"),
}
"""Functions of a square matrix as a whole; rows and columns are the last two axes."""

ENTRY_FUNCTIONS = {"entries_exp": "matrix_exp", "entries_phi1": "matrix_phi1"}
"""Functions of a small matrix at every entry, by that of the matrix."""

SQUARE_PARTS = {f"{name}_{part}": (name, attribute) for name in SQUARE_FUNCTIONS for part, attribute in (("re", "real"), ("im", "imag"))}
"""The parts of those of a complex matrix, from its own: the function, and which part it is."""

HELPERS: dict[str, str] = {
    "_phi_matrix": '''\
def _phi_matrix(z: Tensor) -> Tensor:
    """The sum of z^k / (k + 1)!, which is (exp(z) - I) z^-1 where z has an inverse: a corner of exp([[z, I], [0, 0]])."""
    size = z.shape[-1]
    corner = torch.eye(size, dtype=z.dtype, device=z.device).expand(z.shape)
    top, bottom = torch.cat([z, corner], -1), torch.zeros_like(torch.cat([z, z], -1))
    return torch.matrix_exp(torch.cat([top, bottom], -2))[..., :size, size:]
''',
    "_matrix_exp": '''\
def _matrix_exp(z: Tensor) -> Tensor:
    """The exponential; torch takes its argument as it lies in memory, one row behind the other."""
    return torch.matrix_exp(z.contiguous())
''',
    "_entries": '''\
def _entries(*entries: Tensor | float) -> Tensor:
    """A small matrix at every place from its entries, row after row; its own axes are the last two."""
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    size = round(len(entries) ** 0.5)
    entries = [entry if isinstance(entry, Tensor) else like.new_tensor(entry) for entry in entries]
    return torch.stack(torch.broadcast_tensors(*entries), -1).unflatten(-1, (size, size))
''',
    "_exact": '''\
def _exact(x: Tensor) -> Tensor:
    """In float32 at least, as what a function of a whole matrix is made of."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
''',
    "_skew_matrix": '''\
def _skew_matrix(rate: Tensor, size: int) -> Tensor:
    """The size x size matrix with blocks [[0, -w], [w, 0]] for rates [..., M]; zero beyond them."""
    beside = torch.stack([rate, torch.zeros_like(rate)], -1).flatten(-2)
    beside = torch.cat([beside, beside.new_zeros(*beside.shape[:-1], size - beside.shape[-1])], -1)[..., :-1]
    return torch.diag_embed(beside, -1) - torch.diag_embed(beside, 1)
''',
    "_product": '''\
def _product(equation: str, left: Tensor, right: Tensor, is_exact: bool = False) -> Tensor:
    """A product of all tokens at once. What is longer than its other side, in half precision, is the sum of two that are as short:
    its rounding is not the product's. An exact one is in float32 at least."""
    lengths = left.dtype.itemsize, right.dtype.itemsize
    if is_exact or 2 not in lengths or lengths == (2, 2):
        dtype = torch.promote_types(left.dtype, right.dtype)
        dtype = torch.promote_types(dtype, torch.float32) if is_exact else dtype
        return torch.einsum(equation, left.to(dtype), right.to(dtype))
    is_left = lengths[1] == 2
    dtype = right.dtype if is_left else left.dtype
    first, second = left.to(dtype), right.to(dtype)
    rest = (left - first if is_left else right - second).detach().to(dtype)
    return torch.einsum(equation, first, second) + torch.einsum(equation, *((rest, second) if is_left else (first, rest)))
''',
    "_mapped": '''\
def _mapped(matrix: Tensor, x: Tensor, is_exact: bool = False) -> Tensor:
    """What a matrix [heads, n, m] or [n, m] that tokens share makes of their values [..., heads, m]."""
    return _mapped_together((matrix,), x, is_exact)[0]
''',
    "_mapped_together": '''\
def _mapped_together(matrices: tuple[Tensor, ...], x: Tensor, is_exact: bool = False) -> tuple[Tensor, ...]:
    """What matrices [heads, n, m] or [n, m] that tokens share make of the same values [..., heads, m], in the types of `_product`."""
    kinds = {matrix.dtype for matrix in matrices}
    kind = matrices[0].dtype
    lengths = kind.itemsize, x.dtype.itemsize
    if not _is_eager(x, *matrices) or len(kinds) > 1 or (not is_exact and lengths[0] == 2 < lengths[1]):
        equation = "hnm,...hm->...hn" if matrices[0].dim() == 3 else "nm,...m->...n"
        return tuple(_product(equation, matrix, x, is_exact) for matrix in matrices)
    is_summed = not is_exact and lengths[1] == 2 < lengths[0]
    dtype = torch.promote_types(kind, x.dtype)
    dtype = x.dtype if is_summed else torch.promote_types(dtype, torch.float32) if is_exact else dtype
    return _Mapped.apply(x.to(dtype), *(matrix if is_summed else matrix.to(dtype) for matrix in matrices))
''',
    "_is_eager": '''\
def _is_eager(*tensors: Tensor) -> bool:
    """Whether nothing but autograd follows what is computed, so that it may be written into memory of its own."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
        and {Tensor, torch.nn.Parameter}.issuperset(map(type, tensors))
    )
''',
    "_Mapped": '''\
class _Mapped(torch.autograd.Function):
    """Products with matrices that tokens share, each written where it stays, the heads of a token side by side: batches of products
    leave the tokens of a head side by side, and every use of these would copy them. A sum of products is added up in place."""

    @staticmethod
    def forward(ctx, x, *matrices):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *matrices)
        terms = [[(x, part.mT) for part in _Mapped.parts(matrix, x.dtype)] for matrix in matrices]
        return tuple(_Mapped.sum(each, x.new_empty(*x.shape[:-1], matrix.shape[-2])) for each, matrix in zip(terms, matrices))

    @staticmethod
    def backward(ctx, *gradients):
        x, *matrices = ctx.saved_tensors
        if torch.is_grad_enabled():
            equation = "hnm,...hm->...hn" if matrices[0].dim() == 3 else "nm,...m->...n"
            return _graphed([_product(equation, matrix, x) for matrix in matrices], ctx.saved_tensors, ctx.needs_input_grad, gradients)
        d_x, d_matrices = None, [None] * len(matrices)
        asked = [(dy, _Mapped.parts(matrix, x.dtype)) for dy, matrix in zip(gradients, matrices) if dy is not None]
        if ctx.needs_input_grad[0] and asked:
            # small parts of all matrices come first
            terms = [(dy, parts[i]) for i in range(len(asked[0][1])) for dy, parts in asked]
            d_x = _Mapped.sum(terms, torch.empty_like(x, memory_format=torch.contiguous_format))
        for i, (dy, matrix) in enumerate(zip(gradients, matrices)):
            if ctx.needs_input_grad[1 + i] and dy is not None:
                heads = matrix.shape[0] if matrix.dim() == 3 else 1
                found = torch.bmm(_Mapped.rows(dy, heads).mT, _Mapped.rows(x, heads))
                d_matrices[i] = found.view(matrix.shape).to(matrix.dtype)
        return d_x, *d_matrices

    @staticmethod
    def rows(x: Tensor, heads: int) -> Tensor:
        """Values as [heads, tokens, m]; beside one matrix for all heads these are tokens too."""
        return x.reshape(-1, heads, x.shape[-1]).transpose(0, 1)

    @staticmethod
    def parts(matrix: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """A matrix as a sum of matrices of a shorter type, the small one first, which so is not rounded beside the other."""
        matrix = matrix if matrix.dim() == 3 else matrix[None]
        first = matrix.to(dtype)
        return [first] if matrix.dtype == dtype else [(matrix - first).to(dtype), first]

    @staticmethod
    def sum(terms: list[tuple[Tensor, Tensor]], y: Tensor) -> Tensor:
        """The sum of values times matrices [heads, m, n], put into y."""
        (x, matrix), *others = terms
        heads = matrix.shape[0]
        place = _Mapped.rows(y, heads)
        torch.bmm(_Mapped.rows(x, heads), matrix, out=place)
        for x, matrix in others:
            torch.baddbmm(place, _Mapped.rows(x, heads), matrix, out=place)
        return y
''',
    "_graphed": '''\
def _graphed(values, operands, needed, gradients) -> tuple[Tensor | None, ...]:
    """Gradients of the operands which can be differentiated themselves."""
    values, gradients = zip(*((value, gradient) for value, gradient in zip(values, gradients) if gradient is not None))
    wanted = [operand for operand, is_needed in zip(operands, needed) if is_needed]
    found = iter(torch.autograd.grad(values, wanted, gradients, create_graph=True, allow_unused=True))
    return tuple(next(found) if is_needed else None for is_needed in needed)
''',
    "_added": '''\
def _added(y: Tensor, factor: Tensor, x: Tensor) -> Tensor:
    """y + factor * x in the type of x."""
    return _Added.apply(y, factor, x) if _is_eager(y, factor, x) else (y + factor * x).to(x.dtype)
''',
    "_Added": '''\
class _Added(torch.autograd.Function):
    """y + factor * x in one pass: neither the product nor the sum is written in a longer type."""

    @staticmethod
    def forward(ctx, y, factor, x):
        ctx.save_for_backward(factor, x)
        ctx.kind = y.dtype
        return torch.addcmul(y, factor, x, out=torch.empty_like(x, memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx, dy):
        (factor, x), (d_factor, d_x) = ctx.saved_tensors, (None, None)
        if torch.is_grad_enabled():
            return dy.to(ctx.kind), (dy * x).sum_to_size(factor.shape).to(factor.dtype), (dy * factor).to(x.dtype)
        if ctx.needs_input_grad[1]:
            # products of short values are sums of float32 as they stand
            zero = factor.new_zeros(1, dtype=torch.promote_types(factor.dtype, torch.float32))
            d_factor = torch.addcmul(zero, dy, x).sum_to_size(factor.shape).to(factor.dtype)
        if ctx.needs_input_grad[2]:
            d_x = torch.mul(dy, factor, out=torch.empty_like(x, memory_format=torch.contiguous_format))
        return dy.to(ctx.kind), d_factor, d_x
''',
    "_inv_softplus": '''\
def _inv_softplus(x: Tensor) -> Tensor:
    """The inverse of softplus, for x > 0."""
    return x + torch.log(-torch.expm1(-x))
''',
    "_bounded_sqrt": '''\
def _bounded_sqrt(x: Tensor, slope: float) -> Tensor:
    """The square root, with a derivative of at most `slope`."""
    change = 0.5 * torch.rsqrt(torch.clamp(x.detach(), min=0.25 / slope**2))
    return torch.sqrt(x.detach()) + change * (x - x.detach())
''',
    "_heavy_tail": '''\
def _heavy_tail(x: Tensor) -> Tensor:
    """1 + x from 0 up, 1 / (1 - x) below: positive, with a tail that never dies out."""
    return torch.where(x >= 0, 1 + x, 1 / (1 - torch.clamp(x, max=0)))
''',
    "_legs": '''\
def _legs(modes: int, blocks: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS is S - I/2 - p p^T with p_n^2 = r_n = n + 1/2 and S skew: frequencies w > 0 of S, V^H p of its eigenvectors V, and r.

    The w solve sum_n atan(w / r_n) = (k + 1/2) pi, and (V^H p)^-2 is the slope there; of one block, in float64. There are as many blocks of
    one size as divide the modes and `blocks`.
    """
    blocks = math.gcd(modes, blocks)
    r = torch.arange(2 * modes // blocks, dtype=torch.float64, device=device) + 0.5
    wanted = math.pi * r[: modes // blocks]
    w = torch.zeros_like(wanted)
    for _ in range(24):
        w = w + (wanted - torch.atan(w[:, None] / r).sum(-1)) / (r / (r**2 + w[:, None] ** 2)).sum(-1)
    return w, torch.rsqrt((r / (r**2 + w[:, None] ** 2)).sum(-1)), r
''',
    "_legs_frequencies": '''\
def _legs_frequencies(modes: int, blocks: int, device: torch.device) -> Tensor:
    """Imaginary parts of the eigenvalues of HiPPO-LegS without its low rank, those above 0, block after block."""
    return _legs(modes, blocks, device)[0].repeat(math.gcd(modes, blocks))
''',
    "_legs_low_rank": '''\
def _legs_low_rank(modes: int, device: torch.device) -> Tensor:
    """V^H p of HiPPO-LegS, whose low rank is -p p^T, for eigenvectors V with phases such that it is above 0."""
    return _legs(modes, 1, device)[1]
''',
    "_legs_vectors": '''\
def _legs_vectors(modes: int, blocks: int, device: torch.device) -> Tensor:
    """Eigenvectors of HiPPO-LegS without its low rank, [2 modes, modes], those of frequencies above 0, block by block."""
    w, length, r = _legs(modes, blocks, device)
    turning, r = 1j * w, r[:, None]
    passed = torch.cumprod((turning - r) / (turning + r), 0).roll(1, 0)
    passed[0] = 1
    return torch.block_diag(*[length * torch.sqrt(r) / (r + turning) * passed] * math.gcd(modes, blocks))
''',
    "_legs_modes": '''\
def _legs_modes(x: Tensor, blocks: int) -> Tensor:
    """V^H x: a real matrix [2 modes, P] along the modes of HiPPO-LegS, those of frequencies above 0."""
    return _legs_vectors(x.shape[-2] // 2, blocks, x.device).mH @ x.to(torch.complex128)
''',
    "_legs_reads": '''\
def _legs_reads(x: Tensor, blocks: int) -> Tensor:
    """x V: a real matrix [P, 2 modes] along the modes of HiPPO-LegS, those of frequencies above 0."""
    return x.to(torch.complex128) @ _legs_vectors(x.shape[-1] // 2, blocks, x.device)
''',
    "_phi": '''\
def _phi(x: Tensor, k: int) -> Tensor:
    """The sum of x^j / (j + k)!: (exp(x) - 1) / x, and so on. Near 0 by the series, where quotients lose digits."""
    near, factorials = x.abs() < 1, (1, 1, 2, 6)
    small, far = torch.where(near, x, 0), torch.where(near, 1, x)
    series, quotient = torch.ones_like(small), torch.expm1(far) / far
    for j in range(20, 0, -1):
        series = 1 + small * series / (j + k)
    for j in range(1, k):
        quotient = (quotient - 1 / factorials[j]) / far
    return torch.where(near, series / factorials[k], quotient)
''',
    "_phi_slope": '''\
def _phi_slope(x: Tensor, k: int) -> Tensor:
    """The derivative of _phi(x, k)."""
    return _phi(x, k) - k * _phi(x, k + 1)
''',
    "_even_odd": '''\
def _even_odd(x: Tensor, d: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The e and o of phi_k(x + s) = e + s o and phi_k(x - s) = e - s o, s^2 = d of either sign, k up to 2; phi_0 is exp."""
    x, d = torch.broadcast_tensors(x, d)
    near = d.abs() < 1
    rise, turn = torch.sqrt(torch.where(d >= 1, d, 1)), torch.sqrt(torch.where(d <= -1, -d, 1))
    if k == 0:
        small = torch.where(near, d, 0)
        even = odd = torch.ones_like(small)
        for j in range(9, 0, -1):
            even, odd = 1 + small * even / (2 * j * (2 * j - 1)), 1 + small * odd / (2 * j * (2 * j + 1))
        above, below, size = torch.exp(x + rise), torch.exp(x - rise), torch.exp(x)
        even = torch.where(near, size * even, torch.where(d > 0, (above + below) / 2, size * torch.cos(turn)))
        return even, torch.where(near, size * odd, torch.where(d > 0, (above - below) / (2 * rise), size * torch.sin(turn) / turn))
    # the series where both are small, two values where they are apart, else phi_k = (phi_{k-1} - 1) / z, k = 1 or 2
    is_small = near & (x.abs() < 2)
    u, v = torch.where(is_small, x, 0), torch.where(is_small, d, 0)
    even, odd = torch.ones_like(u), torch.zeros_like(u)
    for j in range(28, 0, -1):
        even, odd = 1 + (even * u + odd * v) / (j + k), (even + odd * u) / (j + k)
    above, below = _phi(x + rise, k), _phi(x - rise, k)
    lower, other = _even_odd(x, d, k - 1)
    lower, size = lower - 1, torch.where(is_small | (d >= 1), 1, x * x - d)
    far = torch.where(d >= 1, (above + below) / 2, (lower * x - other * d) / size)
    far_odd = torch.where(d >= 1, (above - below) / (2 * rise), (other * x - lower) / size)
    return torch.where(is_small, even / k, far), torch.where(is_small, odd / k, far_odd)
''',
    "_even_odd_slope": '''\
def _even_odd_slope(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives by x of what _even_odd(x, d, 1) gives."""
    (even, odd), (next_even, next_odd) = _even_odd(x, d, 1), _even_odd(x, d, 2)
    return even - next_even, odd - next_odd
''',
    "_odd_bend": '''\
def _odd_bend(x: Tensor, d: Tensor, k: int) -> Tensor:
    """The derivative by d of the second that _even_odd(x, d, k) gives, k = 0 or 1."""
    x, d = torch.broadcast_tensors(x, d)
    near = d.abs() < 1
    small = torch.where(near, d, 0)
    (even, odd), series = _even_odd(x, d, 0), torch.full_like(small, 1 / 6)
    for j in range(9, 0, -1):
        series = 1 / 6 + small * series / (2 * j * (2 * j + 3))
    bend = torch.where(near, torch.exp(x) * series, (even - odd) / (2 * torch.where(near, 1, d)))
    if k == 0:
        return bend
    is_small = near & (x.abs() < 2)
    u, v = torch.where(is_small, x, 0), torch.where(is_small, d, 0)
    e, o = torch.ones_like(u), torch.zeros_like(u)
    d_e, d_o = torch.zeros_like(u), torch.zeros_like(u)
    for j in range(28, 0, -1):
        d_e, d_o = (d_e * u + d_o * v + o) / (j + 1), (d_e + d_o * u) / (j + 1)
        e, o = 1 + (e * u + o * v) / (j + 1), (e + o * u) / (j + 1)
    own = _even_odd(x, d, 1)[1]
    beside = (bend * x - odd / 2 + own) / torch.where(near & ~is_small, x * x - d, 1)
    apart = (_even_odd_slope(x, d)[0] - own) / (2 * torch.where(near, 1, d))
    return torch.where(is_small, d_o, torch.where(near, beside, apart))
''',
    "_cis": '''\
def _cis(angle: Tensor) -> Tensor:
    """exp(i angle)."""
    return torch.complex(torch.cos(angle), torch.sin(angle))
''',
    "_cosm1": '''\
def _cosm1(angle: Tensor) -> Tensor:
    """cos(angle) - 1, which does not cancel near 0."""
    return -2 * torch.square(torch.sin(0.5 * angle))
''',
    "_rows": '''\
def _rows(*rows: Tensor, dim: int) -> Tensor:
    """Rows side by side, each broadcast to the shape of all."""
    return torch.stack(torch.broadcast_tensors(*rows), dim)
''',
    "_unit": '''\
def _unit(x: Tensor, axis: int) -> Tensor:
    """x over its length; the 1e-6 keeps zero at zero."""
    return x * torch.rsqrt(torch.sum(x * x, axis, keepdim=True) + 1e-6)
''',
    "_rmsnorm": '''\
def _rmsnorm(x: Tensor, axis: int) -> Tensor:
    """x over the root of its mean square."""
    return x * torch.rsqrt(torch.mean(x * x, axis, keepdim=True) + 1e-5)
''',
    "_turn": '''\
def _turn(x: Tensor, angle: Tensor) -> Tensor:
    """x with its pairs (2j, 2j + 1) turned by angles [..., M]; what stands behind 2M entries stays."""
    cos, sin, count = torch.cos(angle), torch.sin(angle), 2 * angle.shape[-1]
    even, odd = x[..., :count].unflatten(-1, (-1, 2)).unbind(-1)
    y = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
    return y if count == x.shape[-1] else torch.cat([y, x[..., count:].expand(*y.shape[:-1], -1)], -1)
''',
    "_pair_cross": '''\
def _pair_cross(x: Tensor, y: Tensor, pairs: int) -> Tensor:
    """x_2j y_2j+1 - x_2j+1 y_2j of the first pairs: the slope of x . y as y turns."""
    x, y = (t[..., : 2 * pairs].unflatten(-1, (-1, 2)) for t in (x, y))
    return x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]
''',
    "_norm": '''\
def _norm(x: Tensor, axis: int) -> Tensor:
    """The Euclidean length."""
    return torch.sqrt(torch.sum(x * x, axis, keepdim=True))
''',
}
"""The functions that are longer than one call, by the name they have in the text."""


def helpers(text: str, table: Mapping[str, str] = HELPERS) -> tuple[str, ...]:
    """The helpers that `text` calls, with those that they call themselves, by name."""
    return tuple(table[name] for name in called_in(text, table))


def called_in(text: str, table: Mapping[str, str] = HELPERS) -> tuple[str, ...]:
    """Their names."""
    found: set[str] = set()
    waiting = [text]
    while waiting:
        said = waiting.pop()
        called = [name for name in table if name not in found and (f"{name}(" in said or f"{name}.apply(" in said)]
        found.update(called)
        waiting += [table[name] for name in called]
    return tuple(sorted(found))


RESERVED = frozenset(
    "F State Output Tensor NamedTuple torch math nn batch length heads channels groups dtype device state states documents "
    "outputs t index start end head channel position initial_state final_state cu_seqlens chunk self "
    "kinds dy y final operands from_readout chunks given ratio ctx inputs output gradients sequences next_position value "
    "slots present held at kept adjoints "
    "rows functools warnings forward_ad NAMESPACE any bool float getattr int len list range reversed super tuple "
    "zip gates is_given is_fused found".split()
)
"""Names that the emitted text uses for itself."""

_COMPOSED = re.compile(r"(d|read)_(?!model$)\w+|reads\d*|from_operands\d*|\w+_previous")
"""Names that the emitted text makes: gradients, what the walks read, `x[-1]`; `d_model` is every layer's argument."""


def identifier(name: str) -> str:
    """The Python name of a name of the language: itself, or with `_` behind when Python or the emitted text needs it.

    Two names stay two: what is a needed name but for its own `_` behind gets one more. `x[-1]` is `x_previous`, and
    `m'` is `m_next`.
    """
    if name.endswith("[-1]"):
        return f"{identifier(name[:-4])}_previous"
    if name.endswith("'"):
        return f"{identifier(name[:-1])}_next"
    return f"{name}_" if _COMPOSED.fullmatch(name.rstrip("_")) else attribute(name)


def attribute(name: str) -> str:
    """The Python name of a size, or of what a layer holds: nothing that is composed stands beside it, so `d_model` stays."""
    safe = f"x{name}" if name.startswith("_") else name
    bare = safe.rstrip("_")
    return f"{safe}_" if keyword.iskeyword(bare) or bare in RESERVED else safe
