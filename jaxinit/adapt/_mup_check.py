"""The coordinate check: how the values of a model's layers, and their changes in training, depend on its width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.adapt._mup_table import check_model_fn
from jaxinit.probe import Products, batches, products, values
from jaxinit.records import WidthSlope, WidthTransfer, provenance

__all__ = ["coordinate_check"]

#: Of the key that draws targets: distinct from the small numbers that models fold in.
_TARGETS = 0x6A780200
#: Standard normal quantile of 95 % intervals.
_Z = 1.959963984540054


def coordinate_check(
    model_fn: Callable[[Any], Any],
    widths: Sequence[Any],
    x: Any,
    *,
    optimizer: Any,
    steps: int = 4,
    seeds: Any = 5,
    loss: Callable[..., Any] | None = None,
    labels: Any = None,
    tolerance: float = 0.15,
    train: bool = False,
    root: int = 0,
    call: Any = None,
) -> WidthTransfer:
    """Train a model for a few steps at several widths, and fit how each layer's values and changes scale.

    With z_t the value of a product of parameters with the signal after t steps, on one batch,

        log rms(z_0) = a + s log width,      log rms(z_t - z_0) = a' + s' log width

    by least squares over widths and seeds; the readout as it leaves the model, with its multiplier. In a
    parametrization that transfers, s = s' = 0 in every layer (the readout may start smaller with the width): the
    verdict is a number with an interval, not whether a plot looks flat.

    Args:
        model_fn: `width -> model`, as for `probe`; an nnx model as a factory.
        widths: at least three, increasing.
        x: a batch (an array or a tuple of arguments); with jax.ShapeDtypeStruct, drawn once for all widths and seeds.
        optimizer: an Optax optimizer, or a function `width -> optimizer` (for rates that depend on it).
        steps: of training, all on the one batch.
        seeds: a count, or distinct integers.
        loss: `loss(output)`, or `loss(output, labels)` when labels are given. By default the mean square of the
            output minus targets N(0, 1), the same for all widths and seeds.
        labels: for the loss.
        tolerance: slopes within it count as none.
        train, call: as for `calibrate`.
        root: seed of the root key, as for `probe`.

    Returns:
        A WidthTransfer: true where nothing depends on the width; `.table()`, `.plot()`.

    Raises:
        ValueError, TypeError: fewer than three widths, models that differ in their sites, an argument breaks its rule.

    Intervals are Student's for a common slope, so they widen with whatever is no power of the width. One program a
    width is compiled; seeds run one after the other in it.

    Source: Yang et al. 2022, "Tensor Programs V", where the check is read off a plot.

    Example:
        >>> import jax, optax, flax.linen as nn
        >>> from jaxinit.adapt import coordinate_check
        >>> model = lambda width: nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(1)])
        >>> x = jax.random.normal(jax.random.key(1), (16, 8))
        >>> check = coordinate_check(model, [32, 64, 128], x, optimizer=optax.adam(1e-2), steps=2, seeds=3)
        >>> check.at("layers_2").verdict, bool(check)
        ('grows', False)
    """
    where = "coordinate_check"
    check_model_fn(where, model_fn)
    held = _widths(where, widths)
    steps = checks.integer(where, "steps", steps, at_least=1)
    seed_array = checks.seeds(where, "seeds", seeds)
    root = checks.integer(where, "root", root, at_least=0)
    bound = float(checks.number(where, "tolerance", tolerance, above=0.0))
    key = jax.random.key(root, impl="threefry2x32")
    data = batches(x, key, where=where)
    if labels is not None and loss is None:
        raise checks.bad(where, "labels", "None without a loss that takes them", labels)
    if len(data) > 1:
        raise checks.bad(where, "x", "one batch", len(data))
    found, losses = [], []
    sites: tuple[str, ...] = ()
    for width in widths:
        traced = products(model_fn(width), data[0], train=train, method=call, where=where)
        names = tuple(p.name for p in traced.products)
        if sites and names != sites:
            raise checks.bad(
                where, "model_fn", "a function whose models have the same sites", sorted({*names} ^ {*sites})
            )
        sites = names
        update = optimizer if hasattr(optimizer, "update") else optimizer(width)
        if not (hasattr(update, "init") and hasattr(update, "update")):
            rule = "an Optax optimizer, or a function of a width that returns one"
            raise checks.wrong_type(where, "optimizer", rule, update)
        run = _program(traced, update, steps, loss)
        rms, objective = jax.jit(run)(key, seed_array, data[0], labels)
        found.append(np.asarray(rms, np.float64))
        losses.append(np.asarray(objective, np.float64))
    with np.errstate(divide="ignore"):
        log_rms = np.moveaxis(np.log(np.stack(found)), 2, 0)  # quantities, widths, seeds, steps + 1, sites
    slopes = _slopes(sites, held, log_rms, bound, _readout(traced))
    config = {"label": traced.model.name, "seeds": seed_array, "root": root, "train": train}
    return WidthTransfer(
        traced.model.name, held, steps, sites, log_rms, np.stack(losses), slopes, bound, config, provenance()
    )


def _widths(where: str, widths: Any) -> np.ndarray:
    try:
        held = np.asarray([float(w) for w in widths])
    except (TypeError, ValueError):
        raise checks.wrong_type(where, "widths", "a sequence of numbers", widths) from None
    if len(held) < 3 or not (np.diff(held) > 0).all() or not held[0] > 0:
        raise checks.bad(
            where,
            "widths",
            "at least three positive numbers, increasing",
            widths,
            "For example [64, 128, 256, 512].",
        )
    return held


def _program(traced: Products, optimizer: Any, steps: int, loss: Any) -> Callable[..., Any]:
    """`(key, seeds, args, labels) -> rms, losses`: (seeds, quantities, steps + 1, sites) and (seeds, steps + 1)."""
    look = values(traced)

    def of_output(out: Any, labels: Any, targets: Any) -> Any:
        if loss is not None:
            return loss(out) if labels is None else loss(out, labels)
        leaves = [v for v in jax.tree.leaves(out) if jnp.issubdtype(v.dtype, jnp.floating)]
        return sum(jnp.mean(jnp.square(v - t)) for v, t in zip(leaves, targets, strict=True))

    def one(key: Any, args: Any, labels: Any, targets: Any) -> Any:
        params, state = traced.model.init(key, args)

        def objective(params: Any) -> Any:
            out, now = look(jax.tree.leaves(params), state, args, key)
            if _readout(traced):  # as it leaves the model, its multiplier included
                now = [*now[:-1], jax.tree.leaves(out)[0].astype(jnp.float32)]
            return of_output(out, labels, targets), now

        def step(carry: Any, n: Any) -> Any:
            params, kept, start = carry
            (value, now), slopes = jax.value_and_grad(objective, has_aux=True)(params)
            start = [jnp.where(n == 0, a, b) for a, b in zip(now, start, strict=True)]
            change = [a - b for a, b in zip(now, start, strict=True)]
            updates, kept = optimizer.update(slopes, kept, params)
            params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
            return (params, kept, start), (jnp.stack([_rms(now), _rms(change)]), value)

        shapes = jax.eval_shape(objective, params)[1]
        nothing = [jnp.zeros(v.shape, v.dtype) for v in shapes]
        with jax.numpy_dtype_promotion("standard"):
            start = params, optimizer.init(params), nothing
            _, (rms, losses) = jax.lax.scan(step, start, jnp.arange(steps + 1))
        return jnp.moveaxis(rms, 1, 0), losses

    def run(key: Any, seeds: Any, args: Any, labels: Any) -> Any:
        draws = jax.random.fold_in(key, _TARGETS)
        floating = (
            v for v in jax.tree.leaves(traced.traced.output_shape) if jnp.issubdtype(v.dtype, jnp.floating)
        )
        targets = [jax.random.normal(jax.random.fold_in(draws, n), v.shape) for n, v in enumerate(floating)]
        return jax.lax.map(lambda s: one(jax.random.fold_in(key, s), args, labels, targets), seeds)

    return run


def _rms(found: Sequence[Any]) -> Any:
    return jnp.stack([jnp.sqrt(jnp.mean(jnp.square(v))) for v in found])


def _readout(traced: Products) -> bool:
    """Whether the last site is the model's output, but for a multiplier."""
    shapes = [tuple(v.shape) for v in jax.tree.leaves(traced.traced.output_shape)]
    return shapes == [tuple(traced.products[-1].shape)]


