"""A small evaluator of specifications and recurrences on arrays: the meaning of every node, one line each.

Everything is a two-dimensional numpy array, as in the types. It shares no code with the passes it judges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from ssmgen import spec
from ssmgen.functions import FUNCTIONS
from ssmgen.recurrence import MicroStep, Read, Recurrence

EPS_UNIT, EPS_RMS = 1e-6, 1e-5


@dataclass
class Env:
    """Names to arrays: this token's, the previous token's, the states before and after, loop indices."""

    sizes: dict[str, int]
    names: dict[str, np.ndarray]
    previous: dict[str, np.ndarray] = field(default_factory=dict)
    before: dict[str, np.ndarray] = field(default_factory=dict)
    after: dict[str, np.ndarray] = field(default_factory=dict)
    indices: dict[str, int] = field(default_factory=dict)
    reads: dict[str, Read] = field(default_factory=dict)

    def at(self, index: str, value: int) -> Env:
        return replace(self, indices={**self.indices, index: value})


def size(dim: spec.Dim, env: Env) -> int:
    value = dim.value(env.sizes)
    assert value.denominator == 1
    return int(value)


def rotation(theta: np.ndarray, n: int) -> np.ndarray:
    result = np.eye(n)
    angles = theta.ravel() if theta.size > 1 else np.full(n // 2, theta.ravel()[0])
    for j, t in enumerate(angles):
        result[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = [[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]
    return result


def skew(rates: np.ndarray, n: int) -> np.ndarray:
    result = np.zeros((n, n))
    values = rates.ravel() if rates.size > 1 else np.full(n // 2, rates.ravel()[0])
    for j, w in enumerate(values):
        result[2 * j, 2 * j + 1], result[2 * j + 1, 2 * j] = -w, w
    return result


def apply(name: str, args: list[np.ndarray], expr: spec.Apply, env: Env) -> np.ndarray:
    x = args[0] if args else None
    match name:
        case "pi":
            return np.array([[math.pi]])
        case "i":
            return np.array([[1j]])
        case "unit":
            return x / np.sqrt((x * x).sum() + EPS_UNIT)
        case "rmsnorm":
            return x / np.sqrt((x * x).mean() + EPS_RMS)
        case "softmax":
            return np.exp(x) / np.exp(x).sum()
        case "norm":
            return np.sqrt((x * x).sum()).reshape(1, 1)
        case "rope":
            n, position = len(x), float(env.names["position"][0, 0])
            angles = position * 10000.0 ** (-2.0 * np.arange(n // 2) / n)
            a, b = x[: n // 2, 0], x[n // 2 :, 0]
            return np.concatenate([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)])[:, None]
        case "pairs":
            return np.repeat(x, 2, axis=0)
        case "matrix_exp":
            return expm(x)
        case "matrix_phi1":
            return phi_one(x)
        case "entries_exp" | "entries_phi1":
            function, count = expm if name == "entries_exp" else phi_one, math.isqrt(len(args) - 2)
            (i, j), entries = (int(arg[0, 0]) for arg in args[:2]), np.broadcast_arrays(*args[2:])
            matrices = np.stack(entries, -1).reshape(-1, count, count)
            return np.array([function(matrix)[i, j] for matrix in matrices]).reshape(entries[0].shape)
        case "matrix_inverse":
            return np.linalg.inv(x)
        case "Re":
            return x.real
        case "Im":
            return x.imag
        case "conj":
            return x.conj()
        case "cis":
            return np.exp(1j * x)
        case "exp":
            return np.exp(x)
        case "expm1":
            return np.exp(x) - 1 if np.iscomplexobj(x) else np.expm1(x)
        case "row_sum":
            return x.sum(axis=1, keepdims=True)
        case "sum":
            return x.sum().reshape(1, 1)
        case "pair_sum":
            pairs = x.sum(axis=1).reshape(-1, 2).sum(axis=1, keepdims=True)
            return pairs.sum().reshape(1, 1) if expr.type.is_scalar else pairs[: size(expr.type.rows, env)]
    function = np.vectorize(FUNCTIONS[name].value, otypes=[float])
    return function(*np.broadcast_arrays(*args))


def evaluate(expr: spec.Expr, env: Env) -> np.ndarray:
    """The value of `expr`, shaped as its type says."""
    shape = (size(expr.type.rows, env), size(expr.type.cols, env))
    value = _evaluate(expr, env)
    if value.shape == (1, 1) and shape != (1, 1):
        value = np.broadcast_to(value, shape)
    assert value.shape == shape, (expr, value.shape, shape)
    return value


def _evaluate(expr: spec.Expr, env: Env) -> np.ndarray:
    match expr:
        case spec.Const():
            return np.array([[float(expr.value)]])
        case spec.SizeOf():
            return np.array([[float(size(expr.size, env))]])
        case spec.Ref(name=name) if name in env.reads:
            return read(env.reads[name], env)
        case spec.Ref(name=name):
            return np.array([[float(env.indices[name])]]) if name in env.indices else env.names[name]
        case spec.Delayed(name=name):
            return env.previous[name]
        case spec.StateRef(name=name, primed=primed):
            return env.after[name] if primed else env.before[name]
        case spec.Element(base=base, index=index):
            row = (env.indices[index] if isinstance(index, str) else index) - 1
            return evaluate(base, env)[row][:, None]
        case spec.Apply(function=name, args=args):
            return apply(name, [evaluate(a, env) for a in args], expr, env)
        case spec.Add(terms=terms):
            return sum((evaluate(t, env) for t in terms[1:]), evaluate(terms[0], env))
        case spec.Mul(left=left, right=right):
            return evaluate(left, env) * evaluate(right, env)
        case spec.Div(left=left, right=right):
            return evaluate(left, env) / evaluate(right, env)
        case spec.Neg(operand=operand):
            return -evaluate(operand, env)
        case spec.Pow(base=base, exponent=exponent):
            return evaluate(base, env) ** evaluate(exponent, env)
        case spec.MatMul(left=left, right=right):
            return evaluate(left, env) @ evaluate(right, env)
        case spec.Transpose(operand=operand, conjugate=conjugate):
            value = evaluate(operand, env).T
            return value.conj() if conjugate else value
        case spec.Diag(operand=operand):
            return np.diag(evaluate(operand, env)[:, 0])
        case spec.Rot(operand=operand):
            return rotation(evaluate(operand, env), size(expr.type.rows, env))
        case spec.Skew(operand=operand):
            return skew(evaluate(operand, env), size(expr.type.rows, env))
        case spec.Identity():
            return np.eye(size(expr.type.rows, env))
        case spec.SumOver(index=index, count=count, body=body):
            return sum(evaluate(body, env.at(index, r)) for r in range(1, size(count, env) + 1))
    raise AssertionError(f"no meaning for {expr!r}")


# --- a token, from the specification -----------------------------------------------------------------------------


def shape_of(type: spec.Type, env: Env) -> tuple[int, int]:
    return size(type.rows, env), size(type.cols, env)


def random_names(recurrence: spec.Recurrence, env: Env, rng: np.random.Generator, learned: dict | None = None) -> dict[str, np.ndarray]:
    """A value for every symbol: free ones drawn inside their domains, defined ones computed. `learned`: values of params."""
    indices = dict(head=1, heads=3, channel=2, channels=4, layer=1, layers=5, position=3)
    names = {name: np.array([[float(value)]]) for name, value in indices.items()}
    names |= {name: np.array([[float(v)]]) for name, v in recurrence.constants}
    for symbol in recurrence.symbols:
        if symbol.definition is not None:
            names[symbol.name] = evaluate(symbol.definition, replace(env, names=names))
            continue
        if learned is not None and symbol.kind == "param":
            names[symbol.name] = learned[symbol.name]
            continue
        shape = shape_of(symbol.type, env)
        value = rng.uniform(-1.0, 1.0, shape)
        if symbol.type.field == "complex":
            value = value + 1j * rng.uniform(-1.0, 1.0, shape)
        if symbol.domain is not None:
            low, high = max(symbol.domain.low, -2.0), min(symbol.domain.high, 2.0)
            value = rng.uniform(low + 1e-3, high - 1e-3, shape)
        if "unit" in symbol.flags:
            value = value / np.sqrt((value * value).sum(axis=0 if shape[1] == 1 else 1, keepdims=True))
        names[symbol.name] = value
    return names


def random_states(recurrence: spec.Recurrence, env: Env, rng: np.random.Generator) -> dict[str, np.ndarray]:
    found = {}
    for state in recurrence.states:
        shape = shape_of(state.type, env)
        found[state.name] = rng.normal(size=shape) + (1j * rng.normal(size=shape) if state.type.field == "complex" else 0.0)
    return found


def updated(recurrence: spec.Recurrence, env: Env) -> dict[str, np.ndarray]:
    """The states after a token, straight from the equations of `update`."""
    after = dict(env.before)
    for item in recurrence.update:
        if isinstance(item, spec.MicroLoop):
            for j in range(1, size(item.count, env) + 1):
                for assignment in item.body:
                    after[assignment.state] = evaluate(assignment.value, replace(env, after=after).at(item.index, j))
        else:
            after[item.state] = evaluate(item.value, replace(env, after=after))
    return after


def outputs_of(pairs, recurrence: spec.Recurrence, env: Env) -> dict[str, np.ndarray]:
    """Outputs by name; `y[r]` as a list of its rows."""
    counts = {o.name: (o.index, o.count) for o in recurrence.outputs}
    found = {}
    for name, value in pairs:
        index, count = counts[name]
        if index is None:
            found[name] = evaluate(value, env)
        else:
            found[name] = np.stack([evaluate(value, env.at(index, r)) for r in range(1, size(count, env) + 1)])
    return found


# --- a token, from the derived form ------------------------------------------------------------------------------


def generator(g, n: int, env: Env) -> np.ndarray:
    column = evaluate(g.column, env)
    if g.kind == "diagonal":
        return np.diag(column[:, 0])
    if g.kind == "rotation":
        return rotation(column, n)
    if g.kind == "rank_one":
        return column @ evaluate(g.row, env).T
    assert g.kind == "dense", g.kind
    return column


def _summed(term, env: Env, value):
    if term.index is None:
        return value(env)
    return sum(value(env.at(term.index, r)) for r in range(1, size(term.rank, env) + 1))


def _transitioned(term, states: dict[str, np.ndarray], env: Env) -> np.ndarray:
    value = states[term.source]
    left = list(term.left)
    if left and left[-1].kind == "elementwise":
        value = evaluate(left.pop().column, env) * value
    for g in term.right:
        value = value @ generator(g, value.shape[1], env)
    for g in reversed(left):
        if g.kind == "part":
            value = evaluate(g.column, env) @ np.real(evaluate(g.row, env).T @ value)
            continue
        value = generator(g, value.shape[0], env) @ value
    return evaluate(term.coefficient, env) * value


def _written(term, env: Env) -> np.ndarray:
    at = replace(env, names=env.previous) if term.tap == 1 else env
    value = evaluate(term.coefficient, env)
    if term.weight is not None:
        rows, cols = (1.0 if e is None else evaluate(e, at) for e in (term.key, term.value))
        return value * evaluate(term.weight, at) * rows * np.transpose(cols)
    if term.key is not None:
        value = value * evaluate(term.key, at)
    if term.value is not None:
        value = value @ evaluate(term.value, at).T
    return value


def entering(step: MicroStep, states: dict[str, np.ndarray], env: Env) -> dict[str, np.ndarray]:
    """The states with the previous token's writes that enter before the transitions act."""
    found = dict(states)
    for term in step.writes:
        if term.tap == 1:
            found[term.target] = found[term.target] + _summed(term, env, lambda e, term=term: _written(term, e))
    return found


