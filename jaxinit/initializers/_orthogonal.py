"""Orthogonal kernels: Haar-distributed, for every shape, with the scale chosen by what is to be preserved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.lapack import qr
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw, _fans
from jaxinit.initializers._base import Initializer, Law, initializer, times, working_dtype

__all__ = ["orthogonal"]

PRESERVE = ("norm", "variance", "spectral")


@initializer
class Orthogonal(Initializer):
    """scale times a Haar semi-orthogonal matrix, each batch entry its own."""

    scale: Any = leaf()
    preserve: str = static(default="norm")
    axes: _fans.Axes = static(default=_fans.Axes())

    def _roles(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Row, column and batch axes: every axis that is neither output nor batch makes rows."""
        if len(shape) < 2:
            raise checks.bad(
                "orthogonal", "shape", "at least 2-D", shape, "Biases take zeros() or constant(...)."
            )
        i, o, b, rest = _fans.resolve("orthogonal", self.axes, shape)
        return tuple(sorted((*i, *rest))), o, b

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self._roles(shape)

    def law(self, shape: Sequence[int]) -> Law | None:
        dims = tuple(shape)
        if len(dims) != 2 or 0 in dims or self.axes != _fans.Axes():
            return None
        return Law(self.scale * preserve_ratio(self.preserve, *dims), 0.0, "orthogonal", "haar")

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        i, o, b = self._roles(shape)
        rows, columns = math.prod(shape[a] for a in i), math.prod(shape[a] for a in o)
        q = haar(key, rows, columns, tuple(shape[a] for a in b), work)
        scale = _draw.product(
            _draw.as_scalar(self.scale * preserve_ratio(self.preserve, rows, columns), work), factor
        )
        q = times(q, scale).astype(dtype)
        order = (*b, *i, *o)
        q = q.reshape(tuple(shape[a] for a in order))
        return jnp.transpose(q, tuple(np.argsort(order).tolist()))

    def _with_axes(self, **changes: Any) -> Orthogonal:
        spec = _fans.axes("orthogonal", **(self.axes.changed() | changes))
        return Orthogonal(self.scale, self.preserve, spec)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        args = () if isinstance(self.scale, float) and self.scale == 1.0 else (self.scale,)
        kwargs = {} if self.preserve == "norm" else {"preserve": self.preserve}
        return "orthogonal", args, kwargs | self.axes.changed()


def preserve_ratio(preserve: str, rows: int, columns: int) -> float:
    """What `preserve` multiplies the scale of a (rows, columns) matrix by."""
    if preserve == "norm":
        return 1.0
    ratio = math.sqrt(columns / rows)
    return max(ratio, 1.0) if preserve == "variance" else ratio


def haar(key: Any, rows: int, columns: int, batch: tuple[int, ...], work: np.dtype) -> jax.Array:
    """Haar semi-orthogonal matrices of shape (*batch, rows, columns), in a dtype that has a QR.

    QR of a normal matrix with the signs of R's diagonal moved to Q (Mezzadri 2007): the bits of
    `jax.random.orthogonal`, which hangs on CPU where several are vmapped.
    """
    return _orthogonal(key, rows, columns, batch, work)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _orthogonal(key: Any, rows: int, columns: int, batch: tuple[int, ...], work: np.dtype) -> jax.Array:
    # A call of its own, by the name of jax's own sampler: so the probe knows it in a program.
    z = jax.random.normal(key, (*batch, max(rows, columns), min(rows, columns)), work)
    q, r = qr(z)
    q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
    return q.mT if rows < columns else q


def orthogonal(
    scale: Any = 1.0,
    *,
    preserve: str = "norm",
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    einsum: str | None = None,
) -> Initializer:
    """`scale` times a matrix with orthonormal rows or columns, uniform (Haar) among those.

    The kernel is seen as a matrix (in, out) applied as `x @ w`; all axes that are neither `out_axis` nor
    `batch_axis` count as in, each entry of a batch axis gets its own matrix. The smaller side is orthonormal.

    Args:
        scale: positive gain, such as sqrt(2) before ReLU.
        preserve: what a widening layer (out > in) keeps. With "norm", `|x @ w| = |x|`, so the variance of an
            entry falls by in/out. With "variance" the scale is multiplied by max(sqrt(out/in), 1), so that
            entries of a random input keep their variance in both directions. With "spectral" by sqrt(out/in),
            so that the spectral norm is sqrt(out/in).
        in_axis, out_axis, batch_axis, einsum: the meaning of the axes, see `fans`; `batch_axis=0` makes the
            heads or stacked layers of a (heads, in, out) kernel orthogonal one by one.

    Complex dtypes give unitary matrices. bfloat16, float16 and 8-bit results are computed in float32 and
    rounded once. float32 draws equal `jax.nn.initializers.orthogonal(scale)` bit for bit.

    Raises:
        ValueError, TypeError: for a scale that is not positive, an unknown `preserve`, and, when called, for
            shapes below 2-D.

    Source: Saxe, McClelland & Ganguli 2014; Mezzadri 2007 (sampling); Martens et al. 2021, arXiv 2110.01765
    ("variance"); Yang, Simon & Bernstein 2023, arXiv 2310.17813 ("spectral").

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxinit.initializers import orthogonal
        >>> w = orthogonal()(jax.random.key(0), (64, 16), jnp.float32)
        >>> bool(jnp.abs(w.T @ w - jnp.eye(16)).max() < 1e-6)
        True
    """
    s = checks.number("orthogonal", "scale", scale, above=0,
                      way_out="The factory comes first: orthogonal()(key, shape).")  # fmt: skip
    checks.choice("orthogonal", "preserve", preserve, PRESERVE)
    return Orthogonal(s, preserve, _fans.axes("orthogonal", in_axis, out_axis, batch_axis, einsum=einsum))
