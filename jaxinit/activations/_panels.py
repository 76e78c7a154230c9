"""Where an activation changes its mind: kinks, and panels on which it is as good as a polynomial.

Both come from one adaptive bisection. A panel is resolved when the Legendre coefficients of phi and phi' on
it fall geometrically, as they do for an analytic function whose singularities are far enough away; at a kink
they fall only algebraically however narrow the panel is, so that bisection closes in on the kink. No list of
kinks is needed, and a steep but smooth activation gets panels of its own scale.
"""

from __future__ import annotations

import functools

import numpy as np

from jaxinit.activations._activation import Activation
from jaxinit.activations._host import evaluate, resolution

_ORDER = 20
_CORE = 16.0  # within +-_CORE features are looked for everywhere, beyond it only where phi is not smooth
_NARROW = 1e-7  # a panel narrower than this was bisected towards a kink
_MOST = 20_000

_t, _w = np.polynomial.legendre.leggauss(_ORDER)
#: values at Gauss nodes -> Legendre coefficients
_PROJECT = ((np.arange(_ORDER) + 0.5)[:, None] * np.polynomial.legendre.legvander(_t, _ORDER - 1).T) * _w
#: values at Gauss nodes -> values at those of both halves, and at the very ends, where a kink could hide
_HALVES = np.concatenate([(_t - 1.0) / 2.0, (_t + 1.0) / 2.0, [-1.0 + 1e-9, 1.0 - 1e-9]])


def _resolved(
    values: np.ndarray, places: np.ndarray, dense: np.ndarray, floor: float, typical: float
) -> np.ndarray:
    """Whether panels (rows) are resolved, from `values` at Gauss nodes, `dense` ones at `places`.

    Rounding is measured against the panel's own size, or a tenth of the `typical` one where that is more:
    tanh' = 1 - tanh^2 is all noise where it has died out.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.maximum(np.abs(values).max(axis=1), 0.1 * typical + 1e-30)
        projected = values @ _PROJECT.T
        coefficients = np.abs(projected)
        tail = coefficients[:, 13:].max(axis=1)
        body = coefficients[:, 4:10].max(axis=1)
        small = np.maximum(floor * scale, np.minimum(1e-6 * scale, 1e-3 * body))
        between = np.polynomial.legendre.legvander(places, _ORDER - 1) @ projected[:, :, None]
        missed = np.abs(between[:, :, 0] - dense).max(axis=1)
        good = (tail <= small) & (missed <= np.maximum(30.0 * small, 3e3 * floor * scale))
    return good | ~np.isfinite(values).all(axis=1)  # an overflow shows in the integral, no panel mends it


def _check(activation: Activation, panels: np.ndarray, places: np.ndarray, floor: float) -> np.ndarray:
    """Whether phi and phi' are resolved on panels, shape (n, 2), checked at `places`, shape (n or 1, m)."""
    typical = _typical(activation)
    mid, half = panels.mean(axis=1)[:, None], 0.5 * np.diff(panels, axis=1)
    both = evaluate(activation, np.concatenate([mid + half * _t, mid + half * places], axis=1))
    good = np.ones(len(panels), dtype=bool)
    for v, size in zip(both, typical, strict=True):
        good &= _resolved(v[:, :_ORDER], places, v[:, _ORDER:], floor, size)
    return good


@functools.lru_cache(maxsize=512)
def _typical(activation: Activation) -> tuple[float, float]:
    """The largest sizes of phi and phi' within +-3."""
    phi, slope = (np.abs(v) for v in evaluate(activation, np.linspace(-3.0, 3.0, 1001)))
    return float(np.nanmax(phi)), float(np.nanmax(slope))


def _bisect(activation: Activation, edges: np.ndarray, floor: float) -> np.ndarray:
    """Ends of panels, resolved or too narrow to divide: shape (panels, 2), ascending."""
    queue = np.stack([edges[:-1], edges[1:]], axis=1)
    done = []
    while len(queue):
        mid = queue.mean(axis=1)
        good = _check(activation, queue, _HALVES[None, :], floor)
        good |= np.diff(queue, axis=1)[:, 0] <= 1e-13 * np.maximum(1.0, np.abs(mid))
        if len(queue) > _MOST:
            good[:] = True
        done.append(queue[good])
        left, right = queue[~good].copy(), queue[~good].copy()
        left[:, 1] = right[:, 0] = mid[~good]
        queue = np.concatenate([left, right])
    panels = np.concatenate(done)
    return panels[np.argsort(panels[:, 0])]


