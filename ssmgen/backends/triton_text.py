"""The closed set of functions as Triton text, in float32. A table: name of the language -> text of the call.

Arguments arrive as text of any precedence: every entry puts them inside a call. What is longer than a call is a `@triton.jit`
function of `HELPERS`, printed once where it is used. Only what the interpreter and every GPU back end know is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def _call(name: str) -> Callable[..., str]:
    return lambda *args: f"{name}({', '.join(args)})"


FUNCTIONS: dict[str, Callable[..., str]] = {
    "exp": _call("tl.exp"),
    "log": _call("tl.log"),
    "log1p": _call("_log1p"),
    "expm1": _call("_expm1"),
    "sigmoid": _call("_sigmoid"),
    "logsigmoid": _call("_logsigmoid"),
    "softplus": _call("_softplus"),
    "inv_softplus": _call("_inv_softplus"),
    "silu": _call("_silu"),
    "gelu": _call("_gelu"),
    "elu": _call("_elu"),
    "relu": lambda x: f"tl.maximum({x}, 0.0)",
    "tanh": _call("_tanh"),
    "abs": _call("tl.abs"),
    "sqrt": _call("tl.sqrt"),
    "bounded_sqrt": lambda x, slope: f"tl.sqrt({x})",
    "rsqrt": _call("tl.rsqrt"),
    "square": _call("_square"),
    "sin": _call("tl.sin"),
    "cos": _call("tl.cos"),
    "atan2": _call("_atan2"),
    "heavy_tail": _call("_heavy_tail"),
    "phi1": lambda x: f"_phi({x}, 1)",
    "phi2": lambda x: f"_phi({x}, 2)",
    "exp_even": lambda x, d: f"_even({x}, {d}, 0)",
    "exp_odd": lambda x, d: f"_odd({x}, {d}, 0)",
    "phi1_even": lambda x, d: f"_even({x}, {d}, 1)",
    "phi1_odd": lambda x, d: f"_odd({x}, {d}, 1)",
    "min": _call("tl.minimum"),
    "max": _call("tl.maximum"),
    "clamp": lambda x, low, high: f"tl.minimum(tl.maximum({x}, {low}), {high})",
    # what only derivatives use
    "at_least": lambda x, y: f"tl.where({x} >= {y}, 1.0, 0.0)",
    "sign": _call("_sign"),
    "erf": _call("tl.erf"),
    "phi1_slope": lambda x: f"_phi_slope({x}, 1)",
    "phi2_slope": lambda x: f"_phi_slope({x}, 2)",
    "exp_odd_bend": lambda x, d: f"_odd_bend({x}, {d}, 0)",
    "phi1_even_slope": lambda x, d: f"(_even({x}, {d}, 1) - _even({x}, {d}, 2))",
    "phi1_odd_slope": lambda x, d: f"(_odd({x}, {d}, 1) - _odd({x}, {d}, 2))",
    "phi1_odd_bend": lambda x, d: f"_odd_bend({x}, {d}, 1)",
    # and what parts of complex values do
    "cosm1": _call("_cosm1"),
}
"""Pointwise functions: the same text whatever the axes."""

HELPERS: dict[str, str] = {
    "_square": """\
@triton.jit
def _square(x):
    return x * x
""",
    "_power": '''\
@triton.jit
def _power(x, n: tl.constexpr):
    """x to a whole power, n >= 1."""
    y = x
    for _ in tl.static_range(n - 1):
        y = y * x
    return y
''',
    "_sign": """\
