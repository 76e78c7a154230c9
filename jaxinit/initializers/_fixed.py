"""Schemes with a formula of their own for the width of the law: SIREN, spectral, random walk, small, torch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw, _fans
from jaxinit.initializers._base import Initializer, Law, initializer, working_dtype
from jaxinit.initializers._scaling import VarianceScaling
from jaxinit.initializers._simple import Uniform

__all__ = ["random_walk", "siren", "small", "spectral_normal", "torch_bias", "torch_kernel", "wang"]


@initializer
class Spectral(Initializer):
    """Normal entries of standard deviation scale / sqrt(fan_in) * min(1, sqrt(fan_out / fan_in))."""

    scale: Any = leaf()
    axes: _fans.Axes = static(default=_fans.Axes())

    def _ratio(self, shape: tuple[int, ...]) -> float:
        fan_in, fan_out = _fans.compute("spectral_normal", self.axes, shape)
        return min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)

    def law(self, shape: Sequence[int]) -> Law | None:
        return None if 0 in tuple(shape) else Law(self.scale * self._ratio(tuple(shape)))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self._ratio(shape)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        stddev = _draw.as_scalar(self.scale * self._ratio(shape), working_dtype(dtype))
        return _draw.draw(
            key, _draw.product(stddev, factor), 0.0, 0.0, 0.0, distribution="normal", shape=shape, dtype=dtype
        )

    def _with_axes(self, **changes: Any) -> Spectral:
        return Spectral(self.scale, _fans.axes("spectral_normal", **(self.axes.changed() | changes)))

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        args = () if isinstance(self.scale, float) and self.scale == 1.0 else (self.scale,)
        return "spectral_normal", args, self.axes.changed()


def spectral_normal(
    scale: Any = 1.0, *, in_axis: Any = -2, out_axis: Any = -1, batch_axis: Any = (), groups: int = 1,
    einsum: str | None = None,
) -> Initializer:  # fmt: skip
    """Normal entries under which the spectral norm is of order sqrt(fan_out / fan_in), so features move at any width.

        stddev = scale / sqrt(fan_in) * min(1, sqrt(fan_out / fan_in))

    `orthogonal(preserve="spectral")` meets the same condition exactly.

    Source: Yang, Simon & Bernstein 2023, "A spectral condition for feature learning", arXiv 2310.17813,
    parametrization 1.

    Example:
        >>> from jaxinit.initializers import spectral_normal
        >>> spectral_normal().law((400, 100)).stddev, spectral_normal().law((100, 400)).stddev
        (0.025, 0.1)
    """
    s = checks.number("spectral_normal", "scale", scale, above=0)
    return Spectral(s, _fans.axes("spectral_normal", in_axis, out_axis, batch_axis, groups, 1, einsum))


@initializer
class RandomWalk(Initializer):
    """Normal entries of standard deviation g / sqrt(fan_in), g a function of the activation and the fan."""

    activation: str = static(default="relu")
    axes: _fans.Axes = static(default=_fans.Axes())

    def _stddev(self, shape: tuple[int, ...]) -> float:
        fan_in, _ = _fans.compute("random_walk", self.axes, shape)
        if self.activation == "linear":
            return math.exp(1 / (2 * fan_in)) / math.sqrt(fan_in)
        return math.sqrt(2 / fan_in) * math.exp(1.2 / (max(fan_in, 6) - 2.4))

    def law(self, shape: Sequence[int]) -> Law | None:
        return None if 0 in tuple(shape) else Law(self._stddev(tuple(shape)))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self._stddev(shape)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        stddev = _draw.as_scalar(self._stddev(shape), working_dtype(dtype))
        return _draw.draw(
            key, _draw.product(stddev, factor), 0.0, 0.0, 0.0, distribution="normal", shape=shape, dtype=dtype
        )

    def _with_axes(self, **changes: Any) -> RandomWalk:
        return RandomWalk(self.activation, _fans.axes("random_walk", **(self.axes.changed() | changes)))

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "random_walk", () if self.activation == "relu" else (self.activation,), self.axes.changed()


def random_walk(
    activation: str = "relu", *, in_axis: Any = -2, out_axis: Any = -1, batch_axis: Any = (), groups: int = 1,
    einsum: str | None = None,
) -> Initializer:  # fmt: skip
    """Normal weights that keep the *typical* size of the signal in narrow and deep networks.

        stddev = g / sqrt(fan_in)
        linear    g = exp(1 / (2 N))
        relu      g = sqrt(2) exp(1.2 / (max(N, 6) - 2.4))        N = fan_in

    The logarithm of the signal's (and of the gradient's) norm walks at random over depth. He's variance keeps the
    mean of the squared norm, which rare networks rule; the typical network, at the mean of the logarithm, shrinks by
    a factor of about exp(-1 / (2 N)) a layer (linear). g stops that drift. For wide layers both agree.

    Args:
        activation: "relu" or "linear", for which the paper has a formula.
        in_axis, out_axis, batch_axis, groups, einsum: see `fans`.

    Raises:
        ValueError: for another activation.

    Source: Sussillo & Abbott 2014, "Random walk initialization for training very deep feedforward networks", arXiv
    1412.6558: the linear gain to first order in 1 / N, the ReLU gain its fit (constants as in TensorFlow's models).

    Example:
        >>> from jaxinit.initializers import random_walk
        >>> round(random_walk("linear").law((50, 50)).stddev * 50**0.5, 7)
        1.0100502
    """
    checks.choice("random_walk", "activation", activation, ("relu", "linear"))
    spec = _fans.axes("random_walk", in_axis, out_axis, batch_axis, groups, 1, einsum)
    return RandomWalk(activation, spec)


def siren(omega: float = 30.0, *, first: bool = False, in_axis: Any = -2, out_axis: Any = -1) -> Initializer:
    """Weights of a sinusoidal network `sin(omega (x @ w + b))`.

        first layer   U(-1 / fan_in, 1 / fan_in)
        later layers  U(-sqrt(6 / fan_in) / omega, sqrt(6 / fan_in) / omega)

    The first layer's width falls as 1 / fan_in, so it needs its fan when it is drawn.

    Raises:
        ValueError: if omega is not positive.

    Source: Sitzmann et al. 2020, "Implicit neural representations with periodic activation functions", section 3.2
    and theorem 1.8 of its supplement.

    Example:
        >>> from jaxinit.initializers import siren
        >>> siren(first=True)
        siren(first=True)
        >>> round(siren(omega=1.0).law((200, 5)).stddev, 12)
        0.1
    """
    w = float(checks.number("siren", "omega", omega, above=0))
    return Siren(w, checks.flag("siren", "first", first), _fans.axes("siren", in_axis, out_axis))


@initializer
class Siren(Initializer):
    """Uniform entries whose bound is 1 / fan_in in the first layer, sqrt(6 / fan_in) / omega later."""

    omega: float = static()
    first: bool = static(default=False)
    axes: _fans.Axes = static(default=_fans.Axes())

    def _at(self, shape: tuple[int, ...]) -> Uniform:
        fan_in, _ = _fans.compute("siren", self.axes, shape)
        bound = 1 / fan_in if self.first else math.sqrt(6 / fan_in) / self.omega
        return Uniform(-bound, bound)

    def law(self, shape: Sequence[int]) -> Law | None:
        return None if 0 in tuple(shape) else self._at(tuple(shape)).law(shape)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self._at(shape)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        return self._at(shape)._sample(key, shape, dtype, factor)

    def _with_axes(self, **changes: Any) -> Siren:
        return Siren(self.omega, self.first, _fans.axes("siren", **(self.axes.changed() | changes)))

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        kwargs: dict[str, Any] = {"first": True} if self.first else {}
        args = () if self.omega == 30.0 else (self.omega,)
        return "siren", args, kwargs | self.axes.changed()


def small(*, in_axis: Any = -2, out_axis: Any = -1) -> Initializer:
    """Normal weights of variance 2 / (5 fan_in), for the embeddings and projections of Transformers.

    Source: Nguyen & Salazar 2019, "Transformers without tears" (SmallInit).

    Example:
        >>> from jaxinit.initializers import small
        >>> small()
        variance_scaling(0.4, 'fan_in', 'normal')
    """
    return VarianceScaling(0.4, "fan_in", "normal", _fans.axes("small", in_axis, out_axis))


def wang(depth: int, *, in_axis: Any = -2, out_axis: Any = -1) -> Initializer:
    """Normal weights of standard deviation 2 / (depth sqrt(fan_in)), for the last layer of residual branches.

    Source: Wang & Komatsuzaki 2021, GPT-J; Black et al. 2022, GPT-NeoX-20B.

    Example:
        >>> from jaxinit.initializers import wang
        >>> wang(20).law((100, 100)).stddev
        0.01
    """
    d = checks.integer("wang", "depth", depth, at_least=1, at_most=checks.MOST)
    return VarianceScaling(4.0 / d**2, "fan_in", "normal", _fans.axes("wang", in_axis, out_axis))


def torch_kernel(*, in_axis: Any = -2, out_axis: Any = -1) -> Initializer:
    """The default of PyTorch's Linear and Conv layers: U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)).

    PyTorch writes it `kaiming_uniform_(a=sqrt(5))`: variance 1 / (3 fan_in), so signals shrink by 3 a layer.

    Example:
        >>> from jaxinit.initializers import torch_kernel
        >>> round(torch_kernel().law((300, 10)).stddev * 30, 12)
        1.0
    """
    return VarianceScaling(1 / 3, "fan_in", "uniform", _fans.axes("torch_kernel", in_axis, out_axis))


def torch_bias(fan_in: float) -> Initializer:
    """The default bias of PyTorch's layers: U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), fan_in that of the layer's kernel.

    Example:
        >>> from jaxinit.initializers import torch_bias
        >>> torch_bias(100)
        uniform(-0.1, 0.1)
    """
    bound = 1 / math.sqrt(checks.number("torch_bias", "fan_in", fan_in, above=0))
    return Uniform(-bound, bound)
