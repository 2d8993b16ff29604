"""A second oracle: walks a resolved recurrence itself, one token at a time in float64, without generating text.

It shares no code with the emitted reference or with the passes after `resolve`, and takes other roads where there are
several: a continuous-time update is found by probing `dS/dt` as a black box and stepped by matrix exponentials, `rope` and
`rot` are complex rotations. Slow on purpose, small on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import spec
from ..expressions import nodes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Result:
    """`y` [B, T, H, ...] and the final state by name: states as [B, H, ...], `position` [B], delayed values `x[-1]`."""

    y: Tensor
    final_state: dict[str, Tensor]


def interpret(
    recurrence: spec.Recurrence,
    values: Mapping[str, Tensor],
    *,
    initial_state: Mapping[str, Tensor] | None = None,
    cu_seqlens: Tensor | None = None,
    constants: Mapping[str, float] | None = None,
) -> Result:
    """Run `recurrence` on `values` (inputs [B, T, H, ...] and learned params [H, ...] by name) in float64.

    `initial_state` maps what `Result.final_state` holds; missing entries are zero. Raises ValueError for a recurrence that
    is bidirectional.
    """
    import torch

    if recurrence.time not in ("causal", "reversed"):
        raise ValueError(f"no sequential law for `{recurrence.name}`")
    given = {name: float(value) for name, value in recurrence.constants} | dict(constants or {})
    walk = _Walk(recurrence, {n: _double(v) for n, v in values.items()}, given)
    if cu_seqlens is None:
        return walk.run(dict(initial_state or {}))
    bounds = cu_seqlens.tolist()
    documents = []
    for i in range(len(bounds) - 1):
        start = {name: part[i : i + 1] for name, part in (initial_state or {}).items()}
        documents.append(walk.slice(bounds[i], bounds[i + 1]).run(start))
    names = documents[0].final_state
    states = {name: torch.cat([d.final_state[name] for d in documents]) for name in names}
    return Result(torch.cat([d.y for d in documents], dim=1), states)


def evaluate(recurrence: spec.Recurrence, values: Mapping[str, Tensor], wanted: Mapping[str, spec.Expr]) -> dict[str, Tensor]:
    """Expressions that read no state, at every token: [B, T, H, rows, cols] by name, sizes of 1 where one does not vary.

    `values` as for `interpret`; what a token has from the one before is that of the sample, zero before the first.
    """
    import torch

    walk = _Walk(recurrence, {n: _double(v) for n, v in values.items()}, {name: float(value) for name, value in recurrence.constants})
    return {name: torch.stack(tokens, dim=1) for name, tokens in walk.watch(wanted).items()}


def _double(x: Tensor) -> Tensor:
    import torch

    return x.to(torch.complex128 if x.is_complex() else torch.float64)


@dataclass
class _Token:
    """What the names mean at one token. Values are [B, H, rows, cols], those without batch or head have size one there."""

    values: dict[str, Tensor]
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    delayed: dict[str, Tensor]
    position: Tensor
    loops: dict[str, int] = field(default_factory=dict)
    known: dict[str, Tensor] = field(default_factory=dict)

    def assign(self, state: str, value: Tensor) -> None:
        """What was computed from the state as it was is forgotten."""
        self.after[state] = value
        self.known.clear()


class _Walk:
    def __init__(self, recurrence: spec.Recurrence, values: dict[str, Tensor], constants: dict[str, float]):
        self.spec = recurrence
        self.values = values
        self.constants = constants
        self.inputs = {s.name: s for s in recurrence.symbols if s.definition is None and s.kind != "param"}
        self.params = {s.name: s for s in recurrence.symbols if s.definition is None and s.kind == "param"}
        self.lanes = self._lanes()
        self.sizes = self._sizes()

    def slice(self, start: int, end: int) -> _Walk:
        values = {name: x[:, start:end] if name in self.inputs else x for name, x in self.values.items()}
        return _Walk(self.spec, values, self.constants)

    def _lanes(self) -> int:
        counts = {"head": 1, "channel": 1, "group": 1}
        for name, symbol in (*self.inputs.items(), *self.params.items()):
            if symbol.per in counts:
                axis = 2 if name in self.inputs else 0
                counts[symbol.per] = max(counts[symbol.per], self.values[name].shape[axis])
        return max(counts.values())

    def _sizes(self) -> dict[str, int]:
        sizes = dict((*self.spec.dims, *self.spec.counts))
        for name, symbol in (*self.inputs.items(), *self.params.items()):
            shown = [d for d in (symbol.type.rows, symbol.type.cols) if d != spec.ONE]
            for size, length in zip(shown, self.values[name].shape[-len(shown) :] if shown else (), strict=True):
                if len(size.terms) == 1 and size.constant == 0:
                    dim, coefficient = size.terms[0]
                    sizes[dim] = int(length / coefficient)
        return sizes

    # --- layouts -------------------------------------------------------------------------------------------------

    def _widen(self, x: Tensor, symbol: spec.Symbol | spec.State, lead: int) -> Tensor:
        """[B, H, ...] (or [H, ...]) to [B, H, rows, cols]."""
        if symbol.per == "layer":
            x = x.unsqueeze(lead)
        if symbol.type.rows == spec.ONE:
            x = x.unsqueeze(lead + 1)
        if symbol.type.cols == spec.ONE:
            x = x.unsqueeze(-1)
        if lead == 0:
            x = x.unsqueeze(0)
        if symbol.per == "group":
            share = self.lanes // x.shape[1]
            x = x.unsqueeze(2).expand(*x.shape[:2], share, *x.shape[2:]).reshape(x.shape[0], self.lanes, *x.shape[2:])
        return x

    def _narrow(self, x: Tensor, type_: spec.Type, per: str = "head") -> Tensor:
        if type_.cols == spec.ONE:
            x = x.squeeze(-1)
        if type_.rows == spec.ONE:
            x = x.squeeze(2)
        return x.squeeze(1) if per == "layer" else x

    def _number(self, size: spec.Dim) -> int:
        value = size.value(self.sizes)
        if value.denominator != 1:
            raise ValueError(f"size {size} is {value}")
        return int(value)

    # --- the loop ------------------------------------------------------------------------------------------------

    def run(self, start: dict[str, Tensor]) -> Result:
        import torch

        first = self.values[next(iter(self.inputs))]
        batch, length = first.shape[:2]
        device = first.device
        states = {s.name: self._start(s, start.get(s.name), batch, device) for s in self.spec.states}
        position = start.get("position", torch.zeros(batch, device=device)).to(torch.float64)[:, None, None, None]
        delayed = {name: x.to(torch.float64) for name, x in start.items() if name.endswith("[-1]")}
        delayed = {name[:-4]: self._widen(x, self.spec.symbol(name[:-4]), 1) for name, x in delayed.items()}
        fixed = {name: self._widen(self.values[name], symbol, 0) for name, symbol in self.params.items()}
        outputs: dict[int, Tensor] = {}
        for t in range(length) if self.spec.time == "causal" else range(length - 1, -1, -1):
            values = dict(fixed)
            for name, symbol in self.inputs.items():
                values[name] = self._widen(self.values[name][:, t], symbol, 1)
            token = _Token(values, dict(states), dict(states), delayed, position)
            self._step(token)
            output = self.spec.outputs[0]
            outputs[t] = self._output(token, output).expand(batch, self.lanes, *([-1] * (2 if output.count is None else 3)))
            delayed = {s.name: self._lookup(token, s.name) for s in self._delayed_symbols()}
            states, position = token.after, position + 1
        final = {s.name: self._narrow(states[s.name], s.type, s.per) for s in self.spec.states}
        final |= {f"{s.name}[-1]": self._narrow(delayed[s.name], s.type, s.per) for s in self._delayed_symbols() if s.name in delayed}
        final["position"] = position[:, 0, 0, 0].to(torch.int64)
        y = torch.stack([outputs[t] for t in sorted(outputs)], dim=1) if outputs else first.new_zeros(batch, 0, self.lanes)
        return Result(self._output_layout(y), final)

    def watch(self, wanted: Mapping[str, spec.Expr]) -> dict[str, list[Tensor]]:
        """The values of expressions that read no state, a list of tokens each."""
        import torch

        first = self.values[next(iter(self.inputs))]
        position = torch.zeros(first.shape[0], dtype=torch.float64)[:, None, None, None]
        fixed = {name: self._widen(self.values[name], symbol, 0) for name, symbol in self.params.items()}
        delayed: dict[str, Tensor] = {}
        found: dict[str, list[Tensor]] = {name: [] for name in wanted}
        for t in range(first.shape[1]):
            moving = {name: self._widen(self.values[name][:, t], symbol, 1) for name, symbol in self.inputs.items()}
            token = _Token(fixed | moving, {}, {}, delayed, position + t)
            for name, expr in wanted.items():
                found[name].append(self._value(token, expr))
            delayed = {s.name: self._lookup(token, s.name) for s in self._delayed_symbols()}
        return found

    def _start(self, state: spec.State, given: Tensor | None, batch: int, device) -> Tensor:
        import torch

        dtype = torch.complex128 if state.type.field == "complex" else torch.float64
        if given is not None:
            return self._widen(given.to(dtype), state, 1)
        lanes = 1 if state.per == "layer" else self.lanes
        return torch.zeros(batch, lanes, self._number(state.type.rows), self._number(state.type.cols), dtype=dtype, device=device)

    def _delayed_symbols(self) -> list[spec.Symbol]:
        names = {node.name for value in _expressions(self.spec) for node in _nodes(value) if isinstance(node, spec.Delayed)}
        return [s for s in self.spec.symbols if s.name in names]

    def _output(self, token: _Token, output: spec.Output) -> Tensor:
        import torch

        if output.index is None:
            return self._value(token, output.value)
        rows = []
        for r in range(1, self._number(output.count) + 1):
            token.loops[output.index] = r
            rows.append(self._value(token, output.value))
        return torch.stack(rows, dim=2)

    def _output_layout(self, y: Tensor) -> Tensor:
        output = self.spec.outputs[0]
        axis = 3 if output.count is None else 4
        if output.value.type.cols == spec.ONE and y.dim() > axis + 1:
            y = y.squeeze(-1)
        return y.squeeze(axis) if output.value.type.rows == spec.ONE and y.dim() > axis else y

    def _step(self, token: _Token) -> None:
        for item in self.spec.update:
            if isinstance(item, spec.MicroLoop):
                for j in range(1, self._number(item.count) + 1):
                    token.loops[item.index] = j
                    for assignment in item.body:
                        token.assign(assignment.state, self._value(token, assignment.value))
            else:
                token.assign(item.state, self._value(token, item.value))
        couples = any(isinstance(n, spec.StateRef) and n.name != d.state for d in self.spec.dynamics for n in self._nodes_of(d.value))
        stepped = self._together(token) if couples else [(d.state, self._discretized(token, d)) for d in self.spec.dynamics]
        for state, value in stepped:
            token.assign(state, value)

    # --- continuous time -----------------------------------------------------------------------------------------

    def _nodes_of(self, expr: spec.Expr) -> Iterator[spec.Expr]:
        """Every node of an expression, through definitions."""
        definitions = {s.name: s.definition for s in self.spec.symbols if s.definition is not None}
        for node in nodes(expr):
            yield node
            if isinstance(node, spec.Ref) and node.name in definitions:
                yield from self._nodes_of(definitions[node.name])

    def _together(self, token: _Token) -> list[tuple[str, Tensor]]:
        """One step of states that feed each other: all their entries in one column, A and b found at chosen ones."""
        import torch

        items = self.spec.dynamics
        shapes = {d.state: token.before[d.state].shape for d in items}

        def packed(parts: Mapping[str, Tensor]) -> Tensor:
            return torch.cat([parts[d.state].expand(shapes[d.state]).flatten(-2) for d in items], -1)[..., None]

        def unpacked(column: Tensor) -> dict[str, Tensor]:
            sizes = [math.prod(shapes[d.state][-2:]) for d in items]
            return {d.state: part.reshape(shapes[d.state]) for d, part in zip(items, column[..., 0].split(sizes, -1), strict=True)}

        def rate(column: Tensor) -> Tensor:
            probe = _Token(token.values, {**token.before, **unpacked(column)}, token.after, token.delayed, token.position, token.loops)
            return packed({d.state: self._value(probe, d.value) for d in items})

        state = packed(token.before)
        zero = torch.zeros_like(state)
        b, units = rate(zero), torch.eye(state.shape[-2], dtype=state.dtype, device=state.device)
        matrix = torch.cat([rate(zero + unit[:, None]) - b for unit in units], -1)
        step, *args = (self._value(token, arg) for arg in self.spec.discretization.args) if self.spec.discretization.args else (None,)
        if step is not None:
            along = {d.state: step if step.shape[-2] in (1, shapes[d.state][-2]) else step.mT for d in items}
            args = [packed(along), *args]
        old = {d.state: zero.new_zeros(()) if d.before is None else self._value(token, d.before) for d in items}
        return list(unpacked(_METHODS[self.spec.discretization.method](matrix, b, state, packed(old), *args)).items())

    def _discretized(self, token: _Token, dynamics: spec.Dynamics) -> Tensor:
        """One step of the method, with A and b found by evaluating `dS/dt` at chosen states."""
        import torch

        state = token.before[dynamics.state]

        def rate(at: Tensor) -> Tensor:
            probe = _Token(token.values, {**token.before, dynamics.state: at}, token.after, token.delayed, token.position, token.loops)
            return self._value(probe, dynamics.value).expand(at.shape)

        method, args = self.spec.discretization.method, [self._value(token, arg) for arg in self.spec.discretization.args]
        if args and self.spec.discretization.args[0].type.rows not in (self.spec.state(dynamics.state).type.rows, spec.ONE):
            args[0] = args[0].mT  # one step size a column of the state
        zero = torch.zeros_like(state)
        previous = zero if dynamics.before is None else self._value(token, dynamics.before).expand(zero.shape)
        if state.is_complex():
            trial = torch.linspace(-1, 1, state[0, 0].numel(), dtype=torch.float64, device=state.device).reshape(state.shape[2:]) + zero
            change = rate(trial) - rate(zero)
            if not torch.allclose(rate(1j * trial) - rate(zero), 1j * change, rtol=1e-9, atol=1e-9 * float(change.abs().max() + 1)):
                # linear over the reals alone: real parts above imaginary ones
                rows = state.shape[2]
                above = lambda x: torch.cat([x.real, x.imag], dim=2)  # noqa: E731
                whole = lambda x: torch.complex(x[:, :, :rows], x[:, :, rows:])  # noqa: E731
                return whole(self._stepped(lambda x: above(rate(whole(x))), above(state), above(previous), method, args))
        return self._stepped(rate, state, previous, method, args)

    def _stepped(self, rate: Callable, state: Tensor, previous: Tensor, method: str, args: list[Tensor]) -> Tensor:
        """One step of `dS/dt = rate(S)`, which is A S + b: entry by entry, from the left, from the right or from both sides."""
        import torch

        zero = torch.zeros_like(state)
        b = rate(zero)
        factor = rate(zero + 1) - b
        trial = torch.linspace(-1, 1, state[0, 0].numel(), dtype=torch.float64, device=state.device).reshape(state.shape[2:]) + zero
        if torch.allclose(rate(trial) - b, factor * trial, rtol=1e-9, atol=1e-9 * float(factor.abs().max() + 1)):
            # Every entry by itself: as many 1 x 1 problems as there are entries.
            entries = [x.expand(state.shape)[..., None, None] for x in (factor, b, state, previous)]
            args = [arg[..., None, None] for arg in args]
            return _METHODS[method](*entries, *args)[..., 0, 0]
        units = lambda number: torch.eye(number, dtype=state.dtype, device=state.device)  # noqa: E731
        matrix = torch.cat([(rate(zero + unit[:, None]) - b)[..., :, :1] for unit in units(state.shape[2])], dim=-1)
        if torch.allclose(rate(trial) - b, matrix @ trial, rtol=1e-9, atol=1e-9 * float(matrix.abs().max() + 1)):
            return _METHODS[method](matrix, b, state, previous, *args)
        # from the right: the transpose from the left
        right = torch.cat([(rate(zero + unit) - b)[..., :1, :] for unit in units(state.shape[3])], dim=-2)
        if torch.allclose(rate(trial) - b, trial @ right, rtol=1e-9, atol=1e-9 * float(right.abs().max() + 1)):
            return _METHODS[method](right.mT, b.mT, state.mT, previous.mT, *args).mT
        # from both sides: the matrix that acts on all entries in one column
        column = lambda x: x.expand(state.shape).flatten(-2)[..., None]  # noqa: E731
        entries = units(math.prod(state.shape[-2:])).unflatten(1, state.shape[-2:])
        matrix = torch.cat([column(rate(zero + unit) - b) for unit in entries], -1)
        return _METHODS[method](matrix, *map(column, (b, state, previous, *args)))[..., 0].reshape(state.shape)

    # --- values --------------------------------------------------------------------------------------------------

    def _lookup(self, token: _Token, name: str) -> Tensor:
        import torch

        if name in token.loops:
            return torch.tensor([[[[float(token.loops[name])]]]], dtype=torch.float64)
        if name in token.values:
            return token.values[name]
        if name in self.constants or name in dict(self.spec.counts):
            return torch.tensor([[[[float(self.constants.get(name, self.sizes.get(name, 0)))]]]], dtype=torch.float64)
        if name in ("head", "channel"):
            return torch.arange(self.lanes, dtype=torch.float64)[None, :, None, None].to(token.position.device)
        if name in ("heads", "channels"):
            return torch.tensor([[[[float(self.lanes)]]]], dtype=torch.float64)
        if name == "position":
            return token.position
        if name not in token.known:
            token.known[name] = self._value(token, self.spec.symbol(name).definition)
        return token.known[name]

    def _value(self, token: _Token, expr: spec.Expr) -> Tensor:
        import torch

        match expr:
            case spec.Const():
                return torch.tensor([[[[float(expr.value)]]]], dtype=torch.float64)
            case spec.SizeOf():
                return torch.tensor([[[[float(expr.size.value(self.sizes))]]]], dtype=torch.float64)
            case spec.Ref():
                return self._lookup(token, expr.name)
            case spec.StateRef():
                return (token.after if expr.primed else token.before)[expr.name]
            case spec.Delayed():
                missing = torch.zeros(1, 1, self._number(expr.type.rows), self._number(expr.type.cols), dtype=torch.float64)
                return token.delayed.get(expr.name, missing)
            case spec.Element():
                index = token.loops[expr.index] if isinstance(expr.index, str) else expr.index
                return self._value(token, expr.base)[:, :, index - 1].unsqueeze(-1)
            case spec.Add():
                return sum((self._value(token, term) for term in expr.terms), torch.zeros((), dtype=torch.float64))
            case spec.Neg():
                return -self._value(token, expr.operand)
            case spec.Mul():
                return self._value(token, expr.left) * self._value(token, expr.right)
            case spec.Div():
                return self._value(token, expr.left) / self._value(token, expr.right)
            case spec.Pow():
                return torch.pow(self._value(token, expr.base), self._value(token, expr.exponent))
            case spec.MatMul():
                left, right = self._value(token, expr.left), self._value(token, expr.right)
                return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2)
            case spec.Transpose():
                value = self._value(token, expr.operand).transpose(2, 3)
                return value.conj() if expr.conjugate else value
            case spec.Identity():
                return torch.eye(self._number(expr.type.rows), dtype=torch.float64)[None, None]
            case spec.Diag():
                return torch.diag_embed(self._value(token, expr.operand)[..., 0])
            case spec.Rot():
                return torch.matrix_exp(self._skew(token, expr))
            case spec.Skew():
                return self._skew(token, expr)
            case spec.SumOver():
                total = torch.zeros((), dtype=torch.float64)
                for r in range(1, self._number(expr.count) + 1):
                    token.loops[expr.index] = r
                    total = total + self._value(token, expr.body)
                return total
            case spec.Apply():
                return self._apply(token, expr)
        raise ValueError(f"no value for {type(expr).__name__}")

    def _skew(self, token: _Token, expr: spec.Rot | spec.Skew) -> Tensor:
        import torch

        rates, size = self._value(token, expr.operand)[..., 0], self._number(expr.type.rows)
        if expr.operand.type.is_scalar:
            rates = rates.expand(*rates.shape[:-1], size // 2)
        sine = torch.zeros(size, size, rates.shape[-1], dtype=torch.float64)
        for j in range(rates.shape[-1]):
            sine[2 * j + 1, 2 * j, j], sine[2 * j, 2 * j + 1, j] = 1.0, -1.0
        return torch.einsum("nmj,...j->...nm", sine, rates)

    def _apply(self, token: _Token, expr: spec.Apply) -> Tensor:
        import torch

        if expr.function == "pi":
            return torch.tensor([[[[math.pi]]]], dtype=torch.float64)
        if expr.function == "i":
            return torch.tensor([[[[1j]]]], dtype=torch.complex128)
        args = [self._value(token, arg) for arg in expr.args]
        if expr.function == "rope":
            return _rope(args[0], token.position, _entries(expr.args[0]))
        if expr.function in _SQUARE:
            return _SQUARE[expr.function](args[0])
        if expr.function in _ALONG:
            return _ALONG[expr.function](args[0], _entries(expr.args[0]))
        return POINTWISE[expr.function](*args)


def _entries(expr: spec.Expr) -> int:
    """The axis of a value's entries: down a column, along the rows of a stack of vectors."""
    return 2 if expr.type.cols == spec.ONE else 3


