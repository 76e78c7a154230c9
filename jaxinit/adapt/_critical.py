"""Initializers on the edge of chaos: mean-field theory's answer, in a form that Flax takes."""

from __future__ import annotations

from typing import Any

from jaxinit import initializers, meanfield
from jaxinit._core import checks
from jaxinit.activations._catalogue import resolve


def critical(
    activation: Any, bias_variance: float = 0.0, *, ensemble: str = "gaussian"
) -> tuple[initializers.Initializer, initializers.Initializer]:
    """Kernel and bias initializers at which gradients neither grow nor die, for a stack of one activation.

        W_ij ~ N(0, sigma_w^2 / fan_in),   b_i ~ N(0, sigma_b^2),   with chi_1 = sigma_w^2 E[phi'(sqrt(q*) z)^2] = 1

    Arguments:
        activation: name, callable or Activation.
        bias_variance: sigma_b^2, at least 0.
        ensemble: "gaussian", or "orthogonal" (Haar, of the same variance: dynamical isometry for tanh-like
            activations near q* = 0, Pennington et al. 2017).

    Returns:
        (kernel_init, bias_init): `nn.Dense(n, kernel_init=kernel_init, bias_init=bias_init)`.

    Raises:
        ValueError: no critical point with this bias variance at which a network can stay; the message says
            what there is instead.

    Holds for infinite width and layers of this one activation (Poole et al. 2016; Schoenholz et al. 2017,
    "Deep information propagation"; Hayou et al. 2019 for ReLU-like activations).

    Example:
        >>> import jaxinit as ji
        >>> kernel_init, bias_init = ji.critical("tanh", 0.05)
        >>> round(kernel_init.scale, 5), round(bias_init.stddev**2, 5)
        (1.76095, 0.05)
        >>> ji.critical("relu")[0] == ji.he_normal(distribution="normal")
        True
    """
    where = "critical"
    checks.choice(where, "ensemble", ensemble, ("gaussian", "orthogonal"))
    phi = resolve(where, activation)
    points = meanfield.critical(phi, bias_variance)
    stable = [point for point in points if point.stable]
    if not stable:
        found = (
            f"There is one at weight variance {points[0].weight_variance:.4g}, q = {points[0].q:.4g}, but its q is "
            "unstable: networks leave it."
            if points
            else "The edge of chaos of this activation does not pass there."
        )
        raise checks.bad(
            where, "bias_variance", f"one with which {phi.name} has a critical point that networks stay at",
            bias_variance, f"{found} Try another one; meanfield.critical_line shows where the edge is.",
        )  # fmt: skip
    variance = stable[0].weight_variance
    kernel: initializers.Initializer
    if ensemble == "orthogonal":
        kernel = initializers.orthogonal(variance**0.5, preserve="variance")
    else:
        kernel = initializers.variance_scaling(variance, "fan_in", "normal")
    bias = initializers.zeros() if bias_variance == 0 else initializers.normal(bias_variance**0.5)
    return kernel, bias
