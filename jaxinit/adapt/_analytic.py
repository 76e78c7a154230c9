"""The analytic method: second moments propagated through the model's own operations, and the scales that keep them.

AutoInit (Bingham & Miikkulainen 2023, "AutoInit: analytic signal-preserving weight initialization for neural networks")
propagates a mean and a variance from layer to layer. Here covariances travel too, by agreement of indices, so that
pooling, attention and sums of values with common ancestors are seen; and the program itself is followed, so that no
layer needs to be known by name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.adapt._analytic_fields import Field, atoms_of, fresh_axes
from jaxinit.adapt._analytic_values import Known, Value, field_of_data, from_moments, white
from jaxinit.adapt._analytic_walk import Found, Walk
from jaxinit.adapt._calibrate_case import Case, Outcome, ownership, scaled_leaves
from jaxinit.adapt._lsuv import lsuv
from jaxinit.probe import Drawn, Products, batches, products, sketch
from jaxinit.records import Propagation, Statistic, provenance

__all__ = ["DIRECTIONS", "analytic", "analyze"]

DIRECTIONS = ("forward", "backward", "both")
_MOST = 12
#: Scales that move less than this are at rest.
_REST = 3e-3
#: What second moments of the sites next to the inputs are moved by, as a log, to see what becomes of it; and how much
#: it may grow. Where it grows g times, examples whose squares vary by V, relative to their mean squared, add about
#: g (g - 1) V / 2 to the mean.
_BESIDE, _STABLE = 1e-3, 1.5


def analytic(case: Case) -> Outcome:
    """Scale every site so that the analysis finds its statistic at its target. Nothing is run through the model,
    but for sites where the analysis says that it may be wrong: those are measured on the batch (forward only).

    Options: `direction`, one of `DIRECTIONS`:

        "forward"    own(s) + rest = target                              (rest: biases)
        "backward"   the gradient's second moment is the same at the site and at those before
        "both"       2 / s^2 = 1 / forward + 1 / backward, as Glorot & Bengio (2010) average 1 / fan
    """
    direction = checks.choice("calibrate", "direction", case.options.get("direction", "forward"), DIRECTIONS)
    if any(case.bias):
        raise checks.bad(
            "calibrate", "biases", "'keep' with method='analytic'", "centre", "Use method='lsuv'."
        )
    count = len(case.own)
    owners = ownership(case.products, case.own)
    none = ownership(case.products, [()] * count)
    factors, iterations = np.ones(count), np.zeros(count, int)
    fixed = np.zeros(count, bool)
    searched = _Search(case, owners, direction)
    inputs = inputs_of(case.batches)
    # Rounded to their own type they would not show the small changes of scale that are tried here.
    precise = [
        v.astype(np.promote_types(v.dtype, np.float32)) if jnp.issubdtype(v.dtype, jnp.floating) else v
        for v in case.leaves
    ]

    def walk(scale: Any = None) -> Walk:
        scaled = scaled_leaves(precise, owners, jnp.asarray(factors), none, jnp.zeros(count))
        leaves = scaled if (factors != 1).any() else precise
        return Walk(case.products, [np.asarray(v) for v in leaves], case.state, inputs, case.key, scale)

    first = walk()
    before = _statistics(first, case)
    evaluations, latest = 1, first
    for _ in range(_MOST):
        # What is going to be measured need not come to rest here.
        noted = np.array([any(f.notes for f in latest.found.get(n, ())) for n in range(count)])
        noted &= direction == "forward"
        if noted[case.movable].all():
            break
        searched.begin(latest, fixed)
        walk(searched.scale)
        moved = np.where(fixed, 1.0, searched.chosen)
        previous = {n: _fan(f) for n, f in latest.found.items()}
        factors *= moved
        changed = np.abs(np.log(moved)) > _REST
        iterations += changed
        latest = walk()
        evaluations += 2
        for n in np.flatnonzero(changed):
            if math.isclose(_fan(latest.found.get(int(n), [])), previous.get(int(n), math.nan), rel_tol=1e-3):
                fixed[n], factors[n] = True, 1.0
        if not changed.any() or (fixed | noted)[changed].all():
            break
    after = _statistics(latest, case)
    told = [_status(case, n, latest, float(after[n]), bool(fixed[n]), direction) for n in range(count)]
    set_here = [n for n in range(count) if case.own[n] and told[n][0] == "converged"]
    if set_here:
        lead = [n for n in set_here if not any(f.sources for f in latest.found[n])] or set_here[:1]
        factors[lead] *= math.exp(_BESIDE / 2)
        with np.errstate(invalid="ignore"):  # behind a kernel of zeros it is 0 / 0, nan: nothing grows there
            grown = np.log(_statistics(walk(), case) / after) / _BESIDE
        factors[lead] /= math.exp(_BESIDE / 2)
        evaluations += 1
        told = [_unstable(*each, float(grown[n])) for n, each in enumerate(told)]
    doubtful = np.array([bool(own) and _doubtful(*each) for own, each in zip(case.own, told, strict=True)])
    if direction == "forward" and doubtful.any():
        leaves = scaled_leaves(case.leaves, owners, jnp.asarray(factors), none, jnp.zeros(count))
        own = tuple(layers if d else () for layers, d in zip(case.own, doubtful, strict=True))
        seen = lsuv(dataclasses.replace(case, leaves=tuple(leaves), own=own))
        factors, iterations = factors * seen.factors, iterations + seen.iterations
        after = np.where(doubtful, seen.after, after)
        evaluations += seen.evaluations
        told = [
            _measured(*now, why) if d else (status, why)
            for d, now, (status, why) in zip(doubtful, seen.status, told, strict=True)
        ]
    return Outcome(factors, np.zeros(count), before, after, iterations, tuple(told), evaluations)


def _doubtful(status: str, why: str) -> bool:
    """Whether the analysis says that it might be wrong there."""
    return status in ("unstable", "not converged") or (status == "converged" and bool(why))


def _measured(status: str, why: str, doubt: str) -> tuple[str, str]:
    return status, "; ".join(["measured on the batch", *([why] if why else []), *([doubt] if doubt else [])])


def _unstable(status: str, why: str, grown: float) -> tuple[str, str]:
    """What is predicted holds as far as errors do not grow: a layer of finite width makes one, of order 1 / width."""
    if status != "converged" or not grown > _STABLE:
        return status, why
    error = f"an error of the first site arrives here {grown:.3g} times as large"
    return "unstable", f"{error}, and weights of finite width make one"


def _fan(found: Sequence[Found]) -> float:
    return max((f.fan for f in found), default=math.nan)


class _Search:
    """The factors of one pass, chosen as the sites are reached."""

    def __init__(self, case: Case, owners: Sequence[Any], direction: str) -> None:
        self.case, self.direction = case, direction
        self.owner = [self._owner(owners, product) for product in case.products.products]
        self.chosen = np.ones(len(case.own))
        self.planned: dict[int, float] = {}
        self.set: set[int] = set()
        self.fixed = np.zeros(len(case.own), bool)

    def _owner(self, owners: Sequence[Any], product: Any) -> int:
        """The site whose factor multiplies the kernel, or -1."""
        known = [(owners[layer.parameter], layer.at) for layer in product.kernel]
        found = {int(o) for own, at in known for o in np.ravel(-1 if own is None else own[at])}
        return found.pop() if len(found) == 1 else -1

    def begin(self, latest: Walk, fixed: np.ndarray) -> None:
        """A new pass: sites that are evaluated often take the factor that suits all evaluations of the last one."""
        self.chosen[:] = 1.0
        self.set.clear()
        self.fixed = fixed
        self.planned = {n: self._factor(n, found) for n, found in latest.found.items() if len(found) > 1}

    def scale(self, index: int, found: Found) -> float:
        owner = self.owner[index]
        if owner < 0 or self.fixed[owner]:
            return 1.0
        if owner == index and index not in self.set:
            self.set.add(index)
            self.chosen[index] = self.planned.get(index) or self._factor(index, [found])
        return float(self.chosen[owner])

    def _factor(self, index: int, found: Sequence[Found]) -> float:
        """What brings the mean over evaluations to the target."""
        target = float(self.case.targets[index])
        centred = self.case.statistic == "variance"
        own = float(np.mean([f.own + (0.0 if centred else f.shift**2) for f in found]))
        rest = float(np.mean([f.second - (f.mean**2 if centred else 0.0) for f in found])) - own
        if not self.case.own[index] or not own > 0 or not math.isfinite(own) or math.isnan(target):
            return 1.0
        forward = (target - rest) / own
        gain = self.gain(found)
        if self.direction == "forward" or not gain > 0:
            return math.sqrt(forward) if forward > 0 else 1.0
        backward = 1.0 / gain
        if self.direction == "backward":
            return math.sqrt(backward)
        return math.sqrt(2.0 / (1.0 / forward + 1.0 / backward)) if forward > 0 else math.sqrt(backward)

    @staticmethod
    def gain(found: Sequence[Found]) -> float:
        """Growth of the gradient's second moment from the site to those before; 0 where there are none."""
        values = [
            f.size * f.fan * f.slope / sum(f.sources.values())
            for f in found
            if f.sources and math.isfinite(f.slope)
        ]
        return float(np.mean(values)) if values else 0.0


