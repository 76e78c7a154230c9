"""Kernels whose structure carries the signal: identity, dirac, delta-orthogonal, Hadamard (ZerO)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw
from jaxinit.initializers._base import Initializer, Law, initializer, times, working_dtype
from jaxinit.initializers._orthogonal import PRESERVE, haar, preserve_ratio

__all__ = ["delta_orthogonal", "dirac", "hadamard", "identity"]

SPATIAL = "Kernels are (*spatial, in, out)."


def centre(tap: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The matrix `tap` (in, out) at the centre (k - 1) // 2 of every spatial axis, zeros elsewhere.

    With stride 1 and SAME padding that tap meets the input at the output's own position, for odd and even k.
    """
    if len(shape) == 2:
        return tap
    place = tuple((k - 1) // 2 for k in shape[:-2])
    return jnp.zeros(shape, tap.dtype).at[place].set(tap)


def _check_kernel(where: str, shape: tuple[int, ...], groups: int) -> None:
    if len(shape) < 2:
        raise checks.bad(where, "shape", "at least 2-D", shape, SPATIAL)
    if shape[-1] % groups:
        raise checks.bad(where, "groups", f"a divisor of the {shape[-1]} output features", groups)


@initializer
class Identity(Initializer):
    """scale times the (rectangular) identity, copied over leading axes."""

    scale: Any = leaf()

    needs_key = False

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        _check_kernel("identity", shape, 1)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        scale = _draw.product(_draw.as_scalar(self.scale, work), factor)
        eye = times(jnp.eye(shape[-2], shape[-1], dtype=work), scale).astype(dtype)
        return jnp.broadcast_to(eye, shape)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "identity", _unless_one(self.scale), {}


@initializer
class Dirac(Initializer):
    """scale times the convolution that copies channel d of each group to channel d."""

    scale: Any = leaf()
    groups: int = static(default=1)

    needs_key = False

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        _check_kernel("dirac", shape, self.groups)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        scale = _draw.product(_draw.as_scalar(self.scale, work), factor)
        eye = jnp.eye(shape[-2], shape[-1] // self.groups, dtype=work)
        return centre(jnp.tile(times(eye, scale).astype(dtype), (1, self.groups)), shape)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "dirac", _unless_one(self.scale), {} if self.groups == 1 else {"groups": self.groups}


@initializer
class DeltaOrthogonal(Initializer):
    """An orthogonal matrix (one a group) at the centre of the kernel."""

    scale: Any = leaf()
    preserve: str = static(default="norm")
    groups: int = static(default=1)

    def law(self, shape: Sequence[int]) -> Law | None:
        if len(tuple(shape)) != 2 or 0 in tuple(shape) or self.groups != 1:
            return None
        return Law(self.scale * preserve_ratio(self.preserve, *shape), 0.0, "orthogonal", "haar")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        _check_kernel("delta_orthogonal", shape, self.groups)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        rows, columns = shape[-2], shape[-1] // self.groups
        q = haar(key, rows, columns, () if self.groups == 1 else (self.groups,), work)
        scale = _draw.as_scalar(self.scale * preserve_ratio(self.preserve, rows, columns), work)
        q = times(q, _draw.product(scale, factor)).astype(dtype)
        if self.groups > 1:
            q = jnp.moveaxis(q, 0, 1).reshape(shape[-2:])
        return centre(q, shape)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        kwargs: dict[str, Any] = {} if self.preserve == "norm" else {"preserve": self.preserve}
        if self.groups != 1:
            kwargs["groups"] = self.groups
        return "delta_orthogonal", _unless_one(self.scale), kwargs


@initializer
class Hadamard(Initializer):
    """The deterministic ZerO matrix at the centre of the kernel."""

    scale: Any = leaf()

    needs_key = False

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        _check_kernel("hadamard", shape, 1)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        scale = _draw.product(_draw.as_scalar(self.scale, work), factor)
        rows, columns = shape[-2:]
        if columns <= rows:
            tap = jnp.eye(rows, columns, dtype=work)
        else:
            order = 2 ** math.ceil(math.log2(columns))
            i, j = jnp.arange(rows, dtype=jnp.uint32), jnp.arange(columns, dtype=jnp.uint32)
            odd = jax.lax.population_count(i[:, None] & j[None, :]) % jnp.uint32(2)
            sign = jnp.where(odd == 0, 1.0, -1.0).astype(work)
            tap = sign * jnp.asarray(1 / math.sqrt(order), work)
        return centre(times(tap, scale).astype(dtype), shape)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "hadamard", _unless_one(self.scale), {}


def _unless_one(scale: Any) -> tuple[Any, ...]:
    return () if isinstance(scale, float) and scale == 1.0 else (scale,)


def _positive(where: str, scale: Any) -> Any:
    return checks.number(where, "scale", scale, way_out=f"The factory comes first: {where}()(key, shape).")


def identity(scale: Any = 1.0) -> Initializer:
    """`scale` times the identity, `w[i, j] = scale * (i == j)`, copied over the axes before (in, out).

    For a convolution, where the identity is one tap, see `dirac`.

    Raises:
        ValueError: when called, for shapes below 2-D.

    Source: Le, Jaitly & Hinton 2015 (recurrent ReLU networks).

    Example:
        >>> from jaxinit.initializers import identity
        >>> identity(2.0)(None, (2, 3))
        Array([[2., 0., 0.],
               [0., 2., 0.]], dtype=float32)
    """
    return Identity(_positive("identity", scale))


def dirac(scale: Any = 1.0, *, groups: int = 1) -> Initializer:
    """The kernel that leaves a convolution's channels as they are: `scale` at the central tap of channel d to d.

    Each group copies its first min(in, out / groups) channels; further outputs are 0. The kernel is
    (*spatial, in / groups, out), as Flax shapes it; with stride 1 and SAME padding the layer is the identity.

    Raises:
        ValueError: if groups is not positive; when called, if it does not divide `out`.

    Source: Zagoruyko & Komodakis 2017; PyTorch's `dirac_`.

    Example:
        >>> from jaxinit.initializers import dirac
        >>> dirac()(None, (3, 1, 1)).ravel()
        Array([0., 1., 0.], dtype=float32)
    """
    return Dirac(_positive("dirac", scale), checks.integer("dirac", "groups", groups, at_least=1))


def delta_orthogonal(scale: Any = 1.0, *, preserve: str = "norm", groups: int = 1) -> Initializer:
    """A convolution that is an orthogonal 1x1 layer at its central tap: a dynamical isometry, for any in and out.

    Args:
        scale: gain.
        preserve: "norm", "variance" or "spectral", see `orthogonal`.
        groups: each group gets its own orthogonal matrix (in / groups, out / groups).

    The kernel is (*spatial, in / groups, out) with any number of spatial axes. For `groups=1` and in <= out
    float32 draws equal `jax.nn.initializers.delta_orthogonal(scale)` bit for bit.

    Raises:
        ValueError: see `orthogonal`; when called, if groups does not divide `out`.

    Source: Xiao et al. 2018, "Dynamical isometry and a mean field theory of CNNs".

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxinit.initializers import delta_orthogonal
        >>> w = delta_orthogonal()(jax.random.key(0), (3, 3, 8, 8))
        >>> bool(jnp.abs(w[1, 1] @ w[1, 1].T - jnp.eye(8)).max() < 1e-6), bool((w[0, 0] == 0).all())
        (True, True)
    """
    where = "delta_orthogonal"
    checks.choice(where, "preserve", preserve, PRESERVE)
    s = checks.number(where, "scale", scale, above=0,
                      way_out="The factory comes first: delta_orthogonal()(key, shape).")  # fmt: skip
    return DeltaOrthogonal(s, preserve, checks.integer(where, "groups", groups, at_least=1))


def hadamard(scale: Any = 1.0) -> Initializer:
    """The deterministic ZerO kernel: identity where the layer narrows, a piece of a Hadamard matrix where it widens.

        w = I(in, out)                          for out <= in
        w = 2^(-k/2) H_k[:in, :out]             for out > in, with k = ceil(log2(out))

    The last layer of each residual branch takes zeros. The kernel of a convolution has it at its central tap.

    Raises:
        ValueError: when called, for shapes below 2-D.

    Source: Zhao, Schaefer & Anandkumar 2021, "ZerO initialization", arXiv 2110.12661, algorithms 1 and 2.

    Example:
        >>> from jaxinit.initializers import hadamard
        >>> hadamard()(None, (2, 4))
        Array([[ 0.5,  0.5,  0.5,  0.5],
               [ 0.5, -0.5,  0.5, -0.5]], dtype=float32)
    """
    return Hadamard(_positive("hadamard", scale))
