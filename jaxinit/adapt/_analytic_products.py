"""Contractions: matrix products, convolutions, lookups in tables, windows.

A product of the signal with a parameter is a new Gaussian field: given the signal, its entries are sums of many
independent terms, and its covariance is that of the signal, summed (Neal 1996; for convolutions Novak et al. 2019).
The parameter is taken for freshly drawn at every use, also when it is used again (recurrence) or transposed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import primitives

from jaxinit.adapt._analytic_algebra import multiply, over, summed, turn_of
from jaxinit.adapt._analytic_fields import Atom, Field, atoms_of, combine
from jaxinit.adapt._analytic_pointwise import IDENTITY, Applied, Unknown, apply
from jaxinit.adapt._analytic_pooling import Pooled
from jaxinit.adapt._analytic_shapes import broadcast, transposed
from jaxinit.adapt._analytic_taps import Taps
from jaxinit.adapt._analytic_values import Known, Value, aligned, as_field, from_moments, merged

__all__ = ["Site", "convolution", "dot", "lookup", "window_extreme", "window_sum"]

#: Of a variance, a share that is left out.
_NOTHING = 1e-12
#: What the largest of a window leaves out; a note.
_NEIGHBOURS = "all entries of a pooling window are taken for equally alike, also at edges"


class Site:
    """A product of a parameter with the signal.

    Attributes:
        index: tells sites apart.
        kernel: the parameters that the operand is made of.
        inner: the signal that is multiplied; None for a lookup.
        before: indices of all sites that it depends on.
        mean: of the product, without biases.
    """

    def __init__(
        self, index: int, kernel: frozenset[int], inner: Field | None, before: frozenset[int] = frozenset()
    ) -> None:
        self.index, self.kernel, self.inner, self.before = index, kernel, inner, before
        self.mean = 0.0


def dot(u: Value, v: Value, dimensions: Any, site: Any) -> Field:
    """As `lax.dot_general`; `site(kernel, inner)` is asked for where one operand is a parameter."""
    (u_over, v_over), (u_batch, v_batch) = dimensions
    x, y = as_field(u), as_field(v)
    u_free = [k for k in range(len(x.axes)) if k not in (*u_over, *u_batch)]
    v_free = [k for k in range(len(y.axes)) if k not in (*v_over, *v_batch)]
    shape = (
        [x.shape[k] for k in (*u_batch, *u_free)]
        + [y.shape[k] for k in v_free]
        + [x.shape[k] for k in u_over]
    )
    b, f, g, n = len(u_batch), len(u_free), len(v_free), len(shape)
    c = len(u_over)
    left = broadcast(transposed(x, [*u_batch, *u_free, *u_over]), shape, [*range(b + f), *range(n - c, n)])
    right = broadcast(
        transposed(y, [*v_batch, *v_free, *v_over]),
        shape,
        [*range(b), *range(b + f, b + f + g), *range(n - c, n)],
    )
    contracted = list(range(n - c, n))
    kernel = _kernel(x, y)
    if kernel is None:
        (left, right), _ = aligned([left, right])
        if left.terms and left.terms == right.terms and left.mean == right.mean:
            return summed(Applied(apply(primitives.square_p, {}, [IDENTITY]), left), contracted)
        return over(multiply(left, right), contracted)
    signal, weight = (right, left) if kernel is x else (left, right)
    (signal, weight), axes = aligned([signal, weight])
    gone = [a for k in contracted for a in axes[k]]
    kept = axes[: n - c]
    atoms = [*atoms_of(kept), *gone]
    weights = weight.table(atoms)
    table, spread = (_contracted(weights * of, gone) for of in (signal.moments(atoms), signal.spread(atoms)))
    each = _fluctuation(signal.table(atoms_of(kept)), signal.mean)
    own = {a for t in weight.terms for place in t.places for a in place}
    spread = _unlike(
        spread,
        math.prod(a.size for a in gone) * weight.variance**2 * each,
        [a in own for a in atoms_of(kept)],
    )
    made = site(weight.parameters, signal)
    notes = {s: 0 for s in weight.sources if isinstance(s, str)}
    size = math.prod(a.size for a in atoms_of(kept))
    out = from_moments(kept, 0.0, table, 1.0, {made.index: size, **notes}, made, spread=spread)
    total = over(signal, contracted)
    made.mean = weight.mean * total.mean
    return _with_mean(out, weight.mean, total)


def _contracted(table: np.ndarray, gone: Sequence[Atom]) -> np.ndarray:
    """Summed over all pairs of the last indices."""
    for a in reversed(gone):
        table = a.size * table[..., 1] + a.size * (a.size - 1) * table[..., 0]
    return table


def _fluctuation(table: np.ndarray, mean: float) -> np.ndarray:
    """Of the variance of h h', Gaussian with this covariance, the part that depends on it (Isserlis): the variance is
    its sum with that of h^2."""
    return np.asarray(table**2 + 2.0 * mean**2 * table)


def _unlike(spread: np.ndarray, each: np.ndarray, own: Sequence[bool]) -> np.ndarray:
    """The spread of a product with a parameter: what the signal's becomes, and what <h h'> over finitely many units
    adds (`each`: its `_fluctuation`, summed); of entries that agree in the weight's `own` indices and differ in some
    other."""
    whole = (1,) * each.ndim
    found = np.hypot(spread, np.sqrt(np.maximum(each + each[whole], 0.0)))
    kept = np.zeros(found.shape)
    same = tuple(1 if o else slice(None) for o in own)
    kept[same] = found[same]
    kept[whole] = 0.0
    return kept


def _kernel(x: Field, y: Field) -> Field | None:
    pure = [f for f in (x, y) if f.parameters]
    return pure[0] if len(pure) == 1 else None


def _with_mean(out: Field, mean: float, total: Field) -> Field:
    """Add what the mean of the weights makes of the signal."""
    if not mean:
        return out
    both, axes = aligned([out, total])
    found = combine(zip(both, (1.0, mean), strict=True), axes)
    least = _NOTHING * out.variance
    # Else every layer would hold all those before it.
    return found.like(terms={t: c for t, c in found.terms.items() if c * c * t.base.table.flat[-1] > least})


def convolution(u: Value, v: Value, params: dict[str, Any], shape: Sequence[int], site: Any) -> Field:
    """As `lax.conv_general_dilated`, positions exchangeable."""
    x, w = as_field(u), as_field(v)
    lhs, rhs, out = params["dimension_numbers"]
    if params["batch_group_count"] != 1:
        raise Unknown("a convolution in groups of examples")
    spatial = list(zip(lhs[2:], rhs[2:], out[2:], strict=True))
    for axis in range(len(x.axes)):
        if len(x.axes[axis]) > 1:
            x = merged(x, axis)
        if len(w.axes[axis]) > 1:
            w = merged(w, axis)
    seen = [
        Taps(
            u if isinstance(u, Applied) and u.axes == x.axes else x, x.axes[i], w.shape[j], shape[o],
            params["window_strides"][k], params["padding"][k][0], params["lhs_dilation"][k],
            params["rhs_dilation"][k],
        )
        for k, (i, j, o) in enumerate(spatial)
    ]  # fmt: skip
    new: list[tuple[Atom, ...]] = [(Atom(n),) if n > 1 else () for n in shape]
    new[out[0]] = x.axes[lhs[0]]
    for o, taps in zip(out[2:], seen, strict=True):
        new[o] = taps.axis
    if any(new[o] and not x.axes[i] for i, _, o in spatial):
        raise Unknown("a convolution that spreads one position")
    signal, kernel = list(atoms_of(x.axes)), _kernel_atoms(w, rhs)

    def sums(weights: np.ndarray, of: np.ndarray) -> np.ndarray:
        return _sums(x, w, lhs, rhs, out, new, [taps.pairs for taps in seen], weights, of)

    weights = w.moments(kernel)
    table = sums(weights, x.moments(signal))
    count = math.prod(taps.count for taps in seen)
    mean = count * w.shape[rhs[1]] * w.mean * x.mean
    if w.parameters and x.parameters is None:
        made = site(w.parameters, x)
        made.mean = mean
        squares = np.full(weights.shape, w.variance**2)
        each = sums(squares, _fluctuation(x.table(signal), x.mean))
        own = [a in new[out[1]] for a in atoms_of(tuple(new))]
        spread = _unlike(sums(weights, x.spread(signal)), each, own)
        return from_moments(
            tuple(new), mean, table - mean**2, 1.0, {made.index: math.prod(shape)}, made, spread=spread
        )
    slope = count * w.shape[rhs[1]] * w.second * x.slope
    return from_moments(tuple(new), mean, table - mean**2, slope, x.sources)


def _kernel_atoms(w: Field, rhs: Any) -> list[Atom]:
    """Of a convolution's kernel: channels in, taps, channels out."""
    return [a for j in (rhs[1], *rhs[2:], rhs[0]) for a in w.axes[j]]


