"""Where values come from: which parameters, and whether data has entered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend import core

from jaxinit.probe import equations

__all__ = ["DATA", "NOTHING", "Origin", "flow", "join"]


class Origin(NamedTuple):
    """Indices of the parameters a value depends on, and whether it depends on anything but parameters."""

    parameters: frozenset[int]
    data: bool

    @property
    def pure(self) -> bool:
        """Made of parameters alone (weights, also reshaped, cast or normalized ones)."""
        return bool(self.parameters) and not self.data


NOTHING = Origin(frozenset(), False)
DATA = Origin(frozenset(), True)


def join(origins: Sequence[Origin]) -> Origin:
    """The origin of what is made of values of these origins."""
    return Origin(frozenset().union(*(o.parameters for o in origins)), any(o.data for o in origins))


def flow(jaxpr: core.Jaxpr, inputs: Sequence[Origin]) -> dict[Any, Origin]:
    """The origin of every variable of a program, from those of its inputs."""
    env: dict[Any, Origin] = dict.fromkeys(jaxpr.constvars, NOTHING)
    env.update(zip(jaxpr.invars, inputs, strict=True))
    for eqn in jaxpr.eqns:
        given = [of(env, v) for v in eqn.invars]
        env.update(zip(eqn.outvars, _outputs(eqn, given), strict=True))
    return env


def of(env: dict[Any, Origin], atom: Any) -> Origin:
    """The origin of a variable or literal."""
    return NOTHING if isinstance(atom, core.Literal) else env[atom]


def body_origins(eqn: core.JaxprEqn, given: Sequence[Origin]) -> list[Origin]:
    """The origins of what the bodies of an equation are given; of a scan's carry, after every iteration."""
    kind = equations.kind_of(eqn)
    if kind == equations.COND:
        return list(given[1:])
    if kind != equations.SCAN:
        return list(given)
    consts, carried, *_ = equations.loop_of(eqn)
    (body,) = equations.bodies(eqn)
    given = list(given)
    while True:
        env = flow(body.jaxpr, given)
        carry = [of(env, v) for v in body.jaxpr.outvars[:carried]]
        grown = [join(pair) for pair in zip(given[consts : consts + carried], carry, strict=True)]
        if grown == given[consts : consts + carried]:
            return given
        given[consts : consts + carried] = grown


def _outputs(eqn: core.JaxprEqn, given: Sequence[Origin]) -> list[Origin]:
    if equations.kind_of(eqn) is None or not (every := join(given)).parameters:
        return [join(given)] * len(eqn.outvars)
    if not every.data:  # parameters alone stay parameters alone, whatever is done to them
        return [every] * len(eqn.outvars)
    inside = body_origins(eqn, given)
    each = [
        [of(env, v) for v in body.jaxpr.outvars]
        for body in equations.bodies(eqn)
        for env in [flow(body.jaxpr, inside)]
    ]
    outs = [join(column) for column in zip(*each, strict=True)]
    if equations.kind_of(eqn) == equations.COND:
        outs = [join([o, given[0]]) for o in outs]
    return outs
