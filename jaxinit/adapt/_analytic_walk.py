"""The analysis of a traced model: its program is followed, equation by equation, with fields in place of arrays."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit.adapt._analytic_fields import Field, Term, fresh_axes
from jaxinit.adapt._analytic_measure import measured
from jaxinit.adapt._analytic_pointwise import Unknown, settle
from jaxinit.adapt._analytic_products import Site
from jaxinit.adapt._analytic_rules import equation
from jaxinit.adapt._analytic_shapes import part, stacked
from jaxinit.adapt._analytic_values import Known, Value, as_field, field_of_data, from_moments, is_real, white
from jaxinit.probe import Drawn, Layer, Products, equations

__all__ = ["Found", "Walk", "entry_stddev"]

#: Of a law, a mean of a parameter's entries counts beyond so many of its standard errors.
_CERTAIN = 5.0
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclasses.dataclass(frozen=True)
class Found:
    """What the analysis says of one evaluation of a site.

    Attributes:
        mean, second: of the value, bias included.
        own: the part of the variance that grows with the square of the kernel's scale.
        shift: the part of `mean` that the mean of the kernel makes, and that grows with its scale.
        inner: second moment of the signal that the kernel multiplies.
        slope: second moment of the response of that signal to unit noise at the sites before.
        sources: sizes of those sites.
        fan: sum of the kernel's squares that a unit of the value sees: `own` is `fan` times `inner`.
        size: of the value.
        notes: what between those sites and this was measured.
    """

    mean: float
    second: float
    own: float
    inner: float
    slope: float
    sources: dict[int, int]
    fan: float
    size: int
    notes: tuple[str, ...] = ()
    shift: float = 0.0


class Parameter:
    """A parameter as it stands, or a layer of one that scans go through."""

    def __init__(self, walk: Walk, layer: Layer) -> None:
        self.walk, self.layer = walk, layer
        self._field: Value | None = None

    @property
    def value(self) -> Value:
        if self._field is None:
            self._field = self.walk.parameter(self.layer)
        return self._field


class Walk:
    """One pass through a model.

    Args:
        products: the traced model.
        leaves: its parameters: arrays, or laws.
        state: its other collections.
        inputs: the leaves of the call's arguments: values.
        key: for dropout.
        ideal: take parameters for independent entries of their variance, whatever this draw's sums are.
        scale: `(product's index, what was found of it) -> factor`, asked at every evaluation of a product of the
            signal with a parameter; the parameter is multiplied with it from there on.
    """

    def __init__(
        self,
        products: Products,
        leaves: Sequence[Any],
        state: Any,
        inputs: Sequence[Value],
        key: Any,
        scale: Callable[[int, Found], float] | None = None,
        ideal: bool = False,
    ) -> None:
        self.products, self.leaves, self.scale, self.ideal = products, leaves, scale, ideal
        self.plan = products.traced.plan
        self.found: dict[int, list[Found]] = {}
        self.values: dict[int, list[tuple[tuple[int, ...], float, float]]] = {}
        #: Products that are added to a signal they were computed from: the ends of residual branches.
        self.ends: set[int] = set()
        self._sites: dict[int, Site] = {}
        self._named: dict[int, int] = {}
        self._rows: dict[int, list[tuple[tuple[int | None, ...], int]]] = {}
        for n, product in enumerate(products.products):
            self._rows.setdefault(product.place, []).append((product.at, n))
        rest = [Known(v) if not _floating(v) else Known(np.asarray(v)) for v in jax.tree.leaves(state)]
        parameters = [Parameter(self, Layer(n)) for n in range(len(leaves))]
        try:
            with jax.ensure_compile_time_eval():
                self.outputs = self._run(
                    self.plan.block.jaxpr, self.plan.block.consts, [*parameters, *rest, *inputs, Known(key)],
                    self.plan.block, (),
                )  # fmt: skip
        except Unknown as reason:
            raise ValueError(
                f"the analysis cannot follow this model: {reason}. Measure it instead: calibrate(method='lsuv'), "
                "or probe."
            ) from None

    def parameter(self, layer: Layer) -> Value:
        """What is known of a parameter: a number where its entries are equal, else independent entries."""
        pure = frozenset({layer.parameter})
        leaf = self.leaves[layer.parameter]
        if isinstance(leaf, Drawn):
            shape = self.products.shapes[layer.parameter][len(layer.at) :]
            return white(shape, leaf.mean, entry_stddev(leaf, shape) ** 2, parameters=pure)
        leaf = leaf[layer.at]
        if not _floating(leaf):
            return Known(leaf)
        array = np.asarray(leaf, np.float64)
        mean, variance = float(array.mean()), float(array.var())
        if variance <= 1e-20 * mean**2:
            return Field(fresh_axes(array.shape), mean, {}, pure)
        if self.ideal:
            certain = abs(mean) >= _CERTAIN * math.sqrt(variance / array.size)
            mean, variance = (mean, variance) if certain else (0.0, float(np.mean(np.square(array))))
            return white(array.shape, mean, variance, parameters=pure)
        # Sums over its axes are those of this draw: with them, what entries of the signal have in common is exact. Its
        # mean too: of draws in bfloat16 all kernels have one in common, within the noise of any of them.
        field = field_of_data(array)
        return from_moments(field.axes, field.mean, field.table(), parameters=pure)

    def _run(
        self, jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any], block: Any, at: tuple[int, ...]
    ) -> list[Any]:
        env: dict[Any, Any] = dict(zip(jaxpr.constvars, (Known(c) for c in consts), strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Any:
            return Known(np.asarray(atom.val)) if isinstance(atom, core.Literal) else env[atom]

        last = _last_uses(jaxpr)
        for index, eqn in enumerate(jaxpr.eqns):
            given = [read(v) for v in eqn.invars]
            inside = None if block is None else block.inside.get(index)
            env.update(zip(eqn.outvars, self._equation(eqn, given, inside, at), strict=True))
            for variable, place in () if block is None else block.taps.get(index, ()):
                env[variable] = self._tap(env[variable], place, at)
            for v in last.get(index, ()):
                env.pop(v, None)
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, given: list[Any], inside: Any, at: tuple[int, ...]) -> list[Any]:
        name = eqn.primitive.name
        if name == "scan":
            return self._scan(eqn, given, inside, at)
        if name == "cond":
            which = given[0].array if isinstance(given[0], Known) else round(as_field(given[0]).mean)
            branch = int(np.clip(np.asarray(which), 0, len(eqn.params["branches"]) - 1))
            body = eqn.params["branches"][branch]
            return self._run(body.jaxpr, body.consts, given[1:], inside[branch] if inside else None, at)
        body = next((eqn.params[k] for k in _CALLS if k in eqn.params), None)
        if body is not None and name != "while" and not callable(body):
            jaxpr, consts = (body.jaxpr, body.consts) if isinstance(body, core.ClosedJaxpr) else (body, ())
            if len(jaxpr.invars) == len(given):
                return self._run(jaxpr, consts, given, inside[0] if inside else None, at)
        values: list[Any] = [v.value if isinstance(v, Parameter) else v for v in given]
        notes = frozenset[str]().union(*(v.notes for v in values if isinstance(v, Known)))
        if all(isinstance(v, Known) for v in values):
            return [Known(v, notes) for v in _folded(eqn, values)]
        if name in ("add", "add_any"):
            self._note_branch(values)
        try:
            out = equation(eqn, values, self._site)
            for v in out:
                if not isinstance(v, Known):
                    assert v.shape == tuple(eqn.outvars[out.index(v)].aval.shape), (name, v.shape)
            if notes:
                _noted(out, values, notes)
            return out
        except Unknown as reason:
            real = [
                Known(self.leaves[g.layer.parameter][g.layer.at])
                if isinstance(g, Parameter) and not isinstance(self.leaves[g.layer.parameter], Drawn)
                else v
                for g, v in zip(given, values, strict=True)
            ]
            return measured(eqn, real, f"{name} measured: {reason}")

    def _site(self, kernel: frozenset[int], inner: Field | None) -> Site:
        index = len(self._sites) + 1
        direct = [] if inner is None else [n for n in inner.sources if isinstance(n, int)]
        before = frozenset(direct).union(*(self._sites[n].before for n in direct))
        self._sites[index] = made = Site(index, kernel, inner, before)
        return made

    def _note_branch(self, values: Sequence[Any]) -> None:
        """Of a sum of two signals: whether one of them is a product that depends on the other."""
        fields = [v for v in values if isinstance(v, Field) and v.terms and v.parameters is None]
        for branch, stream in itertools.permutations(fields, 2):
            made = {b.product for b in branch.bases if not b.parameter}
            if len(made) != 1 or None in made:
                continue
            (site,) = made
            sources = {n for n in stream.sources if isinstance(n, int)}
            if site.index in self._named and (
                sources & site.before or (not sources and site.inner is not None)
            ):
                self.ends.add(self._named[site.index])

    def _scan(self, eqn: Any, given: list[Any], inside: Any, at: tuple[int, ...]) -> list[Any]:
        consts, carried, length, reverse = equations.loop_of(eqn)
        body = eqn.params["jaxpr"]
        fixed, carry = given[:consts], list(given[consts : consts + carried])
        outs: list[list[Any]] = []
        for i in reversed(range(length)) if reverse else range(length):
            each = [_step(v, i) for v in given[consts + carried :]]
            left = self._run(
                body.jaxpr, body.consts, [*fixed, *carry, *each], inside[0] if inside else None, (*at, i)
            )
            carry = left[:carried]
            outs.append(left[carried:])
        if reverse:
            outs.reverse()
        return [*carry, *(_stacked(column) for column in zip(*outs, strict=True))]

    def _tap(self, value: Any, place: int, at: tuple[int, ...]) -> Any:
        """Note what is found at a place; at a site, scale it."""
        if isinstance(value, (Known, Parameter)):
            return value
        rows = [
            n
            for own, n in self._rows.get(place, ())
            if all(a is None or a == b for a, b in zip(own, at, strict=True))
        ]
        operation = self.plan.places[place].operation
        if rows and operation is not None:
            value = self._scaled(settle(value), rows[0], frozenset(operation.kernel))
        field = settle(value)
        self.values.setdefault(place, []).append((at, field.mean, field.second))
        return value

    def _scaled(self, z: Field, index: int, kernel: frozenset[int]) -> Field:
        mine = [t for t in z.terms if t.base.product is not None and t.base.product.kernel <= kernel]
        if not mine:
            self.found.setdefault(index, []).append(
                Found(z.mean, z.second, 0.0, math.nan, 0.0, {}, 0.0, 0, tuple(_notes(z)))
            )
            return z
        self._named[mine[0].base.product.index] = index
        # Terms of parameters alone are biases; all others are the kernel's.
        moved = [t for t in z.terms if not t.base.parameter]
        own = Field(z.axes, 0.0, {t: z.terms[t] for t in moved}).variance
        made = {t.base.product: z.terms[t] for t in mine}
        shift = sum(product.mean * c for product, c in made.items())
        inner = mine[0].base.product.inner
        second = 1.0 if inner is None else inner.second
        found = Found(
            z.mean, z.second, own, second, 0.0 if inner is None else inner.slope,
            {} if inner is None else {s: n for s, n in inner.sources.items() if isinstance(s, int)},
            own / second if second else 0.0, math.prod(z.shape),
            tuple(sorted({*_notes(z), *(() if inner is None else _notes(inner))})), shift,
        )  # fmt: skip
        factor = 1.0 if self.scale is None else self.scale(index, found)
        if factor != 1.0:
            terms: dict[Term, float] = {t: c * factor if t in moved else c for t, c in z.terms.items()}
            z = z.like(mean=z.mean + (factor - 1.0) * shift, terms=terms)
            found = dataclasses.replace(
                found, mean=z.mean, second=z.second, own=own * factor**2, fan=found.fan * factor**2,
                shift=shift * factor,
            )  # fmt: skip
        self.found.setdefault(index, []).append(found)
        return z


def entry_stddev(law: Drawn, shape: Sequence[int]) -> float:
    """Standard deviation of one entry of an array of this law and shape (of one matrix, if it is orthogonal)."""
    if law.kind == "orthogonal":
        return law.stddev / math.sqrt(max(math.prod(shape[: law.rows]), math.prod(shape[law.rows :])))
    return float(law.stddev)


def _notes(field: Field) -> list[str]:
    return sorted(s for s in field.sources if isinstance(s, str))


def _noted(out: Sequence[Any], values: Sequence[Any], notes: frozenset[str]) -> None:
    """Say of what an equation made new of its inputs how they were found."""
    old = frozenset[Any]().union(*(v.bases for v in values if isinstance(v, Field)))
    for v in out:
        for base in settle(v).bases - old if not isinstance(v, Known) else ():
            base.sources.update(dict.fromkeys(notes, 0))


def _floating(value: Any) -> bool:
    return is_real(value) and jnp.issubdtype(value.dtype, jnp.floating)


def _folded(eqn: Any, values: Sequence[Known]) -> list[Any]:
    if (
        eqn.primitive.name == "broadcast_in_dim"
        and np.size(values[0].array) == 1
        and is_real(values[0].array)
    ):
        return [np.broadcast_to(np.asarray(values[0].array).reshape(()), eqn.params["shape"])]
    outs = eqn.primitive.bind(*(v.array for v in values), **eqn.params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def _last_uses(jaxpr: core.Jaxpr) -> dict[int, list[Any]]:
    """Equation -> variables that nothing needs after it."""
    last: dict[Any, int] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        last.update({v: index for v in eqn.invars if not isinstance(v, core.Literal)})
    for v in jaxpr.outvars:
        if not isinstance(v, core.Literal):
            last[v] = len(jaxpr.eqns)
    out: dict[int, list[Any]] = {}
    for v, index in last.items():
        out.setdefault(index, []).append(v)
    return out


def _step(value: Any, i: int) -> Any:
    """What an iteration sees of a stack."""
    if isinstance(value, Parameter):
        layer = value.layer
        return Parameter(value.walk, Layer(layer.parameter, (*layer.at, i)))
    if isinstance(value, Known):
        return Known(value.array[i], value.notes)
    if isinstance(value, Field):
        return part(value, 0, i, 0)
    return value.on(part(value.argument, 0, i, 0))


def _stacked(column: Sequence[Any]) -> Any:
    values: list[Any] = [v.value if isinstance(v, Parameter) else v for v in column]
    if all(isinstance(v, Known) for v in values):
        notes = frozenset[str]().union(*(v.notes for v in values))
        return Known(jnp.stack([jnp.asarray(v.array) for v in values]), notes)
    return stacked([as_field(v) for v in values])
