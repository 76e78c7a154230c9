"""Some of the outputs of a program, at the cost of what they need and nothing else.

It is for programs that draw parameters: random bits are drawn in one fused loop, the same ones in half the time, what
a program calls again is traced again once, and small draws of one law and shape are a loop over their keys: the same
numbers, from a program of fewer operations.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._core.threefry import fused
from jaxinit.probe import equations

__all__ = ["Wanted", "want"]

#: Up to so many entries an array is small: to copy it costs less than to compile another draw.
_SMALL = 1 << 16


@dataclasses.dataclass(frozen=True, eq=False)
class Wanted:
    """The part of a program that some of its outputs need.

    `outputs` and `inputs`: which are wanted and needed; `eqns`: the equations to execute, `inside` the parts wanted
    of those that hold a program.
    """

    program: core.ClosedJaxpr
    outputs: tuple[bool, ...]
    inputs: tuple[bool, ...]
    eqns: tuple[int, ...]
    inside: dict[int, Wanted]

    def __call__(self, args: Sequence[Any]) -> list[Any]:
        """The wanted outputs in order, None for the others; `args` may be None where not needed."""
        jaxpr = self.program.jaxpr
        env: dict[Any, Any] = dict(zip(jaxpr.constvars, self.program.consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else env.get(atom)

        for index, *others in self._steps:
            eqn = jaxpr.eqns[index]
            if others:
                eqns = [eqn, *(jaxpr.eqns[n] for n in others)]
                found = _together(eqns, self.inside.get(index), [[read(v) for v in e.invars] for e in eqns])
                for e, outs in zip(eqns, found, strict=True):
                    env.update(zip(e.outvars, outs, strict=True))
                continue
            if (bits := equations.bits_of(eqn)) is not None:
                env[eqn.outvars[0]] = _bits(read(eqn.invars[0]), *bits)
                continue
            if index not in self.inside:
                given = list(dict.fromkeys(v for v in eqn.invars if not isinstance(v, core.Literal)))
                alone = equations.piece(given, eqn.outvars, [eqn])
                outs = jax.core.eval_jaxpr(alone, (), *(env[v] for v in given))
                env.update(zip(alone.outvars, outs, strict=True))
                continue
            part, values = self.inside[index], [read(v) for v in eqn.invars]
            run = _loop if equations.kind_of(eqn) == equations.SCAN else _call
            env.update(zip(eqn.outvars, run(eqn, part, values), strict=True))
        return [read(v) if wanted else None for v, wanted in zip(jaxpr.outvars, self.outputs, strict=True)]

    @functools.cached_property
    def _steps(self) -> list[list[int]]:
        """The equations in an order in which they can be executed; those together that do the same with several keys.

        A draw's level is the longest chain of draws that lead to it: those of one level do not need each other.
        """
        levels: dict[Any, int] = {}
        steps: dict[Any, list[int]] = {}
        for index in self.eqns:
            eqn = self.program.jaxpr.eqns[index]
            level = max((levels.get(v, 0) for v in eqn.invars if not isinstance(v, core.Literal)), default=0)
            drawn = _is_small_draw(eqn)
            what = _doing(eqn, self.inside.get(index)) if drawn else index
            steps.setdefault((level, drawn, what), []).append(index)
            levels.update(dict.fromkeys(eqn.outvars, level + drawn))
        return [steps[what] for what in sorted(steps, key=lambda what: (*what[:2], steps[what][0]))]

    @functools.cached_property
    def called(self) -> Callable[[Sequence[Any]], list[Any]]:
        """As a function that is lowered once."""
        return jax.jit(self)

    def executes(self, chain: Sequence[int]) -> bool:
        """Whether the equation with this id, after the ids of those that hold it, is executed."""
        index = next((n for n in self.eqns if id(self.program.jaxpr.eqns[n]) == chain[0]), None)
        if index is None:
            return False
        return len(chain) == 1 or index not in self.inside or self.inside[index].executes(chain[1:])


def want(
    program: core.ClosedJaxpr, outputs: Sequence[bool], known: dict[Any, Wanted] | None = None
) -> Wanted:
    """The part of a program that these outputs need. `known`: parts of the programs inside."""
    jaxpr, known = program.jaxpr, {} if known is None else known
    needed = {v for v, w in zip(jaxpr.outvars, outputs, strict=True) if w and not isinstance(v, core.Literal)}
    eqns, inside = [], {}
    for index in range(len(jaxpr.eqns) - 1, -1, -1):
        eqn = jaxpr.eqns[index]
        asked = [v in needed for v in eqn.outvars]
        if not any(asked):
            continue
        eqns.append(index)
        used = [True] * len(eqn.invars)
        kind = equations.kind_of(eqn)
        if kind == equations.SCAN:
            inside[index] = part = _want_loop(eqn, asked, known)
            used = list(part.inputs)
        elif kind in (equations.CALL, equations.REMAT):
            (body,) = equations.bodies(eqn)
            what = id(body.jaxpr), tuple(asked)
            if what not in known:
                known[what] = want(body, asked, known)
            inside[index] = part = known[what]
            used = list(part.inputs)
        needed.update(
            v for v, u in zip(eqn.invars, used, strict=True) if u and not isinstance(v, core.Literal)
        )
    return Wanted(
        program, tuple(outputs), tuple(v in needed for v in jaxpr.invars), tuple(reversed(eqns)), inside
    )


def _want_loop(eqn: core.JaxprEqn, asked: list[bool], known: dict[Any, Wanted]) -> Wanted:
    """What is carried is wanted of an iteration as soon as another one needs it."""
    consts, carried, *_ = equations.loop_of(eqn)
    (body,) = equations.bodies(eqn)
    while True:
        part = want(body, asked, known)
        carry = [a or n for a, n in zip(asked[:carried], part.inputs[consts : consts + carried], strict=True)]
        if carry == asked[:carried]:
            return part
        asked = [*carry, *asked[carried:]]


def _call(eqn: core.JaxprEqn, part: Wanted, values: list[Any]) -> list[Any]:
    return part.called(values)


def _is_small_draw(eqn: core.JaxprEqn) -> bool:
    """Whether it makes something small of a key."""
    return (
        (equations.kind_of(eqn) == equations.CALL or eqn.primitive.name == "random_fold_in")
        and any(_is_key(equations.aval(v)) for v in eqn.invars)
        and all(equations.aval(v).size <= _SMALL for v in eqn.outvars)
    )


def _doing(eqn: core.JaxprEqn, part: Wanted | None) -> Any:
    """What is the same of two draws that differ in their inputs alone."""
    if part is not None:
        return id(part)
    return eqn.primitive.name, *(str(equations.aval(v)) for v in eqn.invars)


def _is_key(value: Any) -> bool:
    return bool(jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key))


def _together(
    eqns: Sequence[core.JaxprEqn], part: Wanted | None, given: Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """The outputs of each of several equations, or of the part wanted of each, that do the same with these inputs."""
    atoms, values = zip(*(e.invars for e in eqns), strict=True), zip(*given, strict=True)
    columns = [_column(*column) for column in zip(atoms, values, strict=True)]

    def one(moving: list[Any]) -> list[Any]:
        values = [fixed if stack is None else v for (fixed, stack), v in zip(columns, moving, strict=True)]
        return part(values) if part is not None else [eqns[0].primitive.bind(*values, **eqns[0].params)]

    outs = jax.lax.map(one, [stack for _, stack in columns])
    return [
        [v if v is None else jax.lax.index_in_dim(v, n, keepdims=False) for v in outs]
        for n in range(len(eqns))
    ]


def _column(atoms: Sequence[Any], values: Sequence[Any]) -> tuple[Any, Any]:
    """One input of several equations: the value that all have, or the values stacked."""
    if all(isinstance(atom, core.Literal) for atom in atoms):
        stack = np.asarray(values, equations.aval(atoms[0]).dtype)
        return (values[0], None) if (stack == stack[0]).all() else (None, stack)
    if all(value is values[0] for value in values):
        return values[0], None
    return None, jnp.stack(values)


def _bits(key: Any, shape: tuple[int, ...], width: int) -> Any:
    def draw(key: Any) -> Any:
        return jax.random.bits(fused(key, shape), shape, f"uint{width}")

    for _ in key.shape:
        draw = jax.vmap(draw)
    return draw(key)


def _loop(eqn: core.JaxprEqn, part: Wanted, values: list[Any]) -> list[Any]:
    consts, carried, length, reverse = equations.loop_of(eqn)
    kept = part.outputs[:carried]
    start = [v if k else None for v, k in zip(values[consts : consts + carried], kept, strict=True)]
    used = part.inputs[consts + carried :]
    stacks = [v if u else None for v, u in zip(values[consts + carried :], used, strict=True)]

    def step(carry: list[Any], each: list[Any]) -> Any:
        outs = part([*values[:consts], *carry, *each])
        return outs[:carried], outs[carried:]

    carry, stacked = jax.lax.scan(step, start, stacks, length=length, reverse=reverse)
    return [*carry, *stacked]
