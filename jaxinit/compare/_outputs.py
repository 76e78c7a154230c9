"""What the layer of each kernel puts out, read off the traced program: linen, nnx and plain functions alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

#: Equations whose body is run in their place, by name.
_CALLS = (
    "jit", "pjit", "closed_call", "core_call", "remat2", "remat", "checkpoint", "custom_jvp_call",
    "custom_vjp_call",
)  # fmt: skip
_INFO = core.DebugInfo("jaxinit.compare", "an equation of the model", None, None)
_PRODUCTS = ("dot_general", "conv_general_dilated")
#: Equations that leave an output what it is, only laid out otherwise or rounded.
_LAYOUT = ("transpose", "convert_element_type", "squeeze", "copy")


class _Value(NamedTuple):
    """A value of the program, and where it is from.

    `kernels`: the sites of the kernels it is made of; None if it depends on the data. `of`: the site whose
    output it is.
    """

    value: Any
    kernels: frozenset[str] | None = frozenset()
    of: str | None = None


def kernel_outputs(
    function: Callable[..., Any], params: Any, site: Callable[[Any], str | None], *inputs: Any
) -> dict[str, Any]:
    """The output of each kernel's layer, by site, where `function(params, *inputs)` is the model.

    A layer is the product (matrix product or convolution) of what depends on the inputs with what is made of one
    kernel and of nothing that depends on them, whatever was done to the kernel before (transposed, cast,
    normalized), and of the bias that is added to it next. A kernel that is used more than once gives its last
    output; one inside a loop (scan, while) or a branch gives none.

    Args:
        function: the model.
        params: its parameters.
        site: from the path of a leaf of `params` to the name of its site, None for what is no kernel.
        inputs: what else the model takes: the first is the data, the others (state) are constants here.
    """
    closed = jax.make_jaxpr(function)(params, *inputs)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    data, rest = jax.tree.leaves(inputs[0]), jax.tree.leaves(inputs[1:])
    values = [_Value(leaf, _made_of(site(path))) for path, leaf in leaves]
    values += [_Value(leaf, None) for leaf in data] + [_Value(leaf) for leaf in rest]
    found: dict[str, Any] = {}
    _walk(closed.jaxpr, [_Value(c) for c in closed.consts], values, found)
    return found


def _made_of(name: str | None) -> frozenset[str]:
    return frozenset() if name is None else frozenset([name])


def _walk(
    jaxpr: core.Jaxpr, consts: Sequence[_Value], inputs: Sequence[_Value], found: dict[str, Any]
) -> list[_Value]:
    """Run the program, and note the outputs of kernels on the way."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

    def read(atom: Any) -> _Value:
        return _Value(atom.val) if isinstance(atom, core.Literal) else env[atom]

    used = {id(atom) for eqn in jaxpr.eqns for atom in eqn.invars} | {id(atom) for atom in jaxpr.outvars}
    for eqn in jaxpr.eqns:
        given, kept = [read(atom) for atom in eqn.invars], [v for v in eqn.outvars if id(v) in used]
        inside = _inside(eqn)
        if inside is not None:
            outs = _walk(inside.jaxpr, [_Value(c) for c in inside.consts], given, found)
            env.update(zip(eqn.outvars, outs, strict=True))
        else:
            env.update(zip(kept, [_noted(eqn, given, r, found) for r in _run(eqn, kept, env)], strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _run(eqn: core.JaxprEqn, kept: list[Any], env: dict[Any, _Value]) -> list[Any]:
    """The values of one equation, of its results those that are used."""
    needed = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, core.Literal)))
    alone = core.Jaxpr([], needed, kept, [eqn], effects=eqn.effects, debug_info=_INFO)
    return jax.core.eval_jaxpr(alone, (), *(env[atom].value for atom in needed))


def _inside(eqn: Any) -> core.ClosedJaxpr | None:
    if eqn.primitive.name not in _CALLS:
        return None
    body = next(eqn.params[name] for name in ("jaxpr", "call_jaxpr") if name in eqn.params)
    return body if isinstance(body, core.ClosedJaxpr) else core.ClosedJaxpr(body, ())


def _noted(eqn: Any, given: Sequence[_Value], result: Any, found: dict[str, Any]) -> _Value:
    fixed = [v.kernels for v in given if v.kernels is not None]
    if len(fixed) == len(given):
        return _Value(result, frozenset().union(*fixed))
    name, of = eqn.primitive.name, None
    sites = frozenset().union(*fixed)
    moving = [v for v in given if v.kernels is None]
    if name in _PRODUCTS and len(sites) == 1:
        (of,) = sites
    elif name == "add" and len(moving) == 1 and not sites and moving[0].of is not None:
        found[moving[0].of] = result  # with its bias; what is added next is something else
    elif name in _LAYOUT or (name == "reshape" and moving[0].value.shape[-1:] == result.shape[-1:]):
        of = moving[0].of
    if of is not None:
        found[of] = result
    return _Value(result, None, of)