def _nodes(expr: spec.Expr):
    yield expr
    for value in vars(expr).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, spec.Expr):
                yield from _nodes(item)


def _expressions(recurrence: spec.Recurrence):
    for symbol in recurrence.symbols:
        if symbol.definition is not None:
            yield symbol.definition
    for item in recurrence.update:
        for assignment in item.body if isinstance(item, spec.MicroLoop) else (item,):
            yield assignment.value
    for item in (*recurrence.dynamics, *recurrence.outputs):
        yield item.value
    yield from (d.before for d in recurrence.dynamics if d.before is not None)


# --- functions ---------------------------------------------------------------------------------------------------


def _where(condition: Callable, yes: Callable, no: Callable) -> Callable:
    def chosen(x):
        import torch

        at = condition(x)
        return torch.where(at, yes(torch.where(at, x, torch.zeros_like(x))), no(torch.where(at, torch.zeros_like(x), x)))

    return chosen


def _named(name: str) -> Callable:
    def call(*args):
        import torch

        return getattr(torch, name)(*args)

    return call


def _softplus(x):
    import torch

    return torch.clamp(x, min=0) + torch.log1p(torch.exp(-x.abs()))


def _gelu(x):
    import torch

    return x * 0.5 * torch.erfc(-x / math.sqrt(2))


