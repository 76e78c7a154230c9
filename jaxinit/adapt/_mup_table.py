"""The maximal-update parametrization of a model, read off its shapes at two widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn
from flax import nnx
from jax.extend import core

from jaxinit._core import checks
from jaxinit.adapt._analytic_walk import entry_stddev
from jaxinit.adapt._paths import flatten
from jaxinit.probe import Products, batches, laws, products
from jaxinit.records import WidthRule, WidthTable, provenance

__all__ = ["mup_learning_rates", "mup_table"]

#: What a table cannot see, of models in which signals are multiplied with one another, and of weights that are used in
#: two ways.
_ATTENTION = "attention logits scale as 1/d of a head where heads widen"
_TIED = "tied input and output weights: see the paper's appendix"


def mup_table(
    model_fn: Callable[[Any], Any],
    base_width: Any,
    width: Any,
    x: Any,
    *,
    multiplier: bool = True,
    train: bool = False,
    call: Any = None,
) -> WidthTable:
    """How each parameter's initialization and learning rate scale from a base width to another, by muP.

    Roles are read off the shapes at both widths: an axis that differs is one that grows. With m_in and m_out the growth
    of what a weight reads and writes:

        role      grows     init stddev    Adam rate   SGD rate       output
        input     m_out     1              1           m_out          1
        bias      (vector)  1              1           m_out          1
        hidden    both      m_in^(-1/2)    1 / m_in    m_out / m_in   1
        output    m_in      1              1           m_in           1 / m_in      with multiplier=True
        output    m_in      1 / m_in       1 / m_in    1 / m_in       1             with multiplier=False

    all relative to what is right at the base width, where the model is tuned.

    Args:
        model_fn: `width -> model`, as for `probe`.
        base_width, width: what `model_fn` is called with.
        x: a batch, or `jax.ShapeDtypeStruct`s; nothing is run.
        multiplier: whether the model's code multiplies its readout by 1 / m_in.
        train, call: as for `calibrate`.

    Returns:
        A WidthTable. `own_init` is what the model's own initializers do from one width to the other, where their law
        can be read from the program that draws: it equals `init` where nothing has to change. Initializers that draw
        as the table says: `jaxinit.mup(init, base_shape)`; factors for an optimizer: `mup_learning_rates`.

    Raises:
        ValueError: the two models do not have the same parameters, or nothing grows.

    Source: Yang et al. 2022, "Tensor Programs V", tables 3 and 8; SGD for unequal growth as in its package `mup`.

    Example:
        >>> import jax, flax.linen as nn
        >>> from jaxinit.adapt import mup_table
        >>> def model(width):
        ...     return nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(width), nn.relu, nn.Dense(10)])
        >>> table = mup_table(model, 64, 256, jax.ShapeDtypeStruct((8, 32), "float32"))
        >>> [(r.role, r.init, r.adam, r.output) for r in table if r.parameter.endswith("kernel")]
        [('input', 1.0, 1.0, 1.0), ('hidden', 0.5, 0.25, 1.0), ('output', 1.0, 1.0, 0.25)]
    """
    where = "mup_table"
    check_model_fn(where, model_fn)
    key = jax.random.key(0, impl="threefry2x32")
    data = batches(x, key, where=where)[0]
    base, wide = (
        products(model_fn(w), data, train=train, method=call, where=where) for w in (base_width, width)
    )
    if base.names != wide.names:
        missing = sorted(set(base.names) ^ set(wide.names))[:4]
        raise checks.bad(where, "model_fn", "a function whose models have the same parameters", missing)
    if any(len(a) != len(b) for a, b in zip(base.shapes, wide.shapes, strict=True)):
        raise checks.bad(
            where, "model_fn", "a function whose models' parameters have the same ranks", base.names
        )
    if base.shapes == wide.shapes:
        raise checks.bad(where, "width", f"one at which shapes differ from those at {base_width!r}", width)
    reads = _reads(base)
    own = [_stddevs(found, data) for found in (base, wide)]
    rules = []
    for n, (name, small, large) in enumerate(zip(base.names, base.shapes, wide.shapes, strict=True)):
        growth = [b / a for a, b in zip(small, large, strict=True)]
        m_in = math.prod(growth[k] for k in reads.get(n, ()))
        m_out = math.prod(growth[k] for k in range(len(growth)) if k not in reads.get(n, ()))
        ratio = own[1][n] / own[0][n] if own[0][n] and own[1][n] else math.nan
        rules.append(_rule(name, small, large, n in reads, m_in, m_out, ratio, multiplier))
    return WidthTable(
        wide.model.name, float(base_width), float(width), tuple(rules), _notes(wide),
        {"label": wide.model.name, "multiplier": multiplier}, provenance(),
    )  # fmt: skip


def check_model_fn(where: str, model_fn: Any) -> None:
    """Refuse a model in place of the function that makes one."""
    if not callable(model_fn) or isinstance(model_fn, (nn.Module, nnx.Module)):
        rule = "a function of a width that returns a model"
        raise checks.wrong_type(
            where, "model_fn", rule, model_fn, "For example lambda width: MyModel(width)."
        )


def _rule(
    name: str,
    small: Sequence[int],
    large: Sequence[int],
    product: bool,
    m_in: float,
    m_out: float,
    own: float,
    multiplier: bool,
) -> WidthRule:
    init = adam = sgd = output = 1.0
    if m_in != 1 and m_out != 1:
        role, init, adam, sgd = "hidden", m_in**-0.5, 1 / m_in, m_out / m_in
    elif m_in != 1:
        role = "output"
        if multiplier:
            sgd, output = m_in, 1 / m_in
        else:
            init = adam = sgd = 1 / m_in
    elif m_out != 1:
        role, sgd = "input" if product else "bias", m_out
    else:
        role = "fixed"
    return WidthRule(name, tuple(small), tuple(large), role, m_in, m_out, init, own, adam, sgd, output)


def _reads(found: Products) -> Mapping[int, tuple[int, ...]]:
    """Of each parameter that multiplies the signal, the axes that are summed over."""
    out: dict[int, tuple[int, ...]] = {}
    for product in found.products:
        for n in (layer.parameter for layer in product.kernel):
            rank, stack = len(found.shapes[n]), len(found.stacks[n])
            if product.contracting is not None:
                axes = tuple(stack + k for k in product.contracting)
            elif product.kind == "gather":
                axes = (stack,)
            else:
                axes = (rank - 2,) if rank - stack > 1 else ()
            out.setdefault(n, axes)
    return out


def _notes(found: Products) -> tuple[str, ...]:
    plan = found.traced.plan
    known = {id(place.operation) for place in plan.places if _multiplies(place.operation)}
    ways: dict[int, set[Any]] = {}
    for product in found.products:
        for layer in product.kernel:
            ways.setdefault(layer.parameter, set()).add(product.contracting)
    notes = [_ATTENTION] if _matrix_products(plan.block.jaxpr) > len(known) else []
    return (*notes, *([_TIED] if any(len(way) > 1 for way in ways.values()) else []))


def _multiplies(operation: Any) -> bool:
    return operation is not None and operation.primitive == "dot_general"


def _matrix_products(jaxpr: Any) -> int:
    """How many equations are products of matrices."""
    inside = sum(_matrix_products(body) for eqn in jaxpr.eqns for body in core.jaxprs_in_params(eqn.params))
    return inside + sum(eqn.primitive.name == "dot_general" for eqn in jaxpr.eqns)


def _stddevs(found: Products, data: Any) -> list[float]:
    """Of each parameter, the standard deviation that its initializer draws; 0 where that cannot be read."""
    program = jax.make_jaxpr(found.model.init)(jax.random.key(0, impl="threefry2x32"), data)
    drawn = laws(program)[: len(found.names)]
    return [
        0.0 if law is None else entry_stddev(law, shape[len(stack) :])
        for law, shape, stack in zip(drawn, found.shapes, found.stacks, strict=True)
    ]


def mup_learning_rates(params: Any, table: WidthTable, optimizer: str = "adam") -> Any:
    """Factors on the learning rate, one a parameter, in the structure of `params`: updates are multiplied with them.

    Args:
        params: the parameters of the model at the table's width, as its optimizer sees them.
        table: from `mup_table`.
        optimizer: "adam" (and its kin, whose steps do not depend on the size of gradients) or "sgd".

    Raises:
        ValueError: a parameter is not in the table.

    Example:
        >>> import jax, flax.linen as nn
        >>> from jaxinit.adapt import mup_learning_rates, mup_table
        >>> model = lambda width: nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(width)])
        >>> x = jax.numpy.ones((8, 32))
        >>> params = model(128).init(jax.random.key(0), x)["params"]
        >>> factors = mup_learning_rates(params, mup_table(model, 64, 128, x))
        >>> factors["layers_0"]["kernel"], factors["layers_2"]["kernel"]
        (1.0, 0.5)

    With Optax: `optax.chain(optax.adam(1e-3), optax.stateless(lambda u, _: jax.tree.map(jnp.multiply, u, factors)))`.
    """
    where = "mup_learning_rates"
    checks.choice(where, "optimizer", optimizer, ("adam", "sgd"))
    leaves, tree = flatten(params)
    rules = {rule.parameter: rule for rule in table.rules}
    for path, _ in leaves:
        if path not in rules:
            raise checks.bad(
                where, "params", "the parameters of the table", path, checks.nearest(path, rules)
            )
    return jax.tree.unflatten(tree, [getattr(rules[path], optimizer) for path, _ in leaves])
