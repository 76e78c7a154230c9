"""Which parameters are never formed, and how the others are drawn without them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxinit.probe import equations
from jaxinit.probe._again import Threading, count_of, is_again, threading
from jaxinit.probe._drawn import Drawn, laws
from jaxinit.probe._lookup import is_lookup, tokens
from jaxinit.probe._operands import Product, matrix_shape, taken_axes
from jaxinit.probe._plan import Plan
from jaxinit.probe._unformed import kind_of, smaller, stand_ins
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
        if self.laws:
            paths = [self.plan.parameters[n] for n in self.laws]
            stacks = [[loop.length for loop in self.plan.stacked.get(n, ())] for n in self.laws]
            for n, own in zip(self.laws, stand_ins(products, paths, stacks), strict=True):
                outs[n] = own
        return jax.tree.unflatten(self.structure, outs)


def treat(plan: Plan, program: core.ClosedJaxpr, structure: Any, approximate: bool) -> Treatment:
    """Decide for each parameter, and tell the plan's blocks how to do without those that are never formed.

    `program` draws (params, state), of this structure, from a key and arguments; the plan is of the model's program.
    """
    drawn, uses, count = laws(program, sparse=True), uses_of(plan), len(plan.parameters)
    against: dict[int, str | None] = {}
    threads: dict[int, Threading] = {}
    for n in range(count):
        found = _decided(plan, n, uses, drawn[n], approximate)
        against[n] = found if isinstance(found, str) else None
        if isinstance(found, Threading):
            threads[n] = found
    _apart(drawn, against)
    while True:
        kept = {n: law for n, law in enumerate(drawn[:count]) if law is not None and against[n] is None}
        wanted = want(program, [n not in kept for n in range(len(program.jaxpr.outvars))])
        new = {n: "other parameters are computed from it" for n in kept if wanted.executes(kept[n].source)}
        for n in kept:
            if any(other not in kept for use in uses.products[n] for other in use.joined):
                new[n] = "it is joined with parameters that are materialized"
        if not new:
            break
        against.update(new)
    words = [f"materialized: {against[n]}" for n in range(count)]
    for n, law in kept.items():
        again = threads.get(n)
        _leave_unformed(plan, n, law, uses, again)
        words[n] = f"implicit ({_name(law)})"
        if again is not None:
            words[n] += f", {count_of(uses.products[n])} products conditioned on one another"
    size = sum(_bytes(program.jaxpr.outvars[n]) for n in kept)
    return Treatment(plan, kept, tuple(words), size, wanted, structure)


def _leave_unformed(plan: Plan, n: int, law: Drawn, uses: Uses, again: Threading | None) -> None:
    """Tell the blocks that hold the products of a parameter to draw them."""
    layer, own = _layer(plan, n), uses.products[n]
    for k, use in enumerate(own):
        way = None if again is None else again.uses[k]
        parts = use.block.products.setdefault(use.equation, [None] * len(use.joined))
        parts[use.part] = Product(
            n, law, use.operand, use.weight(layer), use.value(layer), use.value_axis, way
        )
    for block, index in uses.shaping.get(n, []):
        block.shaping.add(index)
    if again is not None:
        home = own[0].chain[0]
        dtype = jnp.promote_types(jnp.float32, equations.aval(own[0].eqn.outvars[0]).dtype)
        home.begins[n] = uses.given[n], (again.shape, again.capacity, kind_of(law), law.stddev, dtype)
        for use in own:
            for block in use.chain[1:]:
                block.threaded.add(n)


def _layer(plan: Plan, n: int) -> tuple[int, ...]:
    return tuple(plan.shapes[n][len(plan.stacked.get(n, ())) :])


def _decided(plan: Plan, n: int, uses: Uses, law: Drawn | None, approximate: bool) -> str | Threading | None:
    """Why a parameter has to be formed; or how it is threaded through the program; or None: it is multiplied once."""
    products = uses.products.get(n, [])
    layer = _layer(plan, n)
    if len(layer) < 2:
        return "it is no matrix"
    if n in uses.against:
        return uses.against[n]
    if not products:
        return "no product uses it"
    if law is None:
        return "its law is not known from how it is drawn"
    reason = next((r for r in (_law_against(use, law, approximate) for use in products) if r), None)
    if is_again(products):
        found = threading(products, layer, law)
        return found if isinstance(found, str) or reason is None else reason
    return _shape_against(products[0], layer, law) or reason


def _law_against(use: Use, law: Drawn, approximate: bool) -> str | None:
    if not law.stddev > 0 or law.mean != 0:
        return "its entries do not have mean 0"
    if not approximate and law.kind == "iid":
        return f"its law is {law.distribution.replace('_', ' ')}; approximate=True takes it for normal"
    dtype = equations.aval(use.eqn.invars[use.operand]).dtype
    if not approximate and jnp.dtype(dtype).itemsize < 4:
        return f"it is rounded to {dtype} before use; approximate=True takes it as it is"
    return None


def _shape_against(use: Use, layer: Sequence[int], law: Drawn) -> str | None:
    name, params = use.eqn.primitive.name, use.eqn.params
    if name == "gather":
        taken, there = tokens(use.eqn)
        if law.rows or use.shaped or not is_lookup(use.eqn):
            return "it is not looked up by rows that are independent"
        return None if taken < there else "as many of its rows are looked up as it has"
    batch: Sequence[Any] = ()
    if name == "dot_general":
        batch = params["dimension_numbers"][1][use.operand]
    elif params["batch_group_count"] > 1:
        return "it is several matrices, one for each group of the batch"
    if law.rows:
        if batch:
            return "it is several matrices, one for each member of a batch"
        if name != "dot_general" and params["feature_group_count"] > 1:
            return "it is several matrices, one for each group of channels"
        if not _is_matrix(use, layer, law):
            return "its rows and columns are not those of the orthogonal matrix"
    rows, n_in, n_out = matrix_shape(use.eqn, use.operand, use.weight(layer), use.value(layer))
    n_in //= math.prod(layer[: len(law.tap)])
    if not smaller(rows, n_in, n_out, law):
        return f"products of {rows} rows with its {n_in} x {n_out} entries need more numbers than these"
    return None


def _is_matrix(use: Use, layer: Sequence[int], law: Drawn) -> bool:
    """Whether a product takes an orthogonal matrix by its rows or columns."""
    if use.axes is None or law.stacked != use.loops:
        return False
    window, end = len(law.tap), len(layer)
    summed = {use.axes[n] - use.loops for n in taken_axes(use.eqn, use.operand, end)}
    if law.tap:  # a convolution's window, and the channels that it takes
        if use.eqn.primitive.name != "conv_general_dilated" or use.shaped:
            return False
        spec = use.eqn.params["dimension_numbers"].rhs_spec
        return sorted(spec[2:]) == list(range(window)) and summed == set(range(window + law.rows))
    return summed in (set(range(law.rows)), set(range(law.rows, end)))


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