@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))
""",
    "_cosm1": '''\
@triton.jit
def _cosm1(x):
    """cos(x) - 1, which does not cancel near 0."""
    y = tl.sin(0.5 * x)
    return -2 * y * y
''',
    "_atan2": '''\
@triton.jit
def _atan2(y, x):
    """The angle of x + i y: of the smaller part over the larger a polynomial, right to 2e-7; 0 at 0."""
    a, b = tl.abs(x), tl.abs(y)
    t = tl.minimum(a, b) / tl.maximum(tl.maximum(a, b), 1e-38)
    u = t * t
    z = 0.106659926 + u * (-0.0755218863 + u * (0.0432115607 + u * (-0.0163677428 + u * 0.00292064552)))
    z = t * (1 + u * (-0.333331525 + u * (0.199937731 + u * (-0.142110527 + u * z))))
    z = tl.where(b > a, 1.5707963267948966 - z, z)
    z = tl.where(x < 0, 3.141592653589793 - z, z)
    return tl.where(y < 0, -z, z)
''',
    "_log1p": '''\
@triton.jit
def _log1p(x):
    """log(1 + x); the quotient corrects the rounding of the sum."""
    y = 1 + x
    return tl.where(y == 1, x, tl.log(y) * (x / tl.where(y == 1, 1.0, y - 1)))
''',
    "_expm1": '''\
@triton.jit
def _expm1(x):
    """exp(x) - 1; near 0 a polynomial, right to 8e-8."""
    near = 0.00833395775 + x * (0.00140449905 + x * 0.000198410926)
    near = x * (1 + x * (0.500000119 + x * (0.166666552 + x * (0.0416638777 + x * near))))
    return tl.where(tl.abs(x) < 0.6, near, tl.exp2(1.4426950408889634 * x) - 1)
''',
    "_exp": '''\
@triton.jit
def _exp(x):
    """exp(x), right to 1e-7: the instruction of a GPU is three times further off, which shows in its thousandth power."""
    n = tl.floor(1.4426950408889634 * x + 0.5)
    y = (x - 0.693359375 * n) + 0.000212194440 * n
    z = 0.0416638777 + y * (0.00833395775 + y * (0.00140449905 + y * 0.000198410926))
    z = 1 + y * (1 + y * (0.500000119 + y * (0.166666552 + y * z)))
    return tl.where(tl.abs(x) < 80, z * tl.exp2(n), tl.exp(x))
''',
    "_sigmoid": '''\
@triton.jit
def _sigmoid(x):
    """1 / (1 + exp(-x)), as the square of a root: a GPU has an instruction for it, and none for a quotient."""
    y = tl.rsqrt(1 + tl.exp2(-1.4426950408889634 * x))
    return y * y
''',
    "_log1p_exp": '''\
@triton.jit
def _log1p_exp(x):
    """log(1 + exp(x)) for x <= 0: a polynomial of the exponential, right to 2e-7."""
    y = tl.exp2(1.4426950408889634 * x)
    z = -0.153055698 + y * (0.106036171 + y * (-0.0569591597 + y * (0.0198512613 + y * -0.00324398093)))
    return y * (1 + y * (-0.499999017 + y * (0.333299637 + y * (-0.249541327 + y * (0.196759313 + y * z)))))
''',
    "_softplus": '''\
@triton.jit
def _softplus(x):
    """log(1 + exp(x)); the exponential is at most 1."""
    return tl.maximum(x, 0.0) + _log1p_exp(-tl.abs(x))
''',
    "_logsigmoid": '''\
@triton.jit
def _logsigmoid(x):
    """log(sigmoid(x)); the exponential is at most 1."""
    return tl.minimum(x, 0.0) - _log1p_exp(-tl.abs(x))
''',
    "_inv_softplus": '''\
@triton.jit
def _inv_softplus(x):
    """The inverse of softplus, for x > 0."""
    return x + tl.log(-_expm1(-x))
''',
    "_silu": """\
@triton.jit
def _silu(x):
    return x * _sigmoid(x)
""",
    "_gelu": """\
@triton.jit
def _gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
""",
    "_elu": """\
@triton.jit
def _elu(x):
    return tl.where(x > 0, x, _expm1(tl.minimum(x, 0.0)))