def _sums(
    x: Field,
    w: Field,
    lhs: Any,
    rhs: Any,
    out: Any,
    new: Any,
    taps: Sequence[np.ndarray],
    kernel: np.ndarray,
    signal: np.ndarray,
) -> np.ndarray:
    """E[z z'] of the result by agreement: over all pairs of taps and channels, weights times signal, both by agreement
    (on `_kernel_atoms`, and on the atoms of x).

    At positions that agree, taps that agree see one entry of the signal; at others, or with different taps, two.
    """
    atoms = atoms_of(tuple(new))
    table = np.zeros((2,) * len(atoms))
    inner = [(k, w.axes[j]) for k, j in ((-1, rhs[1]), *enumerate(rhs[2:])) if w.axes[j]]
    signal_atoms = list(atoms_of(x.axes))
    where = {
        **{a: ("batch", a) for a in x.axes[lhs[0]]},
        **dict.fromkeys(x.axes[lhs[1]], ("channel", -1)),
        **{a: ("position", k) for k, i in enumerate(lhs[2:]) for a in x.axes[i]},
    }
    places = {a: n for n, a in enumerate(atoms)}
    for g in itertools.product((0, 1), repeat=len(atoms)):
        features = g[places[new[out[1]][0]]] if new[out[1]] else 1
        here = [g[places[new[o][0]]] if new[o] else 1 for o in out[2:]]
        total = 0.0
        for same in itertools.product((0, 1), repeat=len(inner)):
            agree = {k: s for (k, _), s in zip(inner, same, strict=True)}
            pairs = 1.0
            for (k, axis), s in zip(inner, same, strict=True):
                n = axis[0].size
                pairs *= taps[k][here[k], s] if k >= 0 else n if s else n * (n - 1.0)
            index = []
            for a in signal_atoms:
                kind, k = where[a]
                if kind == "batch":
                    index.append(g[places[a]])
                elif kind == "channel":
                    index.append(agree.get(-1, 1))
                else:
                    index.append(here[k] * agree.get(k, 1))
            weight = kernel[(*same, features)] if w.axes[rhs[0]] else kernel[same]
            total += pairs * weight * signal[tuple(index)]
        table[g] = total
    return table


