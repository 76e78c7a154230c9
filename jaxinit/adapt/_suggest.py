"""`suggest`: the initializers to write into a model's source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxinit import initializers as ji
from jaxinit._core import checks
from jaxinit.adapt._analytic import drawn, inputs_of
from jaxinit.adapt._analytic_walk import Found, Walk, entry_stddev
from jaxinit.adapt._init_table import _law
from jaxinit.probe import Drawn, Layer, Product, Products, batches, products
from jaxinit.records import SuggestedLayer, Suggestion, provenance

__all__ = ["suggest"]

#: Squares of gains that have a name.
_NAMED = ((1.0, "lecun"), (2.0, "he"))
#: Within this share the square of a gain is the named one's.
_CLOSE = 0.01
#: Layers that hand an initializer the shape with the summed axes as one, and the others as one.
_FLATTENING = ("DenseGeneral", "LinearGeneral")


def suggest(
    model: Any,
    x: Any,
    *,
    params: Any = None,
    key: Any = None,
    target: float = 1.0,
    residual: bool = True,
    train: bool = False,
    call: Any = None,
) -> Suggestion:
    """The initializers with which the model's signal keeps its size, to be written into its source; nothing is changed.

    For every product of a parameter with the signal the analysis of `analyze` gives the standard deviation of the
    entries at which E[z^2] = target, layer after layer, each layer with those before it as suggested. It depends on the
    architecture alone, not on a draw. Where a product is added to the signal it was computed from (a residual branch
    that ends), E[z^2] = target / L, with L the number of such branches, so that all of them together add one target
    (`jaxinit.residual`, rule "gpt2": Radford et al. 2019). Each keeps the law it has. A parameter used at several sites
    (a tied embedding) is set for the first, as `calibrate` does, and says what is expected at the others. Of a kernel
    that is normalized before it multiplies, the scale that it is multiplied with is set (weight norm).

    Args:
        model, x, params, key, train, call: as for `analyze`.
        target: second moment of every layer's value.
        residual: whether branches are scaled by depth.

    Returns:
        A Suggestion: print it, or its `table()`; `suggestion["encoder/fc/kernel"].code` is an expression of
        `import jaxinit as ji`. Kernels that are 0 stay 0 and say so.

    Raises:
        ValueError, TypeError: as `probe`.

    Example:
        >>> import jax, flax.linen as nn
        >>> from jaxinit.adapt import suggest
        >>> model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(64), nn.tanh, nn.Dense(10)])
        >>> print(suggest(model, jax.ShapeDtypeStruct((8, 32), "float32")))
        layers_0/kernel  Dense(..., kernel_init=ji.lecun_normal())
        layers_2/kernel  Dense(..., kernel_init=ji.he_normal())
        layers_4/kernel  Dense(..., kernel_init=ji.scaled(ji.lecun_normal(), 1.593))
    """
    where = "suggest"
    key = (
        jax.random.key(0, impl="threefry2x32") if key is None else checks.require_threefry(where, "key", key)
    )
    goal = float(checks.number(where, "target", target, above=0.0))
    data = batches(x, key, where=where)
    traced = products(model, data[0], params=params, train=train, method=call, where=where)
    leaves, state = drawn(traced, data[0], params, key)
    inputs = inputs_of(data, x)
    now = Walk(traced, leaves, state, inputs, key, ideal=True)
    ends = now.ends if residual else set()
    goals = [goal / max(len(ends), 1) if n in ends else goal for n in range(len(traced.products))]

    def doubled(parameters: set[int]) -> Walk:
        given = [_twice(v) if n in parameters else v for n, v in enumerate(leaves)]
        return Walk(traced, given, state, inputs, key, ideal=True)

    setting = _setting(traced, now.found, doubled)
    factors, after = _scales(traced, leaves, state, inputs, key, goals, setting)
    layers: list[SuggestedLayer] = []
    seen: set[int] = set()
    for n, product in enumerate(traced.products):
        parameters = {layer.parameter for layer in product.kernel}
        if n not in after or not product.kernel or parameters & seen:
            continue
        seen |= parameters
        told = product.kernel if n in setting else product.kernel[:1]
        layers += [
            _layer(
                traced, n, layer.parameter, leaves, factors, now.found, after, setting.get(n),
                len(ends) if n in ends else 0,
            )
            for layer in told
        ]  # fmt: skip
    notes = sorted({note for found in after.values() for f in found for note in f.notes})
    return Suggestion(
        traced.model.name, tuple(layers), len(ends), tuple(notes),
        {"label": traced.model.name, "target": goal, "residual": residual}, provenance(),
    )  # fmt: skip


def _twice(leaf: Any) -> Any:
    return leaf._replace(stddev=2 * leaf.stddev, mean=2 * leaf.mean) if isinstance(leaf, Drawn) else 2 * leaf


def _setting(
    traced: Products, found: Mapping[int, list[Found]], doubled: Callable[[set[int]], Walk]
) -> dict[int, Layer]:
    """By product, the one parameter that its value is proportional to, and that nothing else of the kernel moves.

    What is cast and transposed at most is; of what is computed, the analysis tells, with parameters `doubled`.
    """
    computed = [n for n in found if traced.products[n].contracting is None]
    out = {n: traced.products[n].kernel[0] for n in found if n not in computed}
    powers: dict[int, list[float]] = {n: [] for n in computed}
    for k in range(max((len(traced.products[n].kernel) for n in computed), default=0)):
        mine = [n for n in computed if len(traced.products[n].kernel) > k]
        walk = doubled({traced.products[n].kernel[k].parameter for n in mine})
        for n in mine:
            fan, new = (of[n][0].fan for of in (found, walk.found))
            powers[n].append(math.log2(new / fan) / 2 if fan > 0 and new > 0 else math.nan)
    for n, each in powers.items():
        moving = [k for k, power in enumerate(each) if not abs(power) < _CLOSE]
        if len(moving) == 1 and (len(each) == 1 or abs(each[moving[0]] - 1) < _CLOSE):
            out[n] = traced.products[n].kernel[moving[0]]
    return out


def _scales(
    traced: Products,
    leaves: list[Any],
    state: Any,
    inputs: Any,
    key: Any,
    goals: list[float],
    setting: Mapping[int, Layer],
) -> tuple[dict[int, float], Mapping[int, list[Found]]]:
    """One factor a parameter (all layers of a stack alike), and what is found with them."""
    factors: dict[int, float] = {}
    walk = None
    for _ in range(_PASSES):
        known, chosen = dict(factors), dict[int, float]()

        def scale(n: int, found: Found, known: Any = known, chosen: Any = chosen) -> float:
            if n not in setting or not found.own > 0:
                return 1.0
            parameter = setting[n].parameter
            if parameter in known:
                return float(known[parameter])
            if parameter not in chosen:
                left = goals[n] - (found.second - found.own)
                chosen[parameter] = math.sqrt(left / found.own) if left > 0 else 1.0
            return float(chosen[parameter])

        walk = Walk(traced, leaves, state, inputs, key, scale, ideal=True)
        new = factors | chosen
        moved = _averaged(setting, walk.found, goals)
        for parameter, by in moved.items():
            if parameter in new:
                new[parameter] *= by
        settled = factors and all(abs(new[p] / factors.get(p, math.inf) - 1) < 1e-3 for p in new)
        factors = new
        if settled or all(abs(by - 1) < 1e-3 for by in moved.values()):
            break
    assert walk is not None
    return factors, walk.found


_PASSES = 10


def _averaged(
    setting: Mapping[int, Layer], found: Mapping[int, list[Found]], goals: list[float]
) -> dict[int, float]:
    """By parameter, the factor that brings the mean over its layers of a stack, and over the evaluations of the first
    site that each has, to the goal; other sites of a tied parameter are not asked, as in `calibrate`."""
    uses: dict[int, list[tuple[Found, float]]] = {}
    owned = set[Layer]()
    for n in sorted(found):
        if n in setting and setting[n] not in owned:
            owned.add(setting[n])
            uses.setdefault(setting[n].parameter, []).extend((f, goals[n]) for f in found[n])
    out = {}
    for parameter, each_use in uses.items():
        own = sum(f.own for f, _ in each_use)
        left = sum(g - (f.second - f.own) for f, g in each_use)
        out[parameter] = math.sqrt(left / own) if own > 0 and left > 0 else 1.0
    return out


def _layer(
    traced: Products,
    n: int,
    parameter: int,
    leaves: list[Any],
    factors: Mapping[int, float],
    before: Mapping[int, list[Found]],
    after: Mapping[int, list[Found]],
    sets: Layer | None,
    branches: int,
) -> SuggestedLayer:
    product, path = traced.products[n], traced.names[parameter]
    shape = traced.shapes[parameter][len(traced.stacks[parameter]) :]
    law, now = _law_of(leaves[parameter], len(traced.stacks[parameter]), shape)
    stddev = now * factors.get(parameter, 1.0)
    name = path.rsplit("/", 1)[-1]
    kind = "Embed" if name == "embedding" else _holder(traced, parameter, product)
    several = len(product.kernel) > 1
    why = "; ".join(sorted({note for f in after[n] for note in f.notes}))
    if now == 0:
        code, law, why = "ji.zeros()", "zeros", "kept 0"
    elif sets is None or sets.parameter != parameter:
        code = _code(product, name, kind, shape, law, now, 0)
        if sets is not None:
            why = f"its scale plays no part, {traced.names[sets.parameter]} decides"
        else:
            why = (
                "computed from several parameters" if several else "its scale plays no part: it is normalized"
            )
    elif not factors.get(parameter):
        code = f"ji.normal({now:.3g})"
    elif several and law in ("ones", "constant"):
        value = float(np.mean(np.asarray(leaves[parameter], np.float64))) * factors[parameter]
        code, law = ("ji.ones()" if abs(value - 1) < _CLOSE else f"ji.constant({value:.4g})"), "constant"
    else:
        code = _code(product, name, kind, shape, law, stddev, branches)
        shared = [
            f"{other.name}: {np.mean([f.second for f in after[m]]):.3g}"
            for m, other in enumerate(traced.products)
            if m in after and product.kernel[0] in other.kernel and other.name != product.name
        ]
        used = f"set for its first use; second moment at {', '.join(shared)}" if shared else ""
        why = "; ".join(v for v in ("end of a residual branch" if branches else "", used, why) if v)
    known = {"kernel": "kernel_init", "embedding": "embedding_init"}
    if kind == "WeightNorm":
        known["scale"] = "scale_init"
    expected, found = (float(np.mean([f.second for f in of.get(n, ())])) for of in (after, before))
    return SuggestedLayer(path, kind, known.get(name, name), code, law, stddev, now, expected, found, why)


def _holder(traced: Products, parameter: int, product: Product) -> str:
    """The class of the module that a parameter belongs to; of one that is not called, that of its product's."""
    plan = traced.traced.plan
    own = (p.kind for p in plan.places if p.role != "operation" and p.path == plan.parameters[parameter][:-1])
    return next(own, plan.places[product.place].kind)


