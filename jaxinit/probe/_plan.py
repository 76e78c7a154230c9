"""The plan of a probe: the places of a traced program at which the signal can be measured, found once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from jaxinit.models import MARK
from jaxinit.probe import equations
from jaxinit.probe._activation import Chain, View, follow
from jaxinit.probe._gates import gates_of
from jaxinit.probe._operands import taken_axes
from jaxinit.probe._origins import DATA, NOTHING, Origin, body_origins, flow, of

__all__ = ["SAME", "Block", "Loop", "Operation", "Place", "Plan", "make_plan"]

Path = tuple[str, ...]

#: Equations that combine a parameter with the signal, and which operands can be the parameter.
_OPERATIONS = {"dot_general": (1, 0), "conv_general_dilated": (1, 0), "gather": (0,)}
#: Equations that change nothing of a parameter but its precision.
SAME = frozenset({"convert_element_type", "copy"})
#: Equations through which the search for an operation's bias goes on.
_RESHAPING = SAME | {"reshape", "transpose", "squeeze"}


class _Same(NamedTuple):
    """A variable that is a parameter, or a layer of one, cast and transposed at most: which, and which of its axes each
    of the variable's is."""

    parameter: int
    axes: tuple[int, ...]

    @property
    def layers(self) -> bool:
        """Whether a loop that goes through the variable goes through layers of the parameter."""
        return bool(self.axes) and self.axes == tuple(range(len(self.axes)))


class Loop(NamedTuple):
    """A scan around a place: its length and direction, and the path of the module (or parameters) it repeats."""

    length: int
    reverse: bool
    path: Path


@dataclasses.dataclass(frozen=True)
class Operation:
    """A product of a parameter with the signal.

    `kernel`: the parameters that the operand is made of; `operand`: which operand it is; `summed`: the axes of the
    parameter (of a layer of it) that the product sums over, None where the operand is more than one that is cast and
    transposed; `params`: of the equation (dimension numbers, strides, groups).
    """

    primitive: str
    kernel: tuple[int, ...]
    operand: int
    summed: tuple[int, ...] | None
    bias: tuple[int, ...]
    params: dict[str, Any]


@dataclasses.dataclass
class Place:
    """A value of the program that can be measured."""

    role: str
    kind: str
    path: Path
    leaf: str
    shape: tuple[int, ...]
    dtype: Any
    loops: tuple[Loop, ...]
    branch: int | None
    chain: Chain | None = None
    #: Whether the nonlinearities of sums with this value, or of parts of it, are watched in its stead.
    gated: bool = False
    operation: Operation | None = None
    #: Whether the module's output stands for this operation: it is the only one of a module without parts.
    represented: bool = False
    container: bool = False
    batch_axis: int | None = None


@dataclasses.dataclass
class Block:
    """A program with its places: `taps[i]` are the (variable, place) known after equation i, `-1` its inputs;
    `inside[i]` the blocks of the bodies of equation i; `gates[i]` the (variable, nonlinearity, place) of which the
    variable, known after equation i, is a sum or a part of what is at the place (`_gates`).

    Where parameters are never formed: `products[i]` says how equation i multiplies one of them, or several that are
    joined (`_operands.Product`), and the equations `shaping` only hand them on. Of those multiplied more than once,
    `begins` says which input of this block is one of them, and how its thread begins there, by parameter
    (`_thread.begin`); `threaded` are those whose threads come from outside.
    """

    jaxpr: core.Jaxpr
    consts: Sequence[Any]
    taps: dict[int, list[tuple[Any, int]]] = dataclasses.field(default_factory=dict)
    inside: dict[int, list[Block]] = dataclasses.field(default_factory=dict)
    gates: dict[int, list[tuple[Any, Chain, int]]] = dataclasses.field(default_factory=dict)
    products: dict[int, Any] = dataclasses.field(default_factory=dict)
    shaping: set[int] = dataclasses.field(default_factory=set)
    begins: dict[int, tuple[int, Any]] = dataclasses.field(default_factory=dict)
    threaded: set[int] = dataclasses.field(default_factory=set)

    @property
    def unformed(self) -> bool:
        """Whether parameters that are never formed are used here or inside."""
        inside = (b for blocks in self.inside.values() for b in blocks)
        return bool(self.products) or any(block.unformed for block in inside)

    def places(self) -> list[int]:
        """The places here and inside, in the order of the program."""
        out = []
        for index in sorted({*self.taps, *self.inside}):
            out += [p for block in self.inside.get(index, []) for p in block.places()]
            out += [p for _, p in self.taps.get(index, [])]
        return out


@dataclasses.dataclass
class Plan:
    """A program's places, its parameters' paths, how scans stack them, and what could not be looked into."""

    block: Block
    places: list[Place]
    parameters: list[Path]
    shapes: list[tuple[int, ...]]
    stacked: dict[int, tuple[Loop, ...]]
    opaque: list[str]


