"""Which sources a row sees, in the words of an equation."""

from ...kernel import Sight


def sight_text(sight: Sight, row: str) -> str:
    """`j <= i`; where a row stands for several, the groups are compared."""
    source = "j" if sight.right == 1 else f"j//{sight.right}"
    own = row if sight.left == 1 else f"{row}//{sight.left}"
    return f"{source} {'<' if sight.is_strict else '<='} {own}"
