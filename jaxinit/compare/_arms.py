"""The arms of a study: what is compared, under which label."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxinit import initializers as catalogue
from jaxinit._core import checks
from jaxinit.compare._optimizers import optimizer_of

_WAY_OUT = "Pass names such as ['he', 'xavier'], initializers, or a dict of label to initializer."


@dataclasses.dataclass(frozen=True)
class Arm:
    """One initializer with one optimizer. `initializer` None: the model's own."""

    label: str
    initializer: Callable[..., Any] | None
    optimizer_name: str
    optimizer: Callable[[Any], Any]


def arms_of(initializers: Any, optimizer: Any) -> tuple[Arm, ...]:
    """Every initializer with every optimizer; labels name the optimizer where there are several."""
    draws = _initializers(initializers)
    if isinstance(optimizer, Mapping):
        if not optimizer:
            raise checks.bad("compare", "optimizer", "not empty", optimizer)
        rules = {str(name): optimizer_of(value)[1] for name, value in optimizer.items()}
        return tuple(
            Arm(f"{label}, {name}", draw, name, rule)
            for label, draw in draws.items()
            for name, rule in rules.items()
        )
    name, rule = optimizer_of(optimizer)
    return tuple(Arm(label, draw, name, rule) for label, draw in draws.items())


def _initializers(initializers: Any) -> dict[str, Any]:
    if isinstance(initializers, Mapping):
        given = [(label, value) for label, value in initializers.items()]
    elif isinstance(initializers, str) or callable(initializers):
        given = [(label_of(initializers), initializers)]
    else:
        try:
            given = [(label_of(value), value) for value in initializers]
        except TypeError:
            rule = "names, initializers or a dict"
            raise checks.wrong_type("compare", "initializers", rule, initializers, _WAY_OUT) from None
    if not given:
        raise checks.bad("compare", "initializers", "not empty", initializers, _WAY_OUT)
    out: dict[str, Any] = {}
    for label, value in given:
        if not isinstance(label, str) or not label:
            raise checks.wrong_type("compare", "initializers", "labelled by strings", label, _WAY_OUT)
        if label in out:
            rule = "distinct (a label names one initializer)"
            raise checks.bad("compare", "initializers", rule, label, "Pass a dict with labels of your own.")
        out[label] = _initializer(value)
    return out


def _initializer(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value == "default"):
        return None
    if not isinstance(value, str) and not callable(value):
        rule = "names, callables (key, shape, dtype), or None for the model's own"
        raise checks.wrong_type("compare", "initializers", rule, value, _WAY_OUT)
    return catalogue.get(value)


def label_of(value: Any) -> str:
    """A name as it is, "default" for None, else the function's name or the call that makes the record.

    Without the addresses of objects: another process, which resumes the study, has others.
    """
    if value is None:
        return "default"
    if isinstance(value, str):
        return value
    return str(getattr(value, "__name__", None) or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)))


def rates_of(learning_rates: Any) -> np.ndarray:
    """Learning rates as float64, distinct, in rising order."""
    way_out = "Pass one rate or several, such as [0.01, 0.03, 0.1]."
    try:
        rates = np.atleast_1d(np.asarray(learning_rates, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        rule = "numbers"
        raise checks.wrong_type("compare", "learning_rates", rule, learning_rates, way_out) from None
    if rates.ndim != 1 or rates.size == 0:
        raise checks.bad("compare", "learning_rates", "one rate or a list of rates", learning_rates, way_out)
    if not (np.isfinite(rates).all() and (rates > 0).all()):
        raise checks.bad("compare", "learning_rates", "finite and greater than 0", learning_rates, way_out)
    with np.errstate(over="ignore", under="ignore"):
        held = rates.astype(np.float32)
    if not (np.isfinite(held) & (held > 0)).all():
        raise checks.bad("compare", "learning_rates", "within the range of float32", learning_rates, way_out)
    if np.unique(rates).size != rates.size:
        raise checks.bad("compare", "learning_rates", "distinct", learning_rates, way_out)
    return np.sort(rates)
