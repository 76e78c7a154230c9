"""Gains: the factor on a standard deviation that keeps a signal, or its gradient, at its size."""

from __future__ import annotations

import math
from typing import Any

from jaxinit._core import checks
from jaxinit.activations._catalogue import resolve
from jaxinit.activations._moments import moments
from jaxinit.activations._panels import jumps


def gain(activation: Any, mode: str = "forward") -> float:
    """The standard deviation, in units of 1/sqrt(fan), that preserves a unit-variance signal through phi.

        forward:   1 / sqrt(E[phi(z)^2])     mode of the activations: E[h^2] stays 1 from layer to layer
        backward:  1 / sqrt(E[phi'(z)^2])    the same for gradients (use with the fan out)

    with z ~ N(0, 1), at infinite width. For a positively homogeneous phi (the ReLU family) the two agree and
    any variance is preserved. For others they differ and the preserved variance may be an unstable fixed
    point; `jaxinit.meanfield.critical` finds the weight and bias variances that preserve both at once.

    Args:
        activation: a name, any elementwise JAX callable, or an Activation.
        mode: "forward" or "backward".

    Returns:
        A float, accurate to about 1e-13 whatever the x64 flag.

    Raises:
        ValueError: if no gain exists: phi (or phi') vanishes under the Gaussian, or phi jumps (backward).

    References:
        He, Zhang, Ren & Sun 2015, "Delving deep into rectifiers", eqs. 10 and 14; Klambauer et al. 2017,
        "Self-normalizing neural networks" (selu, whose forward gain is 1).

    Example:
        >>> from jaxinit.activations import gain
        >>> round(gain("relu"), 9), round(gain("tanh"), 9), round(gain("tanh", "backward"), 9)
        (1.414213562, 1.59253742, 1.467413592)
        >>> import jax.numpy as jnp
        >>> round(gain(lambda x: jnp.maximum(x, 0.2 * x)), 6)
        1.38675
    """
    mode = checks.choice("gain", "mode", mode, ("forward", "backward"))
    activation = resolve("gain", activation)
    m = moments(activation, 1.0)
    second = m.second if mode == "forward" else m.slope_second
    if not math.isfinite(second) or second <= 0.0:
        what = "E[phi(z)^2]" if mode == "forward" else "E[phi'(z)^2]"
        torn = mode == "backward" and jumps(activation)
        hint = "phi jumps, so that its gradient has no finite variance." if torn else ""
        raise checks.bad(
            "gain", "activation", f"such that 0 < {what} < inf (here {second})", activation, hint
        )
    return 1.0 / math.sqrt(second)


_TORCH = {
    **dict.fromkeys(
        ("linear", "identity", "sigmoid", *(f"conv{p}{n}d" for p in ("", "_transpose") for n in (1, 2, 3))),
        1.0,
    ),
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4.0,
}


def torch_gain(name: str, param: float | None = None) -> float:
    """The number `torch.nn.init.calculate_gain(name, param)` returns, to the last bit, for those who migrate.

    The ReLU family's is the true one, sqrt(2 / (1 + slope^2)). The others are folklore: tanh's 5/3 lets
    activations settle at E[z^2] = 1.178 and gradients grow by 1.21 a layer (1.592537 preserves unit
    variance); sigmoid's 1 shrinks the signal (E[phi^2] = 0.293); selu's 3/4, found empirically, settles at
    E[z^2] = 0.023 where 1 preserves unit variance. New code wants `gain`.

    Args:
        name: linear, identity, conv{1,2,3}d, conv_transpose{1,2,3}d, sigmoid, tanh, relu, leaky_relu or selu.
        param: the negative slope of leaky_relu; 0.01 if None. The others ignore it, as torch does.

    Raises:
        ValueError: for a name torch has no gain for; `gain` has one for every activation.

    Example:
        >>> from jaxinit.activations import torch_gain
        >>> torch_gain("tanh"), torch_gain("leaky_relu", 0.2)
        (1.6666666666666667, 1.3867504905630728)
    """
    if name == "leaky_relu":
        slope = (
            0.01
            if param is None
            else checks.number("torch_gain", "param", param, at_least=-1e150, at_most=1e150)
        )
        return math.sqrt(2.0 / (1 + slope**2))
    if not isinstance(name, str) or name not in _TORCH:
        known = [*_TORCH, "leaky_relu"]
        hint = checks.nearest(name, known) if isinstance(name, str) else ""
        raise checks.bad("torch_gain", "name", "a nonlinearity torch knows", name, f"{hint} Or use `gain`.")
    return _TORCH[name]
