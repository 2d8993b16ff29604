"""Triton's interpreter with the arithmetic of short types that a GPU has, so that their errors can be measured on the processor.

As it comes, the interpreter keeps bfloat16 as its bits, cuts what it narrows to them, and multiplies bits in products; float32 products
are exact whatever precision they name. Inside `as_on_a_gpu` a bfloat16 number is a number, narrowing rounds to the nearest, products add
up in float32, and one of float32 operands in `tf32` cuts them to its 10 digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """While inside, interpreted kernels compute bfloat16 and tf32 as a GPU does. Raises ModuleNotFoundError without triton."""
    from triton.runtime.interpreter import InterpreterBuilder

    replaced = {"cast_impl": _cast, "create_fp_to_fp": _narrow, "binary_op": _binary, "unary_op": _unary, "create_dot": _dot}
    before = {name: getattr(InterpreterBuilder, name) for name in replaced}

    def bound(function, plain):
        return lambda self, *arguments: function(lambda *others: plain(self, *others), *arguments)

    try:
        for name, function in replaced.items():
            setattr(InterpreterBuilder, name, bound(function, before[name]))
        yield
    finally:
        for name, plain in before.items():
            setattr(InterpreterBuilder, name, plain)


def _wide(handle):
    """A bfloat16 value in float32; others as they are."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _short(handle):
    """A float32 value in bfloat16, to the nearest and of two to the even one."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    if handle.data.dtype != np.float32:  # a comparison
        return handle
    bits = np.ascontiguousarray(handle.data).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return TensorHandle(np.where(np.isnan(handle.data), np.uint16(0x7FC0), rounded), tl.bfloat16)


def _cast(plain, value, target):
    import triton.language as tl

    short = target.scalar == tl.bfloat16
    if value.dtype.scalar == tl.bfloat16 and short:
        return value
    result = plain(_wide(value), tl.float32 if short else target)
    return _short(result) if short else result


def _narrow(plain, value, target, rounding):
    return _cast(_plain_cast, value, target)


def _plain_cast(value, target):
    from triton.runtime.interpreter import TensorHandle, _get_np_dtype

    return TensorHandle(value.data.astype(_get_np_dtype(target)), target.scalar)


def _binary(plain, left, right, op):
    import triton.language as tl

    result = plain(_wide(left), _wide(right), op)
    return _short(result) if left.dtype.scalar == tl.bfloat16 else result


def _unary(plain, value, op):
    import triton.language as tl

    result = plain(_wide(value), op)
    return _short(result) if value.dtype.scalar == tl.bfloat16 else result


def _dot(plain, left, right, sum, precision, imprecise):
    import numpy as np
    import triton.language as tl
    from triton._C.libtriton import ir
    from triton.runtime.interpreter import TensorHandle

    left, right = _wide(left), _wide(right)
    if precision == ir.INPUT_PRECISION.TF32 and left.dtype.scalar == right.dtype.scalar == tl.float32:
        left, right = (
            TensorHandle((np.ascontiguousarray(x.data).view(np.uint32) & 0xFFFFE000).view(np.float32), x.dtype) for x in (left, right)
        )
    return plain(left, right, sum, precision, imprecise)