def window_sum(value: Value, params: dict[str, Any], shape: Sequence[int]) -> Field:
    """As `reduce_window_sum`."""
    x, new, taps = _windows(as_field(value), params, shape)
    atoms = list(atoms_of(x.axes))
    table = x.table(atoms)
    for k, each in taps.items():
        atom, count = x.axes[k][0], each.count
        at = atoms.index(atom)
        same, other = np.take(table, [1], at), np.take(table, [0], at)
        near = other + atom.near * (same - other)
        table = np.concatenate([count**2 * other, count * same + count * (count - 1) * near], axis=at)
    for k in taps:
        if not new[k]:
            at = atoms.index(x.axes[k][0])
            table = np.take(table, 1, axis=at)
            atoms.pop(at)
    factor = math.prod(each.count for each in taps.values())
    return from_moments(new, x.mean * factor, table, x.slope * factor, x.sources, parameters=x.parameters)


def window_extreme(value: Value, params: dict[str, Any], shape: Sequence[int], sign: int) -> Field:
    """As `reduce_window_max` (sign 1) and `reduce_window_min` (-1): entries of a window are equally alike."""
    fn, argument = (value.fn, value.argument) if isinstance(value, Applied) else (IDENTITY, as_field(value))
    if isinstance(value, Applied):
        sign *= turn_of(value)
    x, new, taps = _windows(argument, params, shape)
    along = [x.axes[k][0] for k in taps]
    others = [a for a in atoms_of(x.axes) if a not in along]
    table = x.table([*others, *along])
    apart, same = _ends(table, len(along))
    within = _within(table, along, [t.count for t in taps.values()])
    own = np.maximum(same - within, 0.0)
    whole = (1,) * len(others)
    windows = _strengths(list(taps.values()))
    pooled = Pooled(fn, x.mean, float(sign), float(within[whole]), float(own[whole]), windows)
    made = np.repeat(pooled.covariances(apart).reshape(*apart.shape, 1), 2 ** len(along), axis=-1)
    made[..., -1] = pooled.covariances(within, own)
    made = made.reshape(table.shape)
    order = list(atoms_of(x.axes))
    made = np.moveaxis(made, range(made.ndim), [order.index(a) for a in (*others, *along)])
    for k in taps:
        if not new[k]:
            at = order.index(x.axes[k][0])
            made = np.take(made, 1, axis=at)
            order.pop(at)
    alike = {} if all(a.near == 0.0 and a.profile is None for a in along) else {_NEIGHBOURS: 0}
    slope = pooled.slope * x.slope
    return from_moments(new, pooled.mean, made, slope, {**x.sources, **alike}, parameters=x.parameters)