def _bounded_sqrt(x, slope):
    """The square root; backwards, the least of its derivative and `slope`."""
    import torch

    rate = torch.minimum(0.5 / torch.sqrt(x.detach()), torch.as_tensor(slope, dtype=x.dtype))
    return torch.sqrt(x.detach()) + rate * (x - x.detach())


def _phi(x, order: int):
    """The corner of the exponential of [[x, 1, 0], [0, 0, 1], [0, 0, 0]], and so on: the sum of x^j / (j + order)!."""
    import torch

    block = torch.diag(torch.ones(order, dtype=x.dtype, device=x.device), 1).expand(*x.shape, -1, -1).clone()
    block[..., 0, 0] = x
    return torch.matrix_exp(block)[..., 0, order]


def _of_pair(order: int, odd: int):
    """An entry of the exponential of Z = [[x, d], [1, x]], whose eigenvalues are x +- sqrt(d), or of its integral phi1(Z)."""

    def value(x, d):
        import torch

        x, d = torch.broadcast_tensors(x, d)
        z = torch.stack([torch.stack([x, d], -1), torch.stack([torch.ones_like(x), x], -1)], -2)
        if order:
            top = torch.cat([z, torch.eye(2, dtype=x.dtype, device=x.device).expand(z.shape)], -1)
            z = torch.cat([top, torch.zeros_like(top)], -2)
        return torch.matrix_exp(z)[..., odd, 2 if order else 0]

    return value


