"""The LALR(1) tables of `grammar/ssm.lark`.

Building them from the grammar takes lark longer than the rest of `check`, so they lie beside it as `ssm.tables.json`,
under the grammar's hash. A changed grammar is read anew until `UPDATE=1 pytest tests/test_parse.py` writes them again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from .. import _resources

END = "$END"


@dataclass(frozen=True)
class Production:
    """`origin` from the last `length` values; `kept` are the positions that reach the builder called `name`.

    is_inlined: its values are spliced into the parent's. is_transparent: a single value stands for itself.
    """

    origin: str
    name: str
    length: int
    kept: tuple[int, ...]
    is_inlined: bool
    is_transparent: bool


@dataclass(frozen=True)
class Tables:
    """`states[s][symbol]` is `t + 1` to go to state t, `-(p + 1)` to reduce by production p. Terminals are called by what
    they match (`(`, `dim`), those with a pattern by their name (`NAME`), rules by theirs in angles (`<dim>`)."""

    start: int
    accept: int
    states: tuple[dict[str, int], ...]
    productions: tuple[Production, ...]
    keywords: frozenset[str]


def build(grammar: str) -> dict:
    """The tables of a grammar's text, ready for JSON."""
    from lark import Lark
    from lark.grammar import Rule
    from lark.lexer import TerminalDef

    lark = Lark(grammar, parser="lalr", lexer="basic", maybe_placeholders=False)
    parser, memo = lark.memo_serialize([TerminalDef, Rule])
    terminals = [entry for entry in memo.values() if entry["__type__"] == "TerminalDef"]
    spelling = {t["name"]: t["pattern"]["value"] if t["pattern"]["__type__"] == "PatternStr" else t["name"] for t in terminals}
    rules = {number: entry for number, entry in memo.items() if entry["__type__"] == "Rule"}
    order = {number: index for index, number in enumerate(rules)}
    table = parser["parser"]["parser"]
    symbols = {number: spelling.get(name, name if name == END else f"<{name}>") for number, name in table["tokens"].items()}
    shift = 0  # lark's code for it; the other is 1, a reduction

    # Lark numbers states by the order of sets: number them by first reach from the start, symbols in alphabetical order.
    start, accept = table["start_states"]["start"], table["end_states"]["start"]
    rows = {state: sorted((symbols[symbol], *entry) for symbol, entry in row.items()) for state, row in table["states"].items()}
    reached = {start: 0}
    queue = [start]
    for state in queue:
        for _, kind, target in rows[state]:
            if kind == shift and target not in reached:
                reached[target] = len(reached)
                queue.append(target)

    def action(kind: int, argument) -> int:
        return reached[argument] + 1 if kind == shift else -(order[argument["@"]] + 1)

    return {
        "grammar": digest(grammar),
        "start": reached[start],
        "accept": reached[accept],
        "keywords": sorted(text for text in spelling.values() if text.isalpha() and text.islower()),
        "productions": [
            [
                f"<{rule['origin']['name']}>",
                rule["alias"] or rule["origin"]["name"],
                len(rule["expansion"]),
                [i for i, s in enumerate(rule["expansion"]) if rule["options"]["keep_all_tokens"] or not s.get("filter_out")],
                rule["origin"]["name"].startswith("_") and not rule["alias"],
                rule["options"]["expand1"] and not rule["alias"],
            ]
            for rule in rules.values()
        ],
        "states": [{symbol: action(*entry) for symbol, *entry in rows[state]} for state in queue],
    }


def digest(grammar: str) -> str:
    return sha256(grammar.replace("\r\n", "\n").encode()).hexdigest()


@cache
def load() -> Tables:
    """The tables of the grammar as it is: the stored ones when they are its own."""
    folder = _resources.folder("grammar")
    grammar = (folder / "ssm.lark").read_text(encoding="utf-8")
    try:
        stored = json.loads((folder / "ssm.tables.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = {}
    if stored.get("grammar") != digest(grammar):
        stored = build(grammar)
    return Tables(
        stored["start"],
        stored["accept"],
        tuple(stored["states"]),
        tuple(Production(origin, name, length, tuple(kept), *flags) for origin, name, length, kept, *flags in stored["productions"]),
        frozenset(stored["keywords"]),
    )


def text(grammar: str) -> str:
    """The stored form: one line a production and a state, so that a change of the grammar has a readable diff."""
    built = build(grammar)
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(built[key])}" for key in ("grammar", "start", "accept", "keywords"))
    lists = []
    for key in ("productions", "states"):
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in built[key])
        lists.append(f'"{key}": [\n{rows}\n]')
    return "{\n" + ",\n".join((head, *lists)) + "\n}\n"