def make_plan(
    closed: core.ClosedJaxpr,
    parameters: Sequence[Path],
    signal: range,
    scales: Callable[[str], bool] | None = None,
) -> Plan:
    """The plan of a program whose first inputs are the parameters of these paths, and inputs `signal` the arguments of
    the call; the others (state, keys) are neither, so that a kernel over its running norm is still a kernel.

    `scales`: of which of them a product with the signal entry by entry is an operation, too.
    """
    plan = Plan(
        Block(closed.jaxpr, closed.consts), [], list(parameters),
        [equations.aval(v).shape for v in closed.jaxpr.invars[: len(parameters)]], {}, [],
    )  # fmt: skip
    rest = len(closed.jaxpr.invars) - len(parameters)
    inputs = [Origin(frozenset({i}), False) for i in range(len(parameters))]
    inputs += [DATA if len(parameters) + n in signal else NOTHING for n in range(rest)]
    names: list[_Same | None] = [_Same(n, tuple(range(len(shape)))) for n, shape in enumerate(plan.shapes)]
    names += [None] * rest
    chosen = () if scales is None else [n for n, path in enumerate(parameters) if scales("/".join(path))]
    _Walk(plan, frozenset(chosen)).walk(plan.block, inputs, names, (), None)
    _merge(plan.places)
    return plan


