"""Random arrays as theory sees them: a mean, and how two entries covary that agree on some of their indices.

A `Base` is a field of zero mean, uncorrelated with every other base, described by a table of covariances: with axes
(example, position, feature), `table[1, 0, 1]` is the covariance of two entries of one example and one feature at two
different positions. Axes are taken for exchangeable: of two different positions it does not matter which.

Covariances of pairs that the table takes for one fluctuate: two positions of one example are alike by chance, as two
random vectors are. `spread` is their standard deviation, in the layout of the table. What a pair has in common is
handed on from layer to layer, so its covariances in different fields are taken to fluctuate together: spreads add as
tables do.

A `Field` is a mean plus a linear combination of bases, each perhaps averaged over some of its axes,

    x = mean + sum_i coefficient_i P_i B_i

so sums, residual connections, means over axes and what is left when they are subtracted have exact second moments, also
of values that share ancestors. Indices are `Atom`s, not axes: a reshape regroups them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Atom",
    "Axes",
    "Base",
    "Field",
    "Term",
    "atoms_of",
    "covariance",
    "expand",
    "fresh_axes",
    "shape_of",
]


class Atom:
    """An index that runs over `size` values; compared by identity.

    `profile`: of positions of a convolution, how strong they are: relative root mean squares, the mean of whose squares
    is 1. At the edges kernels see less. None where all are as strong. `near`: how alike neighbours are,
    from 0, as any two positions, to 1, as one with itself.
    """

    __slots__ = ("near", "profile", "size")

    def __init__(self, size: int, profile: np.ndarray | None = None, near: float = 0.0) -> None:
        self.size, self.profile, self.near = size, profile, near

    def __repr__(self) -> str:
        return f"Atom({self.size})"


#: Of each axis of an array, the atoms it is made of, slowest first; none for an axis of length 1.
Axes = tuple[tuple[Atom, ...], ...]


def fresh_axes(shape: Sequence[int]) -> Axes:
    """Axes of these lengths, of new atoms."""
    return tuple((Atom(n),) if n != 1 else () for n in shape)


def shape_of(axes: Axes) -> tuple[int, ...]:
    """The lengths of axes."""
    return tuple(math.prod(a.size for a in axis) for axis in axes)


def atoms_of(axes: Axes) -> tuple[Atom, ...]:
    """All atoms of axes, in order."""
    return tuple(a for axis in axes for a in axis)


class Base:
    """A field of zero mean, uncorrelated with all others.

    Attributes:
        sizes: lengths of its indices.
        table: covariance of two entries by agreement, shape (2,) * indices, index 1 where they agree.
        slope: second moment of its response to independent unit noise at each unit of the sites in `sources`.
        sources: sizes of the sites (products of parameters with the signal) it was computed from since, by site;
            and, as names, what of it was not analysed but measured.
        product: for the product of a parameter with the signal itself, which.
        parameter: whether it is made of parameters alone.
        spread: standard deviations of the covariances of two different entries, over such pairs; 0 if None.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        table: np.ndarray,
        slope: float = 0.0,
        sources: Mapping[Any, int] | None = None,
        product: Any = None,
        parameter: bool = False,
        spread: np.ndarray | None = None,
    ) -> None:
        self.sizes = tuple(sizes)
        self.table = np.asarray(table, np.float64)
        self.spread = np.zeros(self.table.shape) if spread is None else spread
        self.slope = slope
        self.sources = dict(sources or {})
        self.product = product
        self.parameter = parameter
        self.parts: dict[Any, Base] = {}

    def averaged(self, counts: Sequence[int], spread: bool = False) -> np.ndarray:
        """The table, or the spread, of the field whose entries are means over so many of each index, of the same
        shape."""
        table = self.spread if spread else self.table
        for k, n in enumerate(counts):
            if n > 1:
                same, other = np.take(table, [1], k), np.take(table, [0], k)
                mean = (same + (n - 1) * other) / n
                # Different pairs fluctuate apart.
                table = np.concatenate([same / n, same / n] if spread else [other, mean], axis=k)
        return table


class Term(NamedTuple):
    """A base where it stands: for each of its indices the atoms that it became, and the atoms averaged over."""

    base: Base
    places: tuple[tuple[Atom, ...], ...]
    over: frozenset[Atom] = frozenset()

    def meeting(self, other: Term) -> tuple[list[int], list[tuple[Atom, ...]]] | None:
        """Of each index of one base that stands in two places: how many of its values are averaged here or there, and
        the atoms left; None if the two stand along different axes."""
        counts, left = list[int](), list[tuple[Atom, ...]]()
        for size, here, there in zip(self.base.sizes, self.places, other.places, strict=True):
            if here and there and (self.over.issuperset(here) or other.over.issuperset(there)):
                counts.append(size)
                left.append(())
                continue
            if [a.size for a in here] != [a.size for a in there]:
                return None
            gone = [a in self.over or b in other.over for a, b in zip(here, there, strict=True)]
            if any(a is not b and not g for a, b, g in zip(here, there, gone, strict=True)):
                return None
            counts.append(math.prod(a.size for a, g in zip(here, gone, strict=True) if g))
            left.append(tuple(a for a, g in zip(here, gone, strict=True) if not g))
        return counts, left


