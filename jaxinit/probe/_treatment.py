"""Which parameters are never formed, and how the others are drawn without them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxinit.probe import _equations as equations
from jaxinit.probe._drawn import Drawn, laws
from jaxinit.probe._lookup import is_lookup, tokens
from jaxinit.probe._plan import Plan
from jaxinit.probe._unformed import matrix_shape, smaller, stand_in
from jaxinit.probe._uses import Use, Uses, uses_of
from jaxinit.probe._wanted import Wanted, want

__all__ = ["Treatment", "treat"]

#: The key of the products of one seed: its own key draws what is formed.
_STREAM = 0x6A780004


@dataclasses.dataclass(frozen=True)
class Treatment:
    """What is done with each parameter.

    Attributes:
        laws: of the parameters that are never formed, by index.
        words: for every parameter, in a few words.
        bytes: what those never formed would have taken.
    """

    plan: Plan
    laws: dict[int, Drawn]
    words: tuple[str, ...]
    bytes: int
    wanted: Wanted
    structure: Any

    @property
    def config(self) -> dict[str, Any]:
        """What the record says of it."""
        paths = ["/".join(path) for path in self.plan.parameters]
        return {
            "parameters": dict(zip(paths, self.words, strict=True)),
            "unformed_bytes": self.bytes,
        }

    @property
    def layers(self) -> dict[int, tuple[Drawn, tuple[int, ...]]]:
        """The law and the shape of one layer of each parameter that is never formed."""
        stacks = {n: len(self.plan.stacked.get(n, ())) for n in self.laws}
        return {n: (law, tuple(self.plan.shapes[n][stacks[n] :])) for n, law in self.laws.items()}

    def init(self, key: Any, args: Any) -> Any:
        """Parameters and state, with `Unformed` in place of parameters that are never formed."""
        outs = self.wanted([key, *jax.tree.leaves(args)])
        products = jax.random.fold_in(key, _STREAM)
        for n in self.laws:
            stack = [loop.length for loop in self.plan.stacked.get(n, ())]
            outs[n] = stand_in(products, self.plan.parameters[n], stack)
        return jax.tree.unflatten(self.structure, outs)


def treat(plan: Plan, init: Callable[[Any, Any], Any], args: Any, approximate: bool) -> Treatment:
    """Decide for each parameter, and tell the plan's blocks how to do without those that are never formed.

    `init(key, args) -> (params, state)` as the model draws them; the plan is of its program.
    """
    key = jax.random.key(0, impl="threefry2x32")
    program, shape = jax.make_jaxpr(init, return_shape=True)(key, args)
    drawn, uses, count = laws(program), uses_of(plan), len(plan.parameters)
    against = {n: _against(plan, n, uses, drawn[n], approximate) for n in range(count)}
    _apart(drawn, against)
    while True:
        kept = {n: law for n, law in enumerate(drawn[:count]) if law is not None and against[n] is None}
        wanted = want(program, [n not in kept for n in range(len(program.jaxpr.outvars))])
        entangled = [n for n, law in kept.items() if wanted.executes(law.source)]
        if not entangled:
            break
        against.update(dict.fromkeys(entangled, "other parameters are computed from it"))
    for n, law in kept.items():
        uses.multiply(n, law)
    words = [
        f"implicit ({_name(kept[n])})" if n in kept else f"materialized: {against[n]}" for n in range(count)
    ]
    size = sum(_bytes(program.jaxpr.outvars[n]) for n in kept)
    return Treatment(plan, kept, tuple(words), size, wanted, jax.tree.structure(shape))


def _against(plan: Plan, n: int, uses: Uses, law: Drawn | None, approximate: bool) -> str | None:
    """Why a parameter has to be formed, or None."""
    products = uses.products.get(n, [])
    if len(plan.shapes[n]) - len(plan.stacked.get(n, ())) < 2:
        return "it is no matrix"
    if n in uses.against:
        return uses.against[n]
    if len(products) != 1:
        return "no product uses it" if not products else f"{len(products)} products use it"
    if law is None:
        return "its law is not known from how it is drawn"
    (use,) = products
    return _shape_against(plan, n, use, law) or _law_against(use, law, approximate)


def _law_against(use: Use, law: Drawn, approximate: bool) -> str | None:
    if not law.stddev > 0 or law.mean != 0:
        return "its entries do not have mean 0"
    if not approximate and law.kind == "iid":
        return f"its law is {law.distribution.replace('_', ' ')}; approximate=True takes it for normal"
    dtype = equations.aval(use.eqn.invars[use.operand]).dtype
    if not approximate and jnp.dtype(dtype).itemsize < 4:
        return f"it is rounded to {dtype} before use; approximate=True takes it as it is"
    return None


def _shape_against(plan: Plan, n: int, use: Use, law: Drawn) -> str | None:
    name = use.eqn.primitive.name
    if name == "gather":
        taken, there = tokens(use.eqn)
        if law.kind == "orthogonal" or use.shaped or not is_lookup(use.eqn):
            return "it is not looked up by rows that are independent"
        return None if taken < there else "as many of its rows are looked up as it has"
    if name == "conv_general_dilated":
        if max(use.eqn.params["feature_group_count"], use.eqn.params["batch_group_count"]) > 1:
            return "it is several matrices, one for each group of channels"
        if law.kind == "orthogonal":
            return "its rows and columns are not those of the orthogonal matrix"
        return (
            None
            if smaller(*matrix_shape(use.eqn, use.operand), law)
            else "it is smaller than what its products need"
        )
    contracted, batch = use.eqn.params["dimension_numbers"]
    if law.kind == "orthogonal" and any(batch):
        return "it is several matrices, one for each member of a batch"
    if law.kind == "orthogonal":
        rows = set(range(law.rows))
        columns = set(range(law.rows, len(plan.shapes[n]) - use.loops))
        if law.stacked != use.loops or use.shaped or set(contracted[use.operand]) not in (rows, columns):
            return "its rows and columns are not those of the orthogonal matrix"
    if not smaller(*matrix_shape(use.eqn, use.operand), law):
        return "it is smaller than what its products need"
    return None


def _apart(drawn: Sequence[Drawn | None], against: dict[int, str | None]) -> None:
    """Two parameters of one draw are not independent."""
    sources = [law.source for law in drawn if law is not None]
    for n in against:
        law = drawn[n]
        if law is not None and sources.count(law.source) > 1 and against[n] is None:
            against[n] = "another parameter is the same draw"


def _name(law: Drawn) -> str:
    if law.kind == "iid":
        return f"{law.distribution.replace('_', ' ')}, taken for normal"
    return law.kind


def _bytes(atom: core.Var) -> int:
    aval = equations.aval(atom)
    return math.prod(aval.shape) * int(aval.dtype.itemsize)
