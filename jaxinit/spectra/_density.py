"""Densities of squared singular values: where the spectrum lies, a grid that integrates it, the record."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit.activations._quadrature import legendre
from jaxinit.records import Spectrum, provenance
from jaxinit.spectra._chain import Chain, chain
from jaxinit.spectra._continuation import Continuation, gap_edge, top_edge
from jaxinit.spectra._moments import of_chain

_TAIL = 1e-9  # the share of the spectrum that the grid may leave out near zero
_ORDER = 12
_ROUGH = 1e-8  # a panel whose last coefficients are above this share of the whole is halved
_HALVINGS = 8


def density(
    activation: Any,
    depth: int,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    ensemble: str = "gaussian",
    output: str = "activations",
    q: float | None = None,
    points: Any = None,
) -> Spectrum:
    """Density and atoms of the squared singular values of the Jacobian of a deep, very wide network.

        rho(lambda) = -Im[1 + M(lambda + i0)] / (pi lambda),   M(z) = E[s^2 / (z - s^2)]

    with M from the product of the S-transforms of D^2 and W W^T (see `moments` for J, D, W and when this
    holds). Unlike histograms of sampled matrices it has no noise, resolves both ends over any number of
    decades, and tells atoms (the units that a ReLU switches off) from the continuous part.

    Args:
        activation: name, callable or Activation.
        depth: L, at least 1.
        weight_variance: sigma_w^2; orthogonal weights have W^T W = sigma_w^2.
        bias_variance: sigma_b^2.
        ensemble: "gaussian" or "orthogonal".
        output: "activations" (d phi(z^L) / dx) or "preactivations" (dz^L / dx).
        q: mean square of the pre-activations; the fixed point q* by default.
        points: lambda at which the density is wanted, 1-D and positive; by default a grid made for it, that
            leaves out about 1e-9 of the spectrum and integrates the rest to about 1e-8
            (`Spectrum.expectation`), to 1e-2 for a single layer of orthogonal weights.

    Returns:
        `Spectrum`. Shares of units whose phi'^2 is below 1e-30 of its maximum count as exact zeros: float64
        cannot tell them from saturated ones.

    Raises:
        ValueError, TypeError: an argument breaks its rule, or there is no fixed point.

    References:
        Pennington, Schoenholz & Ganguli 2017, "Resurrecting the sigmoid in deep learning through dynamical isometry";
        2018, "The emergence of spectral universality in deep networks".

    Example:
        >>> from jaxinit.spectra import density
        >>> found = density("relu", 4, 2.0)
        >>> found.atoms, round(found.mean, 12)
        (((0.0, 0.5),), 1.0)
        >>> round(float(density("identity", 1, 1.0, points=[2.0]).density[0]), 9)  # 1 / (2 pi), Marchenko-Pastur
        0.159154943
    """
    where = "density"
    c = chain(where, activation, depth, weight_variance, bias_variance, ensemble, output, q)
    atoms = c.atoms()
    left = 1.0 - sum(mass for _, mass in atoms)
    top = _log_largest(c, atoms)
    weights: np.ndarray | None = None
    log_points = held = np.zeros(0)
    if points is not None:
        log_points = np.log(_points(points))
        held = np.zeros(log_points.shape)
        inside = log_points < top
        if left > 1e-9 and inside.any():
            held[inside] = Continuation(c).log_density(log_points[inside])
    elif left > 1e-9:
        log_points, held, weights = _integrated(c, left)
    else:
        weights = np.zeros(0)
    figures = of_chain(c, 4)
    bias = f", σb²={float(bias_variance):.4g}" if bias_variance else ""
    config = {
        "label": f"{c.activation.name} {ensemble}, L={c.depth}, σw²={float(weight_variance):.4g}{bias}",
        "activation": repr(c.activation),
        "depth": c.depth,
        "weight_variance": float(weight_variance),
        "bias_variance": float(bias_variance),
        "ensemble": ensemble,
        "output": output,
        "q": c.q,
    }
    return Spectrum(
        log_points,
        held,
        weights,
        np.asarray([place for place, _ in atoms]),
        np.asarray([mass for _, mass in atoms]),
        figures.log_mean,
        figures.relative_variance,
        np.asarray(figures.normalized),
        top if c.law.bounded or not c.slopes else math.inf,
        config=config,
        provenance=provenance(),
    )


def _points(points: Any) -> np.ndarray:
    array = np.atleast_1d(np.asarray(checks.reals("density", "points", points), np.float64))
    if array.ndim != 1 or not array.size or not (np.isfinite(array) & (array > 0.0)).all():
        raise checks.bad("density", "points", "1-D, finite and positive", points, "Atoms are listed apart.")
    if (np.diff(array) <= 0.0).any():
        raise checks.bad("density", "points", "ascending", points)
    return array


def _log_largest(c: Chain, atoms: list[tuple[float, float]]) -> float:
    """log of the largest squared singular value, atoms included."""
    if sum(mass for _, mass in atoms) > 1.0 - 1e-9:
        return atoms[-1][0]
    return top_edge(c)


def _integrated(c: Chain, left: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log lambda, lambda rho there, and quadrature weights over the continuous part.

    Gauss panels in the square root of the distance to an edge, where densities begin like a square root;
    halved where the density is not yet a polynomial.
    """
    follow = Continuation(c)
    panels = np.concatenate([_panels(*interval) for interval in _intervals(c, follow, left)])
    t, w = legendre(_ORDER)
    project = ((np.arange(_ORDER) + 0.5)[:, None] * np.polynomial.legendre.legvander(t, _ORDER - 1).T) * w
    done: list[np.ndarray] = []
    for turn in range(_HALVINGS + 1):
        origin, sign, low, high = (v[:, None] for v in panels.T)
        s, half = 0.5 * (low + high) + 0.5 * (high - low) * t, 0.5 * (high - low)
        x, weights = origin + sign * s * s, 2.0 * s * half * w
        found = follow.log_density(x.ravel()).reshape(x.shape)
        tail = np.abs((s * half * found) @ project.T)[:, -3:].max(axis=1)
        good = (tail < _ROUGH * left) | (turn == _HALVINGS) | _stepped(c)
        done.append(np.stack([x[good].ravel(), found[good].ravel(), weights[good].ravel()]))
        panels = panels[~good]
        if not len(panels):
            break
        middle = 0.5 * (panels[:, 2] + panels[:, 3])
        panels = np.concatenate([panels, panels])
        panels[: len(middle), 3] = panels[len(middle) :, 2] = middle
    held = np.concatenate(done, axis=1)
    x, found, weights = held[:, np.argsort(held[0])]
    return x, found, weights