def _code(
    product: Product, name: str, kind: str, shape: tuple[int, ...], law: str, stddev: float, branches: int
) -> str:
    """An expression of `import jaxinit as ji` whose draws have this standard deviation."""
    if product.kind == "gather":
        return f"ji.normal({stddev:.4g})"
    fan = _fan(product, name, kind, shape)
    if fan is None:
        return f"ji.normal({stddev:.4g})"
    base = stddev * math.sqrt(branches or 1)
    gain = base * math.sqrt(fan)
    if law == "orthogonal":
        code = f'ji.orthogonal({gain:.4g}, preserve="variance")'
    else:
        entries = "uniform" if law == "uniform" else "normal"
        plain = ', distribution="normal"' if law == "normal" else ""
        scheme = next((s for square, s in _NAMED if abs(gain**2 / square - 1) < _CLOSE), None)
        code = f"ji.{scheme or 'lecun'}_{entries}({plain.removeprefix(', ')})"
        if scheme is None:
            code = f"ji.scaled({code}, {gain:.4g})"
    return f"ji.residual({code}, {branches}, branches=1)" if branches else code


def _fan(product: Product, name: str, kind: str, shape: tuple[int, ...]) -> int | None:
    """What the initializer takes for the fan-in, where that is what the product sums over."""
    if len(shape) < 2:
        return None
    fan = ji.fans(shape)[0]
    if product.contracting is None:  # of a kernel that is masked or reshaped, say
        plain = product.kind == "conv_general_dilated" or (name == "kernel" and len(shape) == 2)
        return int(fan) if plain else None
    summed = math.prod(shape[k] for k in product.contracting)
    flattened = name == "kernel" and kind in _FLATTENING
    return summed if flattened or math.isclose(summed, fan) else None


def _law_of(leaf: Any, stacks: int, shape: tuple[int, ...]) -> tuple[str, float]:
    """The law of a parameter's entries, as `init_table` tells it, and their root mean square."""
    if isinstance(leaf, Drawn):
        return "orthogonal" if leaf.kind == "orthogonal" else leaf.distribution, entry_stddev(leaf, shape)
    now = float(np.sqrt(np.mean(np.square(np.asarray(leaf, np.float64)))))
    w = np.asarray(leaf[(0,) * stacks], np.float64)
    mean, stddev = float(w.mean()), float(w.std())
    kurtosis = float(np.mean((w - mean) ** 4) / stddev**4 - 3) if stddev else 0.0
    return _law(w, mean, stddev, kurtosis), now
