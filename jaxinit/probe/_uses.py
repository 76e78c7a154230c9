"""How a program uses its parameters: which are multiplied with the signal once, and need never be formed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from jaxinit.models import MARK
from jaxinit.probe import _equations as equations
from jaxinit.probe._drawn import Drawn
from jaxinit.probe._plan import Block, Plan

__all__ = ["Product", "Use", "Uses", "uses_of"]

_SHAPING = frozenset({"reshape", "transpose", "squeeze", "expand_dims"})
_SAME = frozenset({"convert_element_type", "copy"})
#: Equations whose value is drawn in place of the parameter, and which operands that can be.
_OPERANDS = {"dot_general": (0, 1), "conv_general_dilated": (1,), "gather": (0,)}


class Product(NamedTuple):
    """An equation that multiplies a parameter: which, which operand it is, and its law."""

    parameter: int
    operand: int
    law: Drawn


class _Seen(NamedTuple):
    """A variable that is a parameter: which, whether it has another shape, and over which loops."""

    parameter: int
    shaped: bool
    loops: int


class Use(NamedTuple):
    """A product that a parameter is an operand of: as it stands or in another shape, inside how many loops."""

    block: Block
    equation: int
    operand: int
    shaped: bool
    loops: int

    @property
    def eqn(self) -> core.JaxprEqn:
        return self.block.jaxpr.eqns[self.equation]


@dataclasses.dataclass
class Uses:
    """For each parameter: its products, the equations that only give it another shape, and what else is done."""

    products: dict[int, list[Use]]
    shaping: dict[int, list[tuple[Block, int]]]
    against: dict[int, str]

    def refuse(self, given: Sequence[_Seen | None], reason: str) -> None:
        for s in given:
            if s is not None:
                self.against.setdefault(s.parameter, reason)

    def multiply(self, parameter: int, law: Drawn) -> None:
        """Tell the block that holds the parameter's one product to draw it."""
        (use,) = self.products[parameter]
        use.block.products[use.equation] = Product(parameter, use.operand, law)
        for block, index in self.shaping.get(parameter, []):
            block.shaping.add(index)


def uses_of(plan: Plan) -> Uses:
    """How the program that was planned uses each of its parameters."""
    found, count = Uses({}, {}, {}), len(plan.parameters)
    inputs = [_Seen(n, False, 0) if n < count else None for n in range(len(plan.block.jaxpr.invars))]
    _walk(found, plan.block, inputs)
    return found


def _walk(found: Uses, block: Block, inputs: Sequence[_Seen | None]) -> None:
    seen = {v: s for v, s in zip(block.jaxpr.invars, inputs, strict=True) if s is not None}
    for index, eqn in enumerate(block.jaxpr.eqns):
        given = [None if isinstance(v, core.Literal) else seen.get(v) for v in eqn.invars]
        used = [s for s in given if s is not None]
        if not used:
            continue
        name = eqn.primitive.name
        if index in block.inside:
            _enter(found, block, index, eqn, given)
        elif name in _SHAPING or (name in _SAME and _floating(eqn.outvars[0])):
            (before,) = used
            seen[eqn.outvars[0]] = before._replace(shaped=before.shaped or name in _SHAPING)
            found.shaping.setdefault(before.parameter, []).append((block, index))
        elif len(used) == 1 and (operand := _first(given)) in _OPERANDS.get(name, ()):
            use = Use(block, index, operand, used[0].shaped, used[0].loops)
            found.products.setdefault(used[0].parameter, []).append(use)
        else:
            found.refuse(used, f"{'a module' if eqn.primitive is MARK else name} is given it")
    left = [seen[v] for v in block.jaxpr.outvars if not isinstance(v, core.Literal) and v in seen]
    found.refuse(left, "it leaves the part of the program that it enters")


def _enter(found: Uses, block: Block, index: int, eqn: core.JaxprEqn, given: list[_Seen | None]) -> None:
    kind = equations.kind_of(eqn)
    inside = list(given)
    if kind == equations.COND:
        found.refuse(given, "it is used under a condition")
        inside = [None] * (len(given) - 1)
    elif kind == equations.SCAN:
        consts, carried, *_ = equations.loop_of(eqn)
        found.refuse(given[: consts + carried], "it is used again in every iteration of a loop")
        inside[: consts + carried] = [None] * (consts + carried)
        for n, s in enumerate(inside):
            if s is not None and s.shaped:
                found.refuse([s], "its layers are not its first axis")
                inside[n] = None
            elif s is not None:
                inside[n] = s._replace(loops=s.loops + 1)
    for body in block.inside[index]:
        _walk(found, body, inside)


def _first(given: Sequence[_Seen | None]) -> int:
    return next(n for n, s in enumerate(given) if s is not None)


def _floating(atom: Any) -> bool:
    return bool(jnp.issubdtype(equations.aval(atom).dtype, jnp.floating))
