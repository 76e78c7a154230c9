"""The nonlinearity that is applied to a value: found by following the program, whatever it is called.

From a value z of the program, all equations that compute elementwise functions of z alone are collected. If
everything else that happens uses one such value h only, and h is not z itself, then h = phi(z), and z is a
pre-activation: no one else sees it.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit.models import MARK
from jaxinit.probe import equations

__all__ = ["Chain", "View", "follow", "largest_slope", "value_and_slope"]

_ELEMENTWISE = frozenset(
    {
        "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
        "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc",
        "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "jaxinit_mark", "le", "lgamma",
        "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pow",
        "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square",
        "stop_gradient", "sub", "tan", "tanh", "xor",
    }
)  # fmt: skip
_SAME = frozenset({"jaxinit_mark", "convert_element_type", "copy", "neg"})
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}

#: |phi'| is searched for its largest value on [-REACH, REACH].
_REACH, _POINTS = 20.0, 4096


class Chain(NamedTuple):
    """phi as a program of one input and one output, of the shape of the value it is applied to."""

    jaxpr: core.Jaxpr

    @property
    def text(self) -> str:
        """What tells one nonlinearity from another, whatever the shapes."""
        return re.sub(r"\[[\d,]*\]", "", str(self.jaxpr))

    @property
    def backward_only(self) -> bool:
        """Whether its derivative is a rule for the reverse pass (`jax.custom_vjp`): there is no other then."""
        return _holds_vjp(self.jaxpr)


class View:
    """A program with, for each variable, the equation that makes it and those that use it.

    Equations are meant by their index; the program's end counts as one more, after the last.
    """

    def __init__(self, jaxpr: core.Jaxpr) -> None:
        self.jaxpr = jaxpr
        self.maker: dict[Any, int] = {}
        self.users: dict[Any, list[int]] = {}
        for index, eqn in enumerate(jaxpr.eqns):
            self.maker.update(dict.fromkeys(eqn.outvars, index))
            self._use(eqn.invars, index)
        self._use(jaxpr.outvars, len(jaxpr.eqns))
        self._constant: dict[Any, bool] = {}

    def _use(self, atoms: Sequence[Any], index: int) -> None:
        for v in {v for v in atoms if not isinstance(v, core.Literal)}:
            self.users.setdefault(v, []).append(index)

    def constant(self, atom: Any) -> bool:
        """Whether it is a literal, or made of literals alone (a broadcast 0, say)."""
        if isinstance(atom, core.Literal):
            return True
        if atom not in self._constant:
            index = self.maker.get(atom)
            eqn = None if index is None else self.jaxpr.eqns[index]
            self._constant[atom] = (
                eqn is not None
                and eqn.primitive.name in ("broadcast_in_dim", *_ELEMENTWISE)
                and all(self.constant(v) for v in eqn.invars)
            )
        return self._constant[atom]


def follow(view: View, value: Any) -> Chain | None:
    """The nonlinearity applied to the variable `value`, or None."""
    eqns, shape = view.jaxpr.eqns, equations.aval(value).shape
    from_value, chain = {value}, set()
    todo = list(view.users.get(value, []))
    while todo:
        index = todo.pop()
        if index == len(eqns) or index in chain:
            continue
        eqn = eqns[index]
        known = all(view.constant(v) or v in from_value for v in eqn.invars)
        if known and _elementwise(eqn) and all(equations.aval(v).shape == shape for v in eqn.outvars):
            from_value.update(eqn.outvars)
            chain.add(index)
            todo += [user for v in eqn.outvars for user in view.users.get(v, [])]
    ends = [v for v in from_value if any(user not in chain for user in view.users.get(v, []))]
    if value in ends:
        return None
    # Of several, the one that the others are made of: u and 1 - u of a gate.
    ends = [h for h in ends if not any(_avoids(view, value, h, end) for end in ends if end is not h)]
    if len(ends) != 1:
        return None
    needed = [eqns[i] for i in _needed(view, chain, ends[0])]
    if all(_affine(view, eqn) for eqn in needed):
        return None
    return Chain(_without_marks(value, ends, needed))


def _avoids(view: View, value: Any, h: Any, end: Any) -> bool:
    """Whether `end` is made of `value` by another way than through `h`."""
    seen, todo = {h}, [end]
    while todo:
        var = todo.pop()
        if var is value:
            return True
        if isinstance(var, core.Literal) or var in seen or var not in view.maker:
            continue
        seen.add(var)
        todo += view.jaxpr.eqns[view.maker[var]].invars
    return False


def _without_marks(value: Any, ends: Sequence[Any], chain: Sequence[core.JaxprEqn]) -> core.Jaxpr:
    plain: dict[Any, Any] = {}

    def of(atoms: Sequence[Any]) -> list[Any]:
        return [v if isinstance(v, core.Literal) else plain.get(v, v) for v in atoms]

    eqns = []
    for eqn in chain:
        if eqn.primitive is MARK:
            (plain[eqn.outvars[0]],) = of(eqn.invars)
        else:
            eqns.append(eqn.replace(invars=of(eqn.invars)))
    return equations.piece([value], of(ends), eqns)


def _affine(view: View, eqn: core.JaxprEqn) -> bool:
    """Whether an elementwise equation only scales and shifts: attention's queries, a residual branch's weight."""
    name, fixed = eqn.primitive.name, [view.constant(v) for v in eqn.invars]
    if name in ("mul", "add", "sub", "add_any"):
        return any(fixed)
    return name in _SAME or all(fixed) or (name == "div" and fixed[1])


def _elementwise(eqn: core.JaxprEqn) -> bool:
    name = eqn.primitive.name
    if name not in _CALLS:
        return name in _ELEMENTWISE
    inside, constants = _body(eqn)
    return not constants and all(
        _elementwise(e) or (e.primitive.name == "broadcast_in_dim" and not equations.aval(e.invars[0]).shape)
        for e in inside.eqns
    )


def _body(eqn: core.JaxprEqn) -> tuple[core.Jaxpr, Sequence[Any]]:
    body = eqn.params[_CALLS[eqn.primitive.name]]
    return (body.jaxpr, body.consts) if isinstance(body, core.ClosedJaxpr) else (body, ())


def _needed(view: View, chain: set[int], end: Any) -> list[int]:
    """The equations of the chain, and those of its constants, that lead to `end`, in order."""
    needed: set[int] = set()
    todo = [end]
    while todo:
        var = todo.pop()
        index = view.maker.get(var)
        if index is None or index in needed or not (index in chain or view.constant(var)):
            continue
        needed.add(index)
        todo += [v for v in view.jaxpr.eqns[index].invars if not isinstance(v, core.Literal)]
    return sorted(needed)


def _holds_vjp(jaxpr: core.Jaxpr) -> bool:
    return any(
        eqn.primitive.name.startswith("custom_vjp_call")
        or (eqn.primitive.name in _CALLS and _holds_vjp(_body(eqn)[0]))
        for eqn in jaxpr.eqns
    )


def value_and_slope(chain: Chain, z: Any) -> tuple[Any, Any]:
    """phi and phi' at z, as the program computes and differentiates them."""

    def phi(z: Any) -> Any:
        return jax.core.eval_jaxpr(chain.jaxpr, (), z)[0]

    with jax.numpy_dtype_promotion("standard"):
        if not chain.backward_only:
            return jax.jvp(phi, (z,), (jnp.ones_like(z),))
        value, back = jax.vjp(phi, z)
        return value, back(jnp.ones_like(value))[0]