""",
    "_tanh": '''\
@triton.jit
def _tanh(x):
    """Odd, from an exponential that is at most 1."""
    y = _expm1(-2 * tl.abs(x))
    return tl.where(x < 0, y, -y) / (y + 2)
''',
    "_heavy_tail": '''\
@triton.jit
def _heavy_tail(x):
    """1 + x from 0 up, 1 / (1 - x) below: positive, with a tail that never dies out."""
    return tl.where(x >= 0, 1 + x, 1 / (1 - tl.minimum(x, 0.0)))
''',
    "_phi": '''\
@triton.jit
def _phi(x, k: tl.constexpr):
    """The sum of x^j / (j + k)!: (exp(x) - 1) / x, and so on to k = 3. Near 0 by the series, where quotients lose digits."""
    near = tl.abs(x) < 1
    small, far = tl.where(near, x, 0.0), tl.where(near, 1.0, x)
    series, quotient = 1 + small / (k + 12), _expm1(far) / far
    for j in tl.static_range(11):
        series = 1 + small * series / (k + 11 - j)
    if k > 1:
        series, quotient = series / 2, (quotient - 1) / far
    if k > 2:
        series, quotient = series / 3, (quotient - 0.5) / far
    return tl.where(near, series, quotient)
''',
    "_phi_slope": '''\
@triton.jit
def _phi_slope(x, k: tl.constexpr):
    """The derivative of _phi(x, k)."""
    return _phi(x, k) - k * _phi(x, k + 1)
''',
    "_exp_parts": '''\
@triton.jit
def _exp_parts(x, d):
    """The e and o of exp(x + s) = e + s o and exp(x - s) = e - s o, s^2 = d of either sign."""
    near = tl.abs(d) < 1
    rise, turn = tl.sqrt(tl.where(d >= 1, d, 1.0)), tl.sqrt(tl.where(d <= -1, -d, 1.0))
    small = tl.where(near, d, 0.0)
    even, odd = 1 + small / 90, 1 + small / 110
    even, odd = 1 + small / 56 * even, 1 + small / 72 * odd
    even, odd = 1 + small / 30 * even, 1 + small / 42 * odd
    even, odd = 1 + small / 12 * even, 1 + small / 20 * odd
    even, odd = 1 + small / 2 * even, 1 + small / 6 * odd
    above, below, size = _exp(x + rise), _exp(x - rise), _exp(x)
    even = tl.where(near, size * even, tl.where(d > 0, 0.5 * (above + below), size * tl.cos(turn)))
    return even, tl.where(near, size * odd, tl.where(d > 0, (above - below) / (2 * rise), size * tl.sin(turn) / turn))
''',
    "_next_parts": '''\
@triton.jit
def _next_parts(x, d, lower, other, k: tl.constexpr):
    """The same of phi_k, k = 1 or 2, from those of phi_{k-1} with the 1 of its series taken off."""
    near = tl.abs(d) < 1
    is_small = near & (tl.abs(x) < 2)
    u, v = tl.where(is_small, x, 0.0), tl.where(is_small, d, 0.0)
    even, odd = 1 + u / (16 + k), 1 / (16 + k) + u * 0.0
    for j in tl.static_range(15):
        even, odd = 1 + (even * u + odd * v) / (15 + k - j), (even + odd * u) / (15 + k - j)
    rise = tl.sqrt(tl.where(d >= 1, d, 1.0))
    above, below = _phi(x + rise, k), _phi(x - rise, k)
    size = tl.where(is_small | (d >= 1), 1.0, x * x - d)
    far = tl.where(d >= 1, 0.5 * (above + below), (lower * x - other * d) / size)
    far_odd = tl.where(d >= 1, (above - below) / (2 * rise), (other * x - lower) / size)
    return tl.where(is_small, even / k, far), tl.where(is_small, odd / k, far_odd)
''',
    "_phi_parts": '''\
@triton.jit
def _phi_parts(x, d, k: tl.constexpr):
    """The e and o of phi_k(x + s) = e + s o, s^2 = d, k up to 2; phi_0 is exp."""
    even, odd = _exp_parts(x, d)
    if k > 0:
        even, odd = _next_parts(x, d, even - 1, odd, 1)
    if k > 1:
        even, odd = _next_parts(x, d, even - 1, odd, 2)
    return even, odd
''',
    "_even": '''\
@triton.jit
def _even(x, d, k: tl.constexpr):
    """(phi_k(x + s) + phi_k(x - s)) / 2, s^2 = d of either sign."""
    even, odd = _phi_parts(x, d, k)
    return even
''',
    "_odd": '''\
@triton.jit
def _odd(x, d, k: tl.constexpr):
    """(phi_k(x + s) - phi_k(x - s)) / (2 s), s^2 = d of either sign."""
    even, odd = _phi_parts(x, d, k)
    return odd
''',
    "_odd_bend": '''\
@triton.jit
def _odd_bend(x, d, k: tl.constexpr):
    """The derivative of _odd(x, d, k) by d, k = 0 or 1."""
    near = tl.abs(d) < 1
    small = tl.where(near, d, 0.0)
    even, odd = _exp_parts(x, d)
    series = 1 + small / 54 * (1 + small / 88 * (1 + small / 130))
    series = 1 + small / 10 * (1 + small / 28 * series)
    bend = tl.where(near, _exp(x) * series / 6, (even - odd) / (2 * tl.where(near, 1.0, d)))
    if k == 1:
        is_small = near & (tl.abs(x) < 2)
        u, v = tl.where(is_small, x, 0.0), tl.where(is_small, d, 0.0)
        e, o, d_e, d_o = 1 + u * 0.0, u * 0.0, u * 0.0, u * 0.0
        for j in tl.static_range(16):
            d_e, d_o = (d_e * u + d_o * v + o) / (17 - j), (d_e + d_o * u) / (17 - j)
            e, o = 1 + (e * u + o * v) / (17 - j), (e + o * u) / (17 - j)
        own_even, own = _phi_parts(x, d, 1)
        beside = (bend * x - 0.5 * odd + own) / tl.where(near & (tl.abs(x) >= 2), x * x - d, 1.0)
        apart = (own_even - _even(x, d, 2) - own) / (2 * tl.where(near, 1.0, d))
        bend = tl.where(is_small, d_o, tl.where(near, beside, apart))
    return bend
''',
    "_unit": '''\
@triton.jit
def _unit(x):
    """x over its length along the last axis; the 1e-6 keeps zero at zero."""
    return x * tl.rsqrt(tl.sum(x * x, -1, keep_dims=True) + 1e-6)
''',
    "_rmsnorm": '''\
@triton.jit
def _rmsnorm(x, N):
    """x over the root of its mean square along the last axis, which holds N entries and zeros behind them."""
    return x * tl.rsqrt(tl.sum(x * x, -1, keep_dims=True) / N + 1e-5)
''',
    "_softmax": '''\
@triton.jit
def _softmax(x, mask):
    """Along the last axis, over the entries of the mask; 0 outside."""
    x = tl.where(mask, x, float("-inf"))
    y = tl.exp(x - tl.max(x, -1, keep_dims=True))
    return y / tl.sum(y, -1, keep_dims=True)
''',
    "_norm": '''\
@triton.jit
def _norm(x):
    """The Euclidean length along the last axis."""
    return tl.sqrt(tl.sum(x * x, -1))
''',
    "_circle": '''\
@triton.jit
def _circle(x):
    """Cosine and sine of x half turns, at most half of one: polynomials, right to 2e-7."""
    u = x * x
    cosine = 1.0 + u * (-4.93480214 + u * (4.05870915 + u * (-1.33521195 + u * (0.23493707 + u * -0.02439593))))
    sine = x * (3.14159264 + u * (-5.16771008 + u * (2.55007739 + u * (-0.59829041 + u * 0.07765591))))
    return cosine, sine
''',
    "_cis": '''\
@triton.jit
def _cis(turns):
    """Cosine and sine of an angle in units of 2^-32 turns, an int32."""
    # without its highest bit it is at most a quarter turn; that bit is half a turn, which changes the signs
    rest = (turns << 1) >> 1
    cosine, sine = _circle(rest.to(tl.float32) * 4.656612873077393e-10)
    sign = tl.where(rest == turns, 1.0, -1.0)
    return cosine * sign, sine * sign
''',
    "_rope": '''\
@triton.jit
def _rope(x, position, entry, N: tl.constexpr):
    """Turn the pairs (j, j + N/2) of the last axis by position * 10000^(-2j/N); angles wrap as integers, in units of 2^-64 turns."""
    half: tl.constexpr = N // 2
    step = (tl.exp((entry % half).to(tl.float64) * (-9.210340371976184 / half)) * 2935890503282001226.0).to(tl.int64)
    cosine, sine = _cis((position.to(tl.int64) * step >> 32).to(tl.int32))
    x, sine = tl.broadcast(x, tl.where(entry < half, -sine, sine))
    partner = tl.where(entry < N, (entry + half) % N, entry)
    y = tl.gather(x, tl.broadcast_to(partner, x.shape), len(x.shape) - 1)
    return x * cosine + y * sine
''',
    "_ticket": '''\
@triton.jit
def _ticket(count):
    """What a program finds at `count`: in the lower 40 bits the number, in those above how many programs came before it."""
    return tl.atomic_add(count, 1 << 40, sem="relaxed")
''',
    "_number": """\
