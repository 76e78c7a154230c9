"""All that is known of the parameters of jax's higher-order equations: which bodies they hold, how to run them anew.

jax makes no promise about these names; they stand nowhere else, and a test goes through every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

__all__ = [
    "CALL",
    "COND",
    "REMAT",
    "SCAN",
    "aval",
    "bits_of",
    "bodies",
    "body_inputs",
    "kind_of",
    "loop_of",
    "only_body",
    "piece",
    "run_again",
]

CALL, REMAT, SCAN, COND = "call", "remat", "scan", "cond"

_KINDS = {
    "jit": CALL, "pjit": CALL, "closed_call": CALL, "core_call": CALL,
    "remat2": REMAT, "remat": REMAT, "checkpoint": REMAT,
    "scan": SCAN, "cond": COND,
}  # fmt: skip

_INFO = core.DebugInfo("jaxinit.probe", "a piece of the model", None, None)

#: Values of a body's execution: outputs, the rows of the places inside by index, and what is threaded through it.
Ran = tuple[list[Any], dict[int, Any], Any]


def kind_of(eqn: core.JaxprEqn) -> str | None:
    """Which of the kinds that can be looked into, or None."""
    return _KINDS.get(eqn.primitive.name)


def bodies(eqn: core.JaxprEqn) -> list[core.ClosedJaxpr]:
    """The programs inside, one a branch of a cond, else one."""
    inside = eqn.params["branches"] if kind_of(eqn) == COND else [_first(eqn, "jaxpr", "call_jaxpr")]
    return [b if isinstance(b, core.ClosedJaxpr) else core.ClosedJaxpr(b, ()) for b in inside]


def _first(eqn: core.JaxprEqn, *names: str) -> Any:
    return next(eqn.params[name] for name in names if name in eqn.params)


def only_body(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """The program that a call executes as it stands, also one with a derivative of its own; None if it is no call."""
    if kind_of(eqn) in (CALL, REMAT):
        return bodies(eqn)[0]
    if eqn.primitive.name.startswith(("custom_jvp_call", "custom_vjp_call")):
        body = _first(eqn, "call_jaxpr", "fun_jaxpr")
        return body if isinstance(body, core.ClosedJaxpr) else core.ClosedJaxpr(body, ())
    return None


def body_inputs(eqn: core.JaxprEqn) -> Sequence[Any]:
    """What a body is given, in order: of a scan, consts, carry and the stacks it goes through."""
    return eqn.invars[1:] if kind_of(eqn) == COND else eqn.invars


def loop_of(eqn: core.JaxprEqn) -> tuple[int, int, int, bool]:
    """Of a scan: how many consts, how many carried, how many iterations, and whether backwards."""
    p = eqn.params
    if "num_consts" in p:
        return p["num_consts"], p["num_carry"], p["length"], p["reverse"]
    consts, carried, _ = (len(part) for part in p["ft_in"].unpack())  # as jax 0.12 has it
    return consts, carried, p["length"], p["reverse"]


def bits_of(eqn: core.JaxprEqn) -> tuple[tuple[int, ...], int] | None:
    """Of the equation that draws random bits: the shape and the width of what it draws."""
    if eqn.primitive.name != "random_bits" or set(eqn.params) != {"shape", "bit_width"}:
        return None
    return tuple(eqn.params["shape"]), eqn.params["bit_width"]


def aval(atom: Any) -> Any:
    """Shape and dtype of a variable or literal."""
    return atom.aval


def piece(inputs: Sequence[Any], outputs: Sequence[Any], eqns: Sequence[core.JaxprEqn]) -> core.Jaxpr:
    """These equations as a program of their own."""
    effects: Any = frozenset().union(*(eqn.effects for eqn in eqns))
    return core.Jaxpr([], list(inputs), list(outputs), list(eqns), effects=effects, debug_info=_INFO)


def run_again(
    eqn: core.JaxprEqn,
    args: list[Any],
    runs: Sequence[Callable[[list[Any], dict[int, Any], Any], Ran]],
    inside: Sequence[Sequence[int]],
    probes: dict[int, Any],
    absent: Callable[[int], Any],
    threads: Any,
) -> Ran:
    """Execute the equation with other bodies: `runs[b](inputs, probes, threads) -> outputs, rows, threads`.

    `inside[b]` are the places in body b; `probes` theirs, one along the loop's axis for each iteration, as
    the rows come back. `absent(place)` is the row of a place in a branch that is not taken. `threads` is handed from
    each body, and each iteration, to the next.
    """
    kind = kind_of(eqn)
    if kind == CALL:
        return runs[0](args, probes, threads)
    if kind == REMAT:
        again = jax.checkpoint(runs[0], prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
        return again(args, probes, threads)
    if kind == SCAN:
        return _scan(eqn, args, runs[0], probes, threads)
    return _cond(args, runs, inside, probes, absent, threads)


def _scan(
    eqn: core.JaxprEqn, args: list[Any], run: Callable[..., Ran], probes: dict[int, Any], threads: Any
) -> Ran:
    consts, carried, length, reverse = loop_of(eqn)
    fixed, carry, stacks = args[:consts], args[consts : consts + carried], args[consts + carried :]

    def step(carry: tuple[list[Any], Any], each: tuple[list[Any], dict[int, Any]]) -> Any:
        outs, rows, threads = run([*fixed, *carry[0], *each[0]], each[1], carry[1])
        return (outs[:carried], threads), (outs[carried:], rows)

    (carry, threads), (stacked, rows) = jax.lax.scan(
        step, (carry, threads), (stacks, probes), length=length, reverse=reverse, unroll=eqn.params["unroll"]
    )
    return [*carry, *stacked], rows, threads


def _cond(
    args: list[Any],
    runs: Sequence[Callable[..., Ran]],
    inside: Sequence[Sequence[int]],
    probes: dict[int, Any],
    absent: Callable[[int], Any],
    threads: Any,
) -> Ran:
    def branch(b: int) -> Callable[..., Ran]:
        def run(operands: list[Any], probes: dict[int, Any], threads: Any) -> Ran:
            outs, rows, threads = runs[b](operands, {p: probes[p] for p in inside[b]}, threads)
            return outs, {p: rows[p] if p in rows else absent(p) for p in probes}, threads

        return run

    return jax.lax.switch(args[0], [branch(b) for b in range(len(runs))], args[1:], probes, threads)