_slopes: dict[str, float] = {}


def largest_slope(chain: Chain) -> float:
    """The largest |phi'| on a grid; found once for each nonlinearity."""
    text = chain.text
    if text not in _slopes:
        # An even number of points: the kink at 0 is none of them.
        grid = np.linspace(-_REACH, _REACH, _POINTS).astype(equations.aval(chain.jaxpr.invars[0]).dtype)
        phi = functools.partial(_anywhere, chain.jaxpr)
        with jax.numpy_dtype_promotion("standard"), jax.ensure_compile_time_eval():
            if chain.backward_only:  # a rule is for the shape that it was traced for
                shape = equations.aval(chain.jaxpr.invars[0]).shape
                several = np.resize(grid, (-(-_POINTS // math.prod(shape)), *shape))
                _, slope = jax.jit(jax.vmap(functools.partial(value_and_slope, chain)))(several)
            else:
                _, slope = jax.jit(lambda z: jax.jvp(phi, (z,), (jnp.ones_like(z),)))(grid)
        size = np.abs(np.asarray(slope, np.float64))
        _slopes[text] = float(np.max(size[np.isfinite(size)], initial=0.0))
    return _slopes[text]


def _anywhere(jaxpr: core.Jaxpr, *args: Any) -> Any:
    """An elementwise program on an argument of any shape."""
    env: dict[Any, Any] = dict(zip(jaxpr.invars, args, strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else env[v]

    for eqn in jaxpr.eqns:
        given, name = [read(v) for v in eqn.invars], eqn.primitive.name
        if name in _CALLS:
            inside, _ = _body(eqn)
            out = _anywhere(inside, *given)
            outs = out if len(inside.outvars) > 1 else [out]
        elif name == "broadcast_in_dim":
            outs = given
        else:
            shape = np.broadcast_shapes(*(np.shape(v) for v in given))
            types = [equations.aval(v).dtype for v in eqn.invars]
            whole = [jnp.broadcast_to(jnp.asarray(v, t), shape) for v, t in zip(given, types, strict=True)]
            outs = [eqn.primitive.bind(*whole, **eqn.params)]
        env.update(zip(eqn.outvars, outs, strict=True))
    results = [read(v) for v in jaxpr.outvars]
    return results[0] if len(results) == 1 else results
