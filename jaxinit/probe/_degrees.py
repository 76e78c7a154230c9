"""How the values of a program depend on the scales of its parameters: as a power of each, or in some other way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit.models import MARK
from jaxinit.probe import equations
from jaxinit.probe._plan import Block, Plan

__all__ = ["Form", "form_of", "form_of_number", "forms_of"]


class Form(NamedTuple):
    """value = prod_l s_l^degrees[l] * (a function of the scales in `bends`), for positive scales s of the layers.

    `bends`: a set of layers, as the bits of an integer. `zero`: the value is 0 (or infinite, or nothing) whatever
    the scales, and thus of every degree. `via`: the products, as bits, whose values it is made of with no other
    product in between.
    """

    degrees: Mapping[int, float]
    bends: int
    zero: bool = False
    via: int = 0


class _Stack(NamedTuple):
    """A parameter whose layers loops are still to go through: which, and the iterations so far."""

    parameter: int
    at: tuple[int, ...]


_CONSTANT, _ZERO = Form({}, 0), Form({}, 0, True)

# fmt: off
#: f(s x) = s f(x), of the first operand; whatever else they take bends it.
_LINEAR = frozenset({
    "abs", "broadcast_in_dim", "convert_element_type", "copy", "copy_p", "cummax", "cummin", "cumsum", "dynamic_slice",
    "expand_dims", "gather", "imag", "neg", "optimization_barrier", "real", "reduce_max", "reduce_min",
    "reduce_precision", "reduce_sum", "reduce_window_max", "reduce_window_min", "reduce_window_sum", "reshape", "rev",
    "sharding_constraint", "slice", "squeeze", "transpose",
})
#: f(s x, s y) = s f(x, y).
_JOINT = frozenset({"add", "add_any", "concatenate", "dynamic_update_slice", "max", "min", "pad", "sub"})
#: f(s x, s y) = f(x, y).
_COMPARING = frozenset({"argmax", "argmin", "eq", "ge", "gt", "is_finite", "le", "lt", "ne", "sign"})
_PRODUCTS = frozenset({"conv_general_dilated", "dot_general", "mul"})
_POWERS = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "cbrt": 1 / 3}
# fmt: on
#: A loop without layers of its own is followed so far; what it carries on may then depend on anything it is given.
_STEPS = 8


def forms_of(
    plan: Plan, zero: Sequence[np.ndarray], number: Callable[[int, tuple[int, ...]], int | None]
) -> tuple[dict[int, Form], Form]:
    """The form of every product's value, by number, and that of the outputs together.

    Layers are numbered in the order of the parameters. `zero`: for each parameter, in the shape of its stacks,
    which of its layers are 0 and stay so. `number`: of the product at a place and iteration, None for other places.
    """
    forms = _Forms(plan, zero, number)
    return forms.found, forms.output


class _Forms:
    def __init__(self, plan: Plan, zero: Sequence[np.ndarray], number: Callable[..., int | None]) -> None:
        self.zero, self.number = zero, number
        counts = [value.size for value in zero]
        self.start = list(itertools.accumulate(counts, initial=0))
        self.found: dict[int, Form] = {}
        parameters = [self._settled(_Stack(n, ())) for n in range(len(zero))]
        rest = len(plan.block.jaxpr.invars) - len(parameters)
        outs = self._walk(plan.block.jaxpr, plan.block, [*parameters, *[_CONSTANT] * rest], ())
        self.output = joined([self._whole(v) for v in outs])

    def _settled(self, stack: _Stack) -> Form | _Stack:
        """A layer of its own, once all loops have gone through."""
        if len(stack.at) < self.zero[stack.parameter].ndim:
            return stack
        if self.zero[stack.parameter][stack.at]:
            return _ZERO
        shape = self.zero[stack.parameter].shape
        offset = int(np.ravel_multi_index(stack.at, shape)) if shape else 0
        return Form({self.start[stack.parameter] + offset: 1.0}, 0)

    def _whole(self, value: Form | _Stack) -> Form:
        """A stacked parameter that is used as a whole: it depends on all its layers."""
        if isinstance(value, Form):
            return value
        first, last = self.start[value.parameter], self.start[value.parameter + 1]
        return Form({}, (1 << last) - (1 << first))

    def _walk(
        self, jaxpr: core.Jaxpr, block: Block | None, inputs: Sequence[Any], at: tuple[int, ...]
    ) -> list[Form | _Stack]:
        env: dict[Any, Form | _Stack] = dict.fromkeys(jaxpr.constvars, _CONSTANT)
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Form | _Stack:
            return form_of_number(atom.val) if isinstance(atom, core.Literal) else env[atom]

        def note(index: int) -> None:
            for variable, place in [] if block is None else block.taps.get(index, []):
                n = self.number(place, at)
                if n is None:
                    continue
                form = self._whole(read(variable))
                self.found[n] = joined([self.found[n], form]) if n in self.found else form
                env[variable] = form._replace(via=0 if form.zero else 1 << n)

        note(-1)
        for index, eqn in enumerate(jaxpr.eqns):
            given = [read(v) for v in eqn.invars]
            inside = None if block is None else block.inside.get(index)
            env.update(zip(eqn.outvars, self._equation(eqn, given, inside, at), strict=True))
            note(index)
        return [read(v) for v in jaxpr.outvars]

    def _equation(
        self, eqn: core.JaxprEqn, given: list[Any], inside: Sequence[Block] | None, at: tuple[int, ...]
    ) -> Sequence[Form | _Stack]:
        kind = equations.kind_of(eqn)
        if eqn.primitive is MARK:
            return given
        if kind == equations.SCAN:
            return self._scan(eqn, given, None if inside is None else inside[0], at)
        if kind == equations.COND:
            return self._cond(eqn, given, inside, at)
        body = equations.only_body(eqn)
        if body is not None and len(body.jaxpr.invars) == len(given):
            return self._walk(body.jaxpr, None if inside is None else inside[0], given, at)
        forms = [self._whole(g) for g in given]
        return [form_of(eqn, forms)] * len(eqn.outvars)

    def _cond(
        self, eqn: core.JaxprEqn, given: list[Any], inside: Sequence[Block] | None, at: tuple[int, ...]
    ) -> list[Form]:
        chosen = self._whole(given[0])
        outs = []
        for n, body in enumerate(equations.bodies(eqn)):
            block = None if inside is None else inside[n]
            outs.append([self._whole(v) for v in self._walk(body.jaxpr, block, given[1:], at)])
        return [_bent_by(joined(column), chosen) for column in zip(*outs, strict=True)]

    def _scan(
        self, eqn: core.JaxprEqn, given: list[Any], block: Block | None, at: tuple[int, ...]
    ) -> list[Form]:
        consts, carried, length, reverse = equations.loop_of(eqn)
        (body,) = equations.bodies(eqn)
        fixed = given[:consts]
        carry = [self._whole(g) for g in given[consts : consts + carried]]
        stacks = given[consts + carried :]
        layered = any(isinstance(s, _Stack) for s in stacks)
        steps = range(length) if layered else range(min(length, _STEPS + 1))
        stacked: list[list[Form]] = []
        for i in reversed(steps) if reverse else steps:
            each = [self._settled(s._replace(at=(*s.at, i))) if isinstance(s, _Stack) else s for s in stacks]
            outs = [self._whole(v) for v in self._walk(body.jaxpr, block, [*fixed, *carry, *each], (*at, i))]
            after = outs[:carried]
            stacked.append(outs[carried:])
            if not layered and after == carry:
                break
            carry = after
            if not layered and len(stacked) == _STEPS:
                carry = [_bend([self._whole(g) for g in given])] * carried
        return [*carry, *(joined(column) for column in zip(*stacked, strict=True))]


def joined(forms: Sequence[Form]) -> Form:
    """The form of a sum of values of these forms, or of any function of degree one of them."""
    forms = [f for f in forms if not f.zero]
    if not forms:
        return _ZERO
    bends = via = 0
    for f in forms:
        bends, via = bends | f.bends, via | f.via
    if all(f.degrees == forms[0].degrees for f in forms[1:]):
        return Form(forms[0].degrees, bends, via=via)
    return _bend(forms)


def bent(form: Form) -> int:
    """All layers that a value depends on."""
    bits = form.bends
    for layer in form.degrees:
        bits |= 1 << layer
    return bits


def _bent_by(form: Form, *others: Form) -> Form:
    """As it is, but for a further dependence on these."""
    bends, via = form.bends, form.via
    for other in others:
        bends, via = bends | bent(other), via | other.via
    return form._replace(bends=bends, via=via)


def form_of_number(value: Any) -> Form:
    """The form of a number in the program: a constant, or zero where all of its entries are 0 or infinite."""
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return _CONSTANT
    array = array.astype(np.float64)
    return _ZERO if bool(np.all((array == 0) | np.isinf(array))) else _CONSTANT


def _power(form: Form, exponent: float) -> Form:
    return form._replace(degrees={layer: d * exponent for layer, d in form.degrees.items()})


def _times(a: Form, b: Form) -> Form:
    degrees = dict(a.degrees)
    for layer, d in b.degrees.items():
        degrees[layer] = degrees.get(layer, 0.0) + d
    degrees = {layer: d for layer, d in degrees.items() if d}
    return Form(degrees, a.bends | b.bends, a.zero or b.zero, a.via | b.via)


def form_of(eqn: core.JaxprEqn, forms: Sequence[Form]) -> Form:
    """The form of an equation's values, given those of its operands; of loops and branches nothing is known.

    Example:
        >>> import jax
        >>> from jaxinit.probe import Form, form_of
        >>> [product] = jax.make_jaxpr(lambda a, b: a * b)(1.0, 1.0).eqns
        >>> form_of(product, [Form({0: 1.0}, 0), Form({0: 1.0, 1: 0.5}, 0)]).degrees
        {0: 2.0, 1: 0.5}
    """
    name = eqn.primitive.name
    if name in _PRODUCTS:
        out = _times(forms[0], forms[1])
    elif name == "div":
        out = _times(forms[0], _power(forms[1], -1.0)) if not forms[1].zero else _bend(forms)
    elif name in _LINEAR:
        out = _bent_by(forms[0], *forms[1:])
    elif name in _JOINT:
        out = joined(forms)
    elif name == "select_n":
        out = _bent_by(joined(forms[1:]), forms[0])
    elif name in _COMPARING:
        out = joined(forms)._replace(degrees={}, zero=False)
    elif name in _POWERS and not forms[0].zero:
        out = _power(forms[0], _POWERS[name])
    elif name == "integer_pow" and not forms[0].zero:
        out = _power(forms[0], float(eqn.params["y"]))
    else:
        out = _bend(forms)
    return out


def _bend(forms: Sequence[Form]) -> Form:
    """Of a function of which nothing is known."""
    return _bent_by(_CONSTANT, *forms)