class _Walk:
    def __init__(self, plan: Plan, scales: frozenset[int]) -> None:
        self.plan, self.scales = plan, scales
        self.scope: list[Path] = []
        self.first_seen: dict[int, Path] = {}
        self.renamed: list[tuple[Path, Path]] = []

    def walk(
        self,
        block: Block,
        inputs: Sequence[Origin],
        parameters: Sequence[_Same | None],
        loops: tuple[Loop, ...],
        branch: int | None,
    ) -> list[Place | None]:
        """Find the places of a block, and which of them are its outputs. `parameters`: which inputs are
        parameters."""
        jaxpr = block.jaxpr
        view, origins = View(jaxpr), flow(jaxpr, inputs)
        direct = {v: p for v, p in zip(jaxpr.invars, parameters, strict=True) if p is not None}
        same: dict[Any, Any] = {}  # marked value -> the value before its marks
        outputs: dict[Any, Place] = {}  # value -> the output that it is
        operations: dict[Any, Place] = {}
        around = (loops, branch)
        for index, eqn in enumerate(jaxpr.eqns):
            if eqn.primitive is MARK:
                self._mark(block, index, eqn, view, same, outputs, operations, direct, around)
            elif equations.kind_of(eqn) is not None:
                for value, place in zip(
                    eqn.outvars, self._enter(block, index, eqn, origins, direct, around), strict=False
                ):
                    if place is not None:
                        outputs[value] = place
            elif eqn.primitive.name in _OPERATIONS or (self.scales and eqn.primitive.name == "mul"):
                self._operation(block, index, eqn, view, origins, direct, operations, around)
            elif (handed := _handed_on(eqn, direct)) is not None:
                direct[eqn.outvars[0]] = handed
            else:
                self._note(eqn)
        return [None if isinstance(v, core.Literal) else outputs.get(same.get(v, v)) for v in jaxpr.outvars]

    def _mark(
        self,
        block: Block,
        index: int,
        eqn: core.JaxprEqn,
        view: View,
        same: dict[Any, Any],
        outputs: dict[Any, Place],
        operations: dict[Any, Place],
        direct: dict[Any, _Same],
        around: tuple[tuple[Loop, ...], int | None],
    ) -> None:
        (given,), (value,), what = eqn.invars, eqn.outvars, eqn.params
        path = self._rename(what["path"])
        self._move(path, what["role"])
        if isinstance(given, core.Literal):
            return
        if given in direct:  # a module that is given, or hands out, a parameter as it is: no signal
            direct[value] = direct[given]
            return
        source = same[value] = same.get(given, given)
        if not _measurable(value) or (what["role"] == "output" and source in outputs):
            return
        place = Place(
            what["role"],
            what["kind"],
            path,
            what["leaf"],
            equations.aval(value).shape,
            equations.aval(value).dtype,
            *around,
        )
        if place.role == "output":
            outputs[source] = place
            if source in operations:  # the module's output is the operation itself: one place
                same_value = operations.pop(source)
                place.operation, same_value.operation = same_value.operation, None
        self._add(block, view, index, value, place)

    def _operation(
        self,
        block: Block,
        index: int,
        eqn: core.JaxprEqn,
        view: View,
        origins: dict[Any, Origin],
        direct: dict[Any, _Same],
        operations: dict[Any, Place],
        around: tuple[tuple[Loop, ...], int | None],
    ) -> None:
        given = [of(origins, v) for v in eqn.invars]
        weights = [n for n in _OPERATIONS.get(eqn.primitive.name, (1, 0)) if given[n].pure]
        if eqn.primitive.name == "mul" and not self._is_scale(view, eqn, given, weights):
            return
        if len(weights) != 1 or not _measurable(eqn.outvars[0]):
            return
        (operand,) = weights
        value, where, bias = _with_bias(view, eqn.outvars[0], origins)
        operation = Operation(
            eqn.primitive.name, tuple(sorted(given[operand].parameters)), operand,
            _summed(eqn, operand, direct), bias, dict(eqn.params),
        )  # fmt: skip
        path = self.scope[-1] if self.scope else ()
        place = Place(
            "operation", eqn.primitive.name, path, "",
            equations.aval(value).shape, equations.aval(value).dtype, *around, operation=operation,
        )  # fmt: skip
        operations[value] = place
        self._add(block, view, index if where is None else where, value, place)

    def _is_scale(self, view: View, eqn: core.JaxprEqn, given: Sequence[Origin], weights: list[int]) -> bool:
        """Whether a parameter asked for multiplies the signal itself: no broadcast number, as the inverse of a norm."""
        if len(weights) != 1 or not given[weights[0]].parameters <= self.scales:
            return False
        signal, maker = eqn.invars[1 - weights[0]], view.maker.get(eqn.invars[1 - weights[0]])
        size = equations.aval(signal).size
        if maker is not None and view.jaxpr.eqns[maker].primitive.name == "broadcast_in_dim":
            size = equations.aval(view.jaxpr.eqns[maker].invars[0]).size
        return bool(size == equations.aval(eqn.outvars[0]).size)

    def _enter(
        self,
        block: Block,
        index: int,
        eqn: core.JaxprEqn,
        origins: dict[Any, Origin],
        direct: dict[Any, _Same],
        around: tuple[tuple[Loop, ...], int | None],
    ) -> list[Place | None]:
        """Find the places of the bodies of an equation; which of them are its outputs, as they leave the body."""
        loops, branch = around
        given = body_origins(eqn, [of(origins, v) for v in eqn.invars])
        names = [None if isinstance(v, core.Literal) else direct.get(v) for v in equations.body_inputs(eqn)]
        kind, blocks, start = equations.kind_of(eqn), [], len(self.plan.places)
        if kind == equations.SCAN:
            consts, carried, length, reverse = equations.loop_of(eqn)
            names[consts : consts + carried] = [None] * carried
            layers = [s if s is not None and s.layers else None for s in names[consts + carried :]]
            stacks = [s.parameter for s in layers if s is not None]
            loop = Loop(length, reverse, self._repeated(eqn, stacks))
            loops = (*loops, loop)
            for p in stacks:
                self.plan.stacked[p] = (*self.plan.stacked.get(p, ()), loop)
            names[consts + carried :] = [
                s and _Same(s.parameter, tuple(range(len(s.axes) - 1))) for s in layers
            ]
        for n, body in enumerate(equations.bodies(eqn)):
            inside = Block(body.jaxpr, body.consts)
            renames = self._renames(eqn, body, given) if kind == equations.CALL else None
            if renames:
                self.renamed.append(renames)
            leaving = self.walk(inside, given, names, loops, n if kind == equations.COND else branch)
            if renames:
                self.renamed.pop()
            blocks.append(inside)
        if len(self.plan.places) > start:
            block.inside[index] = blocks
        return leaving if kind in (equations.CALL, equations.REMAT) else []

    def _add(self, block: Block, view: View, index: int, value: Any, place: Place) -> None:
        number, place.chain = len(self.plan.places), follow(view, value)
        block.taps.setdefault(index, []).append((value, number))
        self.plan.places.append(place)
        for gate in gates_of(view, value) if place.chain is None else []:
            block.gates.setdefault(gate.made_by, []).append((gate.value, gate.chain, number))
            place.gated = True

    def _move(self, path: Path, role: str) -> None:
        """Keep track of the module whose equations these are."""
        if role == "output":
            if path in self.scope:
                del self.scope[self.scope.index(path) :]
            return
        if path in self.scope:  # another argument of the same call
            del self.scope[self.scope.index(path) + 1 :]
            return
        while self.scope and path[: len(self.scope[-1])] != self.scope[-1]:
            self.scope.pop()
        self.scope.append(path)

    def _repeated(self, eqn: core.JaxprEqn, stacks: Sequence[int]) -> Path:
        """The path of what a scan repeats: common to the modules inside, or to the parameters it stacks."""
        (body,) = equations.bodies(eqn)
        paths = [self._rename(p) for p in marked_paths(body.jaxpr)]
        return common(paths) or common([self.plan.parameters[p] for p in stacks])

    def _renames(
        self, eqn: core.JaxprEqn, body: core.ClosedJaxpr, given: Sequence[Origin]
    ) -> tuple[Path, Path] | None:
        """Modules that share one traced body (`nn.jit`) bear the first one's name there: the parameters tell."""
        used = sorted(set().union(*(o.parameters for o in given if not o.data)))
        prefix = common([self.plan.parameters[p] for p in used])
        first = self.first_seen.setdefault(id(body), prefix)
        if first == prefix or not prefix:
            return None
        while first and prefix and first[-1] == prefix[-1]:  # the same part of another module
            first, prefix = first[:-1], prefix[:-1]
        return first, prefix

    def _rename(self, path: Path) -> Path:
        for first, prefix in reversed(self.renamed):
            if path[: len(first)] == first:
                return prefix + path[len(first) :]
        return path

    def _note(self, eqn: core.JaxprEqn) -> None:
        """Remember equations with marks inside that are executed as they are."""
        name = eqn.primitive.name
        here = "/".join(self.scope[-1]) if self.scope and self.scope[-1] else "the model"
        inside = [p for body in core.jaxprs_in_params(eqn.params) for p in marked_paths(body)]
        if inside:
            what = ", ".join(sorted({"/".join(p) for p in inside}))
            self.plan.opaque.append(f"{name} in {here} (holds {what})")


