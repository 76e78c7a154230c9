"""What the values of a program are to the analysis: arrays that are known, fields, functions of fields."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinit.adapt._analytic_fields import Atom, Axes, Base, Field, Term, atoms_of, fresh_axes
from jaxinit.adapt._analytic_pointwise import Applied, settle

__all__ = ["Known", "Value", "aligned", "as_field", "field_of_data", "from_moments", "white"]

_MASKED = -1e3
#: Neighbours are alike where that is so many standard errors from chance.
_CERTAIN = 5.0


class Known:
    """An array that is known entry by entry: literals, positions, masks, tokens.

    `notes`: what was measured to get it, such as which entries of a random signal are the largest.
    """

    def __init__(self, array: Any, notes: frozenset[str] = frozenset()) -> None:
        self.array, self.notes = array, notes
        self._field: Field | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(self.array))

    @property
    def number(self) -> float | None:
        """The one value of all entries, or None."""
        a = self.array
        if not is_real(a) or np.size(a) == 0:
            return None
        if isinstance(a, np.ndarray) and a.size > 1 and not any(a.strides):
            a = a[(0,) * a.ndim]
        values = np.asarray(a)
        first = values.flat[0]
        return float(first) if values.size == 1 or bool((values == first).all()) else None

    def renamed(self, names: Any, axes: Any) -> Known:
        """Atoms mean nothing to it."""
        return self


Value = Known | Field | Applied


def is_real(array: Any) -> bool:
    """Of real numbers: no key, no complex number."""
    dtype = getattr(array, "dtype", None) or np.asarray(array).dtype
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def white(shape: Sequence[int], mean: float = 0.0, variance: float = 1.0, **held: Any) -> Field:
    """Independent entries."""
    axes = fresh_axes(shape)
    return from_moments(axes, mean, _diagonal(len(atoms_of(axes)), variance), **held)


def _diagonal(atoms: int, value: float) -> np.ndarray:
    table = np.zeros((2,) * atoms)
    table[(1,) * atoms] = value
    return table


def from_moments(
    axes: Axes,
    mean: float,
    table: np.ndarray,
    slope: float = 0.0,
    sources: Any = None,
    product: Any = None,
    parameters: frozenset[int] | None = None,
    spread: np.ndarray | None = None,
) -> Field:
    """A field of one new base on all atoms of the axes."""
    atoms = atoms_of(axes)
    base = Base([a.size for a in atoms], table, slope, sources, product, parameters is not None, spread)
    terms = {Term(base, tuple((a,) for a in atoms)): 1.0} if np.any(table) else {}
    return Field(axes, mean, terms, parameters)


def field_of_data(array: Any) -> Field:
    """The field that an array is a sample of: covariances by agreement, averaged over all pairs of entries.

    The mean square of the array's averages over the axes in the complement of G is, for every set G, a sum over
    the covariances by agreement: per axis the matrix [[1 - 1/n, 1/n], [0, 1]], which is inverted.
    """
    x = np.asarray(array).astype(np.float64)
    axes = fresh_axes(x.shape)
    x = x.reshape([n for n in x.shape if n != 1])
    mean = float(x.mean())
    means = np.empty((2,) * x.ndim)
    for g in itertools.product((0, 1), repeat=x.ndim):
        over = tuple(k for k, same in enumerate(g) if not same)
        part = x.mean(axis=over) if over else x
        means[g] = np.mean(np.square(part - mean))
    table = means
    for k, n in enumerate(x.shape):
        averaged, same = np.take(table, [0], k), np.take(table, [1], k)
        table = np.concatenate([(averaged - same / n) / (1.0 - 1.0 / n), same], axis=k)
    for k, atom in enumerate(atoms_of(axes)):
        atom.near = _near(
            np.moveaxis(x - mean, k, 0), float(table[(1,) * k + (0,) + (1,) * (x.ndim - k - 1)])
        )
    return from_moments(axes, mean, table)


def _near(x: np.ndarray, any_two: float) -> float:
    """How alike neighbours along the first axis are, where that is no chance: 0 as any two, 1 as one with itself."""
    same = float(np.mean(np.square(x)))
    if len(x) < 3 or not same > any_two:
        return 0.0
    share = (float(np.mean(x[1:] * x[:-1])) - any_two) / (same - any_two)
    return min(share, 1.0) if share > _CERTAIN / np.sqrt(x.size) else 0.0


def as_field(value: Value) -> Field:
    """Any value as a field."""
    if not isinstance(value, Known):
        return settle(value)
    if value._field is None:
        number = value.number
        if number is not None:
            value._field = Field(fresh_axes(value.shape), number, {})
        else:
            value._field = field_of_data(value.array)
    return value._field


def masked_by(known: Known) -> Any:
    """For an array of zeros and hugely negative numbers, where it is 0; None otherwise."""
    if not is_real(known.array):
        return None
    values = np.asarray(known.array)
    huge = values <= _MASKED
    if not huge.any() or not (values[~huge] == 0).all():
        return None
    return np.asarray(~huge)


def aligned(fields: Sequence[Field]) -> tuple[list[Field], Axes]:
    """The same arrays with the axes of all made of the same atoms."""
    lead = max(range(len(fields)), key=lambda n: (fields[n].parameters is None, len(fields[n].terms)))
    axes = fields[lead].axes
    sizes = [[_cuts(f.axes[k]) for f in fields] for k in range(len(axes))]
    refined = [sorted(set().union(*cuts)) for cuts in sizes]
    new: list[tuple[Atom, ...]] = []
    for axis, cuts in zip(axes, refined, strict=True):
        if any(b % a for a, b in itertools.pairwise(cuts)):
            cuts = [cuts[-1]]  # no common refinement: one index
        wanted = _steps(cuts)
        new.append(axis if [a.size for a in axis] == wanted else tuple(Atom(n) for n in wanted))
    out = []
    for field in fields:
        coarse = field
        for k, axis in enumerate(new):
            if len(axis) < len(coarse.axes[k]):
                coarse = merged(coarse, k)
        names: dict[Atom, tuple[Atom, ...]] = {}
        for own, axis in zip(coarse.axes, new, strict=True):
            rest = list(axis)
            for a in own:
                taken, size = [], 1
                while size < a.size:
                    taken.append(rest.pop(0))
                    size *= taken[-1].size
                if taken != [a]:
                    names[a] = tuple(taken)
        out.append(coarse.renamed(names, tuple(new)) if names else coarse.like(axes=tuple(new)))
    return out, tuple(new)


def _cuts(axis: Sequence[Atom]) -> set[int]:
    """Products of the sizes from the fastest index on."""
    return set(itertools.accumulate((a.size for a in reversed(axis)), lambda a, b: a * b))


def _steps(cuts: Sequence[int]) -> list[int]:
    return [b // a for a, b in itertools.pairwise([1, *cuts])][::-1]


def merged(field: Field, axis: int) -> Field:
    """The field with one index for an axis that had several: entries agree there if they agree in all."""
    atoms = list(atoms_of(field.axes))
    old = field.axes[axis]
    new = Atom(int(np.prod([a.size for a in old])))
    at = [atoms.index(a) for a in old]
    weights = np.ones((2,) * len(old))
    for k, a in enumerate(old):
        weights = weights * np.array([a.size - 1, 1]).reshape([2 if j == k else 1 for j in range(len(old))])
    weights[(1,) * len(old)] = 0.0
    left = [a for a in atoms if a not in old]
    axes = tuple((new,) if k == axis else own for k, own in enumerate(field.axes))
    order = atoms_of(axes)

    def as_one(table: np.ndarray) -> np.ndarray:
        table = np.moveaxis(table, at, range(len(at)))
        other = np.tensordot(weights / weights.sum(), table, axes=len(old))
        both = np.stack([other, table[(1,) * len(old)]], axis=0)
        return np.moveaxis(both, range(both.ndim), [order.index(a) for a in (new, *left)])

    return from_moments(
        axes, field.mean, as_one(field.table(atoms)), field.slope, field.sources, parameters=field.parameters,
        spread=as_one(field.spread(atoms)),
    )  # fmt: skip
