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
from jaxinit.probe._evaluate import Watched
from jaxinit.probe._layout import Layout
from jaxinit.probe._names import indexed, site_names, site_rows
from jaxinit.probe._plan import Plan
from jaxinit.probe._program import streams
from jaxinit.probe._trace import Traced, refused, trace

__all__ = ["Figures", "Layer", "Product", "Products", "products"]

_LN2 = math.log(2.0)


class Layer(NamedTuple):
    """A parameter, by index, or one layer of a parameter that scans go through."""

    parameter: int
    at: tuple[int, ...] = ()


class Figures(NamedTuple):
    """What is measured of every product, in their order: arrays of shape (products,); nan where it did not run.

    `log_second_moment`: natural log of the mean over units, examples and repetitions of the value's square; -inf for
    a signal that is 0, inf for one that is not finite. `mean`: the mean of the value. `log_gradient`: natural log of
    the sum of squares of the loss' gradient at the value; None where only the forward pass was taken.
    """

    log_second_moment: Any
    mean: Any
    log_gradient: Any = None


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
        direct: whether the kernel is one parameter as it was drawn.
        contracting: the axes of a direct kernel that are summed over, where the equation says so.
    """

    name: str
    kind: str
    kernel: tuple[Layer, ...]
    bias: tuple[Layer, ...]
    shape: tuple[int, ...]
    place: int
    at: tuple[int | None, ...]
    direct: bool
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
        arguments: shapes of a batch.
    """

    def __init__(
        self, model: Marked, traced: Traced, arguments: Any, abstract: Any, labels: Any, loss: Any
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
        examples = inputs.examples_of(arguments) or 1
        wanted = frozenset({"second_moment", "mean", "grad_second_moment"})
        self._layout = Layout(examples, False, wanted)
        self._watched = Watched(plan.block, plan.places, chosen, self._layout)
        self._loss = loss

    def layer_name(self, layer: Layer) -> str:
        """The path of a parameter, with the layer of a stacked one: layers[3]/fc/kernel."""
        plan = self.traced.plan
        path = plan.parameters[layer.parameter]
        return indexed(path, plan.stacked.get(layer.parameter, ())[: len(layer.at)], layer.at)

    def layers(self, parameter: int) -> list[Layer]:
        """The layers of a parameter: itself, if no scan goes through it."""
        return [Layer(parameter, at) for at in itertools.product(*map(range, self.stacks[parameter]))]

    @jax.numpy_dtype_promotion("standard")  # the model was traced so
    def forward(self, leaves: Sequence[Any], state: Any, args: Any, key: Any) -> Figures:
        """Measure one batch with these parameters (leaves, in the order of `names`); pure and traceable."""
        rest = jax.tree.leaves((state, args, streams(key)["dropout"]))
        _, rows = self._watched([*leaves, *rest], self._watched.probes())
        log, mean = self._signal(rows, False)
        return Figures(log, mean)

    @jax.numpy_dtype_promotion("standard")
    def both(self, leaves: Sequence[Any], state: Any, args: Any, labels: Any, key: Any) -> Figures:
        """As `forward`, and the gradient of the loss."""
        keys = streams(key)
        rest = jax.tree.leaves((state, args, keys["dropout"]))

        def objective(probes: Any) -> Any:
            outs, rows = self._watched([*leaves, *rest], probes)
            return self._loss(jax.tree.unflatten(self.traced.output, outs), labels, keys["loss"]), rows

        back, rows = jax.grad(objective, has_aux=True)(self._watched.probes())
        log, mean = self._signal(rows, False)
        gradient, _ = self._signal(back, True)
        repeated = [_repeated(self.traced.plan, p) for p in self.products]
        sizes = np.log([float(p.size * n) for p, n in zip(self.products, repeated, strict=True)])
        return Figures(log, mean, gradient + jnp.asarray(sizes, jnp.float32))

    def output(self, leaves: Sequence[Any], state: Any, args: Any, key: Any) -> Any:
        """The model's output."""
        params = jax.tree.unflatten(jax.tree.structure(self.abstract[0]), list(leaves))
        return self.model.apply(params, state, args, streams(key)["dropout"])

    def loss(self, leaves: Sequence[Any], state: Any, args: Any, labels: Any, key: Any) -> Any:
        """The scalar that is differentiated."""
        with jax.numpy_dtype_promotion("standard"):
            return self._loss(self.output(leaves, state, args, key), labels, streams(key)["loss"])

    def _signal(self, rows: Mapping[int, Any], backward: bool) -> tuple[Any, Any]:
        """Log second moment and mean of each product, repetitions pooled, from the rows of the places."""
        parts = []
        for product in self.products:
            row = rows[product.place][tuple(slice(None) if i is None else i for i in product.at)]
            parts.append(row.reshape((-1, row.shape[-1])))
        figures = self._layout.statistics(jnp.concatenate(parts), backward)
        square = figures["grad_second_moment" if backward else "second_moment"]
        log = jnp.log(square.mantissa[:, 0]) + square.exponent[:, 0] * _LN2
        ends = list(itertools.accumulate(len(part) for part in parts))[:-1]
        logs, means = [], []
        for own in jnp.split(log, ends):
            ran = ~jnp.isnan(own)
            count = jnp.sum(ran, dtype=jnp.float32)
            total = jax.nn.logsumexp(jnp.where(ran, own, -jnp.inf)) if len(own) > 1 else own[0]
            logs.append(jnp.where(count > 0, total - jnp.log(count), jnp.nan))
        if backward:
            return jnp.stack(logs), None
        for own in jnp.split(figures["mean"][:, 0], ends):
            count = jnp.sum(~jnp.isnan(own), dtype=jnp.float32)
            means.append(jnp.where(count > 0, jnp.nansum(own) / count, jnp.nan))
        return jnp.stack(logs), jnp.stack(means)


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
            tuple(place.shape), row.owner, at, operation.direct, _contracting(plan, operation),
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


def _contracting(plan: Plan, operation: Any) -> tuple[int, ...] | None:
    if operation.primitive != "dot_general" or not operation.direct:
        return None
    return tuple(operation.params["dimension_numbers"][0][operation.operand])


def _repeated(plan: Plan, product: Product) -> int:
    loops = plan.places[product.place].loops
    return math.prod(loop.length for loop, i in zip(loops, product.at, strict=True) if i is None)


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
    where: str = "products",
) -> Products:
    """Trace a model for batches like `x` (the tuple of the call's arguments) and find its products; no program runs.

    Args: as of `probe`; `params` (arrays or shapes) stands for those that the model would draw.
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
    traced = trace(where, adapted, drawn, state, arguments)
    scalar = losses.adapted(where, loss, traced, inputs.abstract(labels))
    return Products(adapted, traced, arguments, (drawn, state), labels, scalar)