POINTWISE: dict[str, Callable] = {
    **{name: _named(name) for name in ("exp", "log", "log1p", "expm1", "tanh", "abs", "sqrt", "sin", "cos", "atan2")},
    "sigmoid": _where(lambda x: x >= 0, lambda x: 1 / (1 + (-x).exp()), lambda x: x.exp() / (1 + x.exp())),
    "logsigmoid": lambda x: -_softplus(-x),
    "softplus": _softplus,
    "inv_softplus": lambda x: x + (-(-x).expm1()).log(),
    "silu": lambda x: x * POINTWISE["sigmoid"](x),
    "gelu": _gelu,
    "elu": _where(lambda x: x > 0, lambda x: x, lambda x: x.expm1()),
    "relu": lambda x: x.clamp(min=0),
    "rsqrt": lambda x: 1 / x.sqrt(),
    "square": lambda x: x * x,
    "min": _named("minimum"),
    "max": _named("maximum"),
    "bounded_sqrt": lambda x, slope: _bounded_sqrt(x, slope),
    "clamp": lambda x, low, high: _named("minimum")(_named("maximum")(x, low), high),
    "heavy_tail": _where(lambda x: x >= 0, lambda x: 1 + x, lambda x: 1 / (1 - x)),
    "phi1": lambda x: _phi(x, 1),
    "phi2": lambda x: _phi(x, 2),
    **{f"{name}_{part}": _of_pair(order, odd) for order, name in enumerate(("exp", "phi1")) for odd, part in enumerate(("even", "odd"))},
    "Re": lambda x: x.real if x.is_complex() else x,
    "Im": lambda x: x.imag if x.is_complex() else 0 * x,
    "conj": lambda x: x.conj(),
    "cis": lambda x: (1j * x).exp(),
}


