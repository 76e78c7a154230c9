"""Numbers of a given dtype: what a model that computes in it would hold after each of its operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._core import checks
from jaxinit._core.scaled import is_infinite, normalize, pow2
from jaxinit._core.struct import record, static

DTYPES = ("bfloat16", "float16", "float32", "float64")

#: Equations that only call a program, and where they hold it.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
#: The spacing of float16 below its normal numbers, and where these begin.
_HALF_STEP, _HALF_NORMAL = 2.0**-24, 2.0**-14


@record
class Precision:
    """Rounding to `dtype`, of arrays that stay float32 (float64 for that): sums over them are of no fewer digits.

    Without a dtype nothing is rounded, and exponents are carried apart: numbers have no range to leave.
    """

    dtype: str | None = static(default=None)

    @staticmethod
    def of(where: str, dtype: Any) -> Precision:
        """From a name or a dtype; raises for those that networks do not compute in, or not here."""
        if dtype is None:
            return Precision()
        name = dtype
        if isinstance(dtype, jax.Array):
            raise checks.wrong_type(where, "dtype", "a dtype, its name, or None", dtype, "Pass its .dtype.")
        if not isinstance(dtype, str):
            try:
                name = jnp.dtype(dtype).name
            except TypeError:
                raise checks.wrong_type(where, "dtype", "a dtype, its name, or None", dtype) from None
        checks.choice(where, "dtype", name, DTYPES)
        if jax.dtypes.canonicalize_dtype(name).name != name:
            raise checks.bad(
                where, "dtype", "at most float32 while jax_enable_x64 is off", name,
                "Call jax.config.update('jax_enable_x64', True) first.",
            )  # fmt: skip
        return Precision(name)

    @property
    def held(self) -> Any:
        """The dtype of the arrays."""
        return np.float64 if self.dtype == "float64" else np.float32

    @property
    def short(self) -> bool:
        """Whether it has fewer digits than parameters have."""
        return self.dtype in ("bfloat16", "float16")

    def entries(self, x: jax.Array) -> jax.Array:
        """The nearest numbers of the dtype; inf above them. Below 2^-126: 0 or subnormal, as on the machine."""
        if not self.short:
            return x
        info = jnp.finfo(str(self.dtype))
        # A cast and back would be left out by XLA, which may keep more digits than it is asked for.
        near = jax.lax.reduce_precision(x, info.nexp, info.nmant)
        if self.dtype == "bfloat16":
            return near
        tiny = jax.lax.round(x / _HALF_STEP, jax.lax.RoundingMethod.TO_NEAREST_EVEN) * _HALF_STEP
        return jnp.where(jnp.abs(x) < _HALF_NORMAL, tiny, near)

    def rows(self, x: jax.Array, exponent: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same of rows x * 2^exponent, as `normalize` returns them; as they are without a dtype."""
        if self.dtype is None:
            return x, exponent
        return normalize(self.entries(_value(x, exponent)), jnp.zeros_like(exponent))

    def operations(
        self, f: Callable[[jax.Array], tuple[jax.Array, jax.Array]], x: jax.Array, exponent: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The pair f(x * 2^exponent), rounded after each operation: the first with its exponents, and the second."""
        program = jax.make_jaxpr(f)(x)
        first, second = self._run(program.jaxpr, program.consts, [_value(x, exponent)])
        lost = is_infinite(exponent)
        first, second = (jnp.where(lost[:, None], other, v) for v, other in ((first, 0), (second, jnp.inf)))
        return *normalize(first, jnp.where(lost, exponent, 0)), second

    def _run(self, program: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        known = dict(zip([*program.constvars, *program.invars], [*consts, *args], strict=True))

        def read(atom: Any) -> Any:
            if not isinstance(atom, core.Literal):
                return known[atom]
            aval: Any = atom.aval
            return self._near(jnp.asarray(atom.val, aval.dtype))

        for eqn in program.eqns:
            given = [read(v) for v in eqn.invars]
            body = eqn.params[_CALLS[eqn.primitive.name]] if eqn.primitive.name in _CALLS else None
            if body is not None:
                outs = self._run(body.jaxpr, body.consts, given)
            else:
                found = eqn.primitive.bind(*given, **eqn.params)
                outs = [self._near(v) for v in (found if eqn.primitive.multiple_results else [found])]
            known.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in program.outvars]

    def _near(self, x: jax.Array) -> jax.Array:
        return self.entries(x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _value(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """Rows x * 2^exponent as they are; 2^exponent itself may be beyond the range."""
    return 2 * x * pow2(exponent - 1, x.dtype)[:, None]


#: No rounding.
FULL = Precision()
