"""What there is no rule for is run once, on arrays drawn from the analysis' own description of its inputs."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.adapt._analytic_fields import Field, atoms_of
from jaxinit.adapt._analytic_pointwise import Applied, Unknown
from jaxinit.adapt._analytic_values import Known, Value, as_field, field_of_data, is_real

__all__ = ["measured", "sample"]


def measured(eqn: Any, values: Sequence[Value], reason: str) -> list[Value]:
    """The outputs of an equation, run on samples of its inputs; `reason` becomes one of their sources."""
    rng = np.random.default_rng(
        zlib.crc32(f"{eqn.primitive.name} {[str(v.aval) for v in eqn.invars]}".encode())
    )
    given = [_array(v, a.aval.dtype, rng) for v, a in zip(values, eqn.invars, strict=True)]
    fields = [v.argument if isinstance(v, Applied) else v for v in values if not isinstance(v, Known)]
    sources = {s: n for f in fields for s, n in f.sources.items()} | {reason: 0}
    slope = max((f.slope for f in fields), default=0.0)
    outs = eqn.primitive.bind(*given, **eqn.params)
    notes = frozenset(s for s in sources if isinstance(s, str))
    found: list[Value] = []
    for out in outs if eqn.primitive.multiple_results else [outs]:
        if not is_real(out) or not jnp.issubdtype(out.dtype, jnp.floating):
            found.append(Known(out, notes))
            continue
        if np.isnan(np.asarray(out, np.float64)).any():
            raise Unknown(f"{reason}, and on random inputs it is not a number")
        if not np.isfinite(np.asarray(out, np.float64)).all():
            found.append(Known(out, notes))
            continue
        field = field_of_data(out)
        for base in field.bases:
            base.sources.update(sources)
            base.slope = slope
        found.append(field)
    return found


def _array(value: Value, dtype: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, Known):
        return value.array
    try:
        return sample(as_field(value), dtype, rng)
    except Unknown:
        if not isinstance(value, Applied):
            raise
        return value.fn(sample(value.argument, dtype, rng))  # finite, though its moments are not


def sample(field: Field, dtype: Any, rng: np.random.Generator) -> Any:
    """An array with the mean and the covariances of a field, Gaussian.

    The covariance by agreement is a sum over sets of indices of variances of independent parts that vary with those
    indices alone (its Moebius transform).
    """
    if not math.isfinite(field.mean):
        raise Unknown("a sum of exponentials whose moments are not finite")
    atoms = atoms_of(field.axes)
    parts = field.table()
    for k in range(parts.ndim):
        other, same = np.take(parts, [0], k), np.take(parts, [1], k)
        parts = np.concatenate([other, same - other], axis=k)
    total = np.full([a.size for a in atoms], field.mean)
    for g in itertools.product((0, 1), repeat=len(atoms)):
        if parts[g] > 1e-12 * max(field.variance, 1e-300):
            shape = [a.size if own else 1 for a, own in zip(atoms, g, strict=True)]
            total = total + np.sqrt(parts[g]) * rng.standard_normal(shape)
    with jax.ensure_compile_time_eval():
        return jnp.asarray(total.reshape(field.shape)).astype(dtype)