@triton.jit
def _number(ticket):
    return ticket & ((1 << 40) - 1)
""",
    "_close": '''\
@triton.jit
def _close(count, ticket, programs):
    """The last of a sequence's programs to draw a ticket makes the number one more."""
    if ticket >> 40 == programs - 1:
        tl.atomic_add(count, 1 - (tl.cast(programs, tl.int64) << 40), sem="relaxed")
''',
    "_filtered": '''\
@triton.jit
def _filtered(x, window, weight, mask, i_t, channels, taps: tl.constexpr):
    """A causal filter a channel at token i_t, whose input x takes the place of the oldest: token n lies in row n % taps of the window."""
    y = x * tl.load(weight + taps - 1, mask=mask, other=0.0)
    for tap in tl.static_range(taps - 1):
        row = (i_t + 1 + tap) % taps
        y += tl.load(window + row * channels, mask=mask, other=0.0).to(tl.float32) * tl.load(weight + tap, mask=mask, other=0.0)
    tl.store(window + i_t % taps * channels, x, mask=mask)
    return y
''',
    "_turn": '''\
@triton.jit
def _turn(x, angle):
    """Turn the pairs (2j, 2j + 1) of the last of two axes; `angle` has one entry a pair."""
    even, odd = tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))
    # less the nearest whole number of half turns, of which an odd one changes the signs; behind 1.5 * 2^23 it stands in the lowest bits
    near = angle * 0.3183098861837907 + 12582912.0
    cosine, sine = _circle(angle * 0.3183098861837907 - (near - 12582912.0))
    sign = near.to(tl.int32, bitcast=True) << 31
    cosine = (cosine.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)
    sine = (sine.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)
    return tl.interleave(even * cosine - odd * sine, even * sine + odd * cosine)