def inputs_of(data: Sequence[Any], x: Any = None) -> list[Value]:
    """The call's arguments as values: arrays by their moments, those of which `x` gives but a shape as N(0, 1)."""
    out: list[Value] = []
    given = jax.tree.leaves(x[0] if isinstance(x, list) else x)
    for n, leaves in enumerate(zip(*(jax.tree.leaves(batch) for batch in data), strict=True)):
        first = leaves[0]
        if given and isinstance(given[n], jax.ShapeDtypeStruct):
            out.append(white(first.shape))
        elif jnp.issubdtype(first.dtype, jnp.floating) and first.size > 1:
            whole = field_of_data(np.concatenate([np.asarray(v, np.float64) for v in leaves]))
            out.append(_for_one(whole, first.shape))
        else:
            out.append(Known(np.asarray(first)))
    return out


def _for_one(whole: Field, shape: Sequence[int]) -> Field:
    """The field of several batches, of the examples of one."""
    if whole.shape == tuple(shape):
        return whole
    table = whole.table()[1] if shape[0] == 1 else whole.table()
    axes = fresh_axes(shape)
    for one, several in zip(atoms_of(axes)[::-1], atoms_of(whole.axes)[::-1], strict=False):
        one.near = several.near
    return from_moments(axes, whole.mean, table)


