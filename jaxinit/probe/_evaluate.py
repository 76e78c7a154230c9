"""Run a planned program: its outputs as they were, and a row of statistics for each place that is watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxinit.models import MARK
from jaxinit.probe import equations
from jaxinit.probe._layout import Layout
from jaxinit.probe._operands import Product
from jaxinit.probe._plan import Block, Place
from jaxinit.probe._rows import backward_row, forward_row, gated_row
from jaxinit.probe._thread import Thread, begin, settle
from jaxinit.probe._unformed import multiply, multiply_again

__all__ = ["Watched"]


class Watched:
    """A program with probes at some of its places.

    A probe is a vector of zeros that the value at its place ignores; its cotangent is the backward row, so that
    one `jax.grad` gives gradients of the parameters and statistics of the gradients inside, and neither an
    activation nor its gradient leaves the program.

    `renewed(place, g)` stands for the gradient g that arrives at a place, for all places before it.
    """

    def __init__(
        self,
        block: Block,
        places: Sequence[Place],
        watched: Sequence[int],
        layout: Layout,
        renewed: Callable[[int, Any], Any] | None = None,
    ) -> None:
        self.block, self.renewed = block, renewed
        self.places = places
        self.layout = layout
        self.watched = tuple(p for p in block.places() if p in set(watched))
        self.backward = sum(layout.backward().values())
        self.forward = sum(layout.forward().values())
        self.gates = "flat" in layout.forward()
        self._segments: dict[int, list[Any]] = {}

    def probes(self) -> dict[int, Any]:
        """The zeros to differentiate with respect to: place -> (loops..., entries of a backward row)."""
        return {p: jnp.zeros((*_lengths(self.places[p]), self.backward), jnp.float32) for p in self.watched}

    def __call__(self, inputs: Sequence[Any], probes: dict[int, Any]) -> tuple[list[Any], dict[int, Any]]:
        """The program's outputs and the forward rows, place -> (loops..., entries)."""
        outs, rows, _ = self._run(self.block, list(inputs), probes, {}, 0)
        return outs, rows

    def _run(
        self,
        block: Block,
        inputs: list[Any],
        probes: dict[int, Any],
        given_threads: dict[int, Thread],
        depth: int,
    ) -> equations.Ran:
        env: dict[Any, Any] = dict(zip(block.jaxpr.constvars, block.consts, strict=True))
        env.update(zip(block.jaxpr.invars, inputs, strict=True))
        own = {n: begin(inputs[at].probe, *how) for n, (at, how) in block.begins.items()}
        threads = {**given_threads, **own}
        rows: dict[int, Any] = {}
        seen: dict[Any, Any] = {}

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else env[atom]

        for piece in self._pieces(block):
            if isinstance(piece, core.Jaxpr):
                outs = jax.core.eval_jaxpr(piece, (), *(env[v] for v in piece.invars))
                env.update(zip(piece.outvars, outs, strict=True))
                continue
            index, eqn = piece, block.jaxpr.eqns[piece]
            given = [read(v) for v in eqn.invars]
            if eqn.primitive is MARK:
                outs = given
            elif index in block.shaping:
                outs = [tuple(given) if len(given) > 1 else given[0]]
            elif index in block.products:
                outs = [_multiplied(eqn, block.products[index], given, seen, threads)]
            elif index in block.inside:
                outs, inner = self._enter(block, index, given, probes, threads, depth)
                rows.update(inner)
            else:
                segment = _segment([eqn], 0, dict.fromkeys(eqn.outvars, 0))
                outs = jax.core.eval_jaxpr(segment, (), *(env[v] for v in segment.invars))
                env.update(zip(segment.outvars, outs, strict=True))
                outs = [env.get(v) for v in eqn.outvars]
            env.update(zip(eqn.outvars, outs, strict=True))
            for variable, place in block.taps.get(index, []):
                if place in probes:
                    env[variable], rows[place] = self._tap(env[variable], place, probes[place])
            for variable, chain, place in block.gates.get(index, []) if self.gates else ():
                if place in probes:
                    rows[place] = gated_row(rows[place], env[variable], self.layout, chain)
        outs = [read(v) for v in block.jaxpr.outvars]
        if own:
            outs = _settled({n: threads.pop(n) for n in own}, outs)
        return outs, rows, threads

    def _tap(self, x: Any, place: int, probe: Any) -> tuple[Any, Any]:
        at = self.places[place]
        row = forward_row(x, at.batch_axis, self.layout, at.chain, at.gated)
        send = (lambda g: g) if self.renewed is None else partial(self.renewed, place)
        return _tapped(x, probe, lambda g: backward_row(g, at.batch_axis, self.layout), send), row

    def _enter(
        self,
        block: Block,
        index: int,
        given: list[Any],
        probes: dict[int, Any],
        threads: dict[int, Thread],
        depth: int,
    ) -> tuple[list[Any], dict[int, Any]]:
        eqn, blocks = block.jaxpr.eqns[index], block.inside[index]
        inner = depth + (equations.kind_of(eqn) == equations.SCAN)
        inside = [[p for p in b.places() if p in probes] for b in blocks]
        runs = [
            lambda args, probes, threads, b=b: self._run(b, list(args), probes, threads, inner)
            for b in blocks
        ]
        own = {p: probes[p] for places in inside for p in places}
        through = {n: threads[n] for n in sorted(set().union(*(b.threaded for b in blocks)))}
        absent = partial(self._absent, depth=depth)
        outs, rows, through = equations.run_again(eqn, given, runs, inside, own, absent, through)
        threads.update(through)
        return outs, rows

    def _absent(self, place: int, depth: int) -> Any:
        return jnp.zeros((*_lengths(self.places[place])[depth:], self.forward), jnp.float32)

    def _pieces(self, block: Block) -> list[Any]:
        """Equations to look at, by index, and between them programs to run as they are."""
        if id(block) not in self._segments:
            self._segments[id(block)] = _cut(block, set(self.watched), self.gates)
        return self._segments[id(block)]