def stepped(step: MicroStep, states: dict[str, np.ndarray], env: Env) -> dict[str, np.ndarray]:
    """The states after one application of a micro-step."""
    old = entering(step, states, env)
    after = {name: np.zeros_like(value) for name, value in states.items()}
    for term in step.transitions:
        after[term.target] = after[term.target] + _summed(term, env, lambda e, term=term: _transitioned(term, old, e))
    for term in step.writes:
        if term.tap == 0:
            after[term.target] = after[term.target] + _summed(term, env, lambda e, term=term: _written(term, e))
    return after


def stepped_token(recurrence: Recurrence, env: Env) -> dict[str, np.ndarray]:
    """The states after a token, from the micro-steps."""
    states = dict(env.before)
    for step in recurrence.steps:
        if step.index is None:
            states = stepped(step, states, env)
        else:
            for j in range(1, size(step.count, env) + 1):
                states = stepped(step, states, env.at(step.index, j))
    return states


def read(r: Read, env: Env) -> np.ndarray:
    state = env.after[r.state] if r.primed else env.before[r.state]
    if r.side == "whole":
        return state
    query = evaluate(r.query, env)
    return state @ query if r.side == "value" else state.T @ query


def derived_outputs(recurrence: Recurrence, env: Env) -> dict[str, np.ndarray]:
    """Outputs from the reads."""
    return outputs_of(recurrence.outputs, recurrence.spec, replace(env, reads={r.name: r for r in recurrence.reads}))