class Field:
    """A random array: `mean` plus the terms with their coefficients.

    Attributes:
        axes: of the array.
        parameters: which parameters it is made of, where it is made of nothing else; None for signals.
        norm: it is a sum of squares over many entries, whose fluctuation nonlinear functions do not see.
        mask: entries where this is False are minus infinity (masked attention logits).
        exponentials: it is the sum of exp over some atoms: (the argument, the atoms).
    """

    def __init__(
        self,
        axes: Axes,
        mean: float,
        terms: Mapping[Term, float],
        parameters: frozenset[int] | None = None,
        norm: bool = False,
        mask: Any = None,
        exponentials: Any = None,
    ) -> None:
        self.axes = axes
        self.mean = float(mean)
        self.terms = {t: c for t, c in terms.items() if c != 0.0}
        self.parameters = parameters
        self.norm, self.mask, self.exponentials = norm, mask, exponentials

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self.axes)

    def like(self, **changes: Any) -> Field:
        """A copy with other attributes."""
        held = {
            k: getattr(self, k)
            for k in ("axes", "mean", "terms", "parameters", "norm", "mask", "exponentials")
        }
        return Field(**{**held, **changes})

    @functools.cached_property
    def bases(self) -> frozenset[Base]:
        return frozenset(t.base for t in self.terms)

    @functools.cached_property
    def variance(self) -> float:
        """Of an entry."""
        return max(0.0, float(covariance(self, self, ())))

    @property
    def second(self) -> float:
        """E[x^2] of an entry."""
        return self.mean**2 + self.variance

    @property
    def slope(self) -> float:
        """Second moment of the response to unit noise at the sites it comes from."""
        total = 0.0
        for base, group in self.grouped().items():
            for s, t in itertools.product(group, repeat=2):
                if met := s.meeting(t):
                    total += self.terms[s] * self.terms[t] * base.slope / math.prod(met[0])
        return total

    @property
    def sources(self) -> dict[Any, int]:
        """Sizes of the sites it comes from."""
        return {s: n for base in self.bases for s, n in base.sources.items()}

    def grouped(self) -> dict[Base, list[Term]]:
        out: dict[Base, list[Term]] = {}
        for t in self.terms:
            out.setdefault(t.base, []).append(t)
        return out

    def table(self, atoms: Sequence[Atom] | None = None) -> np.ndarray:
        """Covariance by agreement on the atoms (those of the axes by default)."""
        return covariance(self, self, atoms_of(self.axes) if atoms is None else atoms)

    def spread(self, atoms: Sequence[Atom]) -> np.ndarray:
        """Standard deviations of the covariances by agreement on the atoms, over pairs."""
        return covariance(self, self, atoms, spread=True)

    def moments(self, atoms: Sequence[Atom]) -> np.ndarray:
        """E[x x'] by agreement on the atoms."""
        return self.table(atoms) + self.mean**2

    def times(self, factor: float) -> Field:
        return self.like(
            mean=self.mean * factor,
            terms={t: c * factor for t, c in self.terms.items()},
            exponentials=None,
        )

    def plus(self, shift: float) -> Field:
        return self.like(mean=self.mean + shift, exponentials=None)

    def renamed(self, names: Mapping[Atom, tuple[Atom, ...]], axes: Axes) -> Field:
        """The same array with its atoms called otherwise, or split."""
        moved = lambda places: tuple(tuple(b for a in p for b in names.get(a, (a,))) for p in places)  # noqa: E731
        terms: dict[Term, float] = {}
        for t, c in self.terms.items():
            new = t._replace(places=moved(t.places), over=frozenset(*moved([t.over])))
            terms[new] = terms.get(new, 0.0) + c
        mask = None if self.mask is None else self.mask.renamed(names, axes)
        held = self.exponentials
        if held is not None:
            held = (held[0].renamed(names, held[0].axes), held[1])
        return self.like(axes=axes, terms=terms, mask=mask, exponentials=held)


def expand(table: np.ndarray, places: Sequence[tuple[Atom, ...]], atoms: Sequence[Atom]) -> np.ndarray:
    """A base's table by agreement on the atoms: an index agrees where all its atoms do; what is not asked agrees."""
    m = len(atoms)
    at = {a: k for k, a in enumerate(atoms)}
    index = []
    for place in places:
        agree: Any = np.ones((1,) * m, np.intp)
        for a in place:
            if a in at:
                shape = [1] * m
                shape[at[a]] = 2
                agree = agree * np.arange(2).reshape(shape)
        index.append(agree)
    found = table[tuple(index)] if index else table
    return np.broadcast_to(found, (2,) * m)


def covariance(u: Field, v: Field, atoms: Sequence[Atom], spread: bool = False) -> np.ndarray:
    """Cov(u, v') by agreement on the atoms, or its spread; on all others the two entries agree."""
    total = np.zeros((2,) * len(atoms))
    shared: dict[Base, list[Term]] = {}
    for t in v.terms:
        if t.base in u.bases:
            shared.setdefault(t.base, []).append(t)
    for s, a in u.terms.items():
        for t in shared.get(s.base, ()):
            if met := s.meeting(t):
                counts, left = met
                total = total + a * v.terms[t] * expand(s.base.averaged(counts, spread), left, atoms)
    return total


def combine(parts: Iterable[tuple[Field, float]], axes: Axes) -> Field:
    """A linear combination of fields on the same axes."""
    mean, terms, parameters = 0.0, dict[Term, float](), list[Any]()
    for field, factor in parts:
        mean += factor * field.mean
        parameters.append(field.parameters)
        for t, c in field.terms.items():
            terms[t] = terms.get(t, 0.0) + factor * c
    pure = None if any(p is None for p in parameters) else frozenset().union(*parameters)
    return Field(axes, mean, terms, pure)
