"""The maps of mean-field theory: lengths, correlations, and the slopes of both.

Poole, Lahiri, Raghu, Sohl-Dickstein & Ganguli 2016, "Exponential expressivity in deep neural networks through
transient chaos"; Schoenholz, Gilmer, Ganguli & Sohl-Dickstein 2017, "Deep information propagation".

Python numbers in: a float out, computed in float64 on the host, with kinks anywhere. Arrays, sequences or tracers
in: an array out, of their dtype as JAX takes it, traceable, differentiable and broadcast over its arguments.
"""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.activations import Activation, moments
from jaxinit.activations._catalogue import resolve
from jaxinit.activations._panels import edges
from jaxinit.activations._quadrature import gaussian_rule
from jaxinit.meanfield._pairs import Pair, ladder, pair, pair_rule

_TRACED_RADIUS = 64.0  # panels of phi within +-64 are refined in traced maps
_ORDER = 20


def on_host(*values: Any) -> bool:
    """Whether all values are Python or NumPy scalars."""
    return all(isinstance(v, numbers.Real) or (isinstance(v, np.generic) and v.shape == ()) for v in values)


def length_map(
    activation: Any, q: Any, weight_variance: Any, bias_variance: Any = 0.0, *, input_variance: Any = 0.0
) -> Any:
    """One layer's map of the mean square of pre-activations, at infinite width.

        Q(q) = sigma_w^2 E[phi(sqrt(q) z)^2] + sigma_b^2 + v,   z ~ N(0, 1)

    Args:
        activation: name, callable or Activation.
        q: mean square of the pre-activations, at least 0.
        weight_variance: sigma_w^2, with Var(W_ij) = sigma_w^2 / n_in.
        bias_variance: sigma_b^2.
        input_variance: v, of a recurrent network that reads x_t at every step: v = sigma_u^2 |x_t|^2 / n is what U x_t
            adds (Chen, Pennington & Schoenholz 2018, "Dynamical isometry and a mean field theory of RNNs").

    Example:
        >>> from jaxinit.meanfield import length_map
        >>> round(length_map("relu", 3.0, 2.0, 0.5), 12)
        3.5
    """
    where = "length_map"
    activation = resolve(where, activation)
    given = _read(
        where,
        q=q,
        weight_variance=weight_variance,
        bias_variance=bias_variance,
        input_variance=input_variance,
    )
    if on_host(*given):
        q, weight_variance, bias_variance, input_variance = given
        return weight_variance * second_moment(activation, q) + (bias_variance + input_variance)
    q, weight_variance, bias_variance, input_variance = _floats(*given)
    return weight_variance * _vectorized(_second, activation, q) + bias_variance + input_variance


def chi(activation: Any, q: Any, weight_variance: Any, c: Any = 1.0) -> Any:
    """The slope of the correlation map at correlation c and fixed length q; at c = 1, the growth of gradients.

        chi(c) = sigma_w^2 E[phi'(u) phi'(v)],   Var u = Var v = q,   corr(u, v) = c

    At c = 1 this is chi_1 = sigma_w^2 E[phi'^2] (Schoenholz et al. 2017): the factor a layer on the mean
    square of gradients, and on the distance of two almost equal inputs: below 1 ordered, above 1 chaotic.

    Example:
        >>> from jaxinit.meanfield import chi
        >>> round(chi("erf", 0.51718, 1.37584), 5)
        1.0
    """
    where = "chi"
    activation = resolve(where, activation)
    q, weight_variance = _read(where, q=q, weight_variance=weight_variance)
    c = checks.reals(where, "c", c, at_least=-1.0, at_most=1.0)
    if on_host(q, weight_variance, c):
        if c == 1.0 or q == 0.0:
            return weight_variance * slope_second_moment(activation, q)
        return weight_variance * pair(activation, q, q, 1.0 - c).slope_product
    if on_host(c) and c == 1.0:
        q, weight_variance = _floats(q, weight_variance)
        return weight_variance * _vectorized(_slope_second, activation, q)
    q, weight_variance, c = _floats(q, weight_variance, c)
    _, _, slopes = _vectorized(_traced_pair, activation, q, q, 1.0 - c)
    return weight_variance * slopes


