"""Where the grammar, the templates and the examples are: beside the package in a wheel, at the top of a checkout."""

from __future__ import annotations

from pathlib import Path


def folder(name: str) -> Path:
    """The folder `grammar`, `templates` or `examples`.

    A wheel carries them under `ssmgen/_data`. Looking beside `__file__` rather than through installed metadata keeps an
    editable install on the checkout's own files, which cannot go stale.
    """
    package = Path(__file__).resolve().parent
    packaged = package / "_data" / name
    return packaged if packaged.is_dir() else package.parent / name
