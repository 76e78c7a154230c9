"""Parameters whose entries are all equal, whatever the key: read from the program that draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from jaxinit.probe import equations

__all__ = ["equal_entries"]

#: Equations that keep equal entries equal.
_KEEPING = frozenset(
    {
        "abs", "add", "broadcast_in_dim", "convert_element_type", "copy", "div", "exp", "expand_dims", "log", "max",
        "min", "mul", "neg", "optimization_barrier", "pow", "reshape", "rsqrt", "sign", "sqrt", "square", "squeeze",
        "stop_gradient", "sub", "transpose",
    }
)  # fmt: skip


def equal_entries(program: core.ClosedJaxpr) -> list[bool]:
    """Of each output, whether all of its entries are equal; of what a scan stacks, those of each layer."""
    return _equal(program, [False] * len(program.jaxpr.invars))


def _equal(program: core.ClosedJaxpr, given: Sequence[bool]) -> list[bool]:
    jaxpr = program.jaxpr
    equal: dict[Any, bool] = dict(zip(jaxpr.invars, given, strict=True))
    equal |= {v: np.size(c) == 1 for v, c in zip(jaxpr.constvars, program.consts, strict=True)}

    def of(atom: Any) -> bool:
        return _single(atom) or (np.size(atom.val) == 1 if isinstance(atom, core.Literal) else equal[atom])

    for eqn in jaxpr.eqns:
        inputs, kind = [of(v) for v in eqn.invars], equations.kind_of(eqn)
        if kind in (equations.CALL, equations.REMAT):
            outs = _equal(equations.bodies(eqn)[0], inputs)
        elif kind == equations.SCAN:
            consts, carried, *_ = equations.loop_of(eqn)
            inside = _equal(equations.bodies(eqn)[0], [*inputs[:consts], *[False] * (len(inputs) - consts)])
            outs = [False] * carried + inside[carried:]
        else:
            outs = [eqn.primitive.name in _KEEPING and all(inputs)] * len(eqn.outvars)
        equal.update(zip(eqn.outvars, outs, strict=True))
    return [of(v) for v in jaxpr.outvars]


def _single(atom: Any) -> bool:
    return getattr(equations.aval(atom), "size", 0) == 1