def _ends(table: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Where none and where all of the last indices agree."""
    flat = table.reshape(*table.shape[: table.ndim - last], -1)
    return flat[..., 0], flat[..., -1]


def _within(table: np.ndarray, along: Sequence[Atom], counts: Sequence[float]) -> np.ndarray:
    """The covariance of two entries of one window, by agreement on all indices but those along it, the last ones."""
    for k, a in enumerate(along, start=table.ndim - len(along)):
        other, same = np.take(table, [0], k), np.take(table, [1], k)
        table = np.concatenate([other + a.near * (same - other), same], axis=k)
    weights = np.ones(())
    for n in counts:
        weights = np.multiply.outer(weights, np.array([n * max(n - 1.0, 0.0), n]))
    weights[(1,) * weights.ndim] = 0.0
    if not weights.sum() > 0:
        return _ends(table, len(along))[1]
    return np.asarray(np.tensordot(table, weights / weights.sum(), axes=len(along)))


def _strengths(taps: Sequence[Taps]) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Of all windows, those that differ, as strengths of their entries, and their shares."""
    found = np.ones((1, 1))
    for each in taps:
        both = np.einsum("wt,vs->wvts", found, each.strengths)
        found = both.reshape(found.shape[0] * each.strengths.shape[0], -1)
    kinds, times = np.unique(np.sort(found.round(2), axis=1), axis=0, return_counts=True)
    return tuple(tuple(float(v) for v in row if v > 0) for row in kinds), tuple(times / times.sum())


def _windows(x: Field, params: dict[str, Any], shape: Sequence[int]) -> tuple[Field, Any, dict[int, Taps]]:
    """The field with one index an axis, the axes of the result, and the axes that windows lie along."""
    if any(n != 1 for name in ("base_dilation", "window_dilation") for n in params.get(name) or ()):
        raise Unknown("a dilated window")
    new, taps = list(x.axes), dict[int, Taps]()
    for k, n in enumerate(params["window_dimensions"]):
        if n == 1 and shape[k] == x.shape[k]:
            continue
        if len(x.axes[k]) > 1:
            x = merged(x, k)
        if not x.axes[k]:
            continue
        low = params["padding"][k][0]
        taps[k] = Taps(x, x.axes[k], n, shape[k], params["window_strides"][k], low)
        new[k] = taps[k].axis
    for k in range(len(new)):
        new[k] = new[k] if k in taps else x.axes[k]
    return x, tuple(new), taps


def lookup(operand: Value, indices: Known, params: dict[str, Any], shape: Sequence[int], site: Any) -> Field:
    """As `lax.gather` of whole rows: entries of two places are one where the indices say so."""
    x, numbers = as_field(operand), params["dimension_numbers"]
    rows = set(numbers.collapsed_slice_dims)
    sizes = params["slice_sizes"]
    if getattr(numbers, "operand_batching_dims", ()) or set(numbers.start_index_map) != rows:
        raise Unknown("a lookup of parts of rows")
    if any(sizes[k] != x.shape[k] for k in range(len(x.axes)) if k not in rows):
        raise Unknown("a lookup of parts of rows")
    for k in rows:
        if len(x.axes[k]) > 1:
            x = merged(x, k)
    places = np.asarray(indices.array)
    weights = np.cumprod([1, *(x.shape[k] for k in numbers.start_index_map[:-1])])
    labels = (places * weights).sum(axis=-1)
    kept = [k for k in range(len(x.axes)) if k not in rows]
    axes: list[tuple[Atom, ...]] = [()] * len(shape)
    for k, at in zip(kept, numbers.offset_dims, strict=True):
        axes[at] = x.axes[k]
    batch = [k for k in range(len(shape)) if k not in numbers.offset_dims]
    for k in batch:
        axes[k] = (Atom(shape[k]),) if shape[k] > 1 else ()
    agree = _coincidences(labels.reshape([n for n in labels.shape if n != 1]))
    others = [a for k in kept for a in x.axes[k]]
    row_atoms = [a for k in sorted(rows) for a in x.axes[k]]
    table = x.table([*others, *row_atoms]).reshape((2,) * len(others) + (-1,))
    same, other = table[..., -1], table[..., 0]
    full = np.multiply.outer(agree, same) + np.multiply.outer(1.0 - agree, other)
    atoms = [a for k in batch for a in axes[k]] + others
    order = list(atoms_of(tuple(axes)))
    spread = np.multiply.outer(np.sqrt(np.maximum(agree * (1.0 - agree), 0.0)), np.abs(same - other))
    full, spread = (np.moveaxis(t, range(full.ndim), [order.index(a) for a in atoms]) for t in (full, spread))
    if x.parameters:
        made = site(x.parameters, None)
        made.mean = x.mean
        return from_moments(
            tuple(axes), x.mean, full, 1.0, {made.index: math.prod(shape)}, made, spread=spread
        )
    return from_moments(tuple(axes), x.mean, full, x.slope, x.sources, parameters=x.parameters, spread=spread)


def _coincidences(labels: np.ndarray) -> np.ndarray:
    """Probability that two entries are equal, by agreement on the axes."""
    table = np.empty((2,) * labels.ndim)
    for g in itertools.product((0, 1), repeat=labels.ndim):
        fixed = [k for k, same in enumerate(g) if same]
        rest = [k for k, same in enumerate(g) if not same]
        cells = labels.transpose([*fixed, *rest]).reshape(math.prod(labels.shape[k] for k in fixed), -1)
        squares = 0.0
        for cell in cells if rest else ():
            squares += float(np.square(np.unique(cell, return_counts=True)[1]).sum())
        table[g] = squares / (len(cells) * cells.shape[1] ** 2) if rest else 1.0
    for k, n in enumerate(labels.shape):
        averaged, same = np.take(table, [0], k), np.take(table, [1], k)
        table = np.concatenate([(averaged - same / n) / (1.0 - 1.0 / n), same], axis=k)
    return table
