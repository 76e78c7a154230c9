"""Nonlinearities that a value reaches in a sum or in parts: the gates of recurrent cells, the end of a residual block.

The pre-activation of an LSTM's gate is the sum of two products, or a quarter of one. No one else sees such a sum or
such a part, so that the products' sites can speak of the nonlinearity behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend import core

from jaxinit.models import MARK
from jaxinit.probe import equations
from jaxinit.probe._activation import Chain, View, follow

__all__ = ["Gate", "gates_of"]

_SUMS = frozenset({"add", "add_any", "sub"})
_PARTS = frozenset({"split", "slice"})
#: Equations that hand on every entry of a value, and no other.
_WHOLE = frozenset({"convert_element_type", "reshape", "transpose", "squeeze", "copy"})


class Gate(NamedTuple):
    """A nonlinearity, the variable that it is applied to, and the equation that makes this variable."""

    made_by: int
    value: Any
    chain: Chain


def gates_of(view: View, value: Any) -> list[Gate]:
    """The nonlinearities that sums with the variable `value`, or parts of it, are given to; in the program's order.

    None behind a value that is given to anything else as well, nor behind one that is a place of its own.
    """
    found, todo = [], list(_onward(view, value))
    while todo:
        index, part = todo.pop()
        if _is_place(view, part):
            continue
        chain = follow(view, part)
        if chain is not None:
            found.append(Gate(index, part, chain))
        else:
            todo += _onward(view, part)
    return sorted(found, key=lambda gate: gate.made_by)


def _onward(view: View, value: Any) -> Iterator[tuple[int, Any]]:
    """What the value becomes, where nothing else is made of it: a sum, a reshaped value, or parts."""
    users, eqns = view.users.get(value, []), view.jaxpr.eqns
    if not users or users[-1] == len(eqns):
        return
    names = {eqns[index].primitive.name for index in users}
    if (
        names <= _PARTS
        or (len(users) == 1 and names <= _WHOLE)
        or (len(users) == 1 and _adds(view, users[0]))
    ):
        for index in users:
            for part in eqns[index].outvars:
                if equations.aval(part).ndim and view.users.get(part):
                    yield index, part


def _adds(view: View, index: int) -> bool:
    """Whether the equation is a sum of two values of its own shape, of which none is a constant."""
    eqn = view.jaxpr.eqns[index]
    if eqn.primitive.name not in _SUMS or any(view.constant(v) for v in eqn.invars):
        return False
    shape = equations.aval(eqn.outvars[0]).shape
    return all(equations.aval(v).shape == shape for v in eqn.invars) and eqn.invars[0] is not eqn.invars[1]


def _is_place(view: View, value: Any) -> bool:
    """Whether the value is what a module returns, to be measured there."""
    eqns: list[core.JaxprEqn] = [view.jaxpr.eqns[n] for n in view.users[value] if n < len(view.jaxpr.eqns)]
    return any(eqn.primitive is MARK and eqn.params["role"] == "output" for eqn in eqns)