def _slopes(
    sites: Sequence[str], widths: np.ndarray, log_rms: np.ndarray, tolerance: float, readout: bool
) -> tuple[WidthSlope, ...]:
    out = []
    for q, quantity in enumerate(("value", "change")):
        for step in range(q, log_rms.shape[3]):
            for n, site in enumerate(sites):
                slope, error, freedom = _fit(np.log(widths), log_rms[q, :, :, step, n])
                half = _student(freedom) * error
                verdict = _verdict(slope - half, slope + half, tolerance)
                out.append(
                    WidthSlope(
                        site,
                        step,
                        quantity,
                        slope,
                        slope - half,
                        slope + half,
                        verdict,
                        readout and n == len(sites) - 1,
                    )
                )
    return tuple(out)


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float, int]:
    """Slope of y, (widths, seeds), against x by least squares, its standard error and degrees of freedom."""
    every = np.repeat(x, y.shape[1])
    flat = y.reshape(-1)
    if not np.isfinite(flat).all():
        return math.nan, math.nan, len(flat) - 2
    centred = every - every.mean()
    slope = float(centred @ flat / (centred @ centred))
    left = flat - flat.mean() - slope * centred
    freedom = len(flat) - 2
    return slope, math.sqrt(float(left @ left) / freedom / float(centred @ centred)), freedom


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by its expansion about the normal one (Abramowitz & Stegun 26.7.5)."""
    z, v = _Z, float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(t / v ** (n + 1) for n, t in enumerate(terms))


def _verdict(low: float, high: float, tolerance: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unclear"
    if low > tolerance:
        return "grows"
    if high < -tolerance:
        return "shrinks"
    return "flat" if -tolerance <= low and high <= tolerance else "unclear"