def _handed_on(eqn: core.JaxprEqn, direct: dict[Any, _Same]) -> _Same | None:
    """The value of an equation that casts or transposes a parameter."""
    given = next((direct.get(v) for v in eqn.invars if not isinstance(v, core.Literal)), None)
    if given is None or not jnp.issubdtype(equations.aval(eqn.outvars[0]).dtype, jnp.floating):
        return None
    if eqn.primitive.name == "transpose":
        return given._replace(axes=tuple(given.axes[n] for n in eqn.params["permutation"]))
    return given if eqn.primitive.name in SAME else None


def _summed(eqn: core.JaxprEqn, operand: int, direct: dict[Any, _Same]) -> tuple[int, ...] | None:
    """The axes of a parameter that a product sums over."""
    if eqn.primitive.name == "mul" or eqn.invars[operand] not in direct:
        return None
    axes = direct[eqn.invars[operand]].axes
    return tuple(axes[n] for n in taken_axes(eqn, operand, len(axes)))


def _measurable(value: Any) -> bool:
    return (
        equations.aval(value).ndim >= 1
        and equations.aval(value).size > 0
        and jnp.issubdtype(equations.aval(value).dtype, jnp.floating)
    )


def _with_bias(view: View, value: Any, origins: dict[Any, Origin]) -> tuple[Any, int | None, tuple[int, ...]]:
    """The value after a parameter is added to it, the equation that does so, and the parameter."""
    here = value
    while len(users := view.users.get(here, [])) == 1 and users[0] < len(view.jaxpr.eqns):
        eqn = view.jaxpr.eqns[users[0]]
        if eqn.primitive.name in _RESHAPING:
            (here,) = eqn.outvars
            continue
        if eqn.primitive.name in ("add", "add_any"):
            other = of(origins, next((v for v in eqn.invars if v is not here), here))
            if other.pure:
                return eqn.outvars[0], users[0], tuple(sorted(other.parameters))
        break
    return value, None, ()


def _merge(places: list[Place]) -> None:
    """Say which modules have parts, and let a part's only operation be represented by its output."""
    outputs = {p.path for p in places if p.role == "output"}
    paths = {p.path for p in places if p.role != "operation"}
    inner = {path[:n] for path in paths for n in range(len(path))}
    for place in places:
        place.container = place.role != "operation" and place.path in inner
    alone: dict[Path, list[Place]] = {}
    for place in places:
        if place.role == "operation" and place.path in outputs and place.path not in inner:
            alone.setdefault(place.path, []).append(place)
    for path, operations in alone.items():
        own = [p for p in operations if p.operation is not None]
        others = [p for p in places if p.role == "output" and p.path == path and p.operation is None]
        calls = max(1, sum(not p.leaf for p in others)) if others else 0
        if own and len(own) <= calls and {p.loops for p in own} == {p.loops for p in others}:
            for place in own:
                place.represented = True
            for place in others:
                place.operation = own[0].operation


def marked_paths(jaxpr: core.Jaxpr) -> list[Path]:
    """The paths of all marks in a program and the programs inside it."""
    out = []
    for eqn in jaxpr.eqns:
        if eqn.primitive is MARK:
            out.append(eqn.params["path"])
        else:
            out += [p for inside in core.jaxprs_in_params(eqn.params) for p in marked_paths(inside)]
    return out


def common(paths: Sequence[Path]) -> Path:
    """The longest path that all begin with."""
    if not paths:
        return ()
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return tuple(parts[0] for parts in same)
