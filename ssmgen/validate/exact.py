"""Exact numbers for translation validation: sums of logarithms, and polynomials with rational coefficients.

A decay enters a chunk as a logarithm and leaves as exp(sum of logarithms). Here a logarithm is a formal sum of the
decays themselves, so that exponentiation is an exact product and nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Log:
    """A formal sum of logarithms: (decay, multiplicity), sorted, no zeros; a decay is its row and key."""

    terms: tuple[tuple[tuple[int, int], int], ...] = ()

    def __add__(self, other: Log) -> Log:
        return self._combined(other, 1)

    def __sub__(self, other: Log) -> Log:
        return self._combined(other, -1)

    def _combined(self, other: Log, sign: int) -> Log:
        total = dict(self.terms)
        for index, count in other.terms:
            total[index] = total.get(index, 0) + sign * count
        return Log(tuple(sorted((i, c) for i, c in total.items() if c)))


class Polynomial:
    """A polynomial in numbered variables: monomial (sorted variables with repetition) -> coefficient."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[tuple[int, ...], Fraction | int] | None = None):
        self.terms = {m: c for m, c in (terms or {}).items() if c}

    @staticmethod
    def variable(index: int) -> Polynomial:
        """The variable `index`."""
        return Polynomial({(index,): 1})

    @staticmethod
    def number(value: Fraction | int) -> Polynomial:
        """A constant."""
        return Polynomial({(): value})

    def __add__(self, other: Polynomial | int) -> Polynomial:
        other = _polynomial(other)
        total = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            total[monomial] = total.get(monomial, 0) + coefficient
        return Polynomial(total)

    __radd__ = __add__

    def __sub__(self, other: Polynomial | int) -> Polynomial:
        return self + _polynomial(other) * -1

    def __rsub__(self, other: int) -> Polynomial:
        return _polynomial(other) - self

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        if isinstance(other, (int, Fraction)):
            return Polynomial({m: c * other for m, c in self.terms.items()})
        total: dict[tuple[int, ...], Fraction | int] = {}
        for m1, c1 in self.terms.items():
            for m2, c2 in other.terms.items():
                monomial = tuple(sorted(m1 + m2))
                total[monomial] = total.get(monomial, 0) + c1 * c2
        return Polynomial(total)

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return self.terms == _polynomial(other).terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def gradient(self) -> dict[int, Polynomial]:
        """The partial derivatives in every variable that occurs."""
        totals: dict[int, dict[tuple[int, ...], Fraction | int]] = {}
        for monomial, coefficient in self.terms.items():
            for index in set(monomial):
                rest = list(monomial)
                rest.remove(index)
                total = totals.setdefault(index, {})
                total[tuple(rest)] = total.get(tuple(rest), 0) + coefficient * monomial.count(index)
        return {index: Polynomial(total) for index, total in totals.items()}


def _polynomial(value) -> Polynomial:
    return value if isinstance(value, Polynomial) else Polynomial.number(value)
