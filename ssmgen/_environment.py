"""The one Jinja environment: every template is laid out under the same rules."""

from __future__ import annotations

from functools import lru_cache

from ._resources import folder


@lru_cache(maxsize=1)
def environment():
    """Undefined names raise; a statement's own line leaves nothing behind; the last newline stays."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(str(folder("templates"))),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, **context: object) -> str:
    """The text of `template` (a path under the templates folder) for one frozen context object."""
    return environment().get_template(template).render(**context)