# --- discretization, without knowing the structure ---------------------------------------------------------------


def linear_part(recurrence: spec.Recurrence, env: Env) -> tuple[np.ndarray, np.ndarray]:
    """A and B of `d vec/dt = A vec + B` over all states, `packed`, by evaluating the dynamics on basis vectors."""
    shapes = {s.name: shape_of(s.type, env) for s in recurrence.states}
    order = [s.name for s in recurrence.states]
    total = len(packed(env.before, order))
    value_of = {d.state: d.value for d in recurrence.dynamics}

    def derivative(vector: np.ndarray) -> np.ndarray:
        states = unpacked(vector, shapes, order)
        at = replace(env, before=states, after=states)
        return packed({name: evaluate(value_of[name], at) for name in order}, order, len(vector))

    zero = np.zeros(total)
    b = derivative(zero)
    columns = [derivative(np.eye(total)[:, j]) - b for j in range(total)]
    return np.stack(columns, axis=1), b


def packed(states: dict[str, np.ndarray], order: list[str], total: int = 0) -> np.ndarray:
    """All entries; real parts before imaginary ones where a state is complex, or where that makes `total`."""
    vector = np.concatenate([states[name].ravel() for name in order])
    return np.concatenate([vector.real, vector.imag]) if np.iscomplexobj(vector) or len(vector) < total else vector


