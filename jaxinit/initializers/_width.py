"""Width rules: maximal-update scaling of an initializer that is right at a base width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw
from jaxinit.initializers._base import Initializer, Law, initializer, working_dtype
from jaxinit.initializers._wrap import Wrapper, as_initializer, scaled_law

__all__ = ["mup"]


@initializer
class Mup(Wrapper):
    """`init` times what takes it from its own width rule to the maximal-update one."""

    init: Any = leaf()
    base_shape: tuple[int, ...] = static()
    multiplier: bool = static(default=False)

    def _growth(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """By how much the in and the out axes grew since the base shape."""
        base = self.base_shape
        if len(shape) != len(base):
            raise checks.bad("mup", "base_shape", f"of the rank of the shape {shape}", base)
        if shape[:-2] != base[:-2]:
            raise checks.bad("mup", "base_shape", f"equal to {shape} but for the last two axes", base)
        m_in = shape[-2] / base[-2] if len(shape) > 1 else 1.0
        return m_in, shape[-1] / base[-1]

    def _factor(self, shape: tuple[int, ...]) -> Any:
        m_in, m_out = self._growth(shape)
        law, base_law = self.init.law(shape), self.init.law(self.base_shape)
        if law is None or base_law is None:
            raise checks.bad("mup", "init", "an initializer whose law is known", self.init)
        if m_in == 1:
            power = 0.0  # input weights and biases: the law of the base
        elif m_out != 1:
            power = 0.5  # hidden weights: variance 1 / fan_in
        else:
            power = (
                0.0 if self.multiplier else 1.0
            )  # readout: variance 1 / fan_in^2, or 1 with 1/width in the model
        if law.kind == "constant":  # the same at every width, zeros above all
            return m_in**-power
        return _entry_stddev(base_law, self.base_shape) * m_in**-power / _entry_stddev(law, shape)

    def law(self, shape: Sequence[int]) -> Law | None:
        return scaled_law(self.init.law(shape), self._factor(tuple(shape)))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self.init._check_shape(shape)
        self._factor(shape)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        by = _draw.as_scalar(self._factor(shape), working_dtype(dtype))
        return self.init._sample(key, shape, dtype, _draw.product(by, factor))

    def _around(self, init: Initializer) -> Initializer:
        return Mup(init, self.base_shape, self.multiplier)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "mup", (self.init, self.base_shape), {"multiplier": True} if self.multiplier else {}


def _entry_stddev(law: Law, shape: tuple[int, ...]) -> Any:
    return law.stddev / math.sqrt(max(shape)) if law.kind == "orthogonal" else law.stddev


def mup(init: Any, base_shape: Sequence[int], *, multiplier: bool = False) -> Initializer:
    """`init`, right at the base width, made right at every width by the maximal-update parametrization.

    Which axes may grow is read from `base_shape` against the shape asked for; with m = in / base in:

        in and out grow (hidden)      stddev = stddev of init at the base shape / sqrt(m)
        only out grows (input, bias)  stddev = stddev of init at the base shape
        only in grows (readout)       the same / m, or unchanged with `multiplier=True`, for models that divide the
                                      readout's output by m

    Learning rates scale too (Adam: 1 / m for hidden weights), and attention logits by 1 / d in place of
    1 / sqrt(d): the initializer is one part of three.

    Args:
        init: an initializer whose law is known, or the name of one.
        base_shape: the shape of this weight, (*spatial, in, out), in the base model.
        multiplier: whether the model multiplies its readout by 1 / m.

    Raises:
        ValueError: when called, for shapes that differ from `base_shape` elsewhere, or an unknown law.

    Source: Yang et al. 2022, "Tensor Programs V", arXiv 2203.03466, tables 3 and 8.

    Example:
        >>> from jaxinit.initializers import mup, normal
        >>> init = mup(normal(0.1), (64, 64))
        >>> init.law((64, 64)).stddev, init.law((256, 256)).stddev
        (0.1, 0.05)
        >>> mup(normal(0.1), (64, 10)).law((256, 10)).stddev
        0.025
    """
    base = checks.shape("mup", "base_shape", base_shape)
    if not base or 0 in base:
        raise checks.bad("mup", "base_shape", "a shape without zeros", base_shape)
    return Mup(as_initializer("mup", init), base, checks.flag("mup", "multiplier", multiplier))
