"""What a model does beside computing its output: it calls the host, reads numbers while it is traced, keeps values."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.extend import core

from jaxinit._core import checks
from jaxinit.models import MARK, Marked
from jaxinit.probe._program import Program

if TYPE_CHECKING:
    from jaxinit.probe._products import Products

__all__ = ["differs", "partial", "rehearse", "remarks", "remarks_on", "traced_again"]

#: Equations whose derivative, or whose batch of seeds, may not exist.
_PARTIAL = frozenset({"while", "pure_callback", "io_callback"})


def remarks_on(
    model: Marked,
    drawn: core.ClosedJaxpr | None,
    program: core.ClosedJaxpr,
    shapes: Sequence[Any],
    *,
    settled: bool = False,
) -> list[str]:
    """Sentences on side effects, and on a model that takes no notice of `train=True`: whoever runs the compiled program
    does not get what the Python code, or the call, says.

    `drawn` and `program` are what `model.init` and `model.apply` were traced to for a key and `shapes` = (params,
    state, args); `drawn` is None where parameters are given. Both are traced once more: what is then another program
    depends on something that is no argument, and a tracer that outlives its trace is kept by someone. `settled`: of
    `model.apply` that is known not to be so (`Traced.settled`).
    """
    params, state, args = shapes
    key = jax.random.key(0, impl="threefry2x32")
    out = []
    if calls := host_calls(program):
        out.append(
            f"{model.name} calls the host ({', '.join(calls)}): it will do so whenever it is measured, once or "
            "more. Take it out, or put it behind a flag."
        )
    kept = False
    if drawn is not None:
        again, _, kept = traced_again(model.init, key, args)
        if differs(_needed(drawn), _needed(again)) is not None:
            out.append(
                f"{model.name} draws parameters by something else than its key (NumPy's or Python's random numbers, "
                "time, a counter): they are drawn once, and are the same for every seed. Draw them with jax.random "
                "and the key that an initializer is given."
            )
    again, kept_too = program, False
    if not settled:
        again, _, kept_too = traced_again(model.apply, params, state, args, key)
    if (place := differs(program, again)) is not None:
        out.append(
            f"{model.name} computes something else every time it is traced{_at(place)}: numbers of NumPy or Python "
            "(random, time, a counter) are read once and become constants of the compiled program. Draw with "
            "jax.random, from self.make_rng('dropout') or nnx.Rngs; keep counters in variables of the model."
        )
    if kept or kept_too:
        out.append(
            f"{model.name} keeps values of its trace in Python{_holder(model, key, *shapes)}: outside of the call they "
            "are no arrays, and using them raises UnexpectedTracerError. Return them, or sow them."
        )
    return [*out, *([model.untold] if model.untold else []), *model.changes]


def remarks(found: Products, *, draws: bool = True) -> list[str]:
    """The same sentences of a model whose products were found; `draws`: whether it draws its parameters."""
    block, args = found.traced.plan.block, found.arguments
    key = jax.random.key(0, impl="threefry2x32")
    drawn = jax.make_jaxpr(found.model.init)(key, args) if draws else None
    program, shapes = core.ClosedJaxpr(block.jaxpr, block.consts), (*found.abstract, args)
    return remarks_on(found.model, drawn, program, shapes, settled=found.traced.settled)


def partial(program: core.ClosedJaxpr) -> bool:
    """Whether there is an equation in the program that may have no derivative."""
    return any(eqn.primitive.name in _PARTIAL for _, eqn in _equations(program, ()))


def rehearse(where: str, program: Program, args: Any, data: Any) -> None:
    """Let what has no derivative, or no batch of seeds, object before anything compiles."""
    model = program.model

    def forward(key: Any, args: Any) -> Any:
        params, state = model.init(key, args) if model.given is None else model.given
        return model.apply(params, state, args, key)

    def works(function: Callable[..., Any], given: Any) -> Exception | None:
        keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 2)
        try:
            jax.eval_shape(jax.vmap(function, in_axes=(0, None)), keys, given)
        except Exception as error:
            return error
        return None

    if (error := works(program, data)) is not None:
        first = (str(error).strip().splitlines() or [""])[0]
        rule = "one that can be differentiated, and computed for several seeds at once"
        way_out = "backward=False measures the signal alone." if works(forward, args) is None else ""
        words = f"It failed with {type(error).__name__}: {first} {way_out}"
        raise checks.bad(where, "model", rule, model.name, words) from error


def host_calls(program: core.ClosedJaxpr) -> list[str]:
    """Equations that call the host, each with the module it is in."""
    found = [
        f"{name} in {'/'.join(scope) or 'the model'}"
        for scope, eqn in _equations(program, ())
        if "callback" in (name := eqn.primitive.name) or name == "debug_print"
    ]
    return list(dict.fromkeys(found))


def differs(a: core.ClosedJaxpr, b: core.ClosedJaxpr, scope: Sequence[str] = ()) -> Sequence[str] | None:
    """The module in which two programs first differ: in an equation, in a number or in a constant; None if in none."""
    if len(a.jaxpr.eqns) != len(b.jaxpr.eqns):
        return scope
    held = [dict(zip(p.jaxpr.constvars, p.consts, strict=True)) for p in (a, b)]
    for x, y in zip(a.jaxpr.eqns, b.jaxpr.eqns, strict=True):
        scope = _scope(x, scope)
        if x.primitive is not y.primitive or len(x.invars) != len(y.invars):
            return scope
        for u, v in zip(x.invars, y.invars, strict=True):
            if not _same(_number(u, held[0]), _number(v, held[1])):
                return scope
        for inside in zip(_bodies(x), _bodies(y), strict=False):
            if inside[0].jaxpr is not inside[1].jaxpr and (found := differs(*inside, scope)) is not None:
                return found
    ends = zip(a.jaxpr.outvars, b.jaxpr.outvars, strict=True)
    return None if all(_same(_number(u, held[0]), _number(v, held[1])) for u, v in ends) else scope


def _needed(program: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """Without the equations that no output depends on: the forward pass in which linen draws parameters."""
    jaxpr, kept = program.jaxpr, []
    wanted = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    for eqn in reversed(jaxpr.eqns):
        if wanted.intersection(eqn.outvars):
            kept.append(eqn)
            wanted.update(v for v in eqn.invars if not isinstance(v, core.Literal))
    return core.ClosedJaxpr(jaxpr.replace(eqns=kept[::-1]), program.consts)


def traced_again(function: Any, *shapes: Any) -> tuple[core.ClosedJaxpr, Any, bool]:
    """The program, the shapes of what it returns, and whether a tracer of its arguments is still there: then someone
    keeps a value of the trace."""
    references: list[weakref.ref[Any]] = []

    def watched(*given: Any) -> Any:
        references.extend(weakref.ref(leaf) for leaf in jax.tree.leaves(given))
        return function(*given)

    program, out = jax.make_jaxpr(watched, return_shape=True)(*shapes)
    if any(r() is not None for r in references):
        gc.collect()
    return program, out, any(r() is not None for r in references)


def _holder(model: Marked, key: Any, params: Any, state: Any, args: Any) -> str:
    """Who keeps them, if jax's own search for leaks can name it."""
    try:
        with jax.checking_leaks():
            jax.make_jaxpr(lambda *given: model.apply(*given))(params, state, args, key)
    except Exception as error:
        found = re.findall(r"is referred to by ([A-Za-z_][\w.]*\.[A-Za-z_]\w*)\s*$", str(error), re.MULTILINE)
        return f" ({', '.join(dict.fromkeys(found))})" if found else ""
    return ""


