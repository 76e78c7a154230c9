"""Which law each parameter of a model really got, asked and measured, for models one did not write."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from rich.table import Table
from rich.text import Text

from jaxinit._core import checks
from jaxinit.adapt._paths import flatten
from jaxinit.initializers import Initializer, fans
from jaxinit.models import Model, marked
from jaxinit.records import Record, provenance, saved

__all__ = ["InitRow", "InitTable", "init_table"]

#: excess kurtosis of the laws that iid weights have, and n times the variance of its estimate from n entries,
#: b8 - 4 b4 b6 + 4 b4^3 - b4^2 with the standardized moments b (Cramer 1946)
KURTOSIS = {"normal": (0.0, 24.0), "truncated_normal": (-0.63446328, 3.8482393), "uniform": (-1.2, 1.3165714)}
#: scale * 1 / fan of the named schemes, for iid laws
SCHEMES = (("he", 2.0, "fan_in"), ("lecun", 1.0, "fan_in"), ("glorot", 1.0, "fan_avg"))


@saved
@dataclasses.dataclass(frozen=True)
class InitRow:
    """One parameter. `law` is identified from the values.

    `asked` prints the initializer that the module holds ("a callable" if it is none of this library, "" if the module
    holds none). `matches` names the nearest scheme whose law and standard deviation agree with the values within 5
    standard errors.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    law: str
    fan_in: float | None
    mean: float
    stddev: float
    stderr: float
    asked: str
    asked_stddev: float | None
    matches: str

    @property
    def found(self) -> str:
        """Scheme and law in words: "he_normal", "zeros", "uniform, variance 0.3 / fan_in", "unknown"."""
        law = self.law.replace("_", " ")
        if self.matches.startswith("variance"):
            return f"{law}, {self.matches}"
        return self.matches or law

    @property
    def agrees(self) -> bool | None:
        """Whether the measured standard deviation is the one asked for, None where nothing known was asked."""
        if self.asked_stddev is None:
            return None
        return abs(self.stddev - self.asked_stddev) <= 5 * self.stderr + 1e-6 * self.asked_stddev


