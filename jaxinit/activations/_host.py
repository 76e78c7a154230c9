"""Float64 evaluation on the host, whatever the caller's x64 flag, tracing state or default device.

Gains, fixed points and critical lines are numbers of a program, not of an accelerator: they are computed
once, in float64, from concrete inputs, also while a caller's own `jit` is being traced.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxinit.activations._activation import Activation

_SMALLEST, _LARGEST = 1 << 11, 1 << 15


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Within: concrete float64 computation on a CPU, with jax's usual promotion rules."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.ensure_compile_time_eval())
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.default_device(_cpu()))
        yield


@functools.cache
def _cpu() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # a process started without the CPU backend
        return jax.local_devices()[0]


@functools.partial(jax.jit, static_argnums=0)
def _both(activation: Activation, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return activation.value_and_derivative(x)


def evaluate(activation: Activation, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """(phi(x), phi'(x)) in float64 for a NumPy array of any shape.

    Inputs are padded to a power of two and cut into chunks that fit a cache, so that a handful of
    compilations serves every size.
    """
    x = np.asarray(x, dtype=np.float64)
    size = min(_LARGEST, max(_SMALLEST, 1 << max(x.size - 1, 0).bit_length()))
    padded = np.full((-(-x.size // size), size), 0.7071)
    padded.reshape(-1)[: x.size] = x.ravel()
    both = np.empty((2, *padded.shape))
    with float64():
        for i, row in enumerate(padded):
            for out, kept in zip(_both(activation, row), both, strict=True):
                if out.shape != row.shape or not jax.numpy.issubdtype(out.dtype, np.floating):
                    raise TypeError(
                        f"an activation must be elementwise and real: {activation!r} took "
                        f"float64{list(row.shape)} to {out.dtype}{list(out.shape)}."
                    )
                kept[i] = np.asarray(out, dtype=np.float64)
    value, slope = (kept.reshape(-1)[: x.size].reshape(x.shape) for kept in both)
    return value, slope


def resolution(activation: Activation) -> float:
    """The rounding unit of phi(x) for float64 x: a callable may well compute in float32."""
    with float64():
        out = jax.eval_shape(activation, jax.ShapeDtypeStruct((4,), np.float64))
    return float(jax.numpy.finfo(out.dtype).eps)