def _merge(activation: Activation, panels: np.ndarray, kept: np.ndarray, floor: float) -> np.ndarray:
    """Neighbouring panels made one where that is as good, but not across the places `kept`.

    The wider panel must reproduce phi at the nodes of the two it replaces, so nothing once seen is lost.
    """
    idle = 0
    for turn in range(64):
        first = np.arange(turn % 2, len(panels) - 1, 2)
        first = first[~np.isin(panels[first, 1], kept)]
        good = np.zeros(0, dtype=bool)
        if len(first):
            a, b = panels[first], panels[first + 1]
            both = np.stack([a[:, 0], b[:, 1]], axis=1)
            nodes = np.concatenate(
                [p.mean(axis=1)[:, None] + 0.5 * np.diff(p, axis=1) * _HALVES[None, :] for p in (a, b)],
                axis=1,
            )
            places = 2.0 * (nodes - both[:, :1]) / np.diff(both, axis=1) - 1.0
            good = _check(activation, both, places, floor)
        idle = 0 if good.any() else idle + 1
        if idle == 2:
            break
        if good.any():
            panels[first[good], 1] = panels[first[good] + 1, 1]
            panels = np.delete(panels, first[good] + 1, axis=0)
    return panels


def _start(radius: float) -> np.ndarray:
    """Panels to begin with. Their edges are at no round numbers, where a kink would go unseen."""
    core = np.linspace(-1.0093, 1.0127, 17) * _CORE
    doublings = np.arange(1, max(1, int(np.ceil(np.log2(radius / _CORE)))) + 1)
    outer = 1.0131 * _CORE * 2.0**doublings
    return np.concatenate([-outer[::-1], core, outer])


def _snap(place: float, slack: float) -> float:
    """The roundest number within `slack` of a place found by bisection."""
    for digits in range(14):
        rounded = round(place, digits)
        if abs(rounded - place) <= slack:
            return rounded + 0.0
    return place


@functools.lru_cache(maxsize=512)
def _search(activation: Activation, radius: float) -> tuple[tuple[float, ...], np.ndarray]:
    """Kinks, and the edges of panels that cover +-radius."""
    floor = max(1e-13, 64.0 * resolution(activation) if resolution(activation) > 1e-15 else 0.0)
    edges = _start(radius)
    found: list[float] = []
    if activation.kink_points is None:
        panels = _bisect(activation, edges, floor)
        width = np.diff(panels, axis=1)[:, 0]
        narrow = np.flatnonzero(width < _NARROW)
        for cluster in np.split(narrow, np.flatnonzero(np.diff(narrow) > 1) + 1):
            if len(cluster):
                finest = cluster[width[cluster] <= 1.5 * width[cluster].min()]
                a, b = panels[finest[0], 0], panels[finest[-1], 1]
                found.append(_snap(float(0.5 * (a + b)), float(4.0 * (b - a))))
    else:
        found = [k for k in activation.kink_points if edges[0] < k < edges[-1]]
    if found or activation.kink_points is not None:
        near = np.asarray(found)
        apart = (np.abs(edges[:, None] - near[None, :]) > 1e-6).all(axis=1)
        panels = _bisect(activation, np.sort(np.concatenate([edges[apart], near])), floor)
    panels = _merge(activation, panels, np.asarray(found), floor)
    return tuple(sorted(found)), np.append(panels[:, 0], panels[-1, 1])


def kinks(activation: Activation) -> tuple[float, ...]:
    """The kinks within +-16 of zero of a callable that does not list its own."""
    return tuple(k for k in _search(activation, _CORE)[0] if abs(k) <= _CORE)


def edges(activation: Activation, radius: float) -> np.ndarray:
    """Edges of panels that resolve the activation on at least +-radius, ascending, kinks among them."""
    covered = _CORE
    while covered < radius:
        covered *= 4.0
    return _search(activation, covered)[1]


@functools.lru_cache(maxsize=512)
def jumps(activation: Activation) -> tuple[tuple[float, float, float], ...]:
    """(place, phi just below, phi just above) for each kink where phi itself jumps."""
    places = np.asarray(activation.kinks)
    if not places.size:
        return ()
    step = 1e-9 * np.maximum(1.0, np.abs(places))
    phi, slope = evaluate(
        activation, np.stack([places - step, places + step, places - 2 * step, places + 2 * step])
    )
    below, above = 2 * phi[0] - phi[2], 2 * phi[1] - phi[3]
    smooth = 4.0 * step * np.abs(slope).max(axis=0) + 1e-12 * (np.abs(below) + np.abs(above))
    torn = np.abs(above - below) > 10.0 * smooth
    return tuple(
        (float(p), float(b), float(a)) for p, b, a in zip(places[torn], below[torn], above[torn], strict=True)
    )