def _statistics(walk: Walk, case: Case) -> np.ndarray:
    out = np.full(len(case.own), np.nan)
    for n, found in walk.found.items():
        second, mean = np.mean([f.second for f in found]), np.mean([f.mean for f in found])
        out[n] = second - mean**2 if case.statistic == "variance" else second
    return out


def _status(case: Case, n: int, walk: Walk, after: float, fixed: bool, direction: str) -> tuple[str, str]:
    found = walk.found.get(n, [])
    notes = "; ".join(sorted({note for f in found for note in f.notes}))
    kept = case.kept[n]
    if not found:
        return "unused", "the analysis did not reach it"
    if kept is not None:
        return kept
    if after == 0:
        return "dead", "it is given zeros, or what it is multiplied with is 0"
    if fixed:
        return "constant", "its parameters are divided by their own size before they are used"
    if not all(f.fan > 0 for f in found) and not any(f.own > 0 for f in found):
        return "not converged", f"no rule says how it depends on its parameters{': ' if notes else ''}{notes}"
    if direction != "forward":
        gain = _Search.gain(found)
        return "converged", f"{direction}: gradients grow by {gain:.3g} across it" if gain else notes
    target = case.targets[n]
    if abs(after / target - 1) <= case.tolerance:
        return "converged", notes
    return (
        "not converged",
        notes or f"{case.statistic} {after:.3g} instead of {target:.3g}; its bias is not scaled with it",
    )