@saved
@dataclasses.dataclass(frozen=True, repr=False)
class InitTable(Record):
    """What `init_table` finds: `parameters`, a row each; `table["params/head/kernel"]` is one of them."""

    parameters: tuple[InitRow, ...]
    label: str = "initial parameters"
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __getitem__(self, path: str) -> InitRow:
        for row in self.parameters:
            if row.path == path:
                return row
        raise KeyError(f"no parameter {path!r}. {checks.nearest(path, [r.path for r in self.parameters])}")

    def __repr__(self) -> str:
        return (
            f"InitTable({self.label!r}: {len(self.parameters)} parameters, {len(self.wrong())} not as asked)"
        )

    def wrong(self) -> tuple[InitRow, ...]:
        """The parameters whose values are not of the standard deviation that was asked for."""
        return tuple(row for row in self.parameters if row.agrees is False)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a parameter."""
        return [
            {**dataclasses.asdict(row), "found": row.found, "agrees": row.agrees} for row in self.parameters
        ]

    def table(self) -> Table:
        """One row a parameter; an exclamation mark where the values are not what was asked for."""
        wrong, told = self.wrong(), any(r.asked_stddev is not None for r in self.parameters)
        note = f"! {len(wrong)} of {len(self.parameters)} not as asked" if wrong else None
        table = Table(title=Text(self.label), title_justify="left", caption=note, caption_justify="left")
        for column in ("parameter", "shape", "found", "stddev", *(("asked",) if told else ())):
            words = column in ("parameter", "found", "asked")
            whole = not words or column == "parameter"
            table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=whole)
        for r in self.parameters:
            asked = r.asked.removeprefix("a ")
            if r.asked_stddev is not None:
                asked += f": {r.asked_stddev:.4g}" + (" !" if r.agrees is False else "")
            shape = "×".join(map(str, r.shape)) or "scalar"
            stddev = f"{r.stddev:.4g}" + (f" ± {r.stderr:.1g}" if r.stderr else "")
            cells = (Text(r.path), shape, Text(r.found), stddev)
            table.add_row(*cells, *((Text(asked),) if told else ()))
        return table


def init_table(model: Any, x: Any = None, key: Any = None) -> InitTable:
    """Which initializer each parameter really got: asked, and measured from the drawn values.

    Args:
        model: a linen module (initialized here on `x`), an nnx module or a factory `rngs -> module`, a pair
            `(init, apply)` of functions or a `jaxinit.models.Model` (drawn here), or any pytree of parameters.
        x: an input of a linen module, or a tuple of inputs; of functions whose `init` takes one.
        key: key of the draw, `jax.random.key(0)` by default.

    Returns:
        An `InitTable` with one row a floating-point parameter: the law told from the values ("zeros", "constant",
        "uniform", "truncated_normal", "normal", "orthogonal", or "unknown"), mean and standard deviation with its
        standard error, the named scheme that matches, and, for linen modules, the initializer that the module
        holds with the standard deviation it promises.

    The law is told apart by the kurtosis, within 5 standard errors: small parameters stay "unknown". Fans follow
    the convention (*spatial, in, out).

    Raises:
        TypeError: for a linen module without `x`, or a class or function that makes no model.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> from jaxinit.adapt import init_table
        >>> rows = init_table(nn.Dense(256), jnp.ones((1, 512)))
        >>> rows["params/kernel"].matches, rows["params/bias"].law
        ('lecun_normal', 'zeros')
    """
    asked: dict[str, tuple[Any, tuple[int, ...] | None]] = {}
    key = jax.random.key(0) if key is None else key
    inputs = () if x is None else x if isinstance(x, tuple) else (x,)
    if isinstance(model, nn.Module):
        if x is None:
            raise checks.wrong_type("init_table", "x", "an input for a linen module", x)
        params, asked = _initialize(model, inputs, key)
    elif isinstance(model, nnx.Module):
        params = nnx.state(model, nnx.Param)
    elif callable(model) or isinstance(model, Model) or _functions(model):
        params, _ = marked(model, where="init_table").init(key, inputs)
    else:
        params = model
    rows = []
    for path, leaf in flatten(params)[0]:
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size:
            rows.append(_row(path, leaf, *asked.get(path, (None, None))))
    return InitTable(tuple(rows), provenance=provenance())


def _functions(model: Any) -> bool:
    return isinstance(model, tuple) and bool(model) and all(callable(part) for part in model)


def _initialize(model: nn.Module, inputs: tuple[Any, ...], key: Any) -> tuple[Any, dict[str, Any]]:
    """Variables of a linen module, and the initializer that each one's module holds under `<name>_init`."""
    seen: dict[str, nn.Module] = {}

    def watch(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        seen["/".join(("params", *context.module.path))] = context.module
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(watch):
        variables = model.init(key, *inputs)
    asked = {}
    for path, leaf in flatten(variables)[0]:
        parent, _, name = path.rpartition("/")
        module = seen.get(parent)
        init = getattr(module, f"{name}_init", None)
        if init is not None:
            asked[path] = (init, _called_with(module, name, leaf.shape))
    return variables, asked


def _called_with(module: Any, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape the initializer saw: DenseGeneral flattens its kernel to (batch * in, out)."""
    if isinstance(module, nn.DenseGeneral) and not isinstance(module, nn.Dense):
        features = module.features if isinstance(module.features, (tuple, list)) else (module.features,)
        if name == "kernel":
            return math.prod(shape[: -len(features)]), math.prod(shape[-len(features) :])
        return (math.prod(shape),)
    return tuple(shape)


def _row(path: str, leaf: Any, asked: Any, called: tuple[int, ...] | None) -> InitRow:
    w = np.asarray(leaf).astype(np.float64)
    shape = tuple(w.shape) if called is None else called
    mean, stddev = float(w.mean()), float(w.std())
    centred = w - mean
    kurtosis = float(np.mean(centred**4) / stddev**4 - 3) if stddev else 0.0
    stderr = stddev * math.sqrt(max(kurtosis + 2, 0.0) / (4 * w.size))
    law = _law(w.reshape(shape), mean, stddev, kurtosis)
    fan_in, fan_out = fans(shape) if len(shape) > 1 else (None, None)
    promised = None
    if isinstance(asked, Initializer):
        found = asked.law(shape)
        if found is not None and found.kind == "orthogonal":
            promised = float(found.stddev) / math.sqrt(max(shape))
        elif found is not None:
            promised = float(found.stddev)
    matches = law if law in ("zeros", "ones", "constant", "orthogonal") else ""
    if fan_in and fan_out and law in KURTOSIS and abs(mean) <= 5 * stddev / math.sqrt(w.size):
        fan = {"fan_in": fan_in, "fan_avg": (fan_in + fan_out) / 2}
        away = {name: abs(stddev - math.sqrt(scale / fan[mode])) for name, scale, mode in SCHEMES}
        name = min(away, key=away.__getitem__)
        suffix = "uniform" if law == "uniform" else "normal"
        untruncated = "(distribution='normal')" if law == "normal" else ""
        matches = f"{name}_{suffix}{untruncated}"
        if away[name] > 5 * stderr:
            matches = f"variance {stddev**2 * fan_in:.3g} / fan_in"
    told = "" if asked is None else repr(asked) if isinstance(asked, Initializer) else "a callable"
    return InitRow(
        path, tuple(leaf.shape), str(leaf.dtype), law, fan_in, mean, stddev, stderr, told, promised, matches
    )


def _law(w: np.ndarray, mean: float, stddev: float, kurtosis: float) -> str:
    if stddev == 0:
        return "zeros" if mean == 0 else "ones" if mean == 1 else "constant"
    if w.ndim >= 2:
        matrix = w.reshape(-1, w.shape[-1])
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        scale = float(np.trace(gram)) / len(gram)
        if len(gram) > 1 and np.abs(gram - scale * np.eye(len(gram))).max() < 0.01 * scale:
            return "orthogonal"
    near = [k for k, (v, s) in KURTOSIS.items() if abs(kurtosis - v) <= 5 * math.sqrt(s / w.size)]
    return near[0] if len(near) == 1 else "unknown"
