"""A function as a chain of small compiled programs, of which those that are alike are compiled once.

What a search over scales asks of a model is short work after a long compilation. Most models repeat themselves: a stack
of equal layers is one layer, compiled once and called again and again, and the next model of such layers compiles
nothing. The function is traced as a whole; a piece is what one of its outputs needs, and no earlier one did. All are
compiled beside one another, while the first ones run already.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from jaxinit._core import compiling
from jaxinit.probe import Form, equations, form_of, form_of_number

__all__ = ["Pieces", "times"]

#: Programs kept.
_KEPT = 1024
#: Programs that are compiled at the same time.
_AT_ONCE = 2


class Pieces:
    """`function(*args)`, run piece by piece.

    The values are those of `jax.jit(function)` up to the compiler's rounding. It cannot be differentiated.

    Args:
        function: traceable; to be cut where it computes what it returns.
        args: arrays or shapes to trace it with.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxinit.adapt._pieces import Pieces
        >>> def stack(weights, x):
        ...     sizes = []
        ...     for w in weights:
        ...         x = jnp.tanh(x @ w)
        ...         sizes.append(jnp.sum(x**2))
        ...     return sizes
        >>> weights, x = [jnp.full((3, 3), 0.1 * n) for n in range(1, 6)], jnp.ones((2, 3))
        >>> pieces = Pieces(stack, weights, x)
        >>> bool(jnp.allclose(jnp.stack(pieces(weights, x)), jnp.stack(stack(weights, x))))
        True
        >>> len(pieces.programs), len(set(pieces.programs))  # the last returns no x
        (5, 2)
    """

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        self._tree = jax.tree.structure(shapes)
        flat = _Flat(closed)
        self._given, self._constants = flat.given, flat.constants
        self._outs, self._shapes = flat.outs, flat.shapes
        self._chain: list[_Piece] = []
        self._returned = {out for out in flat.outs if isinstance(out, int)}
        self._compiling: dict[Any, Future[Any]] = {}
        later = set(self._returned)
        for steps in reversed(flat.pieces()):
            made = {n for step in steps for n in step.made}
            used = dict.fromkeys(n for step in steps for n in step.given if isinstance(n, int))
            inputs = tuple(n for n in used if n not in made)
            outputs = tuple(n for step in steps for n in step.made if n in later)
            done = tuple({*inputs, *outputs} - later)
            later |= set(inputs)
            program = _program(_Alike(steps, inputs, outputs))
            self._chain.append(_Piece(program, steps, inputs, outputs, done))
        self._chain.reverse()

    def __len__(self) -> int:
        return len(self._chain)

    @property
    def programs(self) -> list[Any]:
        """The compiled function of each piece, in their order."""
        return [piece.program for piece in self._chain]

    def compile(self) -> None:
        """Begin to compile for arrays on the default device, and `times` for what is passed on; a piece that is run
        waits for its own program only."""
        pool, sizes = ThreadPoolExecutor(_AT_ONCE), set[Any]()
        for n, program in enumerate(self.programs):
            if program not in self._compiling:
                self._compiling[program] = pool.submit(self.lowered(n).compile)
            passed = {self._shapes[out] for out in self._chain[n].outputs if out not in self._returned}
            for shape in passed - sizes:
                if np.issubdtype(shape.dtype, np.floating):
                    factor = jax.ShapeDtypeStruct((), shape.dtype)
                    pool.submit(times.lower(_struct(shape), factor).compile)
            sizes |= passed
        pool.shutdown(wait=False)

    def lowered(self, n: int, **choices: Any) -> Any:
        """Piece n, lowered for arrays of its shapes."""
        given = [_struct(self._shapes[number]) for number in self._chain[n].inputs]
        return self._chain[n].program.trace(*given).lower(**choices)

    def __call__(self, *args: Any) -> Any:
        values = self.begin(*args)
        for n in range(len(self)):
            self.run(n, values)
            self.leave(n, values)
        return self.returned(values)

    def begin(self, *args: Any) -> dict[int, Any]:
        """The values that are there before the first piece, by number: those of `args` first."""
        return dict(zip(self._given, jax.tree.leaves(args), strict=True)) | self._constants

    def run(self, n: int, values: dict[int, Any]) -> None:
        """Add the values that piece n passes on; it can be run again until it is left."""
        piece = self._chain[n]
        if piece.program in self._compiling:
            self._compiling.pop(piece.program).result()
        outs = piece.program(*(values[n] for n in piece.inputs))
        values.update(zip(piece.outputs, outs, strict=True))

    def leave(self, n: int, values: dict[int, Any]) -> None:
        """Forget what no later piece needs."""
        for number in self._chain[n].done:
            del values[number]

    def returned(self, values: dict[int, Any]) -> Any:
        """What the function returns; zeros for what has not been computed yet."""

        def value(out: Any) -> Any:
            if not isinstance(out, int):
                return out.val
            shape = self._shapes[out]
            return values[out] if out in values else np.zeros(shape.shape, shape.dtype)

        return jax.tree.unflatten(self._tree, [value(out) for out in self._outs])

    def makers(self) -> list[int]:
        """By leaf of what the function returns, the piece that computes it; -1 where none does."""
        maker = {number: n for n, piece in enumerate(self._chain) for number in piece.outputs}
        return [maker.get(out, -1) if isinstance(out, int) else -1 for out in self._outs]

    def first_use(self) -> dict[int, int]:
        """By number, the first piece that a value is given to."""
        out: dict[int, int] = {}
        for n, piece in enumerate(self._chain):
            for number in piece.inputs:
                out.setdefault(number, n)
        return out

    def powers(self, n: int, scaled: Collection[int], zero: Collection[int]) -> dict[int, float] | None:
        """If the inputs `scaled` of piece n are multiplied by s > 0, the values it passes on (beside what the function
        returns) are multiplied by s to these powers; None if one of them is not, for all that is known.

        `zero`: inputs that are 0.
        """
        forms: dict[int, Form] = {
            number: Form({0: 1.0}, 0) if number in scaled else Form({}, 0, number in zero)
            for number in self._chain[n].inputs
        }
        for eqn, given, made in self._chain[n].steps:
            of = form_of(eqn, [forms[v] if isinstance(v, int) else form_of_number(v.val) for v in given])
            forms.update(dict.fromkeys(made, of))
        passed = {number: forms[number] for number in self._chain[n].outputs if number not in self._returned}
        if any(form.bends for form in passed.values()):
            return None
        return {number: form.degrees.get(0, 0.0) for number, form in passed.items() if form.degrees.get(0)}


@jax.jit
def times(value: Any, factor: Any) -> Any:
    """What follows from a value that is a power of a scale, when that is changed."""
    return value * factor


def _struct(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


class _Piece(NamedTuple):
    """A compiled function, its equations, the numbers of the values that it is given and returns, and those that
    nothing needs after it."""

    program: Any
    steps: Sequence[_Step]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    done: tuple[int, ...]


class _Step(NamedTuple):
    """An equation; its operands as numbers of values, or literals; the numbers of its values."""

    eqn: core.JaxprEqn
    given: tuple[Any, ...]
    made: tuple[int, ...]


class _Flat:
    """A program with its calls written out, also those with a derivative of their own; values are numbered.

    `given`: the inputs; `constants`: the arrays that the program holds; `outs`: numbers, or literals; `shapes`: of all
    values, by number.
    """

    def __init__(self, closed: core.ClosedJaxpr) -> None:
        self.constants: dict[int, Any] = {}
        self.shapes: dict[int, Any] = {}
        self._steps: list[_Step] = []
        self._count = itertools.count()
        self.given = [self._numbered(v) for v in closed.jaxpr.invars]
        self.outs = self._write(closed, self.given)

    def _numbered(self, variable: Any) -> int:
        number = next(self._count)
        self.shapes[number] = equations.aval(variable)
        return number

    def _write(self, closed: core.ClosedJaxpr, given: Sequence[Any]) -> list[Any]:
        jaxpr = closed.jaxpr
        at: dict[Any, Any] = dict(zip(jaxpr.invars, given, strict=True))
        for variable, value in zip(jaxpr.constvars, closed.consts, strict=True):
            at[variable] = self._numbered(variable)
            self.constants[at[variable]] = value
        for eqn in jaxpr.eqns:
            operands = [v if isinstance(v, core.Literal) else at[v] for v in eqn.invars]
            body = equations.only_body(eqn)
            if body is None:
                made: list[Any] = [self._numbered(v) for v in eqn.outvars]
                self._steps.append(_Step(eqn, tuple(operands), tuple(made)))
            else:
                made = self._write(body, operands)
            at.update(zip(eqn.outvars, made, strict=True))
        return [v if isinstance(v, core.Literal) else at[v] for v in jaxpr.outvars]

    def pieces(self) -> list[list[_Step]]:
        """The equations that outputs need, by outputs in the order in which they are computed; last those that do
        something beside."""
        maker = {n: i for i, step in enumerate(self._steps) for n in step.made}
        ends = sorted({maker[n] for n in self.outs if isinstance(n, int) and n in maker})
        taken: set[int] = set()
        pieces = []
        for wanted in [*([end] for end in ends), [i for i, s in enumerate(self._steps) if s.eqn.effects]]:
            own, todo = set[int](), list(wanted)
            while todo:
                i = todo.pop()
                if i not in taken:
                    taken.add(i)
                    own.add(i)
                    todo += [maker[n] for n in self._steps[i].given if isinstance(n, int) and n in maker]
            if own:
                pieces.append([self._steps[i] for i in sorted(own)])
        return pieces


class _Alike:
    """A piece, equal to another one of the same equations between values of the same shapes."""

    def __init__(self, steps: Sequence[_Step], inputs: Sequence[int], outputs: Sequence[int]) -> None:
        self.steps, self.inputs, self.outputs = steps, inputs, outputs
        number = {n: i for i, n in enumerate(dict.fromkeys([*inputs, *(n for s in steps for n in s.made)]))}
        self.key = (
            tuple(_step_key(s.eqn, [number[n] if isinstance(n, int) else n for n in s.given]) for s in steps),
            len(inputs), tuple(number[n] for n in outputs),
        )  # fmt: skip
        self._hash = hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alike) and self.key == other.key

    def __hash__(self) -> int:
        return self._hash

    def __call__(self, *args: Any) -> list[Any]:
        values = dict(zip(self.inputs, args, strict=True))
        used = {n for step in self.steps for n in step.given if isinstance(n, int)} | set(self.outputs)
        for eqn, given, made in self.steps:
            at = {
                v: values[n] if isinstance(n, int) else n.val
                for v, n in zip(eqn.invars, given, strict=True)
                if not isinstance(v, core.Literal)
            }
            wanted = {n: v for v, n in zip(eqn.outvars, made, strict=True) if n in used}
            alone = equations.piece(list(at), list(wanted.values()), [eqn])
            values.update(zip(wanted, jax.core.eval_jaxpr(alone, (), *at.values()), strict=True))
        return [values[n] for n in self.outputs]


@functools.lru_cache(maxsize=_KEPT)
def _program(piece: _Alike) -> Any:
    options = compiling.options(jax.default_backend(), "brief")
    return jax.jit(piece.__call__, compiler_options=options or None)


class _Itself:
    """A value that is equal to nothing but itself."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _step_key(eqn: core.JaxprEqn, given: Sequence[Any]) -> Hashable:
    """What an equation does, its operands numbered; of calls the program alone: no derivative is taken of them."""
    operands = tuple(_value(np.asarray(n.val)) if isinstance(n, core.Literal) else n for n in given)
    shapes = tuple(str(equations.aval(v)) for v in (*eqn.invars, *eqn.outvars))
    body = equations.only_body(eqn)
    return operands, shapes, (eqn.primitive, _value(eqn.params)) if body is None else _value(body)


def _value(value: Any) -> Hashable:
    """A parameter of an equation, as something that is equal to another only if they mean the same."""
    if isinstance(value, core.Jaxpr):
        value = core.ClosedJaxpr(value, ())
    if isinstance(value, core.ClosedJaxpr):
        number = itertools.count()
        at = {v: next(number) for v in (*value.jaxpr.constvars, *value.jaxpr.invars)}
        steps = []
        for eqn in value.jaxpr.eqns:
            steps.append(_step_key(eqn, [v if isinstance(v, core.Literal) else at[v] for v in eqn.invars]))
            at.update((v, next(number)) for v in eqn.outvars)
        outs = (_value(v.val) if isinstance(v, core.Literal) else at[v] for v in value.jaxpr.outvars)
        return tuple(steps), tuple(outs), tuple(_value(v) for v in value.consts)
    if isinstance(value, dict):
        return tuple((name, _value(v)) for name, v in sorted(value.items()))
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_value(v) for v in value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.shape, value.dtype.str, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    return type(value), value