def _stepped(c: Chain) -> bool:
    """One D and orthogonal W: the spectrum is that of D^2 itself, cell by cell, with steps between them."""
    return c.slopes == 1 and not c.gaussian


def _intervals(c: Chain, follow: Continuation, left: float) -> list[tuple[float, float, bool]]:
    """(low, high, whether low is an edge rather than where the tail is cut) of log lambda, ascending."""
    high = top_edge(c)
    zero = c.law.zero_mass if c.slopes else 0.0
    kept = np.flatnonzero(follow.share - zero > _TAIL)
    low = float(min(follow.log_z[kept[0]], high - 1e-3))
    spread = min(1.0, math.sqrt(c.relative_variance))
    x = high - np.geomspace(1e-3 * spread, high - low, 96)[::-1]
    found = follow.log_density(x)
    least = 1e-10 * found.max()
    inside = found > least
    turns = np.flatnonzero(inside[1:] != inside[:-1])
    edges = _refined(follow, x[turns], x[turns + 1], inside[turns], least)
    ends = [*([low] if inside[0] else []), *edges.tolist(), *([high] if inside[-1] else [])]
    return [(ends[n], ends[n + 1], bool(n or not inside[0])) for n in range(0, len(ends), 2)]


def _refined(
    follow: Continuation, low: np.ndarray, high: np.ndarray, from_inside: np.ndarray, least: float
) -> np.ndarray:
    """Places between low and high where the density begins or ends."""
    if not low.size:
        return low
    for _ in range(3):
        share = np.linspace(0.0, 1.0, 18)[1:-1]
        x = low[:, None] + (high - low)[:, None] * share
        inside = (follow.log_density(x.ravel()) > least).reshape(x.shape)
        same = inside == from_inside[:, None]
        count = np.cumprod(same, axis=1).sum(axis=1)
        x = np.concatenate([low[:, None], x, high[:, None]], axis=1)
        row = np.arange(len(low))
        low, high = x[row, count], x[row, count + 1]
    outside = np.where(from_inside, high, low)
    edges = np.where(from_inside, low, high)
    log_y, _ = follow(outside)
    for n, y in enumerate(np.exp(log_y.real)):
        exact = gap_edge(follow.fine, float(y), up=not from_inside[n])
        if exact is not None and abs(exact - edges[n]) <= 2.0 * (high[n] - low[n]):
            edges[n] = exact
    return edges


def _panels(low: float, high: float, edge: bool) -> np.ndarray:
    """Rows (origin, sign, s_low, s_high): panels of s with log lambda = origin + sign s^2."""
    reach = 0.5 * (high - low) if edge else high - low
    from_high = [(high, -1.0, a, b) for a, b in _growing(math.sqrt(reach))]
    from_low = [(low, 1.0, a, b) for a, b in _growing(math.sqrt(reach))] if edge else []
    return np.asarray(from_high + from_low)


def _growing(reach: float) -> list[tuple[float, float]]:
    """Panels on (0, reach) of equal width, then wider and wider."""
    width = min(0.4, reach / 4.0)
    ends = [n * width for n in range(5)]
    while ends[-1] < reach * (1.0 - 1e-9):
        ends.append(min(reach, ends[-1] * 1.35))
    return list(itertools.pairwise(ends))
