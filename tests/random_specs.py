"""Random specs of one row a token: gates, decays, normalisers and readouts."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

pytest.importorskip("torch")


AWKWARD = (
    "lambda lambda_ class is not None True T B G H C D E F M N P X A S S0 a g q k v o x dy d_q d_k d_v d_S d_x dq dk dv reads reads0 final "
    "chunks chunk ctx inputs kinds value values states sequences position_ token tokens is_fused scale ratio groups_ heads_ names dtype "
    "torch Tensor math len zip float getattr functools warnings NAMESPACE State result exp_x sigmoid_1 read_S like total q0 o0 o1 γ β"
).split()  # fmt: skip
"""Names that Python, torch's habits or the emitted text use for something else."""

POSITIVE = ("elu({0}) + 1", "softmax({0})", "exp(tanh({0}))", "softplus({0})")
FEATURES = (
    *POSITIVE, "{0}", "silu({0})", "relu({0})", "tanh({0})", "gelu({0})", "unit({0})", "rmsnorm({0})", "sin({0})",
    "{0} + {w}",
    "{N}^-1/2 * {0}", "rope({0})", "rope({N}^-1/2 * {0})", "unit(silu({0}))", "rope(unit({0}))", "{w} * {0}", "silu({0} + {w})",
)  # fmt: skip
RAW_GATES = (
    ("in (0, 1)", "sigmoid({0})"), ("in (0, 1)", "exp(-softplus({0}))"), ("in (0, 1)", "exp(-exp({0}))"), ("in (0, 1)", "1 - sigmoid({0})"),
    ("in (0, 1)", "sigmoid({0} + {b})"), ("in (0, 1)", "sigmoid({0}) * sigmoid({b})"), ("in [0.1, 0.9]", "clamp({0}, 0.1, 0.9)"),
    ("in (0, 1)", "1 / (1 + exp({0}))"), ("in (0, 1]", "exp(-square({0}))"), ("in (0, 1)", "exp(-heavy_tail({0}))"),
    ("in (0, 1]", "exp(-relu({0}))"), ("in (0, 1)", "sigmoid({0})^(1/16)"), ("in (0.5, 1)", "1/2 + sigmoid({0}) / 2"),
    ("in (0, 1)", "exp(-softplus({0}) * exp({b}))"), ("in (0, 1)", "exp(logsigmoid({0}) / 16)"), ("in (0.25, 1)", "max(sigmoid({0}), 0.3)"),
)  # fmt: skip
"""Expressions of a free number that stay above 0 and at most 1, with the domain to declare."""

LOG_GATES = (
    "-softplus({0})", "logsigmoid({0}) / 16", "-exp({b}) * softplus({0})", "-exp({0})", "min({0}, 0)", "-relu({0})", "-5 * sigmoid({0})",
)  # fmt: skip