def _interleave_twice(x, axis: int):
    import torch

    return torch.stack([x, x], dim=axis + 1).flatten(axis, axis + 1)


_ALONG: dict[str, Callable] = {
    "unit": lambda x, axis: x / (x.square().sum(axis, keepdim=True) + 1e-6).sqrt(),
    "rmsnorm": lambda x, axis: x / (x.square().mean(axis, keepdim=True) + 1e-5).sqrt(),
    "softmax": lambda x, axis: (x - x.logsumexp(axis, keepdim=True)).exp(),
    "norm": lambda x, axis: x.square().sum(axis, keepdim=True).sqrt(),
    "pairs": _interleave_twice,
}


_SQUARE: dict[str, Callable] = {
    "matrix_exp": _named("matrix_exp"),
    "matrix_phi1": lambda z: _held(z, z.new_ones(z.shape[-1]).diag().expand(z.shape), 0 * z, None, 1.0),
    "matrix_inverse": _named("inverse"),
}


def _rope(x, position, axis: int):
    """(x_j + i x_{j + N/2}) exp(i position 10000^(-2j/N))."""
    import torch

    columns = x.movedim(axis, -1)
    half = columns.shape[-1] // 2
    pairs = torch.complex(columns[..., :half].contiguous(), columns[..., half:].contiguous())
    rate = torch.tensor([math.exp(-j * math.log(10000.0) / half) for j in range(half)], dtype=torch.float64)
    turned = pairs * torch.exp(1j * position * rate)
    return torch.cat([turned.real, turned.imag], dim=-1).movedim(-1, axis)


