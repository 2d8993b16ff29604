"""The closed set of functions of the language: one entry each, with what the compiler knows about it.

Back ends own the text of a function, `derive` its derivative; here are its kind, its arity, the rule for its type, its
value on a number, where it is defined, and what interval it maps an interval to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from . import even_odd, intervals
from .intervals import INFINITY, NONNEGATIVE, POSITIVE, WHOLE, Interval, closed


@dataclass(frozen=True)
class Function:
    """One function.

    kind: 'pointwise' (entry by entry), 'column' (over the rows of a column), 'complex' (between the fields), 'matrix'
    (`diag`, `rot`, `I`: nodes of their own in the spec), 'square' (of a square matrix as a whole), 'constant' (`pi`, `i`: no argument),
    'init' (initial values).
    arity: the least and the greatest number of arguments.
    result: 'same' (the type of the arguments, scalars broadcast), 'scalar', 'real' (same shape over the reals), 'complex'
    (same shape, complex), 'pairs' (a column twice as long).
    transfer: intervals of the arguments -> interval of every entry of the result.
    value: the function on floats, pointwise and real only; None for the others.
    monotone: 'increasing', 'decreasing' or '' (in its first argument).
    domain: where the first argument must lie.
    """

    name: str
    kind: str
    arity: tuple[int, int]
    doc: str
    transfer: Callable[..., Interval]
    result: str = "same"
    value: Callable[..., float] | None = None
    monotone: str = ""
    domain: Interval = WHOLE


# --- values on floats --------------------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def logsigmoid(x: float) -> float:
    return -softplus(-x)


def inv_softplus(y: float) -> float:
    """The x with softplus(x) = y: y + log(-expm1(-y))."""
    return y + math.log(-math.expm1(-y))


def silu(x: float) -> float:
    return x * sigmoid(x)


def gelu(x: float) -> float:
    return x * 0.5 * math.erfc(-x / math.sqrt(2.0))


def elu(x: float) -> float:
    return x if x > 0 else math.expm1(x)


def heavy_tail(x: float) -> float:
    return 1.0 + x if x >= 0 else 1.0 / (1.0 - x)


def phi(order: int) -> Callable[[float], float]:
    """The sum of x^j / (j + order)!: (exp(x) - 1) / x, and so on. Near 0 by the series, where quotients lose digits."""

    def value(x: float) -> float:
        if abs(x) < 1:
            total = 1.0
            for j in range(20, 0, -1):
                total = 1.0 + x * total / (j + order)
            return total / math.factorial(order)
        total = math.inf if x == INFINITY else math.expm1(x) / x
        for j in range(2, order + 1):
            total = (total - 1 / math.factorial(j - 1)) / x if total < INFINITY else total
        return total

    return value


# --- transfers ---------------------------------------------------------------------------------------------------


def _increasing(function: Callable[[float], float], floor: float = -INFINITY, ceiling: float = INFINITY) -> Callable:
    return lambda a: intervals.monotone(function, a, floor, ceiling)


def _log1p(a: Interval) -> Interval:
    if a.high <= -1:
        return WHOLE
    if a.low <= -1:
        high = intervals.monotone(math.log1p, closed(a.high, a.high)).high
        return Interval(-INFINITY, high, True, a.high_open)
    return intervals.monotone(math.log1p, a)


def _inv_softplus(a: Interval) -> Interval:
    if a.high <= 0:
        return WHOLE
    high = intervals.monotone(inv_softplus, Interval(a.high, a.high, a.high_open, a.high_open))
    low = -INFINITY if a.low <= 0 else intervals.monotone(inv_softplus, closed(a.low, a.low)).low
    return Interval(low, high.high, a.low_open or low == -INFINITY, a.high_open or high.high == INFINITY)


def _bounded_wave(a: Interval) -> Interval:
    return closed(-1.0, 1.0)


def _norm(a: Interval) -> Interval:
    return NONNEGATIVE


def _unit(a: Interval) -> Interval:
    # x / sqrt(|x|^2 + eps): strictly inside the unit ball, with the sign of x
    low = 0.0 if a.low >= 0 else -1.0
    high = 0.0 if a.high <= 0 else 1.0
    return Interval(low, high, low == -1.0 or not a.contains(0.0), high == 1.0 or not a.contains(0.0))


def _rmsnorm(a: Interval) -> Interval:
    low = 0.0 if a.low >= 0 else -INFINITY
    high = 0.0 if a.high <= 0 else INFINITY
    return Interval(low, high, low == -INFINITY or not a.contains(0.0), high == INFINITY or not a.contains(0.0))


def _rope(a: Interval) -> Interval:
    # a rotation of a pair: at most sqrt(2) times the largest entry
    reach = intervals.multiply(closed(0.0, a.magnitude), intervals.sqrt(intervals.point(2)))
    return closed(-reach.high, reach.high)


def _between(low: Interval, high: Interval) -> Interval:
    return low.hull(high)


def _constant(value: float) -> Callable[..., Interval]:
    return lambda *_: closed(value, value)


_TABLE = (
    # entry by entry
    Function("exp", "pointwise", (1, 1), "e to the x", intervals.exp, value=math.exp, monotone="increasing"),
    Function("log", "pointwise", (1, 1), "natural logarithm", intervals.log, value=math.log, monotone="increasing", domain=POSITIVE),
    Function("log1p", "pointwise", (1, 1), "log(1 + x)", _log1p, value=math.log1p, monotone="increasing", domain=Interval(-1.0, INFINITY)),
    Function("expm1", "pointwise", (1, 1), "exp(x) - 1", _increasing(math.expm1, floor=-1.0), value=math.expm1, monotone="increasing"),
    Function("sigmoid", "pointwise", (1, 1), "1 / (1 + exp(-x))", _increasing(sigmoid, 0.0, 1.0), value=sigmoid, monotone="increasing"),
    Function(
        "logsigmoid", "pointwise", (1, 1), "log(sigmoid(x))", _increasing(logsigmoid, ceiling=0.0), value=logsigmoid, monotone="increasing"
    ),
    Function("softplus", "pointwise", (1, 1), "log(1 + exp(x))", _increasing(softplus, floor=0.0), value=softplus, monotone="increasing"),
    Function(
        "inv_softplus",
        "pointwise",
        (1, 1),
        "the x with softplus(x) = y",
        _inv_softplus,
        value=inv_softplus,
        monotone="increasing",
        domain=POSITIVE,
    ),
    Function("silu", "pointwise", (1, 1), "x * sigmoid(x)", lambda a: intervals.valley(silu, a, -1.2784645, -0.27846455, 0.0), value=silu),
    Function(
        "gelu",
        "pointwise",
        (1, 1),
        "x * (normal distribution function of x)",
        lambda a: intervals.valley(gelu, a, -0.7517916, -0.1699713, 0.0),
        value=gelu,
    ),
    Function("tanh", "pointwise", (1, 1), "hyperbolic tangent", _increasing(math.tanh, -1.0, 1.0), value=math.tanh, monotone="increasing"),
    Function(
        "relu",
        "pointwise",
        (1, 1),
        "max(x, 0)",
        lambda a: intervals.maximum(a, closed(0.0, 0.0)),
        value=lambda x: max(x, 0.0),
        monotone="increasing",
    ),
    Function("elu", "pointwise", (1, 1), "x above 0, exp(x) - 1 below", _increasing(elu, floor=-1.0), value=elu, monotone="increasing"),
    Function("abs", "pointwise", (1, 1), "absolute value, the modulus of a complex number", intervals.absolute, result="real", value=abs),
    Function("sqrt", "pointwise", (1, 1), "square root", intervals.sqrt, value=math.sqrt, monotone="increasing", domain=NONNEGATIVE),
    Function(
        "bounded_sqrt",
        "pointwise",
        (2, 2),
        "bounded_sqrt(x, slope): square root; gradients take its derivative as at most `slope`",
        lambda a, slope: intervals.sqrt(a),
        value=lambda x, slope: math.sqrt(x),
        monotone="increasing",
        domain=NONNEGATIVE,
    ),
    Function(
        "rsqrt",
        "pointwise",
        (1, 1),
        "1 / sqrt(x)",
        intervals.rsqrt,
        value=lambda x: 1.0 / math.sqrt(x),
        monotone="decreasing",
        domain=POSITIVE,
    ),
    Function("square", "pointwise", (1, 1), "x * x", intervals.square, value=lambda x: x * x),
    Function("sin", "pointwise", (1, 1), "sine", _bounded_wave, value=math.sin),
    Function("cos", "pointwise", (1, 1), "cosine", _bounded_wave, value=math.cos),
    Function("atan2", "pointwise", (2, 2), "atan2(y, x): the angle of x + i y, from -pi to pi", intervals.angle, value=math.atan2),
    Function("min", "pointwise", (2, 2), "the smaller of two", intervals.minimum, value=min, monotone="increasing"),
    Function("max", "pointwise", (2, 2), "the larger of two", intervals.maximum, value=max, monotone="increasing"),
    Function(
        "clamp",
        "pointwise",
        (3, 3),
        "clamp(x, low, high)",
        intervals.clamp,
        value=lambda x, low, high: min(max(x, low), high),
        monotone="increasing",
    ),
    Function(
        "heavy_tail",
        "pointwise",
        (1, 1),
        "1 + x above 0, 1 / (1 - x) below",
        _increasing(heavy_tail, floor=0.0),
        value=heavy_tail,
        monotone="increasing",
    ),
    Function("phi1", "pointwise", (1, 1), "(exp(x) - 1) / x, 1 at 0", _increasing(phi(1), floor=0.0), value=phi(1), monotone="increasing"),
    Function(
        "phi2", "pointwise", (1, 1), "(phi1(x) - 1) / x, 1/2 at 0", _increasing(phi(2), floor=0.0), value=phi(2), monotone="increasing"
    ),
    *(
        Function(
            f"{name}_{part}",
            "pointwise",
            (2, 2),
            f"{name}_{part}(x, d): {text} with s^2 = d of either sign",
            even_odd.reach(order, place),
            value=even_odd.part(order, place),
        )
        for order, name in enumerate(("exp", "phi1"))
        for place, (part, text) in enumerate(
            (("even", f"({name}(x + s) + {name}(x - s)) / 2"), ("odd", f"({name}(x + s) - {name}(x - s)) / (2 s)"))
        )
    ),
    # over the rows of a column
    Function("unit", "column", (1, 1), "x / sqrt(|x|^2 + 1e-6)", _unit),
    Function("rmsnorm", "column", (1, 1), "x / sqrt(mean(x^2) + 1e-5)", _rmsnorm),
    Function("softmax", "column", (1, 1), "exp(x) / sum(exp(x))", lambda a: Interval(0.0, 1.0, True, False)),
    Function("norm", "column", (1, 1), "Euclidean length", _norm, result="scalar"),
    Function("rope", "column", (1, 1), "rotate pairs (j, j + N/2) by position * 10000^(-2j/N)", _rope),
    Function("pairs", "column", (1, 1), "each entry twice, for both members of a pair", lambda a: a, result="pairs"),
    Function("cumsum", "column", (1, 1), "sum over all tokens so far (attention scores)", intervals.sum_of),
    # between the real and the complex numbers
    Function("Re", "complex", (1, 1), "real part", lambda a: WHOLE, result="real"),
    Function("Im", "complex", (1, 1), "imaginary part", lambda a: WHOLE, result="real"),
    Function("conj", "complex", (1, 1), "complex conjugate", lambda a: WHOLE),
    Function("cis", "complex", (1, 1), "cos(x) + i sin(x)", lambda a: WHOLE, result="complex"),
    # matrices: nodes of their own in the spec
    Function("diag", "matrix", (1, 1), "the diagonal matrix of a column", lambda a: a.hull(closed(0.0, 0.0))),
    Function("rot", "matrix", (1, 1), "2 x 2 rotations on pairs (2j, 2j+1), from M angles", _bounded_wave),
    Function("I", "matrix", (0, 0), "the identity matrix", lambda: closed(0.0, 1.0)),
    # of a square matrix
    Function("matrix_exp", "square", (1, 1), "the exponential of a square matrix", lambda a: WHOLE),
    Function("matrix_phi1", "square", (1, 1), "the sum of A^j / (j + 1)! of a square matrix, (exp(A) - I) A^-1", lambda a: WHOLE),
    Function("matrix_inverse", "square", (1, 1), "the inverse of a square matrix", lambda a: WHOLE),
    # constants
    Function(
        "pi",
        "constant",
        (0, 0),
        "3.14159...",
        lambda: Interval(math.pi, math.nextafter(math.pi, 4.0)),
        result="scalar",
        value=lambda: math.pi,
    ),
    Function("i", "constant", (0, 0), "the imaginary unit, unless a name of the recurrence is `i`", lambda: WHOLE, result="complex"),
    # initial values of a param
    Function("uniform", "init", (2, 2), "uniform between two numbers", _between),
    Function("loguniform", "init", (2, 2), "exp of uniform between two logarithms", _between),
    Function("normal", "init", (0, 2), "normal(mean = 0, deviation = 1)", lambda *_: WHOLE),
    Function("linspace", "init", (2, 2), "evenly spaced over the entries, both ends included", _between),
    Function("zeros", "init", (0, 0), "0 everywhere", _constant(0.0)),
    Function("ones", "init", (0, 0), "1 everywhere", _constant(1.0)),
    Function("legs_frequencies", "init", (0, 1), "angular frequencies of the modes of HiPPO-LegS, in so many blocks", lambda *_: POSITIVE),
    Function("legs_low_rank", "init", (0, 0), "the low-rank part of HiPPO-LegS along its modes", lambda: POSITIVE),
    Function("legs_modes", "init", (1, 2), "a real matrix that writes, drawn so, along the modes", lambda *_: WHOLE, result="complex"),
    Function("legs_reads", "init", (1, 2), "a real matrix that reads, drawn so, along the modes", lambda *_: WHOLE, result="complex"),
)

FUNCTIONS: dict[str, Function] = {function.name: function for function in _TABLE}


def names(*kinds: str) -> tuple[str, ...]:
    """The names of some kinds, in the order of the table."""
    return tuple(function.name for function in _TABLE if function.kind in kinds)