class _Text:
    """A spec as it is written: declarations by keyword, names handed out once."""

    def __init__(self, draw):
        self.draw = draw
        self.lines: list[str] = []
        self.used: set[str] = set()
        self.name = self.new("random_walk", awkward=False)

    def pick(self, options):
        """One of `options`."""
        return self.draw(st.sampled_from(options))

    def maybe(self, share: int = 2) -> bool:
        """True once in `share` draws."""
        return self.draw(st.integers(1, share)) == share

    def new(self, usual: str, awkward: bool = True) -> str:
        """A name that is not in use: the usual one, or now and then an awkward one."""
        name = self.pick(AWKWARD) if awkward and self.maybe(6) else usual
        while name in self.used:
            name += "2"
        self.used.add(name)
        return name

    def say(self, keyword: str, words: str) -> None:
        """One declaration."""
        self.lines.append(f"  {keyword} {words}")

    # --- parts ---

    def vector(self, usual: str, dim: str, features=("{0}",), per: str = "") -> str:
        """An input of width `dim` behind a feature map: text of the value."""
        name = self.new(usual)
        self.say("input", f"{name} : [{dim}]{per}")
        feature = self.pick(features)
        learned = ""
        if "{w}" in feature:
            learned = self.new("w")
            self.say("param", f"{learned} : [{dim}] per head")
        text = feature.format(name, N=dim, w=learned)
        if text != name and self.maybe():
            let = self.new(f"f{usual}")
            self.say("let", f"{let} : [{dim}] = {text}")
            return let
        return f"({text})" if " " in text else text

    def scalar(self, usual: str, domain: str = "") -> str:
        """A scalar input, sometimes one for all heads."""
        name = self.new(usual)
        per = self.pick(("", "", "", "", "", "", " per layer", " per group"))
        self.say("input", f"{name} : scalar{per} {domain}".rstrip())
        return name

    def static(self, usual: str) -> str:
        """A learned number of each head."""
        name = self.new(usual)
        self.say("param", f"{name} : scalar per head init {self.pick(('1/2', 'log(uniform(1, 16))', 'normal(0, 1)', 'linspace(-1, 1)'))}")
        return name

    def gate(self, usual: str, gates=RAW_GATES) -> str:
        """A gate that stays above 0 and at most 1: text of its value."""
        domain, text = self.pick(gates)
        raw = self.scalar(f"{usual}_r") if self.maybe(5) is False else self.static(f"{usual}_w")
        return self.named(usual, domain, text, raw)

    def named(self, usual: str, domain: str, text: str, raw: str) -> str:
        text = text.format(raw, b=self.static("b") if "{b}" in text else "")
        name = self.new(usual)
        self.say("gate", f"{name} {domain} = {text}")
        return name

    def decay(self) -> str:
        """Text of what the old state is multiplied by; empty for nothing."""
        match self.pick(("none", "number", "fixed", "gate", "gate", "gate", "log", "log", "step", "product", "input", "rate", "power")):
            case "none":
                return ""
            case "number":
                return self.pick(("0.9", "1/2", "exp(-1)"))
            case "fixed":
                name = self.new("gamma")
                self.say("param", f"{name} : scalar per head = 1 - 2^(-5 - head)")
                return name
            case "log":
                return f"exp({self.named('g', '<= 0', self.pick(LOG_GATES), self.scalar('g_r'))})"
            case "step":
                step = self.named("dt", "> 0", "softplus({0} + {b})", self.scalar("dt_r"))
                return f"exp(-{step} * exp({self.static('A_log')}))"
            case "product":
                return f"{self.gate('f')} * {self.gate('h')}"
            case "input":
                return f"exp({self.scalar('g', '<= 0')})" if self.maybe() else self.scalar("f", "in (0, 1)")
            case "rate":
                return f"(1 - {self.scalar('rate', 'in (0, 1)')})"
            case "power":
                return f"{self.gate('f', [g for g in RAW_GATES if '16' not in g[1]])}^2"
        return self.gate("f")

    def coefficient(self, is_positive: bool = False) -> str:
        """Text in front of the write, with its `*`; empty for nothing."""
        free = "exp({}) * " if is_positive else "{} * "
        match self.pick(("none", "none", "gate", "free", "number", "static", "product", "step")):
            case "gate":
                return f"{self.gate('i')} * "
            case "free":
                return free.format(self.scalar("c"))
            case "number":
                return self.pick(("2 * ", "1/3 * " if is_positive else "-1/3 * ", "0.5 * "))
            case "static":
                return free.format(self.static("c"))
            case "product":
                return f"{self.gate('i')} * {free.format(self.static('c'))}"
            case "step":
                return f"{self.named('dt', '> 0', 'softplus({0})', self.scalar('dt_r'))} * "
        return ""

    def moved(self, state: str, decay: str, write: str) -> str:
        return f"{state}' = {f'{decay} * ' if decay else ''}{state} + {write}"

    def finish(self, output: str) -> str:
        """The whole text."""
        if self.maybe(6):
            self.lines.append("  time reversed")
        self.say("output", output)
        return "\n".join([f"recurrence {self.name} {{", *self.lines, "}", ""])


@st.composite
def specs(draw) -> str:
    """The text of a random recurrence."""
    text = _Text(draw)
    return {"matrix": _matrix, "continuous": _continuous, "key": _key_state, "whole": _whole_state, "scalar": _scalar_state}[
        text.pick(("matrix", "matrix", "matrix", "matrix", "continuous", "key", "whole", "scalar"))
    ](text)


def _dims(text: _Text) -> tuple[str, str]:
    key, value = text.new("N"), text.new("P")
    text.say("dim", f"{key} = 4, {value} = 3")
    return key, value


def _per(text: _Text) -> str:
    return text.pick(("", "", "", " per group", " per group", " per layer"))


def _matrix(text: _Text) -> str:
    N, P = _dims(text)
    divided = text.pick(("", "", "", "floor", "eps"))
    features = POSITIVE if divided == "eps" else FEATURES
    k, v = text.vector("k", N, features, _per(text)), text.vector("v", P, ("{0}", "{0}", "silu({0})"), _per(text) if text.maybe(4) else "")
    # a sum of weights that may be of either sign can vanish, and what is divided by it has no digits then
    decay, coefficient = text.decay(), text.coefficient(is_positive=divided == "eps")
    S = text.new("S")
    text.say("state", f"{S} : real [{N}, {P}]")
    updates = [text.moved(S, decay, f"{coefficient}{k} {v}^T")]
    is_key_side = bool(divided) or not text.maybe(4)
    q = text.vector("q", N, features, _per(text)) if is_key_side else text.vector("u", P, FEATURES[:9])
    if divided:
        z = text.new("z")
        text.say("state", f"{z} : real [{N}]")
        updates.append(text.moved(z, decay, f"{coefficient}{k}"))
        prime = text.pick(("'", "'", ""))
        under = f"max(abs({z}{prime}^T {q}), 1)" if divided == "floor" else f"({z}{prime}^T {q} + 1e-2)"
        read = f"{S}{prime}^T {q} / {under}"
    else:
        read = _read(text, S, q, k, v, is_key_side)
    if text.maybe(5):
        read += " + " + _second(text, updates, N, P if is_key_side else N)
    text.say("update", "\n         ".join(updates))
    return text.finish(_dressed(text, read, P if is_key_side else N, v if is_key_side else k))