# --- methods: A, b, S, the previous b, the step, ... -> S' -------------------------------------------------------


def _exponential(a, dt):
    import torch

    return torch.matrix_exp(dt * a)


def _held(a, b, state, previous, dt):
    """Exact for a write held constant: exp of [[A, b], [0, 0]] carries (S, 1)."""
    import torch

    n, p = a.shape[-1], b.shape[-1]
    a, b = dt * a, dt * b
    many = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    top = torch.cat([a.expand(*many, n, n), b.expand(*many, n, p).to(a.dtype)], dim=-1)
    step = torch.matrix_exp(torch.cat([top, torch.zeros_like(top[..., :1, :]).expand(*many, p, n + p)], dim=-2))
    return step[..., :n, :n] @ state.to(step.dtype) + step[..., :n, n:]


def _runge_kutta(a, b, state, dt):
    first = a @ state + b
    second = a @ (state + dt / 2 * first) + b
    third = a @ (state + dt / 2 * second) + b
    fourth = a @ (state + dt * third) + b
    return state + dt / 6 * (first + 2 * second + 2 * third + fourth)


_METHODS: dict[str, Callable] = {
    "none": lambda a, b, state, previous: a @ state + b,
    "euler": lambda a, b, state, previous, dt: state + dt * (a @ state + b),
    "exp_euler": lambda a, b, state, previous, dt: _exponential(a, dt) @ state + dt * b,
    "zoh": _held,
    "implicit_euler": lambda a, b, state, previous, dt: _solved(a, state + dt * b, dt),
    "bilinear": lambda a, b, state, previous, dt: _solved(a, state + dt / 2 * (a @ state) + dt * b, dt / 2),
    "rk4": lambda a, b, state, previous, dt: _runge_kutta(a, b, state, dt),
    "trapezoid": lambda a, b, state, previous, dt: _solved(a, state + dt / 2 * (a @ state + previous + b), dt / 2),
    "exp_trapezoid": lambda a, b, state, previous, dt, lam: _exponential(a, dt) @ (state + (1 - lam) * dt * previous) + lam * dt * b,
}


def _solved(a, right, dt):
    """The s with s = right + dt a s."""
    import torch

    return torch.linalg.solve(torch.eye(a.shape[-1], dtype=a.dtype, device=a.device) - dt * a, right)
