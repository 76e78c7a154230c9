"""The law of every parameter, read from the program that draws it.

The program of `init` is followed with, for each of its values, one of three things known of it: a number, the law of
a random array, or nothing. Laws come from the samplers of `jax.random`, by the names under which they are traced;
scaling, casting, reshaping, transposing and stacking over a loop keep them. It is what is drawn that counts, not what
a module says of itself, so linen, nnx and plain functions are read alike. What is not understood has no law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit.probe import equations

__all__ = ["Drawn", "laws"]

#: Numbers beyond which a clamp changes no draw.
_FAR = 1e30
_SAME = frozenset({"convert_element_type", "copy", "neg", "stop_gradient", "optimization_barrier"})
_SHAPING = frozenset({"reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim"})
_ARITHMETIC = frozenset({"mul", "div", "add", "sub", "max", "min"})
#: On numbers: what initializers do to a fan before they scale by it.
_SCALAR = _ARITHMETIC | _SAME | frozenset({"sqrt", "rsqrt", "integer_pow", "pow", "square", "exp", "log"})


class Drawn(NamedTuple):
    """The law of an array.

    `kind`: "gaussian" (independent normal entries), "iid" (independent entries of another `distribution`),
    "orthogonal" (stddev times a uniform semi-orthogonal matrix, its rows the first `rows` axes) or "delta_orthogonal"
    (such a matrix at index `tap` of the first axes, zeros elsewhere). `mean` and `stddev` of the entries, or the
    scale. `stacked`: over how many loops copies were stacked in front. `source`: the equation that draws, after those
    that hold it.
    """

    kind: str
    distribution: str
    stddev: float
    mean: float
    source: tuple[int, ...]
    rows: int = 0
    stacked: int = 0
    tap: tuple[int, ...] = ()


class _Index(NamedTuple):
    """An array of a few numbers, by which another one is indexed."""

    at: tuple[int, ...]


class _Value(NamedTuple):
    """What is known, and the loops in which it changes from one iteration to the next."""

    known: Drawn | float | _Index | None
    varies: frozenset[tuple[int, ...]]


_NOTHING = _Value(None, frozenset())


def laws(program: core.ClosedJaxpr, *, sparse: bool = False) -> list[Drawn | None]:
    """The law of each output, or None. `sparse`: also of those that are zeros in part ("delta_orthogonal")."""
    inside = _Reader(()).read(program, [_NOTHING] * len(program.jaxpr.invars), ())
    found = [v.known if isinstance(v.known, Drawn) else None for v in inside]
    return [law if law is None or sparse or not law.tap else None for law in found]


class _Reader:
    def __init__(self, loops: tuple[tuple[int, ...], ...]) -> None:
        self.loops = loops

    def read(
        self, program: core.ClosedJaxpr, inputs: Sequence[_Value], chain: tuple[int, ...]
    ) -> list[_Value]:
        jaxpr = program.jaxpr
        env: dict[Any, _Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for v, const in zip(jaxpr.constvars, program.consts, strict=True):
            env[v] = _Value(_number(const), frozenset())

        def of(atom: Any) -> _Value:
            if isinstance(atom, core.Literal):
                return _Value(_number(atom.val), frozenset())
            return env[atom]

        for eqn in jaxpr.eqns:
            outs = self._equation(eqn, [of(v) for v in eqn.invars], (*chain, id(eqn)))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [of(v) for v in jaxpr.outvars]

    def _equation(self, eqn: core.JaxprEqn, given: list[_Value], chain: tuple[int, ...]) -> list[_Value]:
        varies = frozenset().union(*(v.varies for v in given))
        kind = equations.kind_of(eqn)
        if kind == equations.CALL and (drawn := _sampler(eqn, given, chain)) is not None:
            again = all(loop in given[0].varies for loop in self.loops)  # else every iteration draws the same
            return [_Value(drawn if again else None, varies)]
        if kind in (equations.CALL, equations.REMAT):
            return self.read(equations.bodies(eqn)[0], given, chain)
        if kind == equations.SCAN:
            return self._loop(eqn, given, chain, varies)
        known: Drawn | float | _Index | None = None
        if len(eqn.outvars) == 1 and all(v.known is not None for v in given):
            known = _computed(eqn, [v.known for v in given])
        return [_Value(known, varies)] * len(eqn.outvars)

    def _loop(
        self, eqn: core.JaxprEqn, given: list[_Value], chain: tuple[int, ...], varies: frozenset[Any]
    ) -> list[_Value]:
        consts, carried, *_ = equations.loop_of(eqn)
        changing = _Value(None, varies | {chain})
        fixed = [v if isinstance(v.known, float) else _Value(None, v.varies) for v in given[:consts]]
        inside = [*fixed, *[changing] * (len(given) - consts)]
        outs = _Reader((*self.loops, chain)).read(equations.bodies(eqn)[0], inside, chain)
        stacked = [
            _Value(
                v.known._replace(stacked=v.known.stacked + 1) if isinstance(v.known, Drawn) else None, varies
            )
            for v in outs[carried:]
        ]
        return [_Value(None, varies)] * carried + stacked


def _number(value: Any) -> float | None:
    return float(np.asarray(value).reshape(())) if np.size(value) == 1 and _numeric(value) else None


def _numeric(value: Any) -> bool:
    """Of a real dtype: no key, no complex number."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.floating))