''',
    "_cumsum_and_rest": '''\
@triton.jit
def _joined(x, x_rest, y, y_rest):
    """The sum of two sums, and what is left of it and of them."""
    whole = x + y
    added = whole - x
    return whole, x_rest + y_rest + ((x - (whole - added)) + (y - added))


@triton.jit
def _cumsum_and_rest(x):
    """Running sums along the first axis, and what their rounding leaves: a difference of two such pairs is as exact as its own terms."""
    return tl.associative_scan((x, tl.zeros_like(x)), 0, _joined)
''',
    "_pair_cross": '''\
@triton.jit
def _pair_cross(x, y):
    """x_2j y_2j+1 - x_2j+1 y_2j along the last of two axes: the slope of x . y as y turns."""
    x_even, x_odd = tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))
    y_even, y_odd = tl.split(tl.reshape(y, (y.shape[0], y.shape[1] // 2, 2)))
    return x_even * y_odd - x_odd * y_even
''',
    "_pair_sum": '''\
@triton.jit
def _pair_sum(x):
    """The sum of both members of every pair along the last of two axes."""
    even, odd = tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))
    return even + odd
''',
    "_rotate": '''\
@triton.jit
def _rotate(x, angle, entry, axis: tl.constexpr):
    """Turn the pairs (2j, 2j + 1) along an axis; `angle` holds each pair's angle twice."""
    y = tl.gather(x, tl.broadcast_to(entry ^ 1, x.shape), axis)
    return x * tl.cos(angle) + tl.where(entry % 2 == 0, -y, y) * tl.sin(angle)
''',
}
"""The functions that are longer than one call, by the name they have in the text, each after those that it calls."""


def helpers(texts: Iterable[str]) -> tuple[str, ...]:
    """The text of the helpers that `texts` call, with those that they call themselves, in the order of the table."""
    found: dict[str, None] = {}
    waiting = list(texts)
    while waiting:
        for name in re.findall(r"\b_\w+(?=\()", waiting.pop()):
            if name in HELPERS and name not in found:
                found[name] = None
                waiting.append(HELPERS[name])
    return tuple(text for name, text in HELPERS.items() if name in found)
