"""Equations that only rearrange entries: the same field with other axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxinit.adapt._analytic_fields import Atom, Axes, Base, Field, Term, atoms_of, covariance
from jaxinit.adapt._analytic_values import from_moments, merged

__all__ = ["broadcast", "concatenated", "part", "reshaped", "stacked", "transposed", "without"]

#: Second moments of parameters that are put together are taken for one if they are not further apart than this.
_ALIKE = 1.5
#: Share of a variance that any two entries along an axis have in common, from which it is followed through slices.
_COMMON = 0.02


def transposed(x: Field, order: Sequence[int]) -> Field:
    return x.like(axes=tuple(x.axes[k] for k in order), mask=_mask(x, lambda m: np.transpose(m, order)))


def without(x: Field, axes: Sequence[int]) -> Field:
    """Squeezed: these axes have length 1."""
    kept = tuple(a for k, a in enumerate(x.axes) if k not in axes)
    return x.like(axes=kept, mask=_mask(x, lambda m: np.squeeze(m, tuple(axes))))


def broadcast(x: Field, shape: Sequence[int], dimensions: Sequence[int]) -> Field:
    """As `lax.broadcast_in_dim`: constant along new axes."""
    axes: list[tuple[Atom, ...]] = [(Atom(n),) if n != 1 else () for n in shape]
    for own, k in enumerate(dimensions):
        if x.shape[own] == shape[k]:
            axes[k] = x.axes[own]

    def spread(mask: np.ndarray) -> np.ndarray:
        at = [1] * len(shape)
        for own, k in enumerate(dimensions):
            at[k] = mask.shape[own]
        return np.broadcast_to(mask.reshape(at), tuple(shape))

    return x.like(axes=tuple(axes), mask=_mask(x, spread))


def reshaped(x: Field, shape: Sequence[int]) -> Field:
    """Atoms regrouped; one that a new axis ends in the middle of is split."""
    old = [a for axis in x.axes for a in axis]
    axes: list[tuple[Atom, ...]] = []
    names: dict[Atom, tuple[Atom, ...]] = {}
    while (k := len(axes)) < len(shape):
        taken: list[Atom] = []
        size = 1
        while size < shape[k] and old:
            a = old.pop(0)
            if shape[k] % (size * a.size) == 0:
                taken.append(a)
            elif (need := shape[k] // size) * size == shape[k] and a.size % need == 0:
                first, second = Atom(need), Atom(a.size // need)
                origin = next((o for o, parts in names.items() if a in parts), None)
                if origin is None:
                    names[a] = (first, second)
                else:
                    names[origin] = tuple(
                        b for p in names[origin] for b in ((first, second) if p is a else (p,))
                    )
                taken.append(first)
                old.insert(0, second)
                a = first
            else:
                return _forgotten(x, shape)
            size *= a.size
        axes.append(tuple(taken))
    return x.renamed(names, tuple(axes)).like(mask=_mask(x, lambda m: np.reshape(m, shape)))


def _forgotten(x: Field, shape: Sequence[int]) -> Field:
    """Axes that cannot be told apart any more: entries agree everywhere or nowhere."""
    n = math.prod(shape)
    table = x.table()
    weights = np.ones(())
    for a in atoms_of(x.axes):
        weights = np.multiply.outer(weights, np.array([a.size - 1.0, 1.0]))
    weights[(1,) * weights.ndim] = 0.0
    other = float((weights * table).sum() / max(n - 1, 1))
    axes = tuple((Atom(m),) if m != 1 else () for m in shape)
    new = np.full((2,) * len(atoms_of(axes)), other)
    new[(1,) * new.ndim] = x.variance
    return from_moments(axes, x.mean, new, x.slope, x.sources, parameters=x.parameters)


def part(x: Field, axis: int, which: Any, size: int) -> Field:
    """`size` of the entries along an axis; `which` names them, so that the same part is the same field.

    With size 0 the axis goes: one entry of it. Parts of one field have in common what any two of its entries along the
    axis have: little for units of a layer, much for positions behind a layer whose values are not centred.
    """
    if size == x.shape[axis]:
        return x
    x = x if len(x.axes[axis]) < 2 else merged(x, axis)
    if any(t.over for t in x.terms):
        x = collapsed(x)
    own = x.axes[axis]
    steps = which[1] if isinstance(which, tuple) else 1
    new = (Atom(size, near=own[0].near ** steps if own else 0.0),) if size > 1 else ()
    axes = (*x.axes[:axis], *((new,) if size else ()), *x.axes[axis + 1 :])
    if not own:
        return x.like(axes=axes)
    terms: dict[Term, float] = {}
    for t, c in x.terms.items():
        for base, places in _cut(t, own[0], (which, size), new):
            made = Term(base, places)
            terms[made] = terms.get(made, 0.0) + c
    return x.like(axes=axes, terms=terms, mask=None, exponentials=None)


def _cut(t: Term, atom: Atom, which: Any, new: tuple[Atom, ...]) -> Iterator[tuple[Base, Any]]:
    """What a base leaves in a part along an atom: something of its own, and what all parts share."""
    base, places = t.base, t.places
    j = next((j for j, place in enumerate(places) if atom in place), None)
    if j is None:
        yield base, places
        return
    table, spread, sizes, slope = base.table, base.spread, base.sizes, base.slope
    left, rest = (*sizes[:j], *sizes[j + 1 :]), (*places[:j], *places[j + 1 :])
    whole = places[j] == (atom,)  # else of one index of several that it was split into
    any_two = np.take(table, 0, axis=j)
    variance, shared = float(table.flat[-1]), float(any_two.flat[-1])
    common = whole and not base.parameter and shared > _COMMON * variance
    if common:
        table, slope = table - np.expand_dims(any_two, j), slope * (1.0 - shared / variance)
        if ("common", j) not in base.parts:
            base.parts["common", j] = Base(left, any_two, base.slope - slope, base.sources, base.product)
        yield base.parts["common", j], rest
    gone = whole and not new
    if (j, which) not in base.parts:
        if gone:
            sizes, table, spread = left, np.take(table, 1, axis=j), np.take(spread, 1, axis=j)
        elif whole:
            sizes = (*sizes[:j], new[0].size, *sizes[j + 1 :])
        base.parts[j, which] = Base(sizes, table, slope, base.sources, base.product, base.parameter, spread)
    moved = tuple(b for a in places[j] for b in (new if a is atom else (a,)))
    yield base.parts[j, which], rest if gone else (*places[:j], moved, *places[j + 1 :])


def _unfolded(x: Field, axis: int) -> Field:
    """With what parts of it share along an axis apart, as it is in them, so that they meet in sums."""
    if len(x.axes[axis]) != 1:
        return x
    (atom,), terms = x.axes[axis], dict[Term, float]()
    for t, c in x.terms.items():
        at = [j for j, place in enumerate(t.places) if place == (atom,) and ("common", j) in t.base.parts]
        for base, places in _cut(t, atom, ("all", atom.size), (atom,)) if at and not t.over else [t[:2]]:
            made = Term(base, places, t.over)
            terms[made] = terms.get(made, 0.0) + c
    return x.like(terms=terms)


def collapsed(x: Field) -> Field:
    """The same moments in one new base, on the atoms of its axes."""
    spread = x.spread(atoms_of(x.axes))
    return from_moments(x.axes, x.mean, x.table(), x.slope, x.sources, parameters=x.parameters, spread=spread)


def concatenated(parts: Sequence[Field], axis: int) -> Field:
    """Parts along an axis: two entries that disagree there are of two parts, or of one, as often as chance has it.
    Neighbours are as alike as they are inside the parts."""
    sizes = [p.shape[axis] for p in parts]
    n = sum(sizes)
    beside = [p.shape[axis] - 1 if p.terms else 0 for p in parts]
    near = sum(m * p.axes[axis][-1].near for m, p in zip(beside, parts, strict=True) if m)
    along = Atom(n, near=near / max(sum(beside), 1))
    lead = parts[0].axes
    axes = (*lead[:axis], (along,), *lead[axis + 1 :])
    others = [a for k, own in enumerate(axes) if k != axis for a in own]
    renamed = [_unfolded(_matched(p, lead, axis), axis) for p in parts]
    shares = [m / n for m in sizes]
    mean = sum(s * p.mean for s, p in zip(shares, renamed, strict=True))
    same: Any = 0.0
    apart: Any = 0.0
    spread: Any = 0.0
    for (i, p), (j, q) in itertools.product(enumerate(renamed), repeat=2):
        common = (p.mean - mean) * (q.mean - mean)
        if i == j:
            own = list(p.axes[axis])
            atoms = [*others, *own]
            inner, unlike = (
                t.reshape((2,) * len(others) + (-1,)) for t in (p.table(atoms) + common, p.spread(atoms))
            )
            here = inner[..., -1]
            weights: Any = np.ones(())
            for a in own:
                weights = np.multiply.outer(weights, np.array([a.size - 1.0, 1.0]))
            weights = weights.reshape(-1).copy()
            weights[-1] = 0.0
            there = inner @ (weights / weights.sum()) if weights.sum() else here
            same = same + shares[i] * here
            apart = apart + sizes[i] * (sizes[i] - 1) * there
            if weights.sum():
                spread = spread + sizes[i] * (sizes[i] - 1) * (unlike @ (weights / weights.sum()))
        else:
            cross = covariance(p, q, others)
            apart = apart + sizes[i] * sizes[j] * (cross + common)
    apart, spread = (v / max(n * (n - 1), 1) for v in (apart, spread))
    at = sum(len(own) for own in axes[:axis])
    slope = sum(s * p.slope for s, p in zip(shares, renamed, strict=True))
    made_of: Any = [p.parameters for p in parts]
    pure = None if None in made_of else frozenset().union(*made_of)
    sources = {s: m for p in parts for s, m in p.sources.items()}
    sizes_of = [p.second for p in parts if p.second > 0]
    if pure and sizes_of and max(sizes_of) > _ALIKE * min(sizes_of):
        sources["parameters of unequal size that are put together are taken for one of their mean size"] = 0
    return from_moments(
        axes, float(mean), np.stack([apart, same], axis=at), slope, sources, parameters=pure,
        spread=np.stack(np.broadcast_arrays(spread, 0.0 * same), axis=at),
    )  # fmt: skip


def _matched(p: Field, lead: Axes, axis: int) -> Field:
    """With the atoms of `lead` on all axes but one."""
    if all(len(a) == len(b) and [x.size for x in a] == [x.size for x in b]
           for k, (a, b) in enumerate(zip(p.axes, lead, strict=True)) if k != axis):  # fmt: skip
        names = {
            a: (b,)
            for k, (own, other) in enumerate(zip(p.axes, lead, strict=True))
            if k != axis
            for a, b in zip(own, other, strict=True)
            if a is not b
        }
        new = tuple(p.axes[k] if k == axis else own for k, own in enumerate(lead))
        return p.renamed(names, new) if names else p
    for k in range(len(lead)):
        if k != axis and len(p.axes[k]) > 1:
            p = merged(p, k)
    return _matched(p, lead, axis) if all(len(a) < 2 for a in lead) else p


def stacked(fields: Sequence[Field]) -> Field:
    """Along a new first axis."""
    grown = [f.like(axes=((), *f.axes), mask=None, exponentials=None) for f in fields]
    return grown[0] if len(grown) == 1 else concatenated(grown, 0)


def _mask(x: Field, change: Any) -> Any:
    return None if x.mask is None else type(x.mask)(change(np.asarray(x.mask.array)))
