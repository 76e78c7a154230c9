"""The products of parameters with the signal, for whoever sets the scales of the parameters."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.models import Marked, marked
from jaxinit.probe import _inputs as inputs
from jaxinit.probe import _losses as losses
from jaxinit.probe._choices import choose_sites
from jaxinit.probe._degrees import forms_of
from jaxinit.probe._evaluate import Watched
from jaxinit.probe._layout import Layout
from jaxinit.probe._names import indexed, site_names, site_rows
from jaxinit.probe._plan import Plan
from jaxinit.probe._program import Measure, streams
from jaxinit.probe._told import averaged, moments, repeated, stacked
from jaxinit.probe._trace import Traced, refused, trace

__all__ = ["Dependence", "Figures", "Layer", "Norms", "Product", "Products", "batches", "products"]

_LN2 = math.log(2.0)
#: Of the keys that draw inputs: distinct from the small numbers that models fold in.
_DRAWN = 0x6A780100


class Layer(NamedTuple):
    """A parameter, by index, or one layer of a parameter that scans go through."""

    parameter: int
    at: tuple[int, ...] = ()


class Dependence(NamedTuple):
    """How products (rows) depend on scales, and on one another (columns).

    A value is prod_c scale_c^degrees[r, c] times a function of the scales with bends[r, c]. `above[r, c]`: the value
    of c enters r with no other product in between; the last row is that of the model's outputs.
    """

    degrees: np.ndarray
    bends: np.ndarray
    above: np.ndarray


class Figures(NamedTuple):
    """What is measured of every product, in their order: arrays of shape (products,); nan where it did not run.

    `log_second_moment`: natural log of the mean over units, examples and repetitions of the value's square; -inf for
    a signal that is 0, inf for one that is not finite. `mean`: the mean of the value. `log_gradient`: natural log of
    the sum of squares of what `Products.partial` or `Products.backward` sends back to the value; None from
    `Products.forward`.
    """

    log_second_moment: Any
    mean: Any
    log_gradient: Any = None


class Norms(NamedTuple):
    """Euclidean norms of the parameters and of their gradients, layer by layer: those of a parameter with `stacks` are
    as many as it has layers, one after the other, in the order of `Products.names`."""

    parameters: Any
    gradients: Any


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of parameters with the signal, bias included.

    Attributes:
        name: as of a site of `probe(sites="ops")`; without the index of loops in which its parameters are the same.
        kind: the primitive.
        kernel, bias: the parameters it is made of, and those added to it.
        shape: of one evaluation.
        place: its place in the plan.
        at: the iteration of each loop around it, None for loops that use the same parameters again.
        contracting: the axes of (a layer of) the kernel that are summed over, those of a convolution's window included;
            of a lookup, that of its rows. None where the kernel is more than one parameter, cast and transposed.
    """

    name: str
    kind: str
    kernel: tuple[Layer, ...]
    bias: tuple[Layer, ...]
    shape: tuple[int, ...]
    place: int
    at: tuple[int | None, ...]
    contracting: tuple[int, ...] | None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Products:
    """A model, traced once, with the products of its parameters and the signal in the order of execution.

    Attributes:
        model: the pair of functions behind it.
        traced: its plan.
        names, shapes: of the parameters, in the order of their leaves; shapes of all layers together.
        stacks: of each parameter, the lengths of the loops that go through its first axes.
        products: in the order of execution.
        arguments: shapes of a batch; `examples`, how many it holds.
        random: whether the loss is the random one of `probe`.
        log_sizes: by product, natural log of how many numbers its value is made of, repetitions included.
    """

    def __init__(
        self, model: Marked, traced: Traced, arguments: Any, abstract: Any, loss: Any, random: bool
    ) -> None:
        plan = traced.plan
        self.model, self.traced, self.arguments, self.abstract = model, traced, arguments, abstract
        self.names = tuple("/".join(path) for path in plan.parameters)
        self.shapes = tuple(plan.shapes)
        self.stacks = tuple(
            tuple(loop.length for loop in plan.stacked.get(n, ())) for n in range(len(plan.parameters))
        )
        chosen = choose_sites("products", "ops", plan, model.marks)
        self.products = _in_order(plan, chosen)
        self.examples, self.random = inputs.examples_of(arguments) or 1, random
        layout = Layout(self.examples, False, frozenset({"second_moment", "mean", "grad_second_moment"}))
        # Nothing is asked about activations.
        places = [dataclasses.replace(place, chain=None) for place in plan.places]
        watched = Watched(plan.block, places, chosen, layout)
        self._forward = Measure(plan, watched, layout, traced.output, None, None)
        renewed = Watched(plan.block, places, chosen, layout, _signs)
        self._partial = Measure(plan, renewed, layout, traced.output, _total, None)
        self._backward = Measure(plan, watched, layout, traced.output, self._signed, None)
        self._loss = loss
        self._rows = _rows(plan, watched.watched, self.products)
        sizes = np.sum(self._rows >= 0, axis=1) * [float(p.size) for p in self.products]
        self.log_sizes = np.log(sizes).astype(np.float32)

    def layer_name(self, layer: Layer) -> str:
        """The path of a parameter, with the layer of a stacked one: layers[3]/fc/kernel."""
        plan = self.traced.plan
        path = plan.parameters[layer.parameter]
        return indexed(path, plan.stacked.get(layer.parameter, ())[: len(layer.at)], layer.at)

    def layers(self, parameter: int) -> list[Layer]:
        """The layers of a parameter: itself, if no scan goes through it."""
        return [Layer(parameter, at) for at in itertools.product(*map(range, self.stacks[parameter]))]

    def dependence(self, own: Sequence[Sequence[Layer]], zero: Sequence[np.ndarray]) -> Dependence:
        """How each product's value depends on the scales of the layers that each product owns.

        `own`: by product, the layers that are scaled with it. `zero`: for each parameter, in the shape of its stacks,
        which of its layers are 0 and stay so.
        """
        at = {(p.place, p.at): n for n, p in enumerate(self.products)}
        apart = {p.place: tuple(i is not None for i in p.at) for p in self.products}

        def number(place: int, iterations: tuple[int, ...]) -> int | None:
            if place not in apart:
                return None
            kept = zip(iterations, apart[place], strict=True)
            return at.get((place, tuple(i if own_row else None for i, own_row in kept)))

        forms, output = forms_of(self.traced.plan, zero, number)
        starts = [0, *itertools.accumulate(value.size for value in zero)]
        owner = np.full(starts[-1], -1)
        for n, layers in enumerate(own):
            for layer in layers:
                offset = np.ravel_multi_index(layer.at, self.stacks[layer.parameter]) if layer.at else 0
                owner[starts[layer.parameter] + offset] = n
        count = len(self.products)
        degrees = np.zeros((count, count))
        bends, above = np.zeros((count, count), bool), np.zeros((count + 1, count), bool)
        for n, form in [*forms.items(), (count, output)]:
            above[n, _bits(form.via)] = True
            if n == count:
                break
            for bit, degree in form.degrees.items():
                if owner[bit] >= 0:
                    degrees[n, owner[bit]] += degree
            found = owner[_bits(form.bends)]
            bends[n, found[found >= 0]] = True
        return Dependence(degrees, bends, above)

    def forward(self, leaves: Sequence[Any], state: Any, args: Any, key: Any) -> Figures:
        """Measure one batch with these parameters (leaves, in the order of `names`); pure and traceable."""
        found = self._forward(self._tree(leaves), state, args, None, streams(key))
        return Figures(self._pooled(found["second_moment"]), self._means(found["mean"]))

    def partial(self, leaves: Sequence[Any], state: Any, args: Any, key: Any) -> Figures:
        """As `forward`, and partial Jacobians: every product l sends signs r_l of its own back, in place of the
        gradient that arrives at it, and sum_l |J_lp^T r_l|^2 is measured at each p, whose value enters l with no other
        product in between. Over signs that is sum_l |J_lp|_F^2, whatever comes after l."""
        return self._figures(self._partial(self._tree(leaves), state, args, None, streams(key)))

    def sums(self, leaves: Sequence[Any], state: Any, args: Any, key: Any, *, partial: bool = False) -> Any:
        """What `told` makes the figures of `forward` (or `partial`) of: the sums of one batch, place by place; pure and
        traceable."""
        measure = self._partial if partial else self._forward
        given = [*leaves, *jax.tree.leaves((state, args, streams(key)["dropout"]))]

        def run(probes: Any) -> tuple[Any, Any]:
            outs, rows = measure.watched(given, probes)
            return _total(outs, None, None) if partial else None, rows

        probes, back = measure.watched.probes(), None
        with jax.numpy_dtype_promotion("standard"):  # as the model was traced
            if partial:
                back, rows = jax.grad(run, has_aux=True)(probes)
            else:
                _, rows = run(probes)
        return rows, back

    def told(self, sums: Any) -> Figures:
        """The figures of a batch from its `sums`: NumPy's arrays, and nothing compiled."""
        order, layout = self._forward.watched.watched, self._forward.layout
        forward, backward = (None if rows is None else stacked(rows, order) for rows in sums)
        log, mean = moments(layout, forward)
        gradient = None
        if backward is not None:
            gradient = repeated(moments(layout, backward, True)[0], self._rows) + self.log_sizes
        return Figures(repeated(log, self._rows), averaged(mean, self._rows), gradient)

    def backward(self, leaves: Sequence[Any], state: Any, args: Any, key: Any) -> tuple[Figures, Norms]:
        """As `forward`, and the gradients of L = sum over examples of <r_a, f(x_a)>, r_a independent random signs over
        sqrt(n_out), n_out the size of the output for one example. On average over r the sum of squares of the gradient
        at a value is |J|_F^2 / n_out, J the Jacobian from there to the outputs of all examples."""
        found = self._backward(self._tree(leaves), state, args, None, streams(key))
        return self._figures(found), Norms(found["parameter norm"], found["parameter gradient_norm"])

    def loss(self, leaves: Sequence[Any], state: Any, args: Any, labels: Any, key: Any) -> Any:
        """The scalar that is differentiated."""
        keys = streams(key)
        with jax.numpy_dtype_promotion("standard"):
            output = self.model.apply(self._tree(leaves), state, args, keys["dropout"])
            return self._loss(output, labels, keys["loss"])

    def _signed(self, output: Any, labels: Any, key: Any) -> Any:
        leaves = [v for v in jax.tree.leaves(output) if jnp.issubdtype(v.dtype, jnp.floating)]
        total = jnp.zeros((), jnp.float32)
        for n, leaf in enumerate(leaves):
            sign = jax.random.rademacher(jax.random.fold_in(key, n), leaf.shape, leaf.dtype)
            units = max(1, leaf.size // self.examples)
            total = total + jnp.sum((sign * leaf).astype(jnp.float32)) / math.sqrt(units)
        return total

    def _figures(self, found: Mapping[str, Any]) -> Figures:
        gradient = self._pooled(found["grad_second_moment"]) + self.log_sizes
        return Figures(self._pooled(found["second_moment"]), self._means(found["mean"]), gradient)

    def _tree(self, leaves: Sequence[Any]) -> Any:
        return jax.tree.unflatten(jax.tree.structure(self.abstract[0]), list(leaves))

    def _pooled(self, square: Any) -> Any:
        """Log second moment of each product, its repetitions together."""
        mantissa = square.mantissa[:, 0]
        logs = jnp.log(mantissa) + square.exponent[:, 0].astype(jnp.float32) * _LN2
        if self._rows.shape[1] == 1:
            return logs[self._rows[:, 0]]
        each = jnp.where(self._rows >= 0, logs[self._rows], jnp.nan)
        ran = ~jnp.isnan(each)
        total = jax.nn.logsumexp(jnp.where(ran, each, -jnp.inf), axis=1)
        return total - jnp.log(jnp.sum(ran, axis=1, dtype=jnp.float32))

    def _means(self, mean: Any) -> Any:
        each = mean[:, 0][self._rows]
        if self._rows.shape[1] == 1:
            return each[:, 0]
        return jnp.nanmean(jnp.where(self._rows >= 0, each, jnp.nan), axis=1)


def _signs(place: int, g: Any) -> Any:
    """Signs in the shape of a gradient, as good as random: each place has its own."""
    n = jnp.arange(g.size, dtype=jnp.uint32) + jnp.uint32((place * 0x9E3779B1) % 2**32)
    for shift, factor in (
        (16, 0x7FEB352D),
        (15, 0x846CA68B),
    ):  # a mixer of 32 bits (Wellons 2018, "lowbias32")
        n = (n ^ (n >> shift)) * jnp.uint32(factor)
    return jnp.where((n ^ (n >> 16)) & 1 == 0, -1, 1).astype(g.dtype).reshape(g.shape)


def _total(output: Any, labels: Any, key: Any) -> Any:
    """A loss whose gradient reaches all that the output depends on; what it is plays no part."""
    leaves = [v for v in jax.tree.leaves(output) if jnp.issubdtype(v.dtype, jnp.floating)]
    return sum(jnp.sum(v.astype(jnp.float32)) for v in leaves)


def _rows(plan: Plan, watched: Sequence[int], found: Sequence[Product]) -> np.ndarray:
    """The rows of each product (and its repetitions, filled up with -1) in what a `Measure` returns: places one after
    the other, each with all its iterations, the last loop fastest."""
    start, at = 0, {}
    for p in watched:
        lengths = tuple(loop.length for loop in plan.places[p].loops)
        count = math.prod(lengths)
        at[p] = np.arange(start, start + count).reshape(lengths)
        start += count
    rows = [np.ravel(at[p.place][tuple(slice(None) if i is None else i for i in p.at)]) for p in found]
    out = np.full((len(rows), max(len(r) for r in rows)), -1)
    for n, row in enumerate(rows):
        out[n, : len(row)] = row
    return out


def _bits(value: int) -> list[int]:
    return [n for n, digit in enumerate(reversed(bin(value)[2:])) if digit == "1"]


def _in_order(plan: Plan, chosen: Sequence[int]) -> tuple[Product, ...]:
    names = site_names(plan, chosen)
    found: dict[tuple[int, tuple[int | None, ...]], Product] = {}
    for row in site_rows(plan.block, plan.places, set(chosen)):
        place = plan.places[row.owner]
        operation = place.operation
        assert operation is not None
        own = {n for p in (*operation.kernel, *operation.bias) for n in _axes(plan, p, place.loops)}
        at = tuple(i if n in own else None for n, i in enumerate(row.iterations))
        if (row.owner, at) in found:
            continue
        path, rest = names[row.owner]
        loops = [loop for loop, i in zip(place.loops, at, strict=True) if i is not None]
        found[row.owner, at] = Product(
            indexed(path, loops, [i for i in at if i is not None]) + rest,
            operation.primitive,
            tuple(_layer(plan, p, place.loops, row.iterations) for p in operation.kernel),
            tuple(_layer(plan, p, place.loops, row.iterations) for p in operation.bias),
            tuple(place.shape), row.owner, at, operation.summed,
        )  # fmt: skip
    return tuple(found.values())


def _axes(plan: Plan, parameter: int, loops: Sequence[Any]) -> list[int]:
    """Which of the loops around a place go through the parameter."""
    out, start = [], 0
    for own in plan.stacked.get(parameter, ()):
        n = next((n for n in range(start, len(loops)) if loops[n] == own), None)
        if n is not None:
            out.append(n)
            start = n + 1
    return out


def _layer(plan: Plan, parameter: int, loops: Sequence[Any], iterations: Sequence[int]) -> Layer:
    axes = _axes(plan, parameter, loops)
    if len(axes) < len(plan.stacked.get(parameter, ())):
        return Layer(parameter)  # used otherwise than layer by layer: as a whole
    return Layer(parameter, tuple(iterations[n] for n in axes))


def batches(x: Any, key: Any, *, where: str = "batches") -> tuple[Any, ...]:
    """The batches of `x` (an argument of `probe`) as tuples of the call's arguments, arrays throughout: where only a
    shape is given, entries are drawn N(0, 1) from `key`, others for every batch.

    Raises:
        ValueError, TypeError: `x` is no batch.

    Example:
        >>> import jax, numpy as np
        >>> from jaxinit.probe import batches
        >>> ((x,),) = batches(jax.ShapeDtypeStruct((2, 3), np.float32), jax.random.key(0))
        >>> x.shape
        (2, 3)
    """
    given = inputs.batches_of(where, x)
    draw = inputs.drawer(given[0])
    if draw is None:
        return tuple(given)
    keys = [jax.random.fold_in(key, _DRAWN + n) for n in range(len(given))]
    return tuple(draw(k, inputs.given_of(batch)) for k, batch in zip(keys, given, strict=True))


def products(
    model: Any,
    x: Any,
    *,
    params: Any = None,
    train: bool = False,
    method: Any = None,
    rngs: Mapping[str, Any] | None = None,
    loss: Callable[..., Any] | None = None,
    labels: Any = None,
    scales: Callable[[str], bool] | None = None,
    where: str = "products",
) -> Products:
    """Trace a model for batches like `x` (the tuple of the call's arguments) and find its products; no program runs.

    Args: as of `probe`; `params` (arrays or shapes) stands for those that the model would draw. `scales`: of which
    parameters, by their paths, products with the signal entry by entry count, too.
    """
    adapted = marked(model, train=train, method=method, rngs=rngs, where=where)
    arguments = inputs.abstract(x)
    try:
        drawn, state = jax.eval_shape(adapted.init, jax.random.key(0, impl="threefry2x32"), arguments)
    except Exception as error:
        raise refused(where, adapted, arguments, error) from error
    if params is not None:
        given = inputs.abstract(params)
        if given != drawn:
            raise checks.bad(
                where, "params", f"the parameters of {adapted.name}: {inputs.shapes(drawn)}", inputs.shapes(given),
                'Of a linen module pass variables["params"].',
            )  # fmt: skip
    traced = trace(where, adapted, drawn, state, arguments, scales)
    scalar = losses.adapted(where, loss, traced, inputs.abstract(labels))
    return Products(adapted, traced, arguments, (drawn, state), scalar, loss is None)
