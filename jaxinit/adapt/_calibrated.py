"""Calibration as an initializer: what `compare` can train beside others, drawn and calibrated anew for every seed."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxinit._core import checks
from jaxinit.adapt._calibrate import METHODS, calibrate
from jaxinit.initializers import get
from jaxinit.models import Model, adapt

__all__ = ["Calibrated", "calibratable", "calibrated"]


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """What `calibrated` returns: `(model, params, x, key) -> params`.

    Attributes:
        method: of `calibrate`.
        draw: the initializer whose draw is calibrated; None for the model's own.
        options: further arguments of `calibrate`, by name.
    """

    method: str
    draw: Any = None
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, model: Any, params: Any, x: Any, key: Any) -> Any:
        return calibrate(model, x, key, params=params, method=self.method, **dict(self.options))[0]

    def __repr__(self) -> str:
        given = [repr(self.method), *([] if self.draw is None else [f"draw={self.draw!r}"])]
        return f"calibrated({', '.join([*given, *(f'{name}={value!r}' for name, value in self.options)])})"


def calibrated(method: str = "lsuv", *, draw: Any = None, **options: Any) -> Calibrated:
    """An initializer of whole models: draw the parameters, then `calibrate` them. For models made by `calibratable`.

    Args:
        method: of `calibrate`.
        draw: a name or an initializer for the kernels; None for the model's own.
        options: of `calibrate`, such as `target`, `exclude`; values that are hashable.

    Raises:
        ValueError, TypeError: there is no such method or initializer.

    Example:
        >>> from jaxinit.adapt import calibrated
        >>> calibrated("critical", draw="he", target="update_ratio")
        calibrated('critical', draw=he_normal(), target='update_ratio')
    """
    checks.choice("calibrated", "method", method, METHODS)
    return Calibrated(method, None if draw is None else get(draw), tuple(sorted(options.items())))


def calibratable(model: Any, x: Any) -> Model:
    """The model, for `compare`, with `calibrated(...)` among the initializers that it may be given.

    Args:
        model: what `compare` takes: a linen module, class or factory, an nnx factory, or a `jaxinit.models.Model`.
        x: the batch to calibrate on, as for `calibrate`: of the training data, and of the size that is trained with.

    Returns:
        A `jaxinit.models.Model`. Other initializers reach its kernels as they reach those of `model`.

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.adapt import calibratable, calibrated
        >>> from jaxinit.compare import load_data
        >>> model = ji.models.MLP(depth=4, width=16, features=10)
        >>> x = load_data("digits").x_train[:64]
        >>> record = ji.compare(calibratable(model, x), {"he": "he", "lsuv": calibrated("lsuv")}, "digits",
        ...                     seeds=1, learning_rates=[0.03], steps=60)
        >>> record.initializers, bool(record.test_accuracy.min() > 0.5)
        (('he', 'lsuv'), True)
    """
    base = adapt(model, where="calibratable")
    drawn = jax.jit(base.init, static_argnums=0)

    def init(initializer: Any, key: Any, given: Any) -> tuple[Any, Any]:
        own = initializer.draw if isinstance(initializer, Calibrated) else initializer
        params, state = drawn(own, key, given)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params))
        if traced or not isinstance(initializer, Calibrated):  # shapes are those of the draw
            return params, state
        return initializer(base, params, x, key), state

    return Model(base.name, init, base.apply)
