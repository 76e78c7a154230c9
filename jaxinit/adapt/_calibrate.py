"""`calibrate`: parameters with which a model's signal survives, and a record of what was changed.

A method is a function `Case -> Outcome` (`_calibrate_case`), entered in `_METHODS` under its name; this file
draws the parameters, decides which site owns which of them, and turns the outcome into parameters and a record. The
sites are `case.products.products` in the order of execution; a method returns a factor for each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from jaxinit._core import checks
from jaxinit.adapt._analytic import DIRECTIONS, analytic
from jaxinit.adapt._calibrate_case import Case, Outcome, ownership, scaled_leaves
from jaxinit.adapt._calibrate_critical import critical_scales
from jaxinit.adapt._calibrate_start import STARTS, begin
from jaxinit.adapt._gradient import learned
from jaxinit.adapt._lsuv import lsuv
from jaxinit.adapt._targets import any_of, choose, level_of, matched, patterns, targets_of
from jaxinit.models import Model, abstract, filled, fitted
from jaxinit.probe import Products, batches, products, remarks
from jaxinit.records import CalibratedSite, Calibration, provenance

__all__ = ["METHODS", "calibrate"]

_METHODS: dict[str, Callable[[Case], Outcome]] = {
    "lsuv": lsuv, "analytic": analytic, "critical": critical_scales, "gradient": learned,
}  # fmt: skip
METHODS = tuple(_METHODS)


def calibrate(
    model: Any,
    x: Any,
    key: Any,
    *,
    method: str = "lsuv",
    target: Any = "unit",
    params: Any = None,
    start: str = "own",
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    scales: str | Sequence[str] | None = None,
    statistic: str | None = None,
    biases: str = "keep",
    tolerance: float = 0.01,
    passes: int = 10,
    direction: str = "forward",
    steps: int = 100,
    loss: Callable[..., Any] | None = None,
    labels: Any = None,
    train: bool = False,
    rngs: Mapping[str, Any] | None = None,
    call: Any = None,
) -> tuple[Any, Calibration]:
    """Initial parameters with which the model's signal survives, whatever the model, and what was changed and why.

    Every product of a parameter with the signal (dense layer, convolution, projection of an attention, lookup in an
    embedding; each layer of a scanned stack) is a site. Its kernel W is scaled, W <- s W, until a statistic of its
    value z (bias included) is at its target:

        "lsuv":  <z^2> = target, the mean over examples, positions and units, site after site in the order in which
                 the model runs (Mishkin & Matas 2015, "All you need is a good init")
        "analytic":  E[z^2] = target, computed from the model's own operations, no data needed: of x only means and
                 covariances count, and shapes will do (in the spirit of AutoInit, Bingham & Miikkulainen 2023); see
                 `jaxinit.adapt.analyze` for what it assumes. Where it may be wrong (no rule, alike neighbours in a
                 pooling window, errors that grow on the way) the site is measured instead, and says so
        "critical":  |dL/dz|^2, the mean over examples and random cotangents, is the same at the first and the last
                 site, and at all between that everything passes through; measured as a whole, so that directions which
                 all layers share count as the loss will see them. Begins with "lsuv" and leaves <z^2> = target as
                 little as it can, by a factor 16 at most. Levels are within 20 %, or the status says what is in the way
        "gradient":  minimize GQ = mean over parameters |(g - H g) / (g + eps sgn g) - 1|, g gradient and H Hessian of
                 the loss, over ln(s) of all sites together, by Adam (MetaInit, Dauphin & Schoenholz 2019, who step by
                 the sign of the gradient). Targets play no part; its loss should be the one to be trained

    Behind a normalization the scale of a site decides about the gradient at that site, and about no signal or gradient
    beyond; in a stretch of ReLU-like layers one scale fixes both signal and gradient.

    "lsuv" goes through the model once, from the first layer to the last: what lies between two sites is run on every
    batch, the site is read and scaled, run again until it is at its target (or its value multiplied, where that is the
    same), and only then what comes after it. The layers of a scanned stack are one stretch; in it, sites whose
    statistic is a power of the scales above them (linear and ReLU-like) move together. Where `before` does not follow
    from such powers the model is also run as drawn. What lies between two sites is compiled once for all that are
    alike, in this model and the next; the searches of "critical" and "gradient" are compiled as a whole.

    Args:
        model: as for `probe`: a linen module, an nnx factory `rngs -> module` or an nnx module, a pair (init, apply),
            or a `jaxinit.models.Model`. It is left as it was.
        x: a batch, as for `probe`; a list of batches of the same shapes is averaged over. They take turns in the
            programs of one batch, but what lies between two sites is held for all of them: memory as for one batch of
            their size.
        key: draws the parameters, as `model.init(key, x)` does, and whatever else is random.
        method: "lsuv", "analytic", "critical" or "gradient".
        target: "unit", 1; "preserve", the second moment of the inputs; a number; or a dict from patterns of
            sites or parameters to numbers, of which the first that matches counts (sites without one are left alone).
            Of method "critical" also "update_ratio", |dL/dW| / |W| is the same for all sites' weights, so that one
            learning rate suits them all; and "chi_1", |dz/dz_p|_F^2 / n = 1, p the layer before, n the units of z
            (partial Jacobians: Doshi, He & Gromov 2023): local, and the gradient as a whole can drift all the same.
        params: parameters to begin with, instead of a draw, as for `probe`: a tree (`variables["params"]`, `variables`,
            `nnx.state(module)`), or the folder of an Orbax checkpoint. What is not trained and not in it is drawn.
        start: "own", the model's own draw; or "orthonormal", kernels drawn anew with orthonormal rows or columns
            (as in the paper), but for those that are 0 and for embeddings.
        include, exclude: glob patterns of parameters ("encoder/**/kernel") or sites ("head"): scale only these, or
            all but these.
        scales: patterns of parameters that multiply the signal entry by entry (LayerScale's gains, the number before a
            residual branch), to be sites as well. The gain of a norm is none: it multiplies the inverse of the norm.
        statistic: "second moment", or "variance" about the mean over all examples and units, as in the paper; they
            agree where that mean is 0. Default: "variance" with biases="centre", else "second moment".
        biases: "keep"; or "centre": each bias is also shifted by one number, so that the mean of its site is 0.
        tolerance: how far a statistic may stay from its target, relative.
        passes: how often a site may be scaled; 1 is enough wherever the value is proportional to the scale.
        direction: of method "analytic": "forward", signals; "backward", gradients keep their second moment from
            each site to those before it; "both", 2 / s^2 = 1 / s_forward^2 + 1 / s_backward^2 (as Glorot & Bengio
            2010 average the fans).
        steps: of method "gradient".
        loss, labels: as for `probe`; for method "gradient". Without a loss it averages over random cotangents.
        train, rngs: as for `probe`.
        call: the method of the model to call instead of `__call__`: `probe(method=...)`.

    Returns:
        (params, record). `params` is what the model's own `init` returns for a linen module (`variables["params"]`,
        with its boxes if `params` came in them) or a pair of functions. For nnx it is a new module with the
        parameters in it; the one given is left as it was. `record` is a `Calibration`: per site the scale and the
        statistic before and after, how many passes it took, and what became of it.

        Parameters that are 0 stay 0 (zero-initialized branches); a parameter used at several sites is scaled once,
        for the first; biases, norms' gains and other parameters that are no site's stay as they are.

    Raises:
        ValueError, TypeError: an argument breaks its rule, or the model cannot be called with x; before anything is
            compiled. A site that cannot be calibrated raises nothing: its status says why.

    Warns:
        UserWarning: the model does more than compute its output, as for `probe`; once for a model.

    Example:
        >>> import jax, flax.linen as nn
        >>> from jaxinit.adapt import calibrate
        >>> model = nn.Sequential([nn.Dense(64, kernel_init=nn.initializers.normal(3.0)), nn.relu, nn.Dense(10)])
        >>> x = jax.random.normal(jax.random.key(1), (32, 16))
        >>> params, record = calibrate(model, x, jax.random.key(0))
        >>> [(site.name, site.status, round(site.after, 2)) for site in record]
        [('layers_0', 'converged', 1.0), ('layers_2', 'converged', 1.0)]
        >>> round(float((model.apply({"params": params}, x) ** 2).mean()), 2)
        1.0
    """
    where = "calibrate"
    checks.choice(where, "method", method, METHODS)
    checks.choice(where, "direction", direction, DIRECTIONS)
    if direction != "forward" and method != "analytic":
        raise checks.bad(where, "direction", f"'forward' with method={method!r}", direction)
    steps = checks.integer(where, "steps", steps, at_least=1)
    checks.choice(where, "start", start, STARTS)
    checks.choice(where, "biases", biases, ("keep", "centre"))
    if method != "gradient" and (loss is not None or labels is not None):
        name = "labels" if loss is None else "loss"
        raise checks.bad(where, name, f"None with method={method!r}, which looks at no loss", name)
    if biases == "centre" and method in ("critical", "gradient"):
        raise checks.bad(where, "biases", f"'keep' with method={method!r}", biases)
    if statistic is None:
        statistic = "variance" if biases == "centre" else "second moment"
    checks.choice(where, "statistic", statistic, ("second moment", "variance"))
    if biases == "centre" and statistic != "variance":
        rule = "'variance' with biases='centre', which it does not change"
        raise checks.bad(where, "statistic", rule, statistic)
    checks.number(where, "tolerance", tolerance, above=0.0)
    passes = checks.integer(where, "passes", passes, at_least=1)
    if not (isinstance(key, jax.Array) and _is_key(key)):
        raise checks.wrong_type(where, "key", "a key", key, "For example jax.random.key(0).")
    level, moment = level_of(where, target, method)
    gains = patterns(where, "scales", scales)
    if gains and method == "analytic":
        raise checks.bad(
            where, "scales", "None with method='analytic'", [text for text, _ in gains],
            "The other methods measure what such a parameter multiplies.",
        )  # fmt: skip
    data = batches(x, key, where=where)
    targets = _labels(where, labels, len(data))
    found = _traced(
        model, data[0], given=params is not None, train=train, method=call, rngs=rngs, loss=loss,
        labels=None if targets is None else targets[0], scales=gains, where=where,
    )  # fmt: skip
    multiplied = {
        found.names[layer.parameter] for p in found.products if p.kind == "mul" for layer in p.kernel
    }
    rule = "patterns of parameters that multiply the signal entry by entry"
    matched(where, "scales", rule, gains, multiplied)
    wanted = targets_of(where, found, moment, data)
    given = found.model.given if params is None else _held(where, params, found)
    leaves, state, squares = begin(found, start, key, data[0], given)
    zero = tuple(square == 0 for square in squares)
    own, kept = choose(where, found, zero, include, exclude)
    unasked = np.isnan(wanted)
    own = tuple(() if nothing else layers for layers, nothing in zip(own, unasked, strict=True))
    kept = tuple(
        ("excluded", "") if nothing and reason is None else reason
        for reason, nothing in zip(kept, unasked, strict=True)
    )
    bias = _biases(found, own, biases)
    case = Case(
        found, tuple(leaves), state, data, key, own, kept, zero, bias, wanted, statistic, tolerance, passes,
        targets, {"direction": direction, "steps": steps, "level": level},
    )  # fmt: skip
    outcome = _METHODS[method](case)
    new = outcome.leaves
    if new is None:
        owner, shifted = ownership(found, own), ownership(found, bias)
        new = scaled_leaves(leaves, owner, outcome.factors, shifted, outcome.shifts)
    config = {
        "label": found.model.name, "method": method,
        "target": target if isinstance(target, (str, dict)) else float(target),
        "start": start if params is None else "params", "biases": biases, "tolerance": tolerance, "passes": passes,
        "train": train,
    }  # fmt: skip
    record = _record(case, outcome, method, squares, config)
    return _returned(model, params, found, new, state, key), record


_traces: list[tuple[Any, Products]] = []
_REMEMBERED = 8


def _traced(model: Any, x: Any, *, given: bool, labels: Any, **choices: Any) -> Products:
    """The same trace, and thus the same compiled programs, for the same model and batches alike."""
    if not isinstance(model, (nn.Module, Model)) or choices["rngs"] is not None:
        return _found(model, x, given, labels=labels, **choices)
    shapes = jax.eval_shape(lambda *trees: trees, labels, x)
    numerics = [getattr(jax.config, name) for name in ("jax_enable_x64", "jax_default_matmul_precision")]
    question = (model, given, shapes, numerics, choices)
    for asked, known in _traces:
        try:
            if bool(asked == question):
                return known
        except (TypeError, ValueError):  # modules that hold arrays are never alike
            continue
    found = _found(model, x, given, labels=labels, **choices)
    _traces.append((question, found))
    del _traces[:-_REMEMBERED]
    return found


def _found(model: Any, x: Any, given: bool, **choices: Any) -> Products:
    gains = choices.pop("scales")
    found = products(model, x, scales=lambda path: any_of(gains, {path}), **choices)
    for remark in remarks(found, draws=not given):
        warnings.warn(remark, UserWarning, stacklevel=4)
    return found


def _held(where: str, params: Any, found: Products) -> tuple[Any, Any]:
    """The parameters given, and what is not trained if that is given too: otherwise that of the module, or None."""
    trained, kept = found.abstract
    own = None if found.model.given is None else found.model.given[1]
    try:
        held = fitted(where, params, trained, kept)
    except ValueError:
        if not jax.tree.leaves(kept):
            raise
        held = fitted(where, params, trained, {})[0], own
    for name, leaf, like in zip(found.names, *map(jax.tree.leaves, (held[0], trained)), strict=True):
        if leaf.dtype != like.dtype:
            raise checks.bad(
                where, "params", f"of the model's dtypes ({name} is {like.dtype})", str(leaf.dtype)
            )
    return held


def _is_key(value: Any) -> bool:
    typed = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    return value.ndim == 0 if typed else value.dtype == jnp.uint32 and value.shape in ((2,), (4,))


def _labels(where: str, labels: Any, count: int) -> tuple[Any, ...] | None:
    if labels is None:
        return None
    given = labels if isinstance(labels, list) else [labels]
    if len(given) != count:
        raise checks.bad(where, "labels", f"a list of {count}, one for each batch of x", len(given))
    return tuple(jax.tree.map(jnp.asarray, each) for each in given)


def _biases(found: Products, own: Any, biases: str) -> tuple[Any, ...]:
    """By site, the layers of its bias that may be shifted: of one parameter that no other site adds."""
    if biases == "keep":
        return ((),) * len(own)
    uses: dict[Any, int] = {}
    for product in found.products:
        for layer in product.bias:
            uses[layer] = uses.get(layer, 0) + 1
    return tuple(
        product.bias if layers and len(product.bias) == 1 and uses[product.bias[0]] == 1 else ()
        for product, layers in zip(found.products, own, strict=True)
    )


def _record(
    case: Case, outcome: Outcome, method: str, squares: Sequence[np.ndarray], config: Any
) -> Calibration:
    targets = case.targets if outcome.targets is None else outcome.targets
    sites = []
    for n, product in enumerate(case.products.products):
        own = case.own[n]
        weights = [squares[layer.parameter][layer.at] for layer in own]
        sizes = [_size(case.products, layer.parameter) for layer in own]
        scale = float(np.sqrt(np.average(weights, weights=sizes))) if own else np.nan
        status, why = outcome.status[n]
        sites.append(
            CalibratedSite(
                product.name, product.kind, tuple(case.products.layer_name(layer) for layer in own), status,
                scale, scale * float(outcome.factors[n]), float(outcome.before[n]), float(outcome.after[n]),
                float(targets[n]), int(outcome.iterations[n]), why, float(outcome.shifts[n]),
            )
        )  # fmt: skip
    sites += [
        CalibratedSite(
            name, "parameter", (), "unused", np.nan, np.nan, np.nan, np.nan, np.nan, 0, "no computation reads it"
        )
        for name in unread(case.products)
    ]  # fmt: skip
    return Calibration(
        case.products.model.name, method, outcome.statistic or case.statistic, tuple(sites), outcome.evaluations,
        outcome.figures, config, provenance(),
    )  # fmt: skip


def unread(found: Products) -> list[str]:
    """The parameters that no equation reads."""
    jaxpr = found.traced.plan.block.jaxpr
    used = {id(v) for v in (*jaxpr.outvars, *(v for eqn in jaxpr.eqns for v in eqn.invars))}
    inputs = jaxpr.invars[: len(found.names)]
    return [name for name, v in zip(found.names, inputs, strict=True) if id(v) not in used]


def _size(found: Products, parameter: int) -> int:
    """Entries of one layer."""
    return int(np.prod(found.shapes[parameter][len(found.stacks[parameter]) :], dtype=np.int64))


def _returned(model: Any, params: Any, found: Products, leaves: Any, state: Any, key: Any) -> Any:
    """The parameters as the user of such a model holds them."""
    structure: Any = jax.tree.structure(found.abstract[0])
    new = jax.tree.unflatten(structure, leaves)
    if isinstance(model, nnx.Module):
        module = model
    elif found.model.marks and not isinstance(model, nn.Module):
        module = abstract(lambda: _made(model, key))
    else:
        alike = structure == jax.tree.structure(nn.unbox(params))
        return nn.meta.replace_boxed(params, new) if alike else new
    graph, *parts = nnx.split(module, nnx.Param, ...)
    parts[0] = filled(parts[0], new)
    if params is not None or not isinstance(model, nnx.Module):
        parts[1] = filled(parts[1], state)
    return nnx.merge(graph, *parts, copy=True)


def _made(factory: Any, key: Any) -> Any:
    rngs = nnx.Rngs(key)
    try:
        return factory(rngs=rngs)
    except TypeError:
        return factory(rngs)