def _sampler(eqn: core.JaxprEqn, given: Sequence[_Value], source: tuple[int, ...]) -> Drawn | None:
    """The law of what a sampler of `jax.random` draws."""
    name, numbers = eqn.params.get("name"), [v.known for v in given[1:]]
    if not eqn.invars or not jax.dtypes.issubdtype(equations.aval(eqn.invars[0]).dtype, jax.dtypes.prng_key):
        return None
    if len(eqn.outvars) != 1 or not jnp.issubdtype(equations.aval(eqn.outvars[0]).dtype, jnp.floating):
        return None
    out = equations.aval(eqn.outvars[0])
    bounds = [v for v in numbers if isinstance(v, float)]
    if name == "_normal" and not numbers:
        drawn = Drawn("gaussian", "normal", 1.0, 0.0, source)
    elif name == "_orthogonal" and not numbers and out.ndim == 2:
        drawn = Drawn("orthogonal", "haar", 1.0, 0.0, source, rows=1)
    elif name == "_truncated_normal" and len(bounds) == len(numbers) == 2:
        mean, stddev = _truncated(*bounds)
        drawn = Drawn("iid", "truncated_normal", stddev, mean, source)
    elif name == "_uniform" and len(bounds) == len(numbers) == 2:
        low, high = bounds
        drawn = Drawn("iid", "uniform", (high - low) / math.sqrt(12), (low + high) / 2, source)
    else:
        return None
    return _rounded(drawn, out.dtype)


def _truncated(a: float, b: float) -> tuple[float, float]:
    """Mean and standard deviation of a standard normal in (a, b) (Johnson, Kotz & Balakrishnan 1994, 13.10.1)."""
    density = [math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in (a, b)]
    mass = (math.erf(b / math.sqrt(2)) - math.erf(a / math.sqrt(2))) / 2
    if mass < 1e-3:  # far in a tail the difference has no digits left
        return math.nan, math.nan
    edges = [v * p if math.isfinite(v) else 0.0 for v, p in zip((a, b), density, strict=True)]
    mean = (density[0] - density[1]) / mass
    return mean, math.sqrt(1 + (edges[0] - edges[1]) / mass - mean * mean)


