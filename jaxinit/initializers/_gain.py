"""The variance-preserving initializer of any activation."""

from __future__ import annotations

from typing import Any

from jaxinit._core import checks
from jaxinit.initializers import _fans
from jaxinit.initializers._base import Initializer
from jaxinit.initializers._scaling import DISTRIBUTIONS, VarianceScaling, squared_gain

__all__ = ["scaled_for"]


def scaled_for(
    activation: Any,
    direction: str = "forward",
    distribution: str = "truncated_normal",
    *,
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
) -> Initializer:
    """The initializer that keeps the second moment of one pass through `activation` and a layer, of any activation.

        forward   variance = 1 / (E[phi(z)^2] fan_in)      pre-activations of variance 1 stay at variance 1
        backward  variance = 1 / (E[phi'(z)^2] fan_out)    gradients keep theirs

    with z standard normal, by quadrature. For ReLU both give 2 / fan, He et al.; for other activations forward and
    backward disagree, and weights that keep both need a bias variance: see the edge of chaos.

    Args:
        activation: a name of the catalogue, any JAX callable, or an Activation.
        direction: "forward" or "backward".
        distribution: "truncated_normal", "normal" or "uniform".
        in_axis, out_axis, batch_axis, groups, stride, einsum: see `fans`.

    Raises:
        ValueError: for an unknown activation, or one whose moment is 0 or not finite.

    Source: He et al. 2015, eq. 10 and 14, for any phi.

    Example:
        >>> from jaxinit.initializers import scaled_for
        >>> scaled_for("relu")
        he_normal()
        >>> round(scaled_for("tanh").law((100, 100)).stddev, 7)
        0.1592537
    """
    where = "scaled_for"
    checks.choice(where, "direction", direction, ("forward", "backward"))
    checks.choice(where, "distribution", distribution, DISTRIBUTIONS)
    spec = _fans.axes(where, in_axis, out_axis, batch_axis, groups, stride, einsum)
    return VarianceScaling(
        squared_gain(activation, direction),
        "fan_in" if direction == "forward" else "fan_out",
        distribution,
        spec,
    )
