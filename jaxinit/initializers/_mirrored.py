"""Kernels made of copies of a smaller one: looks-linear and ICNR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers._base import Initializer, Law, initializer
from jaxinit.initializers._orthogonal import Orthogonal
from jaxinit.initializers._scaling import VarianceScaling
from jaxinit.initializers._wrap import as_initializer

__all__ = ["icnr", "looks_linear"]


@initializer
class LooksLinear(Initializer):
    """Copies of a smaller kernel with alternating signs, so that pairs of rectifiers add up to the identity."""

    init: Any = leaf()
    inputs: bool = static(default=True)
    outputs: bool = static(default=False)

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _small(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 2:
            raise checks.bad("looks_linear", "shape", "at least 2-D", shape, "Biases take zeros().")
        for axis, halved, name in ((-2, self.inputs, "in"), (-1, self.outputs, "out")):
            if halved and shape[axis] % 2:
                raise checks.bad("looks_linear", "shape", f"even along the {name} axis", shape)
        return (*shape[:-2], shape[-2] // (1 + self.inputs), shape[-1] // (1 + self.outputs))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self.init._check_shape(self._small(shape))

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        w = self.init._sample(key, self._small(shape), dtype, factor)
        if self.inputs:
            w = jnp.concatenate([w, -w], axis=-2)
        return jnp.concatenate([w, -w], axis=-1) if self.outputs else w

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        args = () if self.init == Orthogonal(1.0) else (self.init,)
        kwargs: dict[str, Any] = {} if self.inputs else {"inputs": False}
        return "looks_linear", args, kwargs | ({"outputs": True} if self.outputs else {})


@initializer
class Icnr(Initializer):
    """Every sub-pixel gets the same kernel."""

    init: Any = leaf()
    factor: int = static(default=2)
    order: str = static(default="channel")

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _small(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 3:
            raise checks.bad("icnr", "shape", "a kernel (*spatial, in, out)", shape)
        if self.order == "transposed":
            if any(k % self.factor for k in shape[:-2]):
                raise checks.bad("icnr", "shape", f"a kernel whose sides divide by {self.factor}", shape)
            return (*(k // self.factor for k in shape[:-2]), *shape[-2:])
        copies = self.factor ** (len(shape) - 2)
        if shape[-1] % copies:
            raise checks.bad("icnr", "shape", f"a kernel whose output features divide by {copies}", shape)
        return (*shape[:-1], shape[-1] // copies)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self.init._check_shape(self._small(shape))

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        w = self.init._sample(key, self._small(shape), dtype, factor)
        if self.order == "transposed":
            for axis in range(len(shape) - 2):
                w = jnp.repeat(w, self.factor, axis=axis)
            return w
        copies = shape[-1] // w.shape[-1]
        return jnp.repeat(w, copies, axis=-1) if self.order == "channel" else jnp.tile(w, copies)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        args: tuple[Any, ...] = () if self.init == VarianceScaling(2.0) else (self.init,)
        kwargs: dict[str, Any] = {} if self.factor == 2 else {"factor": self.factor}
        return "icnr", args, kwargs | ({} if self.order == "channel" else {"order": self.order})


def looks_linear(init: Any = None, *, inputs: bool = True, outputs: bool = False) -> Initializer:
    """Weights under which a network of rectifiers is linear at initialization.

        inputs only           w = [[o], [-o]]             after concat(relu(z), relu(-z))
        inputs and outputs    w = [[o, -o], [-o, o]]      plain ReLU layers in the middle
        outputs only          w = [[o, -o]]               the first plain ReLU layer

    With relu(z) - relu(-z) = z each layer applies `o`. In plain ReLU networks the last layer mirrors its inputs.

    Args:
        init: law of the block `o`; `orthogonal()` by default.
        inputs, outputs: which axes are mirrored; their sizes must be even.

    Raises:
        ValueError: if neither axis is mirrored; when called, for odd sizes.

    Source: Balduzzi et al. 2017, "The shattered gradients problem" ("looks linear").

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxinit.initializers import looks_linear
        >>> w = looks_linear()(jax.random.key(0), (6, 3))
        >>> bool((w[:3] == -w[3:]).all())
        True
    """
    where = "looks_linear"
    rows, columns = checks.flag(where, "inputs", inputs), checks.flag(where, "outputs", outputs)
    if not rows and not columns:
        raise checks.bad(where, "inputs", "True unless outputs is", inputs)
    return LooksLinear(Orthogonal(1.0) if init is None else as_initializer(where, init), rows, columns)


def icnr(init: Any = None, *, factor: int = 2, order: str = "channel") -> Initializer:
    """A kernel of an upsampling layer whose sub-pixels start equal, so it is nearest-neighbour upsampling at first.

    Args:
        init: law of the kernel of one sub-pixel, `he_normal()` by default.
        factor: upsampling factor r; with d spatial axes each channel has r^d sub-pixels.
        order: where the sub-pixels are. Before a pixel shuffle, among the output features: "channel": c * r^d + i
            (PyTorch's PixelShuffle); "space": i * channels + c (depth-to-space). In a transposed convolution of
            stride r, along the spatial axes: "transposed": taps r j .. r j + r - 1 are equal, for kernels whose
            sides divide by r. With padding "VALID", or a kernel of side r, the output is then exactly the
            nearest-neighbour upsampling of a convolution with the kernel of one sub-pixel.

    Raises:
        ValueError: when called, if the output features do not divide by r^d, or the sides by r.

    Source: Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution", arXiv 1707.02937; for
    transposed convolutions the same condition, equal taps for every output phase (Odena, Dumoulin & Olah 2016).

    Example:
        >>> import jax
        >>> from jaxinit.initializers import icnr
        >>> w = icnr()(jax.random.key(0), (3, 3, 8, 12))
        >>> bool((w[..., 0] == w[..., 3]).all()), bool((w[..., 0] == w[..., 4]).any())
        (True, False)
        >>> w = icnr(order="transposed")(jax.random.key(0), (4, 4, 8, 12))
        >>> bool((w[0, 0] == w[1, 1]).all()), bool((w[0, 0] == w[2, 0]).any())
        (True, False)
    """
    base = VarianceScaling(2.0) if init is None else as_initializer("icnr", init)
    checks.choice("icnr", "order", order, ("channel", "space", "transposed"))
    return Icnr(base, checks.integer("icnr", "factor", factor, at_least=1), order)
