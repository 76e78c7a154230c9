"""Variance scaling: the standard deviation follows from a fan; He, Glorot and LeCun are points of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.activations import gain
from jaxinit.initializers import _draw, _fans
from jaxinit.initializers._base import Initializer, Law, initializer, working_dtype

__all__ = [
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform",
    "variance_scaling",
]  # fmt: skip

MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")
DISTRIBUTIONS = ("truncated_normal", "normal", "uniform")


@initializer
class VarianceScaling(Initializer):
    """Independent entries of mean 0 and variance scale / fan."""

    scale: Any = leaf()
    mode: str = static(default="fan_in")
    distribution: str = static(default="truncated_normal")
    axes: _fans.Axes = static(default=_fans.Axes())

    def fan(self, shape: Sequence[int]) -> float:
        """The fan that divides the scale, for a kernel of this shape."""
        fan_in, fan_out = _fans.compute(self._name(), self.axes, tuple(shape))
        if self.mode == "fan_in":
            return fan_in
        if self.mode == "fan_out":
            return fan_out
        return (fan_in + fan_out) / 2 if self.mode == "fan_avg" else (fan_in * fan_out) ** 0.5

    def law(self, shape: Sequence[int]) -> Law | None:
        fan = self.fan(shape)
        if fan == 0:
            return None
        variance = self.scale / fan
        stddev = jnp.sqrt(variance) if isinstance(variance, jax.Array) else math.sqrt(variance)
        kind = "gaussian" if self.distribution == "normal" else "iid"
        return Law(stddev, 0.0, kind, self.distribution)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self.fan(shape)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        is_complex = jnp.issubdtype(work, jnp.complexfloating)
        # the steps and roundings of jax.nn.initializers.variance_scaling
        variance = _draw.as_scalar(self.scale / self.fan(shape), work)
        root = jnp.sqrt if isinstance(variance, jax.core.Tracer) else np.sqrt
        lower, upper = -2.0, 2.0
        if self.distribution == "truncated_normal":
            constant = _draw.COMPLEX_TRUNCATED_STDDEV if is_complex else _draw.TRUNCATED_STDDEV
            stddev = root(variance) / variance.dtype.type(constant)
        elif self.distribution == "normal" or is_complex:
            stddev = root(variance)
        else:
            lower, upper = -1.0, 1.0
            stddev = root(variance.dtype.type(3) * variance)
        return _draw.draw(
            key, _draw.product(stddev, factor), 0.0, lower, upper,
            distribution=self.distribution, shape=shape, dtype=dtype,
        )  # fmt: skip

    def _with_axes(self, **changes: Any) -> VarianceScaling:
        spec = _fans.axes(self._name(), **(self.axes.changed() | changes))
        return VarianceScaling(self.scale, self.mode, self.distribution, spec)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        more = self.axes.changed()
        family = {"truncated_normal": "normal", "uniform": "uniform"}.get(self.distribution)
        if family and checks.is_concrete(self.scale):
            for name, scale, mode in (
                ("he", 2.0, "fan_in"),
                ("lecun", 1.0, "fan_in"),
                ("glorot", 1.0, "fan_avg"),
            ):
                if float(self.scale) == scale and self.mode == mode:
                    return f"{name}_{family}", (), more
            slope = _slope(float(self.scale))
            if slope is not None and self.mode in ("fan_in", "fan_out"):
                mode_is = {"mode": self.mode} if self.mode != "fan_in" else {}
                slope_is = {"negative_slope": slope} if slope else {}
                return f"he_{family}", (), slope_is | mode_is | more
        return "variance_scaling", (self.scale, self.mode, self.distribution), more


def _slope(scale: float) -> float | None:
    """The short number a with 2 / (1 + a^2) == scale, if there is one."""
    if not 0.1 < scale <= 2.0:
        return None
    a = math.sqrt(2.0 / scale - 1.0)
    for digits in range(1, 7):
        short = float(f"{a:.{digits}g}")
        if _leaky_scale(short) == scale and (short >= 1e-4 or short == 0):
            return short
    return None


def _leaky_scale(slope: Any) -> Any:
    return 2.0 / (1.0 + slope * slope)


def _gain_squared(where: str, activation: Any, negative_slope: Any, default: str | None) -> Any:
    """The scale that an activation asks for: 1 / E[phi(z)^2], in closed form for the leaky family."""
    way_out = "The factory comes first: " + f"{where}()(key, shape)."
    if isinstance(activation, (int, float, jax.Array, np.ndarray)) and not isinstance(activation, bool):
        raise checks.wrong_type(
            where, "activation", "a name, a callable or an Activation", activation, way_out
        )
    name = default if activation is None else activation
    if negative_slope is not None:
        slope = checks.number(where, "negative_slope", negative_slope)
        if name not in (None, "relu", "leaky_relu", "prelu"):
            raise checks.bad(
                where, "negative_slope", "left out unless the activation is leaky_relu or prelu", slope
            )
        return _leaky_scale(slope)
    if name is None or name in ("linear", "identity"):
        return 1.0
    if isinstance(name, str) and name == "relu":
        return 2.0
    if isinstance(name, str) and name in ("leaky_relu", "prelu"):
        return _leaky_scale(0.01)
    return squared_gain(name)


def squared_gain(activation: Any, direction: str = "forward") -> float:
    """The square of a gain that was found by quadrature, freed of its last rounding where the square is short."""
    squared = float(gain(activation, direction)) ** 2
    short = round(squared, 9)
    return short if abs(squared - short) <= 1e-14 * squared else squared


def variance_scaling(
    scale: Any,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    *,
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
    fan: float | None = None,
) -> Initializer:
    """Independent entries of mean 0 and variance `scale / n`, n the fan-in, the fan-out or a mean of both.

    Args:
        scale: positive number.
        mode: "fan_in", "fan_out", "fan_avg" (arithmetic mean) or "fan_geo_avg" (geometric mean).
        distribution: "truncated_normal" (at 2 standard deviations, then scaled so that the variance is
            exact), "normal" or "uniform". Complex entries have E|w|^2 = scale / n.
        in_axis, out_axis, batch_axis, groups, stride, einsum: the meaning of the axes, see `fans`.
        fan: the fan itself, for shapes that have none, such as biases.

    float32 draws equal `jax.nn.initializers.variance_scaling` bit for bit; bfloat16, float16 and 8-bit draws
    are made in float32 and rounded once.

    Raises:
        ValueError, TypeError: at once for a scale that is not positive, an unknown mode or distribution, axes
            named twice; when called for shapes without the axes.

    Source: Glorot & Bengio 2010; He et al. 2015, eq. 10 and 14.

    Example:
        >>> from jaxinit.initializers import variance_scaling
        >>> variance_scaling(2.0, "fan_in", "normal").law((200, 50)).stddev
        0.1
        >>> variance_scaling(2.0)
        he_normal()
    """
    where = "variance_scaling"
    s = checks.number(where, "scale", scale, above=0)
    checks.choice(where, "mode", mode, MODES)
    checks.choice(where, "distribution", distribution, DISTRIBUTIONS)
    return VarianceScaling(
        s, mode, distribution, _fans.axes(where, in_axis, out_axis, batch_axis, groups, stride, einsum, fan)
    )


def _family(
    where: str,
    activation: Any,
    default: str | None,
    negative_slope: Any,
    mode: str,
    distribution: str,
    more: Any,
) -> VarianceScaling:
    scale = _gain_squared(where, activation, negative_slope, default)
    checks.choice(where, "mode", mode, MODES)
    checks.choice(where, "distribution", distribution, DISTRIBUTIONS)
    return VarianceScaling(scale, mode, distribution, _fans.axes(where, **more))


def he_normal(
    activation: Any = None,
    *,
    negative_slope: Any = None,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
    fan: float | None = None,
) -> Initializer:
    """Normal He (Kaiming) initializer: independent entries of mean 0 and variance `2 / ((1 + a^2) fan_in)`.

    Args:
        activation: what follows the layer: a name, a callable or an Activation; its variance-preserving gain
            multiplies the weights (default: relu, a = 0).
        negative_slope: slope a below zero of a leaky ReLU or PReLU.
        mode: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
        distribution: "truncated_normal" (default, as JAX and Keras) or "normal" (as PyTorch).
        in_axis, out_axis, batch_axis, groups, stride, einsum, fan: see `fans` and `variance_scaling`.

    float32 draws equal `jax.nn.initializers.he_normal()` bit for bit.

    Raises:
        ValueError, TypeError: see `variance_scaling`; and for an unknown activation.

    Source: He et al. 2015, "Delving deep into rectifiers", eq. 10 (forward), 14 (backward) and 15 (slope).

    Example:
        >>> from jaxinit.initializers import he_normal
        >>> he_normal(negative_slope=0.2)
        he_normal(negative_slope=0.2)
        >>> round(he_normal().law((50, 10)).stddev, 12)
        0.2
    """
    more = {
        "in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis, "groups": groups,
        "stride": stride, "einsum": einsum, "fan": fan,
    }  # fmt: skip
    return _family("he_normal", activation, "relu", negative_slope, mode, distribution, more)


def he_uniform(
    activation: Any = None,
    *,
    negative_slope: Any = None,
    mode: str = "fan_in",
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
    fan: float | None = None,
) -> Initializer:
    """Uniform He (Kaiming) initializer: independent entries of mean 0 and variance `2 / ((1 + a^2) fan_in)`.

    Args:
        activation: what follows the layer: a name, a callable or an Activation; its variance-preserving gain
            multiplies the weights (default: relu, a = 0).
        negative_slope: slope a below zero of a leaky ReLU or PReLU.
        mode: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
        in_axis, out_axis, batch_axis, groups, stride, einsum, fan: see `fans` and `variance_scaling`.

    float32 draws equal `jax.nn.initializers.he_uniform()` bit for bit.

    Raises:
        ValueError, TypeError: see `variance_scaling`; and for an unknown activation.

    Source: He et al. 2015, "Delving deep into rectifiers", eq. 10 (forward), 14 (backward) and 15 (slope).

    Example:
        >>> from jaxinit.initializers import he_uniform
        >>> round(he_uniform(mode="fan_out").law((10, 50)).stddev, 12)
        0.2
    """
    more = {
        "in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis, "groups": groups,
        "stride": stride, "einsum": einsum, "fan": fan,
    }  # fmt: skip
    return _family("he_uniform", activation, "relu", negative_slope, mode, "uniform", more)


def glorot_normal(
    activation: Any = None,
    *,
    negative_slope: Any = None,
    mode: str = "fan_avg",
    distribution: str = "truncated_normal",
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
    fan: float | None = None,
) -> Initializer:
    """Normal Glorot (Xavier) initializer: mean 0 and variance `2 gain^2 / (fan_in + fan_out)`.

    Args:
        activation: what follows the layer: a name, a callable or an Activation; its variance-preserving gain
            multiplies the weights (default: none, gain 1).
        negative_slope: slope a below zero of a leaky ReLU or PReLU.
        mode: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
        distribution: "truncated_normal" (default, as JAX and Keras) or "normal" (as PyTorch).
        in_axis, out_axis, batch_axis, groups, stride, einsum, fan: see `fans` and `variance_scaling`.

    float32 draws equal `jax.nn.initializers.glorot_normal()` bit for bit.

    Raises:
        ValueError, TypeError: see `variance_scaling`; and for an unknown activation.

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", eq. 16.

    Example:
        >>> from jaxinit.initializers import glorot_normal
        >>> round(glorot_normal().law((150, 50)).stddev, 12)
        0.1
    """
    more = {
        "in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis, "groups": groups,
        "stride": stride, "einsum": einsum, "fan": fan,
    }  # fmt: skip
    return _family("glorot_normal", activation, None, negative_slope, mode, distribution, more)


def glorot_uniform(
    activation: Any = None,
    *,
    negative_slope: Any = None,
    mode: str = "fan_avg",
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
    fan: float | None = None,
) -> Initializer:
    """Uniform Glorot (Xavier) initializer: mean 0 and variance `2 gain^2 / (fan_in + fan_out)`.

    Args:
        activation: what follows the layer: a name, a callable or an Activation; its variance-preserving gain
            multiplies the weights (default: none, gain 1).
        negative_slope: slope a below zero of a leaky ReLU or PReLU.
        mode: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
        in_axis, out_axis, batch_axis, groups, stride, einsum, fan: see `fans` and `variance_scaling`.

    float32 draws equal `jax.nn.initializers.glorot_uniform()` bit for bit.

    Raises:
        ValueError, TypeError: see `variance_scaling`; and for an unknown activation.

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", eq. 16.

    Example:
        >>> from jaxinit.initializers import glorot_uniform
        >>> round(glorot_uniform().law((150, 50)).stddev, 12)
        0.1
    """
    more = {
        "in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis, "groups": groups,
        "stride": stride, "einsum": einsum, "fan": fan,
    }  # fmt: skip
    return _family("glorot_uniform", activation, None, negative_slope, mode, "uniform", more)


def lecun_normal(
    activation: Any = None,
    *,
    negative_slope: Any = None,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
    fan: float | None = None,
) -> Initializer:
    """Normal LeCun initializer: independent entries of mean 0 and variance `gain^2 / fan_in`.

    Args:
        activation: what follows the layer: a name, a callable or an Activation; its variance-preserving gain
            multiplies the weights (default: none, gain 1).
        negative_slope: slope a below zero of a leaky ReLU or PReLU.
        mode: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
        distribution: "truncated_normal" (default, as JAX and Keras) or "normal" (as PyTorch).
        in_axis, out_axis, batch_axis, groups, stride, einsum, fan: see `fans` and `variance_scaling`.

    float32 draws equal `jax.nn.initializers.lecun_normal()` bit for bit.

    Raises:
        ValueError, TypeError: see `variance_scaling`; and for an unknown activation.

    Source: LeCun et al. 1998, "Efficient BackProp", section 4.6.

    Example:
        >>> from jaxinit.initializers import lecun_normal
        >>> round(lecun_normal(groups=8).law((5, 5, 4, 8)).stddev, 12)
        0.1
    """
    more = {
        "in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis, "groups": groups,
        "stride": stride, "einsum": einsum, "fan": fan,
    }  # fmt: skip
    return _family("lecun_normal", activation, None, negative_slope, mode, distribution, more)


def lecun_uniform(
    activation: Any = None,
    *,
    negative_slope: Any = None,
    mode: str = "fan_in",
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
    fan: float | None = None,
) -> Initializer:
    """Uniform LeCun initializer: independent entries of mean 0 and variance `gain^2 / fan_in`.

    Args:
        activation: what follows the layer: a name, a callable or an Activation; its variance-preserving gain
            multiplies the weights (default: none, gain 1).
        negative_slope: slope a below zero of a leaky ReLU or PReLU.
        mode: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
        in_axis, out_axis, batch_axis, groups, stride, einsum, fan: see `fans` and `variance_scaling`.

    float32 draws equal `jax.nn.initializers.lecun_uniform()` bit for bit.

    Raises:
        ValueError, TypeError: see `variance_scaling`; and for an unknown activation.

    Source: LeCun et al. 1998, "Efficient BackProp", section 4.6.

    Example:
        >>> from jaxinit.initializers import lecun_uniform
        >>> round(lecun_uniform(einsum="bc,hcd->bhd").law((8, 100, 16)).stddev, 12)
        0.1
    """
    more = {
        "in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis, "groups": groups,
        "stride": stride, "einsum": einsum, "fan": fan,
    }  # fmt: skip
    return _family("lecun_uniform", activation, None, negative_slope, mode, "uniform", more)