def correlation_map(
    activation: Any,
    c: Any,
    q: Any,
    weight_variance: Any,
    bias_variance: Any = 0.0,
    *,
    input_variance: Any = 0.0,
    input_correlation: Any = 1.0,
) -> Any:
    """One layer's map of the correlation of two inputs' pre-activations, at infinite width.

        C(c) = (sigma_w^2 E[phi(u) phi(v)] + sigma_b^2 + v c_x) / sqrt(Q(q_a) Q(q_b)),   corr(u, v) = c

    At a fixed point q* of the length map this is the map of Poole et al. 2016. Near c = 1 use
    `one_minus_correlation_map`, which loses nothing.

    Args:
        activation: name, callable or Activation.
        c: correlation (cosine) of the two pre-activations, in [-1, 1].
        q: their mean square, or a pair (q_a, q_b) of them.
        weight_variance: sigma_w^2.
        bias_variance: sigma_b^2.
        input_variance: v of a recurrent network that reads an input at every step, as in `length_map`.
        input_correlation: c_x, the cosine of the two inputs of this step, in [-1, 1].

    Example:
        >>> from jaxinit.meanfield import correlation_map
        >>> round(correlation_map("relu", 0.0, 1.0, 2.0), 9)       # 1 / pi
        0.318309886
        >>> round(correlation_map("relu", 0.0, (1.0, 5.0), 2.0), 9)
        0.318309886
    """
    where = "correlation_map"
    c = checks.reals(where, "c", c, at_least=-1.0, at_most=1.0)
    read = input_variance, input_correlation
    return 1.0 - _one_minus(where, activation, 1.0 - c, q, weight_variance, bias_variance, *read)


def one_minus_correlation_map(
    activation: Any,
    epsilon: Any,
    q: Any,
    weight_variance: Any,
    bias_variance: Any = 0.0,
    *,
    input_variance: Any = 0.0,
    input_correlation: Any = 1.0,
) -> Any:
    """The correlation map in epsilon = 1 - c: 1 - C(1 - epsilon), without cancellation for any epsilon > 0.

    For equal lengths it is sigma_w^2 E[(phi(u) - phi(v))^2] / (2 Q(q)). Arguments as in `correlation_map`,
    with `epsilon` in [0, 2].

    Example:
        >>> from jaxinit.meanfield import one_minus_correlation_map
        >>> f"{one_minus_correlation_map('relu', 1e-12, 1.0, 2.0):.9e}"
        '9.999996999e-13'
    """
    where = "one_minus_correlation_map"
    epsilon = checks.reals(where, "epsilon", epsilon, at_least=0.0, at_most=2.0)
    read = input_variance, input_correlation
    return _one_minus(where, activation, epsilon, q, weight_variance, bias_variance, *read)


def _one_minus(
    where: str,
    activation: Any,
    epsilon: Any,
    q: Any,
    weight_variance: Any,
    bias_variance: Any,
    input_variance: Any,
    input_correlation: Any,
) -> Any:
    activation = resolve(where, activation)
    qa, qb = _both_lengths(where, q)
    weight_variance, bias_variance, input_variance = _read(
        where, weight_variance=weight_variance, bias_variance=bias_variance, input_variance=input_variance
    )
    input_correlation = checks.reals(
        where, "input_correlation", input_correlation, at_least=-1.0, at_most=1.0
    )
    given = epsilon, qa, qb, weight_variance, bias_variance, input_variance, input_correlation
    if on_host(*given):
        return _host_one_minus(activation, *given)
    epsilon, qa, qb, weight_variance, bias_variance, v, c_x = _floats(*given)
    added = bias_variance + v
    mapped = _traced_one_minus(activation, epsilon, qa, qb, weight_variance, added)
    if on_host(input_variance, input_correlation) and (input_variance == 0.0 or input_correlation == 1.0):
        return mapped
    roots = [jnp.sqrt(weight_variance * _vectorized(_second, activation, x) + added) for x in (qa, qb)]
    return mapped + v * (1.0 - c_x) / (roots[0] * roots[1])


def _host_one_minus(
    activation: Activation, epsilon: float, qa: float, qb: float, sw2: float, sb2: float, v: float, c_x: float
) -> float:
    mapped = next_epsilon(activation, epsilon, qa, qb, sw2, sb2 + v)  # equal inputs are as a bias
    if v == 0.0 or c_x == 1.0:
        return mapped
    lengths = [sw2 * second_moment(activation, x) + sb2 + v for x in (qa, qb)]
    return mapped + v * (1.0 - c_x) / math.sqrt(lengths[0] * lengths[1])