def _read(text: _Text, S: str, q: str, k: str, v: str, is_key_side: bool) -> str:
    def one(state: str) -> str:
        return f"{state}^T {q}" if is_key_side else f"{state} {q}"

    match text.pick(("after", "after", "after", "before", "both", "bonus")):
        case "after":
            return one(f"{S}'")
        case "before":
            return one(S)
        case "bonus":
            return one(f"({S} + {text.static('bonus')} * {k} {v}^T)")
    return f"{one(S + chr(39))} - {text.static('c') if text.maybe() else text.scalar('c')} * ({one(S)})"


def _second(text: _Text, updates: list[str], N: str, width: str) -> str:
    """A walk of its own beside the first: text of its read."""
    k, v, q = text.vector("k", N, FEATURES, _per(text)), text.vector("v", width), text.vector("q", N, FEATURES)
    Z = text.new("Z")
    updates.append(text.moved(Z, text.decay(), f"{text.coefficient()}{k} {v}^T"))
    text.say("state", f"{Z} : real [{N}, {width}]")
    return f"{Z}{text.pick((chr(39), chr(39), ''))}^T {q}"


def _continuous(text: _Text) -> str:
    N, P = _dims(text)
    k, v, q = text.vector("k", N, FEATURES, _per(text)), text.vector("v", P), text.vector("q", N, FEATURES, _per(text))
    S = text.new("S")
    text.say("state", f"{S} : real [{N}, {P}]")
    method = text.pick(("exp_euler", "exp_euler", "zoh", "implicit_euler", "euler"))
    if method == "euler":
        rate, step = text.gate("a"), text.scalar("dt", "in (0, 1)")
    else:
        rate = f"exp({text.static('A_log') if text.maybe() else text.scalar('A_r')})"
        step = text.named("dt", "> 0", text.pick(("softplus({0} + {b})", "exp({0})", "softplus({0})")), text.scalar("dt_r"))
    text.say("dynamics", f"d{S}/dt = -{rate} * {S} + {text.coefficient()}{k} {v}^T")
    text.say("discretize", f"{method}({step})")
    return text.finish(_dressed(text, f"{S}'^T {q}", P, v))


def _key_state(text: _Text) -> str:
    N, _ = text.new("N"), None
    text.say("dim", f"{N} = 4")
    k, q, x = text.vector("k", N, FEATURES, _per(text)), text.vector("q", N, FEATURES, _per(text)), text.scalar("x")
    s = text.new("s")
    text.say("state", f"{s} : real [{N}]")
    text.say("update", text.moved(s, text.decay(), f"{text.coefficient()}{x} * {k}"))
    read = text.pick((f"{q} . {s}'", f"{q}^T {s}'", f"{s}'^T {q}", f"{q} . {s}"))
    return text.finish(text.pick((read, f"{read} + {text.static('D')} * {x}", f"tanh({read})")))


def _whole_state(text: _Text) -> str:
    P = text.new("P")
    text.say("dim", f"{P} = 3")
    x = text.vector("x", P, ("{0}", "silu({0})", "unit({0})"))
    s = text.new("s")
    text.say("state", f"{s} : real [{P}]")
    text.say("update", text.moved(s, text.decay(), f"{text.coefficient()}{x}"))
    return text.finish(_dressed(text, f"{s}{text.pick((chr(39), chr(39), ''))}", P, x))


def _scalar_state(text: _Text) -> str:
    x, s = text.scalar("x"), text.new("s")
    text.say("state", f"{s} : real scalar")
    text.say("update", text.moved(s, text.decay(), f"{text.coefficient()}{x}"))
    return text.finish(text.pick((f"{s}'", f"{s}' * {x}", f"tanh({s}) + {x}")))


def _dressed(text: _Text, read: str, width: str, value: str) -> str:
    """A read with a number, a skip, a gate or a norm around it."""
    match text.pick(("", "", "number", "skip", "gate", "norm", "mixed", "sum")):
        case "sum":
            return f"{read} + {text.vector('e', width)} - {text.vector('e', width)}"
        case "number":
            return f"{width}^-1/2 * ({read})"
        case "skip":
            return f"{read} + {text.static('D') if text.maybe() else text.scalar('D')} * {value}"
        case "gate":
            return f"({read}) * silu({text.vector('z', width)})"
        case "norm":
            return f"rmsnorm({read}) * sigmoid({text.vector('z', width)})"
        case "mixed":
            return f"{text.gate('m')} * ({read}) + {text.static('D')} * {value}"
    return read
