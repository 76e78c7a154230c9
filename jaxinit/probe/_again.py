"""Parameters that are multiplied more than once: which can be threaded through the program, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxinit.implicit import _frames
from jaxinit.probe._drawn import Drawn
from jaxinit.probe._lookup import is_lookup
from jaxinit.probe._operands import Again, is_convolution, kept_axes, matrix_shape, taken_axes
from jaxinit.probe._uses import Use

__all__ = ["Threading", "count_of", "is_again", "threading"]


class Threading(NamedTuple):
    """A matrix that is threaded: its shape, how many rows its products have together (on each side, gradients
    included), and of each use how the matrix is there."""

    shape: tuple[int, int]
    capacity: int
    uses: tuple[Again, ...]


def is_again(uses: Sequence[Use]) -> bool:
    """Whether a parameter with these uses is multiplied more than once."""
    return len(uses) > 1 or any(use.repeats > 1 for use in uses)


def threading(uses: Sequence[Use], shape: Sequence[int], law: Drawn) -> Threading | str:
    """How a parameter is threaded, of which one layer has this shape; or why it can not be."""
    reason = next((r for r in (_use_against(u) for u in uses) if r), "") or _together_against(uses)
    if reason:
        return reason
    axes = [use.axes or () for use in uses]
    taken = [
        tuple(a[n] for n in taken_axes(u.eqn, u.operand, len(a))) for u, a in zip(uses, axes, strict=True)
    ]
    whole, first = frozenset(axes[0]), frozenset(taken[0])
    if law.tap:
        return "it is zeros in part, and multiplied more than once"
    if law.rows:
        first = frozenset(n for n in whole if n - uses[0].loops < law.rows)
        if law.stacked != uses[0].loops or first == whole:
            return "its rows and columns are not those of the orthogonal matrix"
    if any(frozenset(t) not in (first, whole - first) for t in taken):
        return "it is multiplied again as a matrix of other rows and columns"
    loops = uses[0].loops
    n_in, n_out = (math.prod(shape[n - loops] for n in side) for side in (first, whole - first))
    capacity, ways = 0, []
    for use, own, summed in zip(uses, axes, taken, strict=True):
        rows, entries, _ = matrix_shape(use.eqn, use.operand, use.weight(shape), use.value(shape))
        capacity += use.repeats * _frames.rank_bound(rows, entries)
        kept = [own[n] for n in kept_axes(use.eqn, use.operand, len(own))]
        ways.append(Again(frozenset(summed) != first, _order(summed), _order(kept)))
    if 2 * capacity * _numbers(n_in, n_out, law) >= n_in * n_out:
        what = f"{count_of(uses)} products of {capacity} rows in all with its {n_in} x {n_out} entries"
        return f"{what} need more numbers than these"
    return Threading((n_in, n_out), capacity, tuple(ways))


def count_of(uses: Sequence[Use]) -> int:
    """How many there are, each iteration of a loop counted."""
    return sum(use.repeats for use in uses)


def _order(axes: Sequence[int]) -> tuple[int, ...]:
    """Which of them comes first, second, ..."""
    return tuple(sorted(range(len(axes)), key=lambda n: axes[n]))


def _numbers(n_in: int, n_out: int, law: Drawn) -> int:
    """How many numbers are kept of a product of one row."""
    return 2 * max(n_in, n_out) if law.rows else n_in + n_out


def _use_against(use: Use) -> str:
    name, params = use.eqn.primitive.name, use.eqn.params
    if use.axes is None:
        return "it is multiplied more than once, and in another shape"
    if name == "gather" and (use.shaped or not is_lookup(use.eqn)):
        return "it is not looked up by rows"
    if is_convolution(use.eqn):
        if max(params["feature_group_count"], params["batch_group_count"]) > 1:
            return "it is several matrices, one for each group of channels, used more than once"
        return "it is multiplied more than once, and in another shape" if use.shaped else ""
    if name == "dot_general" and any(params["dimension_numbers"][1]):
        return "it is several matrices, one for each member of a batch, used more than once"
    return ""


def _together_against(uses: Sequence[Use]) -> str:
    if len({id(use.chain[0]) for use in uses}) > 1:
        return "loops go through its layers more than once"
    specs = {u.eqn.params["dimension_numbers"].rhs_spec if is_convolution(u.eqn) else () for u in uses}
    return "its products take its axes in different ways" if len(specs) > 1 else ""