def unpacked(vector: np.ndarray, shapes: dict[str, tuple[int, int]], order: list[str]) -> dict[str, np.ndarray]:
    found, at = {}, 0
    half = sum(a * b for a, b in shapes.values())
    vector = vector if len(vector) == half else vector[:half] + 1j * vector[half:]
    for name in order:
        rows, cols = shapes[name]
        found[name] = vector[at : at + rows * cols].reshape(rows, cols)
        at += rows * cols
    return found


def expm(matrix: np.ndarray) -> np.ndarray:
    """By scaling, a Taylor series, and squaring."""
    squarings = max(0, int(np.ceil(np.log2(max(np.abs(matrix).sum(axis=1).max(), 1e-9)))) + 4)
    small = matrix / 2**squarings
    result = term = np.eye(len(matrix), dtype=matrix.dtype)
    for k in range(1, 18):
        term = term @ small / k
        result = result + term
    for _ in range(squarings):
        result = result @ result
    return result


def phi_one(matrix: np.ndarray) -> np.ndarray:
    """(e^M - 1) / M, from one exponential of a matrix twice as large."""
    n = len(matrix)
    large = np.zeros((2 * n, 2 * n), dtype=matrix.dtype)
    large[:n, :n], large[:n, n:] = matrix, np.eye(n)
    return expm(large)[:n, n:]
