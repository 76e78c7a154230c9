"""Defaults known to be wrong for their layer, recognised by the signal they leave."""

from __future__ import annotations

import math

from jaxinit.diagnose._case import Case, finding
from jaxinit.diagnose._certainty import Figure
from jaxinit.diagnose._scale import grade
from jaxinit.records import Finding

#: n_in Var(W) of what layers are made with by default, and who makes them so.
DEFAULTS = (
    (1.0, "lecun_normal", "the default of Flax's Dense and Conv; Glorot's at equal widths, Keras's default"),
    (1.0 / 3.0, "U(-1, 1) / sqrt(fan_in)", "the default of PyTorch's and Equinox's Linear"),
    (2.0, "he_normal", "right for ReLU only"),
)

#: Systematic error a layer of infinite-width theory against a network of a hundred units, in log <z^2>.
_BIAS = 0.02
_LONGEST = 200
#: Width a layer of an interval that can still name one default: the logs of their rates are log 2 and more apart.
_PRECISE = 0.4
_LEVEL = 0.99


def wrong_default(case: Case) -> list[Finding]:
    """Names the default whose theory agrees with the measured change, and no other's does.

    From the mean square measured at the first layer the length map q' = sigma_w^2 E[phi(sqrt(q) z)^2] (Poole et al.
    2016) is iterated through a plain stack with n_in Var(W) of each default; the annealed change end to end (see
    `Change`) has to lie within its 99 % interval, widened by 0.02 a layer for finite width. Only where the signal
    vanishes or explodes (or drifts, by a factor ten: a note), the activation is known (or the values after it are
    half zeros, a ReLU's), and nothing in the record speaks of skips, normalization or dropout.
    """
    p, name = case.forward, case.activation
    if p is None or name is None or not case.may_be_plain:
        return []
    p = p.finite()
    if case.record.layout:
        p = case.within(p, max(case.families, key=lambda f: len(f[1]))[1])
    layers = round(float(p.x[-1] - p.x[0])) if len(p.sites) > 2 else 0
    layers = len(p.sites) - 1 if case.record.layout else layers
    if not 2 <= layers <= _LONGEST:
        return []
    moved = case.change(p)
    graded, measured = grade(moved), moved.annealed
    low, high = measured.interval(_LEVEL)
    if graded is None or high - low > _PRECISE * layers:
        return []
    slack = _BIAS * layers
    fits = []
    for variance, default, whose in DEFAULTS:
        predicted = predict(name, float(p.log[0]), layers, variance)
        if predicted is not None and low - slack <= predicted <= high + slack:
            fits.append((variance, default, whose, predicted))
    if len(fits) != 1:
        return []
    _, default, whose, predicted = fits[0]
    rate = math.exp(measured.value / layers)
    text = (
        f"{default} does this before {name} ({whose}): theory says ×{math.exp(predicted / layers):.3g} a layer, "
        f"measured ×{rate:.3g} [{math.exp(low / layers):.3g}, {math.exp(high / layers):.3g}]."
    )
    figure = Figure(measured.value / layers, measured.stderr / layers, measured.dof, measured.basis)
    return [
        finding(
            "wrong_default",
            "warning" if graded[0] == "error" else graded[0],
            text,
            (p.sites[0], p.sites[-1]),
            ("log of the factor a layer", figure),
            predicted / layers,
            figure.p_beyond(0.0),
            case.rescale,
            "Poole et al. 2016 (length map); He et al. 2015 for ReLU: E[relu(z)^2] = E[z^2] / 2",
        )
    ]


def predict(activation: str, log_q: float, layers: int, variance: float) -> float | None:
    """log q_L / q_1 of a plain stack by the length map; None for an activation that is not in the catalogue.

    Example:
        >>> from jaxinit.diagnose._defaults import predict
        >>> round(predict("relu", 0.0, 10, 1.0), 6)  # -10 log 2
        -6.931472
    """
    from jaxinit.meanfield import length_map

    q, total = math.exp(log_q), 0.0
    for _ in range(layers):
        try:
            new = length_map(activation, q, variance)
        except ValueError:
            return None
        if not 0.0 < new < math.inf:
            return None
        total += math.log(new / q)
        q = new
    return total