def _equations(
    program: core.ClosedJaxpr, scope: Sequence[str]
) -> Iterator[tuple[Sequence[str], core.JaxprEqn]]:
    """Every equation, also of the programs inside, with the module whose it is."""
    for eqn in program.jaxpr.eqns:
        scope = _scope(eqn, scope)
        yield scope, eqn
        for body in _bodies(eqn):
            yield from _equations(body, scope)


def _scope(eqn: core.JaxprEqn, scope: Sequence[str]) -> Sequence[str]:
    """The module around the equations that follow."""
    if eqn.primitive is not MARK:
        return scope
    path = eqn.params["path"]
    return path if eqn.params["role"] == "input" else path[:-1]


def _bodies(eqn: core.JaxprEqn) -> list[core.ClosedJaxpr]:
    """The programs that an equation holds, with their constants."""
    out = []
    for value in eqn.params.values():
        for body in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(body, core.ClosedJaxpr):
                out.append(body)
            elif isinstance(body, core.Jaxpr):
                out.append(core.ClosedJaxpr(body, ()) if not body.constvars else _open(body))
    return out


def _open(body: core.Jaxpr) -> core.ClosedJaxpr:
    """A program whose constants are given to it by the equation."""
    return core.ClosedJaxpr(body, [None] * len(body.constvars))


def _number(atom: Any, held: dict[Any, Any]) -> Any:
    return atom.val if isinstance(atom, core.Literal) else held.get(atom)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if a is None or b is None:
        return False
    a, b = (jax.random.key_data(v) if _is_key(v) else v for v in (a, b))
    x, y = np.asarray(a), np.asarray(b)
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def _is_key(value: Any) -> bool:
    return hasattr(value, "dtype") and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def _at(scope: Sequence[str]) -> str:
    return f" (in {'/'.join(scope)})" if scope else ""
