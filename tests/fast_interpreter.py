"""Triton's interpreter in half of its time: what it makes again at every call, and comes out the same, is made once.

It exchanges the functions of the language at every call of a function that a kernel calls, describes the shape of every value anew, and
makes a table of types to look one up. Nothing that it computes is touched.
"""

from __future__ import annotations

from functools import cache


def install() -> None:
    """For the rest of the process."""
    import triton.language as tl
    from triton.language import core
    from triton.runtime import interpreter

    _exchange_once(interpreter, tl)
    _describe_once(core)
    _look_up_once(interpreter, core)


def _exchange_once(interpreter, tl) -> None:
    """A function that a kernel calls finds the language as the kernel left it."""
    exchange = interpreter._patch_lang
    active: set[str] = set()
    spoken: dict[int, tuple[set[str], dict]] = {}  # what a module calls the language; it is held, so that no other gets its id

    class Scope:
        def __init__(self, fn, names: set[str]):
            self.names = names
            self.own = exchange(fn) if names else None
            active.update(names)

        def restore(self) -> None:
            if self.own is not None:
                self.own.restore()
                active.difference_update(self.names)

    def exchanged(fn) -> Scope:
        module = fn.__globals__
        if id(module) not in spoken:
            found = {name for name, own in (("tl", tl), ("core", tl.core)) if any(value is own for value in module.values())}
            spoken[id(module)] = found, module
        return Scope(fn, spoken[id(module)][0] - active)

    interpreter._patch_lang = exchanged


def _describe_once(core) -> None:
    """Blocks of one type and shape share their description, and so do the values that have it."""
    block, value = core.block_type.__init__, core.tensor.__init__
    blocks: dict[tuple, dict] = {}

    def describe(self, element_ty, shape) -> None:
        if isinstance(element_ty, core.pointer_type):  # has no hash
            block(self, element_ty, shape)
            return
        key = (element_ty, *(getattr(size, "value", size) for size in shape))
        if key not in blocks:
            block(self, element_ty, shape)
            blocks[key] = {**vars(self), "of_values": []}
        vars(self).update(blocks[key])

    def take(self, handle, type) -> None:
        known = vars(type).get("of_values")
        if not known:
            value(self, handle, type)
            if known is not None:
                known[:] = self.shape, self.numel, self.dtype
            return
        self.handle, self.type = handle, type
        self.shape, self.numel, self.dtype = known

    core.block_type.__init__, core.tensor.__init__ = describe, take


def _look_up_once(interpreter, core) -> None:
    look_up = interpreter._get_np_dtype
    of_scalars = cache(look_up)

    def found(type):
        scalar = type.element_ty if isinstance(type, core.block_type) else type
        return look_up(scalar) if isinstance(scalar, core.pointer_type) else of_scalars(scalar)

    interpreter._get_np_dtype = found