def _traced_combination(
    activation: Activation,
    epsilon: jax.Array,
    qa: jax.Array,
    qb: jax.Array,
    weight_variance: jax.Array,
    bias_variance: jax.Array,
) -> jax.Array:
    ea, eb = _vectorized(_second, activation, qa), _vectorized(_second, activation, qb)
    _, difference, _ = _vectorized(_traced_pair, activation, qa, qb, epsilon)
    return combine(difference, ea, eb, weight_variance, bias_variance, jnp)


_traced_one_minus = jax.custom_jvp(_traced_combination, nondiff_argnums=(0,))


@_traced_one_minus.defjvp
def _traced_one_minus_jvp(activation: Activation, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """By epsilon: sigma_w^2 sqrt(q_a q_b) E[phi'(u) phi'(v)] / sqrt(Q_a Q_b), also at epsilon = 0."""
    epsilon, qa, qb, weight_variance, bias_variance = primals
    value, rest = jax.jvp(
        functools.partial(_traced_combination, activation, epsilon), primals[1:], tangents[1:]
    )
    both = [weight_variance * _vectorized(_second, activation, q) + bias_variance for q in (qa, qb)]
    slopes = _vectorized(_traced_pair, activation, qa, qb, epsilon)[2]
    slope = weight_variance * slopes * jnp.sqrt(qa / both[0]) * jnp.sqrt(qb / both[1])
    return value, rest + slope * tangents[0]


def combine(difference: Any, ea: Any, eb: Any, weight_variance: Any, bias_variance: Any, xp: Any) -> Any:
    """1 - c of the next pre-activations, from 1 - cosine of the activations and their mean squares ea, eb."""
    a, b = xp.sqrt(ea), xp.sqrt(eb)
    both = xp.sqrt((weight_variance * ea + bias_variance) * (weight_variance * eb + bias_variance))
    lengths = (
        weight_variance * bias_variance * (a - b) * (a - b) / (both + bias_variance + weight_variance * a * b)
    )
    return (weight_variance * a * b * difference + lengths) / both


def next_epsilon(
    activation: Activation, epsilon: float, qa: float, qb: float, weight_variance: float, bias_variance: float
) -> float:
    """The map of 1 - c, on the host; nan where a length is 0 or infinite after the layer."""
    ea, eb = second_moment(activation, qa), second_moment(activation, qb)
    if weight_variance * ea + bias_variance <= 0.0 or weight_variance * eb + bias_variance <= 0.0:
        return math.nan
    if not (math.isfinite(ea) and math.isfinite(eb)):
        return math.nan
    if qa == 0.0 or qb == 0.0 or ea == 0.0 or eb == 0.0:
        difference = 0.0 if ea > 0.0 and eb > 0.0 else 1.0
        if ea > 0.0 and eb > 0.0:  # a constant against a spread one
            means = [moments(activation, v).mean if v > 0.0 else _at_zero(activation)[0] for v in (qa, qb)]
            difference = 1.0 - means[0] * means[1] / math.sqrt(ea * eb)
    elif epsilon == 0.0 and qa == qb:
        difference = 0.0
    else:
        difference = host_pair(activation, qa, qb, epsilon).difference
    return float(combine(difference, ea, eb, weight_variance, bias_variance, np))


@functools.lru_cache(maxsize=1024)
def host_pair(activation: Activation, qa: float, qb: float, epsilon: float) -> Pair:
    return pair(activation, qa, qb, epsilon)


@functools.lru_cache(maxsize=512)
def _at_zero(activation: Activation) -> tuple[float, float]:
    """phi(0), and the mean of phi'^2 over both sides of 0."""
    from jaxinit.activations._host import evaluate

    phi, slope = evaluate(activation, np.asarray([0.0, -1e-150, 1e-150]))
    with np.errstate(over="ignore"):
        return float(phi[0]), 0.5 * float(slope[1] ** 2 + slope[2] ** 2)


def second_moment(activation: Activation, q: float) -> float:
    """E[phi(sqrt(q) z)^2] for q >= 0."""
    return moments(activation, q).second if q > 0.0 else _at_zero(activation)[0] ** 2


def slope_second_moment(activation: Activation, q: float) -> float:
    """E[phi'(sqrt(q) z)^2] for q >= 0."""
    return moments(activation, q).slope_second if q > 0.0 else _at_zero(activation)[1]


def value_at_zero(activation: Activation) -> float:
    """phi(0)."""
    return _at_zero(activation)[0]


def _read(where: str, **values: Any) -> tuple[Any, ...]:
    """Variances: floats, or arrays, of at least 0."""
    return tuple(checks.reals(where, name, value, at_least=0.0) for name, value in values.items())


def variances(where: str, name: str, values: Any) -> np.ndarray:
    """Finite variances of at least 0 along an axis, 1-D, from one of them or several."""
    array = np.atleast_1d(np.asarray(checks.reals(where, name, values), np.float64))
    if array.ndim != 1 or array.size == 0:
        raise checks.bad(where, name, "a 1-D sequence of variances", np.shape(values))
    if not (good := np.isfinite(array) & (array >= 0.0)).all():
        raise checks.bad(where, name, "finite and at least 0", array[~good][:3].tolist())
    return array


def _both_lengths(where: str, q: Any) -> tuple[Any, Any]:
    """The lengths of a pair of inputs, from one length or two."""
    if not isinstance(q, (tuple, list)):
        (q,) = _read(where, q=q)
        return q, q
    if len(q) != 2:
        raise checks.bad(where, "q", "a number, an array or a pair (q_a, q_b)", q)
    return checks.reals(where, "q", q[0], at_least=0.0), checks.reals(where, "q", q[1], at_least=0.0)


def _floats(*values: Any) -> tuple[jax.Array, ...]:
    dtype = jnp.result_type(*(v for v in values if not on_host(v)))
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return tuple(jnp.asarray(v, dtype=dtype) for v in values)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _vectorized(function: Any, activation: Activation, *arguments: jax.Array) -> Any:
    """A function of scalars over arrays of one broadcast shape, a few points at a time."""
    shape = jnp.broadcast_shapes(*(a.shape for a in arguments))
    flat = [jnp.broadcast_to(a, shape).reshape(-1) for a in arguments]
    f = functools.partial(function, activation)
    if shape == ():
        return f(*arguments)
    out = jax.lax.map(lambda row: f(*row), tuple(flat), batch_size=8)
    return jax.tree.map(lambda v: v.reshape(shape), out)


def _fixed(activation: Activation) -> Any:
    """What differentiation may do to nodes: hold them still, unless they must follow a kink."""
    return (lambda nodes: nodes) if activation.kinks else jax.lax.stop_gradient


def _second(activation: Activation, q: jax.Array) -> jax.Array:
    scale = jnp.sqrt(jnp.maximum(q, jnp.finfo(q.dtype).tiny))
    z, w = _fixed(activation)(gaussian_rule(edges(activation, _TRACED_RADIUS), scale, _ORDER, xp=jnp))
    return jnp.sum(w * jnp.square(activation(scale * z)))


def _slope_second(activation: Activation, q: jax.Array) -> jax.Array:
    scale = jnp.sqrt(jnp.maximum(q, jnp.finfo(q.dtype).tiny))
    z, w = _fixed(activation)(gaussian_rule(edges(activation, _TRACED_RADIUS), scale, _ORDER, xp=jnp))
    return jnp.sum(w * jnp.square(activation.derivative(scale * z)))


def _traced_pair(activation: Activation, qa: jax.Array, qb: jax.Array, epsilon: jax.Array) -> Any:
    """(product, difference, slope_product) as in `Pair`."""
    tiny = jnp.finfo(qa.dtype).tiny
    a, b = (jnp.sqrt(jnp.maximum(q, tiny)) for q in (qa, qb))
    kinks = np.asarray(activation.kinks)
    sign = jnp.where(epsilon <= 1.0, 1.0, -1.0).astype(qa.dtype)
    near = jnp.clip(jnp.where(epsilon <= 1.0, epsilon, 2.0 - epsilon), 0.0, 1.0)
    radius = _TRACED_RADIUS
    u, v, w = pair_rule(
        edges(activation, radius),
        kinks,
        ladder(activation, radius / 4),
        (a, b),
        near,
        sign,
        jnp,
        _fixed(activation),
    )
    phi_u, slope_u = activation.value_and_derivative(u)
    phi_v, slope_v = activation.value_and_derivative(v)
    ra, rb = (
        jnp.sqrt(jnp.where(r > 0.0, r, 1.0)) for r in (_second(activation, qa), _second(activation, qb))
    )
    difference = 0.5 * jnp.sum(w * jnp.square(phi_u / ra - phi_v / rb))
    return jnp.sum(w * phi_u * phi_v), difference, jnp.sum(w * slope_u * slope_v)
