"""How a program uses its parameters: which are multiplied with the signal only, and need never be formed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from jaxinit.models import MARK
from jaxinit.probe import equations
from jaxinit.probe._operands import kept_axes
from jaxinit.probe._plan import SAME, Block, Plan

__all__ = ["Use", "Uses", "uses_of"]

#: Equations that only give a parameter another shape.
_SHAPING = frozenset({"reshape", "transpose", "squeeze", "expand_dims"})
#: Equations whose value is drawn in place of the parameter, and which operands that can be.
_OPERANDS = {"dot_general": (0, 1), "conv_general_dilated": (1,), "gather": (0,)}
#: What is done with a parameter that is no product.
_DONE = {
    MARK.name: "a module is given it", "add": "it is added to the signal", "add_any": "it is added to the signal",
    "mul": "it is multiplied entry by entry", "while": "it is used in a loop of unknown length",
}  # fmt: skip


class _Seen(NamedTuple):
    """A variable that is a parameter.

    `axes`: which axis of the parameter each of the variable's is, None where they were merged or split; `loops`: over
    how many of the first ones loops have gone; `repeats`: how often the body that it is seen in is executed with the
    same values; `depth`: at which block of those around it a layer of it was to be had first.
    """

    parameter: int
    axes: tuple[int, ...] | None
    loops: int
    repeats: int
    depth: int


class _Joined(NamedTuple):
    """A variable that is several parameters, one after the other along an axis."""

    parts: tuple[_Seen, ...]
    axis: int


class Use(NamedTuple):
    """A product that a parameter is an operand of.

    `chain`: the blocks around the equation, from the one in which a layer of the parameter is to be had first;
    `axes`, `loops`, `repeats`: as of the operand (`_Seen`); `joined`: the parameters that make up the operand together,
    this one included, and along which axis; `part`: which of them it is.
    """

    chain: tuple[Block, ...]
    equation: int
    operand: int
    axes: tuple[int, ...] | None
    loops: int
    repeats: int
    joined: tuple[int, ...]
    axis: int
    part: int

    @property
    def block(self) -> Block:
        return self.chain[-1]

    @property
    def eqn(self) -> core.JaxprEqn:
        return self.block.jaxpr.eqns[self.equation]

    @property
    def shaped(self) -> bool:
        """Whether the axes of the operand are not those of the parameter, in order."""
        return self.axes is None or self.axes != tuple(range(self.loops, self.loops + len(self.axes)))

    @property
    def value_axis(self) -> int:
        """The axis of the value along which the products with joined parameters stand."""
        ndim, out = (len(equations.aval(v).shape) for v in (self.eqn.invars[self.operand], *self.eqn.outvars))
        kept = kept_axes(self.eqn, self.operand, ndim)
        return kept.index(self.axis) + (0 if self.operand == 0 else out - len(kept)) if self.several else 0

    @property
    def several(self) -> bool:
        """Whether the operand is made of several parameters."""
        return len(self.joined) > 1

    def weight(self, layer: Sequence[int]) -> tuple[int, ...]:
        """The shape of the operand, as far as it is this parameter, of which one layer has the shape `layer`."""
        if self.axes is None:
            return tuple(equations.aval(self.eqn.invars[self.operand]).shape)
        return tuple(layer[n - self.loops] for n in self.axes)

    def value(self, layer: Sequence[int]) -> tuple[int, ...]:
        """The shape of the product with this parameter."""
        out = list(equations.aval(self.eqn.outvars[0]).shape)
        if self.several:
            out[self.value_axis] = self.weight(layer)[self.axis]
        return tuple(out)


@dataclasses.dataclass
class Uses:
    """For each parameter: its products, the equations that only hand it on, and what else is done; `given`: which input
    of the block in which a layer of it is to be had first."""

    products: dict[int, list[Use]] = dataclasses.field(default_factory=dict)
    shaping: dict[int, list[tuple[Block, int]]] = dataclasses.field(default_factory=dict)
    against: dict[int, str] = dataclasses.field(default_factory=dict)
    given: dict[int, int] = dataclasses.field(default_factory=dict)

    def refuse(self, given: Sequence[_Seen | _Joined | None], reason: str) -> None:
        for s in (part for value in given if value is not None for part in _parts(value)):
            self.against.setdefault(s.parameter, reason)


def uses_of(plan: Plan) -> Uses:
    """How the program that was planned uses each of its parameters."""
    inputs: list[_Seen | _Joined | None] = [None] * len(plan.block.jaxpr.invars)
    for n, shape in enumerate(plan.shapes):
        inputs[n] = _Seen(n, tuple(range(len(shape))), 0, 1, 0)
    found = _Walk()
    found.walk((plan.block,), inputs)
    return found.uses


class _Walk:
    def __init__(self) -> None:
        self.uses = Uses()

    def walk(self, chain: tuple[Block, ...], inputs: Sequence[_Seen | _Joined | None]) -> None:
        block = chain[-1]
        seen = {v: s for v, s in zip(block.jaxpr.invars, inputs, strict=True) if s is not None}
        for n, s in enumerate(inputs):
            if isinstance(s, _Seen) and s.depth == len(chain) - 1:
                self.uses.given[s.parameter] = n
        for index, eqn in enumerate(block.jaxpr.eqns):
            given = [None if isinstance(v, core.Literal) else seen.get(v) for v in eqn.invars]
            if not any(s is not None for s in given):
                continue
            if index in block.inside:
                self._enter(chain, index, eqn, given)
            elif (value := _handed_on(eqn, given, index in block.taps)) is not None:
                seen[eqn.outvars[0]] = value
                for s in _parts(value):
                    self.uses.shaping.setdefault(s.parameter, []).append((block, index))
            else:
                self._use(chain, index, eqn, given)
        left = [seen[v] for v in block.jaxpr.outvars if not isinstance(v, core.Literal) and v in seen]
        self.uses.refuse(left, "it leaves the part of the program that it enters")

    def _use(
        self, chain: tuple[Block, ...], index: int, eqn: core.JaxprEqn, given: list[_Seen | _Joined | None]
    ) -> None:
        name = eqn.primitive.name
        operand, value = next((n, s) for n, s in enumerate(given) if s is not None)
        alone = sum(s is not None for s in given) == 1
        if not alone or operand not in _OPERANDS.get(name, ()) or not _splits(eqn, operand, value):
            self.uses.refuse(given, _DONE.get(name, f"{name} is given it"))
            return
        parts = _parts(value)
        joined, axis = tuple(s.parameter for s in parts), value.axis if isinstance(value, _Joined) else 0
        for n, s in enumerate(parts):
            use = Use(chain[s.depth :], index, operand, s.axes, s.loops, s.repeats, joined, axis, n)
            self.uses.products.setdefault(s.parameter, []).append(use)

    def _enter(
        self, chain: tuple[Block, ...], index: int, eqn: core.JaxprEqn, given: list[_Seen | _Joined | None]
    ) -> None:
        kind, block = equations.kind_of(eqn), chain[-1]
        inside = given
        if kind == equations.COND:
            self.uses.refuse(given[:1], "a condition is given it")
            inside = given[1:]
        elif kind == equations.SCAN:
            consts, carried, length, _ = equations.loop_of(eqn)
            self.uses.refuse(given[consts : consts + carried], "a loop is given it to change")
            inside = [_again(s, length) for s in given[:consts]] + [None] * carried
            for s in given[consts + carried :]:
                reason = _layers_against(s)
                if reason:
                    self.uses.refuse([s], reason)
                inside.append(None if s is None or reason else _layer(s, len(chain)))
        for body in block.inside[index]:
            self.walk((*chain, body), inside)


def _parts(value: _Seen | _Joined) -> tuple[_Seen, ...]:
    return value.parts if isinstance(value, _Joined) else (value,)


def _again(value: _Seen | _Joined | None, length: int) -> _Seen | _Joined | None:
    """The same in the body of a loop that is given it as it is."""
    if value is None:
        return None
    parts = tuple(s._replace(repeats=s.repeats * length) for s in _parts(value))
    return _Joined(parts, value.axis) if isinstance(value, _Joined) else parts[0]


def _layers_against(value: _Seen | _Joined | None) -> str:
    """Why a loop can not go through the layers of a parameter."""
    if isinstance(value, _Joined) or (value is not None and value.axes != _axes_from(value)):
        return "its layers are not its first axis"
    if isinstance(value, _Seen) and value.repeats > 1:
        return "its layers are used again in every iteration of a loop around theirs"
    return ""


def _axes_from(value: _Seen) -> tuple[int, ...] | None:
    return value.axes and tuple(range(value.loops, value.loops + len(value.axes)))


def _layer(value: _Seen | _Joined, depth: int) -> _Seen:
    assert isinstance(value, _Seen) and value.axes is not None
    return value._replace(axes=value.axes[1:], loops=value.loops + 1, depth=depth)


def _handed_on(
    eqn: core.JaxprEqn, given: Sequence[_Seen | _Joined | None], measured: bool
) -> _Seen | _Joined | None:
    """What the value of an equation is that only hands parameters on, in another shape or joined; else None."""
    name, values = eqn.primitive.name, [s for s in given if s is not None]
    if name == "concatenate" and len(values) == len(given):
        parts = tuple(s for s in values if isinstance(s, _Seen))
        joinable = len(parts) == len(values) and all(s.axes == _axes_from(s) for s in parts)
        return _Joined(parts, eqn.params["dimension"]) if joinable and parts[0].axes is not None else None
    (value,) = values if len(values) == 1 else (None,)
    if (name in SAME and _floating(eqn.outvars[0])) or (eqn.primitive is MARK and not measured):
        return value
    if name not in _SHAPING or not isinstance(value, _Seen):
        return None
    axes = value.axes
    if axes is not None and name == "transpose":
        axes = tuple(axes[n] for n in eqn.params["permutation"])
    elif axes is not None:
        before, after = equations.aval(eqn.invars[0]).shape, equations.aval(eqn.outvars[0]).shape
        axes = axes if before == after else None
    return value._replace(axes=axes)


def _splits(eqn: core.JaxprEqn, operand: int, value: _Seen | _Joined) -> bool:
    """Whether the product with joined parameters is the products with each of them, joined."""
    if not isinstance(value, _Joined):
        return True
    if eqn.primitive.name != "dot_general":
        return False
    contracted, batch = eqn.params["dimension_numbers"]
    return value.axis not in (*contracted[operand], *batch[operand])


def _floating(atom: Any) -> bool:
    return bool(jnp.issubdtype(equations.aval(atom).dtype, jnp.floating))
