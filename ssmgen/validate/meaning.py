"""Values of specification expressions over exact rationals, functions uninterpreted but consistent.

`exp`, `sigmoid` and the rest become fixed random rationals, one for each argument, that obey the laws a chunk form uses:
exp(a + b) = exp(a) exp(b), exp(-a) = 1 / exp(a), exp(log a) = a, sigmoid(-a) = 1 - sigmoid(a). An angle is a rational point
of the unit circle, such as (3/5, 4/5): sums of angles are products of points. Two expressions that agree here on random
tokens agree as formulas, but for a coincidence of rationals.
"""

from __future__ import annotations

import random
from fractions import Fraction

from ..expressions import factors, is_matrix_function, nodes
from ..spec import (
    Add,
    Apply,
    Const,
    Delayed,
    Diag,
    Div,
    Element,
    Expr,
    Identity,
    MatMul,
    Mul,
    Neg,
    Pow,
    Ref,
    Rot,
    SizeOf,
    Skew,
    StateRef,
    SumOver,
    Transpose,
)


class Complex:
    """An exact complex number."""

    def __init__(self, re: Fraction | int, im: Fraction | int = 0):
        self.re, self.im = Fraction(re), Fraction(im)

    def __add__(self, other):
        other = complex_of(other)
        return Complex(self.re + other.re, self.im + other.im)

    def __neg__(self):
        return Complex(-self.re, -self.im)

    def __sub__(self, other):
        return self + -complex_of(other)

    def __mul__(self, other):
        other = complex_of(other)
        return Complex(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def __truediv__(self, other):
        other = complex_of(other)
        size = other.re**2 + other.im**2
        return self * Complex(other.re / size, -other.im / size)

    def __rtruediv__(self, other):
        return complex_of(other) / self

    def __pow__(self, times: int):
        total = Complex(1)
        for _ in range(abs(times)):
            total = total * self
        return total if times >= 0 else 1 / total

    def __eq__(self, other) -> bool:
        return isinstance(other, (Complex, Fraction, int)) and (self.re, self.im) == (complex_of(other).re, complex_of(other).im)

    def __hash__(self) -> int:
        return hash((self.re, self.im))

    def __repr__(self) -> str:
        return f"{self.re} + {self.im} i"

    __radd__, __rmul__ = __add__, __mul__


def complex_of(x) -> Complex:
    """A number as a complex one."""
    return x if isinstance(x, Complex) else Complex(x)


Matrix = list[list[Fraction]]
Point = tuple[Fraction, Fraction]
EXACT = {
    "min": min, "max": max, "abs": abs, "relu": lambda x: max(x, Fraction(0)), "square": lambda x: x * x,
    "at_least": lambda x, y: x >= y,
    "clamp": lambda x, low, high: min(max(x, low), high),
}  # fmt: skip


class Functions:
    """Random values of the functions, drawn once for each argument."""

    def __init__(self, seed: int = 0):
        self.random = random.Random(seed)
        self.drawn: dict[tuple, Fraction] = {}
        self.exp_of: dict[Fraction, Fraction] = {}  # known values of exp, by argument >= 0 or as registered by a log
        self.log_of: dict[Fraction, Fraction] = {}
        self.point_of: dict[Fraction, Point] = {}  # of angles >= 0, and of those that are sums

    def number(self, positive: bool = False) -> Fraction:
        """A random rational with small terms, never 0."""
        value = Fraction(self.random.randint(1, 9), self.random.randint(1, 9))
        return value if positive or self.random.random() < 0.5 else -value

    def between(self) -> Fraction:
        """A random rational in (0, 1)."""
        return Fraction(self.random.randint(1, 8), self.random.randint(9, 13))

    def draw(self, key: tuple, between: bool = False, positive: bool = False) -> Fraction:
        """The value under `key`, drawn at first use."""
        if key not in self.drawn:
            self.drawn[key] = self.between() if between else self.number(positive)
        return self.drawn[key]

    def exp(self, x: Fraction) -> Fraction:
        """exp of one rational."""
        if x == 0:
            return Fraction(1)
        if x in self.exp_of:
            return self.exp_of[x]
        if -x in self.exp_of:
            return 1 / self.exp_of[-x]
        # a fresh prime-like value, so that products of exponentials do not coincide; above 1 for x > 0, as gates promise
        value = Fraction(self.random.randint(41, 97), self.random.randint(2, 40))
        self.exp_of[abs(x)] = value
        if x < 0:
            value = 1 / value
        self.log_of.setdefault(value, x)
        return value

    def point(self, angle: Fraction) -> Point:
        """(cos, sin) of an angle: of the opposite one, the mirror image."""
        if angle == 0:
            return Fraction(1), Fraction(0)
        if angle in self.point_of:
            return self.point_of[angle]
        if -angle in self.point_of:
            cos, sin = self.point_of[-angle]
            return cos, -sin
        t = Fraction(self.random.randint(1, 9), self.random.randint(10, 19))
        self.point_of[angle] = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        return self.point_of[angle]

    def sum_of(self, parts: list[tuple[Fraction, int]]) -> Point:
        """(cos, sin) of a sum of angles, each so many times."""
        cos, sin = Fraction(1), Fraction(0)
        for angle, times in parts:
            c, s = self.point(angle if times > 0 else -angle)
            for _ in range(abs(times)):
                cos, sin = cos * c - sin * s, sin * c + cos * s
        return cos, sin

    def log(self, y: Fraction) -> Fraction:
        """The x with exp(x) = y."""
        if y == 1:
            return Fraction(0)
        if y not in self.log_of:
            x = self.number(positive=True)
            while x in self.exp_of or -x in self.exp_of:
                x = self.number(positive=True) + Fraction(self.random.randint(1, 999), 1009)
            x = x if y > 1 else -x
            self.exp_of[x], self.log_of[y] = y, x
        return self.log_of[y]

    def sigmoid(self, x: Fraction) -> Fraction:
        """In (0, 1), with sigmoid(-x) = 1 - sigmoid(x)."""
        if x == 0:
            return Fraction(1, 2)
        value = self.draw(("sigmoid", abs(x)), between=True)
        return value if x > 0 else 1 - value

    def apply(self, name: str, args: list[Fraction]) -> Fraction:
        """A pointwise function of numbers."""
        if name in OF_COMPLEX:
            return OF_COMPLEX[name](self, complex_of(args[0]))
        if isinstance(args[0], Complex):
            if name not in OF_EITHER:
                raise ValueError(f"no value of {name} at a complex number")
            return OF_EITHER[name](self, args[0])
        if name == "cosm1":
            return self.apply("cos", args) - 1
        if name in EXACT:
            return Fraction(EXACT[name](*args))
        if name == "exp":
            return self.exp(args[0])
        if name == "expm1":
            return self.exp(args[0]) - 1
        if name == "sigmoid":
            return self.sigmoid(args[0])
        if name == "log":
            return self.log(args[0]) if args[0] > 0 else self.draw((name, args[0]))
        if name == "log1p":
            return self.log(1 + args[0]) if args[0] > -1 else self.draw((name, args[0]))
        if name == "logsigmoid":
            return self.log(self.sigmoid(args[0]))
        if name == "silu":
            return args[0] * self.sigmoid(args[0])
        if name == "bounded_sqrt":
            return self.apply("sqrt", args[:1])
        if name in ("sqrt", "rsqrt") and args[0] > 0:
            return self.exp(self.log(args[0]) * Fraction(1 if name == "sqrt" else -1, 2))
        if name in ("softplus", "elu", "heavy_tail", "sqrt", "rsqrt", "phi1", "phi2"):
            return self.draw((name, *args), positive=True)
        return self.draw((name, *args))


OF_COMPLEX = {
    "Re": lambda own, z: z.re,
    "Im": lambda own, z: z.im,
    "conj": lambda own, z: Complex(z.re, -z.im),
    "cis": lambda own, z: Complex(own.apply("cos", [z.re]), own.apply("sin", [z.re])),
}
OF_EITHER = {
    "exp": lambda own, z: own.exp(z.re) * own.apply("cis", [z.im]),
    "expm1": lambda own, z: own.apply("exp", [z]) - 1,
    "square": lambda own, z: z * z,
    "phi1": lambda own, z: own.apply("expm1", [z]) / z if z != 0 else Complex(1),
    "abs": lambda own, z: own.apply("sqrt", [z.re * z.re + z.im * z.im]),
}
"""Functions with values at complex numbers."""


class Meaning:
    """Evaluates expressions. `values` gives every name's matrix; definitions are evaluated from it on demand."""

    def __init__(
        self,
        values: dict[str, Matrix],
        definitions: dict[str, Expr],
        states: dict[tuple[str, bool], Matrix],
        sizes: dict[str, int],
        functions: Functions,
    ):
        self.values = dict(values)
        self.definitions = definitions
        self.states = states
        self.sizes = sizes
        self.functions = functions
        self.indices: dict[str, int] = {}  # of loops and sums, while they run

    def scalar(self, expr: Expr) -> Fraction:
        """The value of a 1 x 1 expression."""
        return self.matrix(expr)[0][0]

    def logarithms(self, expr: Expr) -> list[list[tuple[Fraction, int]]]:
        """A log decay, entry by entry, as the arguments of exp it sums: (argument, how often)."""
        if isinstance(expr, Add):
            return _entries([self.logarithms(term) for term in expr.terms])
        if isinstance(expr, Neg):
            return [[(x, -sign) for x, sign in entry] for entry in self.logarithms(expr.operand)]
        if isinstance(expr, Mul) and isinstance(expr.left, Const) and _is_few(expr.left.value):
            entries = [[(x, int(expr.left.value) * times) for x, times in entry] for entry in self.logarithms(expr.right)]
            return entries * (self._shape(expr)[0] if len(entries) == 1 else 1)
        if isinstance(expr, Mul) and _is_few(number := factors(expr)[0]) and number not in (0, 1):
            # a whole number deeper inside counts as well, however the product is put together
            return [[(x / number, int(number))] for row in self.matrix(expr) for x in row]
        if isinstance(expr, Mul) and isinstance(expr.left, Add) != isinstance(expr.right, Add):
            # as is every term of a sum behind a factor
            factor, terms = (expr.left, expr.right) if isinstance(expr.right, Add) else (expr.right, expr.left)
            by, entries = [x for row in self.matrix(factor) for x in row], self.logarithms(terms)
            size = max(len(by), len(entries))
            by, entries = by * (size if len(by) == 1 else 1), entries * (size if len(entries) == 1 else 1)
            return [[(f * x, times) for x, times in entry] for f, entry in zip(by, entries, strict=True)]
        if isinstance(expr, Ref) and expr.name in self.definitions:
            return self.logarithms(self.definitions[expr.name])
        if isinstance(expr, Apply) and expr.function == "pairs":
            return [entry for entry in self.logarithms(expr.args[0]) for _ in range(2)]
        return [[(x, 1)] for row in self.matrix(expr) for x in row]

    def matrix(self, expr: Expr) -> Matrix:
        match expr:
            case Const():
                rows, cols = self._shape(expr)
                return [[expr.value] * cols for _ in range(rows)]
            case SizeOf():
                return [[expr.size.value(self.sizes)]]
            case Ref():
                if expr.name in self.indices:
                    return [[Fraction(self.indices[expr.name])]]
                if expr.name not in self.values:
                    self.values[expr.name] = self.matrix(self.definitions[expr.name])
                return self.values[expr.name]
            case StateRef():
                return self.states[expr.name, expr.primed]
            case Neg():
                return [[-x for x in row] for row in self.matrix(expr.operand)]
            case Add():
                total = self.matrix(expr.terms[0])
                for term in expr.terms[1:]:
                    total = _zip(total, self.matrix(term), lambda a, b: a + b)
                return total
            case Mul():
                return _zip(self.matrix(expr.left), self.matrix(expr.right), lambda a, b: a * b)
            case Div():
                return _zip(self.matrix(expr.left), self.matrix(expr.right), lambda a, b: a / b)
            case Pow():
                is_number = not any(isinstance(node, (Ref, Apply)) for node in nodes(expr.exponent))
                return self._power(expr.base, self.matrix(expr.exponent), is_number)
            case MatMul():
                left, right = self.matrix(expr.left), self.matrix(expr.right)
                if len(left[0]) != len(right):  # a scalar beside anything
                    return _zip(left, right, lambda a, b: a * b)
                return [[sum((row[i] * right[i][j] for i in range(len(right))), Fraction(0)) for j in range(len(right[0]))] for row in left]
            case Transpose():
                turned = [list(column) for column in zip(*self.matrix(expr.operand))]
                return [[self.functions.apply("conj", [x]) for x in row] for row in turned] if expr.conjugate else turned
            case Diag():
                column = [row[0] for row in self.matrix(expr.operand)]
                return [[x if i == j else Fraction(0) for j in range(len(column))] for i, x in enumerate(column)]
            case Rot():
                return self._rotation(expr)
            case Skew():
                size, rates = self._shape(expr)[0], [row[0] for row in self.matrix(expr.operand)]
                matrix = [[Fraction(0)] * size for _ in range(size)]
                for j, rate in enumerate(rates * (size // 2) if expr.operand.type.is_scalar else rates):
                    matrix[2 * j][2 * j + 1], matrix[2 * j + 1][2 * j] = -rate, rate
                return matrix
            case Identity():
                rows, cols = self._shape(expr)
                return [[Fraction(int(i == j)) for j in range(cols)] for i in range(rows)]
            case Apply():
                return self._apply(expr)
            case Element():
                base = self.matrix(expr.base)
                row = base[(expr.index if isinstance(expr.index, int) else self.indices[expr.index]) - 1]
                return [[x] for x in row]
            case SumOver():
                total = None
                for r in range(1, int(expr.count.value(self.sizes)) + 1):
                    self.indices[expr.index] = r
                    part = self.matrix(expr.body)
                    total = part if total is None else _zip(total, part, lambda a, b: a + b)
                return total
            case Delayed():
                return self.values[f"{expr.name}[-1]"]
        raise ValueError(f"no meaning for {type(expr).__name__}")

    def _rotation(self, expr: Rot) -> Matrix:
        size, angles = self._shape(expr)[0], self.logarithms(expr.operand)
        matrix = [[Fraction(int(i == j)) for j in range(size)] for i in range(size)]
        # a scalar angle is that of all pairs
        for j, parts in enumerate(angles * (size // 2) if expr.operand.type.is_scalar else angles):
            cos, sin = self.functions.sum_of(parts)
            matrix[2 * j][2 * j : 2 * j + 2] = cos, -sin
            matrix[2 * j + 1][2 * j : 2 * j + 2] = sin, cos
        return matrix

    def _shape(self, expr: Expr) -> tuple[int, int]:
        return int(expr.type.rows.value(self.sizes)), int(expr.type.cols.value(self.sizes))

    def _power(self, base: Expr, exponent: Matrix, is_number: bool = True) -> Matrix:
        """A power; that of a product of positive values is the product of theirs, as its logarithm is the sum."""
        if isinstance(base, Ref) and isinstance(self.definitions.get(base.name), (Mul, Div, Ref)):
            return self._power(self.definitions[base.name], exponent, is_number)
        if isinstance(base, (Mul, Div)) and all(x > 0 for side in (base.left, base.right) for row in self.matrix(side) for x in row):
            left, right = (self._power(side, exponent, is_number) for side in (base.left, base.right))
            return _zip(left, right, lambda a, b: a * b if isinstance(base, Mul) else a / b)
        return _zip(self.matrix(base), exponent, lambda b, e: self._power_of_number(b, e, is_number))

    def _power_of_number(self, base: Fraction, exponent: Fraction, is_number: bool) -> Fraction:
        # an exponent of the token is whole by chance alone, and its power is what exp(exponent * log(base)) gives
        if base > 0 and not is_number:
            return self.functions.exp(exponent * self.functions.log(base))
        if exponent.denominator == 1 and abs(exponent) < 64 and (base or exponent >= 0):
            return base ** int(exponent)
        if base > 0:
            return self.functions.exp(exponent * self.functions.log(base))
        return self.functions.draw(("power", base, exponent), positive=True)

    def _apply(self, expr: Apply) -> Matrix:
        name = expr.function
        if name == "pi":
            return [[self.functions.draw(("pi",), positive=True)]]
        if name == "i":
            return [[Complex(0, 1)]]
        args = [self.matrix(a) for a in expr.args]
        if name in ("sqrt", "rsqrt") and not isinstance(args[0][0][0], Complex):
            return self._power(expr.args[0], [[Fraction(1 if name == "sqrt" else -1, 2)]])
        if name == "exp":
            # exp of a sum is the product of exps, here as on the side of the chunk form
            if len(args[0][0]) == 1:
                return [[exponential(entry, self.functions)] for entry in self.logarithms(expr.args[0])]
        if name in ("unit", "rmsnorm", "softmax", "rope") and len(args[0]) > 1 and len(args[0][0]) > 1:
            # a stack of columns: each by itself
            return [self._along(name, [row])[0] for row in args[0]]
        if name in ("unit", "rmsnorm", "softmax", "rope", "norm"):
            return self._along(name, args[0])
        if is_matrix_function(expr):
            return self._of_matrix(name, args)
        if name == "pairs":
            return [row for row in args[0] for _ in range(2)]
        if name == "sum":
            return [[sum((x for row in args[0] for x in row), Fraction(0))]]
        result = args[0]
        if len(args) == 1:
            return [[self.functions.apply(name, [x]) for x in row] for row in result]
        widest = max(args, key=lambda m: len(m) * len(m[0]))
        return [
            [self.functions.apply(name, [m[i % len(m)][j % len(m[0])] for m in args]) for j in range(len(widest[0]))]
            for i in range(len(widest))
        ]

    def _of_matrix(self, name: str, args: list[Matrix]) -> Matrix:
        """Of exact numbers there is no exponential: any matrix, the same for the same one; of a complex one its parts, or both."""
        size, base = range(len(args[0])), name.removesuffix("_re").removesuffix("_im")
        is_complex = len(args) == 2 or any(isinstance(x, Complex) for row in args[0] for x in row)
        numbers = [x for arg in args for row in arg for x in row]
        if is_complex and len(args) == 1:
            both = [x if isinstance(x, Complex) else Complex(x) for x in numbers]
            numbers = [x.re for x in both] + [x.im for x in both]

        def drawn(part: str) -> Matrix:
            return [[self.functions.draw((base, part, tuple(numbers), i, j)) for j in size] for i in size]

        if not is_complex or len(args) == 2:
            return drawn(name.removeprefix(base))
        return _zip(drawn("_re"), drawn("_im"), Complex)

    def _along(self, name: str, given: Matrix) -> Matrix:
        """A function over the entries of a column, or of one that lies down."""
        column = tuple(x for row in given for x in row)
        position = tuple(self.values["position"][0]) if name == "rope" else ()
        if name == "norm":
            return [[self.functions.draw((name, column), positive=True)]]
        entries = [self.functions.draw((name, column, position, i), positive=name == "softmax") for i in range(len(column))]
        return [entries] if len(given) == 1 else [[x] for x in entries]


def _is_few(number: Fraction) -> bool:
    """A whole number that a power may have: exp(n x) is exp(x) to the n."""
    return number.denominator == 1 and abs(number) <= 64


def _entries(terms: list[list[list[tuple[Fraction, int]]]]) -> list[list[tuple[Fraction, int]]]:
    """Sums of terms entry by entry; a scalar is added to every entry."""
    count = max(len(term) for term in terms)
    return [[part for term in terms for part in term[i if len(term) > 1 else 0]] for i in range(count)]


def exponential(logarithms: list[tuple[Fraction, int]], functions: Functions) -> Fraction:
    """exp of a sum, as the product of the exps."""
    total, turn = Fraction(1), Fraction(0)
    for x, sign in logarithms:
        if isinstance(x, Complex):
            x, turn = x.re, turn + sign * x.im
        total *= functions.exp(x) ** sign
    return total * functions.apply("cis", [turn]) if turn else total


def _zip(left: Matrix, right: Matrix, combine) -> Matrix:
    """Entry by entry; a 1 x 1 matrix meets every entry."""
    if len(left) == 1 and len(left[0]) == 1:
        return [[combine(left[0][0], x) for x in row] for row in right]
    if len(right) == 1 and len(right[0]) == 1:
        return [[combine(x, right[0][0]) for x in row] for row in left]
    return [[combine(a, b) for a, b in zip(r1, r2)] for r1, r2 in zip(left, right)]