def analyze(
    model: Any,
    x: Any,
    *,
    params: Any = None,
    key: Any = None,
    train: bool = False,
    call: Any = None,
) -> Propagation:
    """What theory says of a model: mean and second moment at every product of parameters with the signal.

    The model's program is followed with random fields in place of arrays: nothing is run, and no batch is drawn.

        dense, conv    E[z z'] = n sigma_w^2 E[h h'] (+ bias), between any two entries
        elementwise    all of it between two products as one function, by Gaussian quadrature between kinks
        sum, product   covariances of common ancestors included
        norms          divided by the root of the expected mean square
        softmax        of exchangeable Gaussian logits, and its logarithm, exactly
        pooling        the largest of a window of equally correlated entries of unequal strength, by quadrature
        edges          which taps of a kernel are inside, for each position and each pair of them

    Args:
        model: as for `probe`.
        x: a batch, of which only means and covariances are used; or `jax.ShapeDtypeStruct`s, for independent entries
            of mean 0 and variance 1. Tokens and masks are used as they are.
        params: parameters; by default the laws of the model's own initializers, read from the program that draws.
        key: `jax.random.key(0)` by default.
        train, call: as for `calibrate`.

    Returns:
        A Propagation of source "theory", to lay over one of `probe(model, x, sites="ops")`: `second_moment` and `mean`
        at the same sites, loops that use the same parameters again averaged. `opaque` lists what there was no rule for
        (it was run once on random inputs of the analysed moments), and what was taken for alike.

    Raises:
        ValueError, TypeError: as `probe`.

    Holds for wide layers with independent weights: the error of a site falls as 1/width, times its depth. A weight that
    is used again (recurrence, tied embeddings) is taken for freshly drawn every time. Positions are exchangeable,
    but for their strengths near the edges of convolutions and for how alike neighbours are, one number an axis. Pairs
    of positions are unequally alike as far as finitely many units and repeated tokens make them (attention goes to
    keys that are alike, so what it reads is larger); not as far as the batch does.

    Example:
        >>> import jax, flax.linen as nn
        >>> from jaxinit.adapt import analyze
        >>> model = nn.Sequential([nn.Dense(512), nn.relu, nn.Dense(512), nn.relu, nn.Dense(10)])
        >>> run = analyze(model, jax.ShapeDtypeStruct((8, 256), "float32"))
        >>> run.sites, run.second_moment.mean[:, 0].round(1).tolist()
        (('layers_0', 'layers_2', 'layers_4'), [1.0, 0.5, 0.2])
    """
    where = "analyze"
    key = (
        jax.random.key(0, impl="threefry2x32") if key is None else checks.require_threefry(where, "key", key)
    )
    data = batches(x, key, where=where)
    traced = products(model, data[0], params=params, train=train, method=call, where=where)
    leaves, state = drawn(traced, data[0], params, key)
    walk = Walk(traced, leaves, state, inputs_of(data, x), key)
    return propagation_of(traced, walk)


def drawn(traced: Products, args: Any, params: Any, key: Any) -> tuple[list[Any], Any]:
    """The parameters of a traced model, in order, as arrays or laws, and its other collections."""
    if traced.model.given is not None:
        leaves, state = jax.tree.leaves(traced.model.given[0]), traced.model.given[1]
    else:
        leaves, state = sketch(traced, args, key)
    leaves = leaves if params is None else jax.tree.leaves(params)
    return [v if isinstance(v, Drawn) else np.asarray(v) for v in leaves], state


def propagation_of(traced: Products, walk: Walk) -> Propagation:
    """The record of a walk."""
    seen = [n for n in range(len(traced.products)) if n in walk.found]
    means = np.array([[np.mean([f.mean for f in walk.found[n]])] for n in seen])
    seconds = np.array([[np.mean([f.second for f in walk.found[n]])] for n in seen])
    notes = sorted({note for n in seen for f in walk.found[n] for note in f.notes})
    with np.errstate(divide="ignore"):
        logs = np.log(seconds)
    return Propagation(
        "theory", tuple(traced.products[n].name for n in seen), 1, second_moment=Statistic.exact(seconds),
        log_second_moment=Statistic.exact(logs), mean=Statistic.exact(means), opaque=tuple(notes),
        config={"label": traced.model.name}, provenance=provenance(),
    )  # fmt: skip
