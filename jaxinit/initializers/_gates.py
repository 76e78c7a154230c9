"""Biases of recurrent gates: the forget bias, and chrono initialization for a known time scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw
from jaxinit.initializers._base import Initializer, Law, initializer, times, working_dtype

__all__ = ["chrono", "forget_bias"]


def _section(where: str, layout: str, shape: tuple[int, ...]) -> int:
    """Units a gate of a fused bias."""
    if not shape or shape[-1] % len(layout):
        raise checks.bad(where, "shape", f"a bias whose last axis divides into the gates {layout!r}", shape)
    return shape[-1] // len(layout)


def _layout(where: str, layout: Any, needed: str) -> str | None:
    if layout is None:
        return None
    if not isinstance(layout, str) or not layout.isalpha() or any(layout.count(g) != 1 for g in needed):
        raise checks.bad(
            where, "layout", f"the order of the fused gates as letters, with one of each of {needed!r}", layout,
            "PyTorch and Keras fuse an LSTM's gates as 'ifgo', Haiku as 'igfo'.",
        )  # fmt: skip
    return layout


@initializer
class ForgetBias(Initializer):
    """`value` for the forget gate of a fused bias, zeros for the others."""

    value: Any = leaf()
    layout: str = static(default="ifgo")

    needs_key = False

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        _section("forget_bias", self.layout, shape)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        units = _section("forget_bias", self.layout, shape)
        place = np.repeat([g == "f" for g in self.layout], units)
        value = _draw.product(_draw.as_scalar(self.value, working_dtype(dtype)), factor)
        return jnp.broadcast_to(
            jnp.where(place, jnp.asarray(value), jnp.zeros((), value.dtype)), shape
        ).astype(dtype)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "forget_bias", (self.value,), {"layout": self.layout}


@initializer
class Chrono(Initializer):
    """log U(1, t_max - 1) for the forget gate, its negative for the input gate."""

    t_max: Any = leaf()
    gate: str = static(default="forget")
    layout: str | None = static(default=None)

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if self.layout is not None:
            _section("chrono", self.layout, shape)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        top = _draw.as_scalar(self.t_max - 1.0, work)
        if self.layout is None:
            bias = jnp.log(jax.random.uniform(key, shape, work, 1.0, top))
            bias = bias if self.gate == "forget" else -bias
        else:
            units = _section("chrono", self.layout, shape)
            forget = jnp.log(jax.random.uniform(key, (*shape[:-1], units), work, 1.0, top))
            parts = {"f": forget, "i": -forget}
            bias = jnp.concatenate([parts.get(g, jnp.zeros_like(forget)) for g in self.layout], axis=-1)
        return times(bias, factor).astype(dtype)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        kwargs: dict[str, Any] = {} if self.gate == "forget" else {"gate": self.gate}
        return "chrono", (self.t_max,), kwargs | ({} if self.layout is None else {"layout": self.layout})


def forget_bias(value: Any = 1.0, *, layout: str = "ifgo") -> Initializer:
    """The bias of an LSTM whose gates are fused: `value` for the forget gate, 0 for the others.

    Flax's cells keep one bias a gate: there, `constant(1.0)` for the parameter of the forget gate ("hf") is the
    same, by `reinit(params, {"**/hf/bias": constant(1.0)}, key)`.

    Args:
        value: the forget bias.
        layout: the order of the gates along the last axis, such as "ifgo".

    Source: Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015 (value 1).

    Example:
        >>> from jaxinit.initializers import forget_bias
        >>> forget_bias()(None, (8,))
        Array([0., 0., 1., 1., 0., 0., 0., 0.], dtype=float32)
    """
    order = _layout("forget_bias", layout, "f")
    if order is None:
        raise checks.wrong_type("forget_bias", "layout", "a string such as 'ifgo'", layout)
    return ForgetBias(checks.number("forget_bias", "value", value), order)


def chrono(t_max: Any, *, gate: str = "forget", layout: str | None = None) -> Initializer:
    """Gate biases for memories up to `t_max` steps long.

        b_forget = log U(1, t_max - 1),    b_input = -b_forget

    Args:
        t_max: the longest dependency, in steps, above 2.
        gate: "forget" or "input", for layers with one bias a gate.
        layout: for a fused bias, the order of its gates, such as "ifgo": forget and input gates of a unit are
            coupled, the others 0.

    Source: Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", eq. 16.

    Example:
        >>> import jax
        >>> from jaxinit.initializers import chrono
        >>> b = chrono(100, layout="ifgo")(jax.random.key(0), (8,))
        >>> bool((b[:2] == -b[2:4]).all()), bool((b[4:] == 0).all())
        (True, True)
    """
    t = checks.number("chrono", "t_max", t_max, above=2)
    checks.choice("chrono", "gate", gate, ("forget", "input"))
    if layout is not None and gate != "forget":
        raise checks.bad("chrono", "gate", "left out when layout is given", gate)
    return Chrono(t, gate, _layout("chrono", layout, "if"))
