"""A model that is evaluated from the first layer to the last, its parameters scaled on the way.

An evaluation stands at a block of pieces (`_pieces`): what lies before it is done with, its values may be measured, its
parameters scaled and the block run again, all on every batch, before anything behind it is computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxinit.adapt._calibrate_case import Case, ownership, scaled_leaves
from jaxinit.adapt._pieces import Pieces, times
from jaxinit.probe import Figures, Products

__all__ = ["Front"]

#: The setting that says where programs run.
_DEVICE = "jax_default_device"


class Front:
    """Where an evaluation of a case stands.

    Args:
        case: the model.
        partial: whether partial Jacobians are measured; then all of the model is one block.

    Attributes:
        at: by site, the block that computes its value.
        leaves: the parameters as they are scaled by now.
    """

    def __init__(self, case: Case, partial: bool) -> None:
        self.case = case
        self.owner, self.bias = ownership(case.products, case.own), ownership(case.products, case.bias)
        self._pieces = _pieces(case.products, partial, jax.ShapeDtypeStruct(case.key.shape, case.key.dtype))
        each = range(len(self._pieces))
        self._blocks = [each] if partial else [range(n, n + 1) for n in each]
        self.at = np.zeros(len(case.own), int)
        if not partial:
            rows, _ = self._pieces.returned({})
            makers = dict(zip(sorted(rows), self._pieces.makers(), strict=True))
            self.at = np.array([makers[product.place] for product in case.products.products], int)
        self._used = self._pieces.first_use()
        self._zero = {n for n, zero in enumerate(case.zero) if zero.all()}
        self.leaves, self._ran = list(case.leaves), 0
        if _by_default((case.leaves, case.state, case.batches, case.key)):
            self._pieces.compile()
        self.begin()

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def evaluations(self) -> int:
        """How often the model was evaluated: pieces that were run, in models, rounded up."""
        return -(-self._ran // len(self._pieces))

    def begin(self) -> None:
        """Stand before the first block, with the parameters as they are."""
        case = self.case
        self._values = [
            self._pieces.begin(self.leaves, case.state, batch, case.key) for batch in case.batches
        ]

    def run(self, block: int) -> None:
        """Compute what the block computes. A block of several pieces cannot be run again but from the beginning."""
        pieces = self._blocks[block]
        for values in self._values:
            for n in pieces:
                self._pieces.run(n, values)
                if len(pieces) > 1:
                    self._pieces.leave(n, values)
        self._ran += len(pieces)

    def leave(self, block: int) -> None:
        """Go on to the next."""
        if len(self._blocks[block]) == 1:
            for values in self._values:
                self._pieces.leave(self._blocks[block][0], values)

    def all(self) -> Figures:
        """Of all sites: an evaluation from the beginning to the end."""
        for block in range(len(self)):
            self.run(block)
            self.leave(block)
        return self.figures()

    def figures(self) -> Figures:
        """What has been measured by now, nan for sites that were not reached."""
        return _together([self.case.products.told(self._pieces.returned(v)) for v in self._values])

    def scale(self, block: int, moved: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> bool:
        """Scale the parameters of the sites `moved`, of this block, by e^scale and shift their biases in place of what
        was done before. Whether the block can be run again; if not, the parameters enter earlier ones."""
        changed = [n for n, own in enumerate(self.owner) if _any(own, moved) or _any(self.bias[n], moved)]
        new = scaled_leaves(
            [self.case.leaves[n] for n in changed], [self.owner[n] for n in changed], np.exp(scale),
            [self.bias[n] for n in changed], shift,
        )  # fmt: skip
        for n, leaf in zip(changed, new, strict=True):
            self.leaves[n] = leaf
            for values in self._values:
                values[n] = leaf
        return len(self._blocks[block]) == 1 and all(self._used.get(n, block) >= block for n in changed)

    def follow(self, block: int, site: int, step: float) -> bool:
        """Multiply what the block passes on by what a factor e^step of this site's parameters makes of it, if that is
        a power of the factor; whether it was done. It is what the block would compute if it were run again."""
        if len(self._blocks[block]) > 1:
            return False
        owned = {n: own == site for n, own in enumerate(self.owner) if own is not None and site in own}
        whole = all(own.all() and _precise(self.leaves[n]) for n, own in owned.items())
        powers = self._pieces.powers(block, owned, self._zero) if whole else None
        if powers is None or not all(_precise(values[n]) for values in self._values for n in powers):
            return False
        for values in self._values:
            for n, power in powers.items():
                values[n] = times(values[n], np.exp(power * step).astype(values[n].dtype))
        return True


@functools.lru_cache(maxsize=8)
def _pieces(products: Products, partial: bool, key: Any) -> Pieces:
    """The model, evaluated: leaves, state, batch, key -> sums. `key`: the shape and dtype of one."""
    params, state = products.abstract
    sums = functools.partial(products.sums, partial=partial)
    return Pieces(sums, jax.tree.leaves(params), state, products.arguments, key)


def _together(figures: Sequence[Figures]) -> Figures:
    """Of several batches: the means of squares and values."""

    def pooled(logs: Sequence[np.ndarray]) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.logaddexp.reduce(logs, axis=0) - math.log(len(logs))

    log, mean, gradient = zip(*figures, strict=True)
    return Figures(pooled(log), np.mean(mean, axis=0), None if gradient[0] is None else pooled(gradient))


def _any(site: np.ndarray | None, moved: np.ndarray) -> bool:
    """Whether one of these sites owns something."""
    return site is not None and bool(moved[site[site >= 0]].any())


def _precise(value: Any) -> bool:
    """Whether rounding a product of it once more changes nothing that counts."""
    return value.dtype in (np.float32, np.float64)


def _by_default(args: Any) -> bool:
    """Whether programs for arrays that are nowhere in particular will do."""
    held = {d for v in jax.tree.leaves(args) if isinstance(v, jax.Array) for d in v.devices()}
    return getattr(jax.config, _DEVICE) is None and held <= {jax.local_devices()[0]}
