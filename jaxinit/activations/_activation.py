"""The record of a nonlinearity: a name, an elementwise JAX function, its parameters, its kinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.struct import record, static


@record
class Activation:
    """An elementwise nonlinearity phi, called like the function it wraps. Make one with `get`.

    It is hashable, compares by value (a callable by identity), and has no leaves: as an argument of a jitted
    function it is part of the structure.

    Attributes:
        name: the catalogue's name, or the `__name__` of a callable.
        fn: the elementwise function, `(x, **parameters) -> array` of the same shape.
        parameters: its keyword arguments, as a tuple of (name, value).
        kink_points: where phi or one of its derivatives jumps; None means they are looked for when needed.

    Example:
        >>> from jaxinit.activations import get
        >>> phi = get("leaky_relu", negative_slope=0.2)
        >>> phi
        get('leaky_relu', negative_slope=0.2)
        >>> float(phi(-1.0)), float(phi.derivative(-1.0))
        (-0.20000000298023224, 0.20000000298023224)
        >>> phi.kinks
        (0.0,)
    """

    name: str = static()
    fn: Callable[..., Any] = static()
    parameters: tuple[tuple[str, float], ...] = static(default=())
    kink_points: tuple[float, ...] | None = static(default=None)
    catalogued: bool = static(default=False)

    def __call__(self, x: Any) -> jax.Array:
        """phi(x), elementwise, in the dtype of `x`."""
        return self.fn(jnp.asarray(x), **dict(self.parameters))

    def value_and_derivative(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """(phi(x), phi'(x)), elementwise, by forward-mode differentiation."""
        x = jnp.asarray(x)
        return jax.jvp(self, (x,), (jnp.ones_like(x),))

    def derivative(self, x: Any) -> jax.Array:
        """phi'(x), elementwise."""
        return self.value_and_derivative(x)[1]

    @property
    def kinks(self) -> tuple[float, ...]:
        """Points where phi or one of its derivatives jumps, ascending; found once and remembered."""
        if self.kink_points is not None:
            return self.kink_points
        from jaxinit.activations._panels import kinks

        return kinks(self)

    def __repr__(self) -> str:
        given = "".join(f", {k}={v!r}" for k, v in self.parameters)
        return f"get({self.name!r}{given})" if self.catalogued else f"get({self.fn!r})"

    def __reduce__(self) -> Any:
        return _rebuild, (self.name if self.catalogued else self.fn, self.parameters)


def _rebuild(spec: Any, parameters: tuple[tuple[str, float], ...]) -> Activation:
    from jaxinit.activations._catalogue import get

    return get(spec, **dict(parameters))