def _lengths(place: Place) -> tuple[int, ...]:
    return tuple(loop.length for loop in place.loops)


def _tapped(x: Any, probe: Any, row: Callable[[Any], Any], send: Callable[[Any], Any]) -> Any:
    @jax.custom_vjp
    def tap(x: Any, probe: Any) -> Any:
        return x

    tap.defvjp(lambda x, probe: (x, None), lambda _, g: (send(g), row(g)))
    return tap(x, probe)


def _multiplied(
    eqn: core.JaxprEqn,
    products: Sequence[Product],
    given: Sequence[Any],
    seen: dict[Any, Any],
    threads: dict[int, Thread],
) -> Any:
    """The value of an equation that multiplies a parameter, or several that are joined."""
    operand, values = products[0].operand, []
    weights, x = given[operand] if len(products) > 1 else (given[operand],), given[1 - operand]
    for product, weight in zip(products, weights, strict=True):
        n = product.parameter
        if product.again is None:
            value = multiply(eqn, product, weight, x, seen)
        else:
            value, threads[n] = multiply_again(eqn, product, weight, x, threads[n])
        values.append(value)
    return jnp.concatenate(values, products[0].axis) if len(values) > 1 else values[0]


def _settled(threads: dict[int, Thread], values: list[Any]) -> list[Any]:
    """The values, of which those that have gradients give the threads what is known at the end."""
    some = [n for n, v in enumerate(values) if jnp.issubdtype(v.dtype, jnp.inexact)]
    out = list(values)
    for n, v in zip(some, settle(threads, [values[n] for n in some]), strict=True):
        out[n] = v
    return out


def _variables(eqn: core.JaxprEqn) -> list[Any]:
    return list(dict.fromkeys(v for v in eqn.invars if not isinstance(v, core.Literal)))


def _cut(block: Block, watched: set[int], gates: bool) -> list[Any]:
    jaxpr = block.jaxpr
    stops = [
        index
        for index, eqn in enumerate(jaxpr.eqns)
        if eqn.primitive is MARK
        or index in block.products
        or index in block.shaping
        or any(b.unformed for b in block.inside.get(index, []))
        or any(p in watched for _, p in block.taps.get(index, []))
        or (gates and any(p in watched for *_, p in block.gates.get(index, [])))
        or any(p in watched for b in block.inside.get(index, []) for p in b.places())
    ]
    last_use = {v: len(jaxpr.eqns) for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    for index, eqn in enumerate(jaxpr.eqns):
        for v in _variables(eqn):
            last_use[v] = max(index, last_use.get(v, -1))
    pieces: list[Any] = []
    start = 0
    for stop in [*stops, len(jaxpr.eqns)]:
        if stop > start:
            pieces.append(_segment(jaxpr.eqns[start:stop], stop, last_use))
        if stop < len(jaxpr.eqns):
            pieces.append(stop)
        start = stop + 1
    return pieces


def _segment(eqns: Sequence[core.JaxprEqn], stop: int, last_use: dict[Any, int]) -> core.Jaxpr:
    made = dict.fromkeys(v for eqn in eqns for v in eqn.outvars)
    given = dict.fromkeys(v for eqn in eqns for v in _variables(eqn) if v not in made)
    kept = [v for v in made if last_use.get(v, -1) >= stop]
    return equations.piece(list(given), kept, eqns)
