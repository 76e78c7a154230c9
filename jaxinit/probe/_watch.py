"""The probe as a pure function of parameters and a batch, for anyone's training loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxinit._core import checks
from jaxinit._core.scaled import Scaled
from jaxinit.models import marked
from jaxinit.probe import _inputs as inputs
from jaxinit.probe import _purity as purity
from jaxinit.probe._choices import Sites
from jaxinit.probe._probe import measure_of
from jaxinit.probe._program import streams
from jaxinit.probe._record import propagation
from jaxinit.probe._trace import trace
from jaxinit.records import Propagation, Statistic

__all__ = ["Watch", "watch"]


class Watch:
    """What `watch` returns: `(params, x, labels=None, state=None, key=None) -> statistics`, pure and traceable."""

    def __init__(self, name: str, measure: Any, args: Any, labels: Any, state: Any) -> None:
        self._name, self._measure = name, measure
        self._args, self._labels, self._state = args, labels, state

    def __call__(
        self, params: Any, x: Any, labels: Any = None, state: Any = None, key: Any = None
    ) -> dict[str, Any]:
        """The statistics of one batch, by name: arrays of a few numbers a site. `record` names their sites.

        `state`: collections that are not trained (batch statistics), where the model has any. `key`: for dropout,
        and for the random cotangent where there is no loss; the same one by default.
        """
        args = x if inputs.is_arguments(x) else (x,)
        for argument, value, want in (("x", args, self._args), ("labels", labels, self._labels)):
            if inputs.abstract(value) != want:
                raise checks.bad(
                    "watch", argument, f"of the shapes it was made for, {inputs.shapes(want)}", inputs.shapes(value),
                    "Make another with watch(...) for batches of another shape.",
                )  # fmt: skip
        if inputs.abstract(state) != self._state:
            raise checks.bad(
                "watch", "state", "the collections that the model was watched with", inputs.shapes(state)
            )
        key = jax.random.key(0, impl="threefry2x32") if key is None else key
        return self._measure(
            params, state, args, labels, streams(checks.require_threefry("watch", "key", key))
        )

    def record(
        self, statistics: Mapping[str, Any] | Sequence[Mapping[str, Any]], **config: Any
    ) -> Propagation:
        """The statistics of one call, or of several (steps, batches) together, as a Propagation.

        `config` goes into the record's; its `count` is the number of calls.
        """
        calls = [statistics] if isinstance(statistics, Mapping) else list(statistics)
        if not calls:
            raise checks.bad("record", "statistics", "what this watch returned, at least once", calls)
        samples = {name: np.stack([_to_host(call[name]) for call in calls]) for name in calls[0]}
        found = {name: Statistic.of(value, keep=len(calls) > 1) for name, value in samples.items()}
        return propagation(self._measure, found, {"label": self._name, **config}, self._name)


def watch(
    model: Any,
    params: Any,
    x: Any,
    *,
    labels: Any = None,
    state: Any = None,
    loss: Callable[..., Any] | None = None,
    backward: bool = True,
    record: Sequence[str] | None = None,
    train: bool = False,
    method: Any = None,
    optimizer: Any = None,
    sites: Sites | None = None,
) -> Watch:
    """Prepare to measure a model as it is trained: the engine of `probe`, for parameters that you hold.

    The model is traced and planned here, once; what is returned is a pure function to call every so many steps,
    inside or outside of jit. It takes its own gradients, so it needs none of yours.

    Args:
        model: a linen module, an nnx module or factory, a pair (init, apply), or a `jaxinit.models.Model`.
        params: the parameters, or their shapes: of a linen module `variables["params"]`; of an nnx module
            `nnx.to_pure_dict(nnx.state(module, nnx.Param))`.
        x: a batch like those to come: an array, a tuple of the call's arguments, or shapes of these.
        labels: for the loss.
        state: collections that are not trained, or their shapes: {"batch_stats": ...} of a linen module, the pure
            dict of everything that is no nnx.Param of an nnx module.
        loss, backward, record, train, method, optimizer, sites: as for `probe`.

    Raises:
        ValueError, TypeError: an argument breaks its rule, or the model cannot be called so.

    Warns:
        UserWarning: the model does more than compute its output, as for `probe`.

    Example:
        >>> import jax, jax.numpy as jnp, flax.linen as nn
        >>> from jaxinit.probe import watch
        >>> model, x = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(1)]), jnp.ones((16, 4))
        >>> params = model.init(jax.random.key(0), x)["params"]
        >>> look = watch(model, params, x, loss=lambda out: jnp.mean(out**2))
        >>> statistics = jax.jit(look)(params, x)
        >>> statistics["nonfinite_fraction"].tolist(), look.record(statistics).sites
        ([0.0, 0.0], ('layers_0', 'layers_2'))
    """
    where = "watch"
    adapted = marked(model, train=train, method=method, where=where)
    given = x if inputs.is_arguments(x) else (x,)
    args, targets = inputs.abstract(given), inputs.abstract(labels)
    params = inputs.abstract(params)
    kept = {} if state is None else inputs.abstract(state)
    traced = trace(where, adapted, params, kept, args)
    closed = core.ClosedJaxpr(traced.plan.block.jaxpr, traced.plan.block.consts)
    for remark in purity.remarks_on(adapted, None, closed, (params, kept, args), settled=traced.settled):
        warnings.warn(remark, UserWarning, stacklevel=2)
    measure = measure_of(
        where, adapted, traced, inputs.examples_of(args) or 1, targets,
        loss=loss, backward=backward, record=record, optimizer=optimizer, sites=sites,
    )  # fmt: skip
    return Watch(adapted.name, measure, args, targets, None if state is None else kept)


def _to_host(value: Any) -> np.ndarray:
    if not isinstance(value, Scaled):
        return np.asarray(value, np.float64)
    mantissa, exponent = np.asarray(value.mantissa, np.float64), np.asarray(value.exponent)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        return np.log(mantissa) + exponent * np.log(2.0) if value.log else np.ldexp(mantissa, exponent)