def _rounded(drawn: Drawn, dtype: Any) -> Drawn | None:
    """The law in another precision: of fewer digits than float32 it is the law no more."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return None
    if jnp.dtype(dtype).itemsize >= 4:
        return drawn
    if drawn.rows:
        return None
    rounded = drawn.distribution.endswith(" rounded")
    return drawn._replace(kind="iid", distribution=drawn.distribution + ("" if rounded else " rounded"))


def _computed(eqn: core.JaxprEqn, known: list[Any]) -> Drawn | float | _Index | None:
    """What an equation makes of a law and numbers, or of numbers alone."""
    name = eqn.primitive.name
    random = [v for v in known if isinstance(v, Drawn)]
    if any(isinstance(v, _Index) for v in known) or (name == "concatenate" and not random):
        return _placed(eqn, known) if random else _index(eqn, known)
    if not random:
        return _scalar(eqn, known)
    if len(random) > 1:
        return None
    if name == "scatter":
        return _placed(eqn, known)
    (law,) = random
    out = equations.aval(eqn.outvars[0])
    if equations.aval(eqn.invars[known.index(law)]).size != out.size:  # copied: not independent
        return None
    if name in _SAME:
        law = law._replace(mean=-law.mean) if name == "neg" else law
        return _rounded(law, out.dtype)
    if name in _SHAPING:
        return _reshaped(eqn, law) if law.rows else law
    if name == "erf_inv" and _symmetric(
        law
    ):  # how jax.random.normal is traced where it is no call of its own
        return _rounded(
            law._replace(kind="gaussian", distribution="normal", stddev=math.sqrt(0.5), mean=0.0), out.dtype
        )
    if name not in _ARITHMETIC:
        return None
    number = next(v for v in known if isinstance(v, float))
    if name in ("max", "min"):
        return law if (number < -_FAR if name == "max" else number > _FAR) else None
    if name in ("mul", "div"):
        if name == "div" and known[0] is not law:
            return None
        factor = number if name == "mul" else 1 / number if number else math.nan
        if not math.isfinite(factor) or factor == 0:
            return None
        return law._replace(stddev=law.stddev * abs(factor), mean=law.mean * factor)
    if law.rows:
        return None
    sign = -1.0 if name == "sub" and known[0] is not law else 1.0
    shift = -number if name == "sub" and known[0] is law else number
    return law._replace(mean=sign * law.mean + shift)


def _symmetric(law: Drawn) -> bool:
    """Uniform on (-1, 1), but for rounding."""
    return law.distribution == "uniform" and abs(law.mean) < 1e-6 and abs(law.stddev - 3**-0.5) < 1e-6


def _scalar(eqn: core.JaxprEqn, known: list[Any]) -> float | None:
    out = equations.aval(eqn.outvars[0])
    if eqn.primitive.name == "broadcast_in_dim":
        return known[0]
    if eqn.primitive.name not in _SCALAR or out.size != 1 or not _numeric(out):
        return None
    given = {v: k for v, k in zip(eqn.invars, known, strict=True) if not isinstance(v, core.Literal)}
    with jax.ensure_compile_time_eval():
        values = [jnp.full(equations.aval(v).shape, k, equations.aval(v).dtype) for v, k in given.items()]
        (value,) = jax.core.eval_jaxpr(equations.piece(list(given), eqn.outvars, [eqn]), (), *values)
    return float(np.asarray(value).reshape(()))


def _reshaped(eqn: core.JaxprEqn, law: Drawn) -> Drawn | None:
    """A matrix in another shape, its rows still the first few axes; or transposed, which keeps the law."""
    before, after = equations.aval(eqn.invars[0]).shape, equations.aval(eqn.outvars[0]).shape
    if law.stacked or law.tap:
        return None
    if eqn.primitive.name == "transpose":
        return law if len(before) == 2 else None
    if eqn.primitive.name == "broadcast_in_dim" or eqn.params.get("dimensions") is not None:
        return None
    rows = math.prod(before[: law.rows])
    found = next((n for n in range(1, len(after)) if math.prod(after[:n]) == rows), None)
    return None if found is None else law._replace(rows=found)


def _index(eqn: core.JaxprEqn, known: list[Any]) -> _Index | None:
    """Numbers one after the other: an index."""
    short = all(
        isinstance(v, float) and equations.aval(a).size == 1 for v, a in zip(known, eqn.invars, strict=True)
    )
    return _Index(tuple(int(v) for v in known)) if short and eqn.primitive.name == "concatenate" else None


def _placed(eqn: core.JaxprEqn, known: list[Any]) -> Drawn | None:
    """A matrix written into zeros, at an index of the first axes."""
    if eqn.primitive.name != "scatter":
        return None
    zeros, at, law = known
    if zeros != 0.0 or not isinstance(at, float | _Index) or not isinstance(law, Drawn):
        return None
    index = (int(at),) if isinstance(at, float) else at.at
    d, out, matrix = (
        eqn.params["dimension_numbers"],
        equations.aval(eqn.outvars[0]),
        equations.aval(eqn.invars[2]),
    )
    first = tuple(range(len(index)))
    whole = (
        equations.aval(eqn.invars[1]).shape == (len(index),)
        and law.kind == "orthogonal"
        and matrix.shape == out.shape[len(index) :]
        and d.update_window_dims == tuple(range(matrix.ndim))
        and d.inserted_window_dims == d.scatter_dims_to_operand_dims == first
        and not (d.operand_batching_dims or law.stacked)
        and all(0 <= n < size for n, size in zip(index, out.shape, strict=False))
    )
    return law._replace(kind="delta_orthogonal", tap=index) if whole else None
