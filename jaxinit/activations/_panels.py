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
_INTERPOLATE = np.polynomial.legendre.legvander(_HALVES, _ORDER - 1) @ _PROJECT


def _resolved(values: np.ndarray, dense: np.ndarray, floor: float, typical: float) -> np.ndarray:
    """Whether panels (rows) are resolved, from values at Gauss nodes and at those of both halves.

    Rounding is measured against the panel's own size, or a tenth of the `typical` one where that is more:
    tanh' = 1 - tanh^2 is all noise where it has died out.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.maximum(np.abs(values).max(axis=1), 0.1 * typical + 1e-30)
        coefficients = np.abs(values @ _PROJECT.T)
        tail = coefficients[:, 13:].max(axis=1)
        body = coefficients[:, 4:10].max(axis=1)
        small = np.maximum(floor * scale, np.minimum(1e-6 * scale, 1e-3 * body))
        missed = np.abs(values @ _INTERPOLATE.T - dense).max(axis=1)
        good = (tail <= small) & (missed <= np.maximum(30.0 * small, 3e3 * floor * scale))
    return good | ~np.isfinite(values).all(axis=1)  # an overflow shows in the integral, no panel mends it


def _bisect(activation: Activation, edges: np.ndarray, floor: float) -> np.ndarray:
    """Ends of panels, resolved or too narrow to divide: shape (panels, 2), ascending."""
    typical = [float(np.nanmax(np.abs(v))) for v in evaluate(activation, np.linspace(-3.0, 3.0, 1001))]
    queue = np.stack([edges[:-1], edges[1:]], axis=1)
    done = []
    while len(queue):
        mid, half = queue.mean(axis=1)[:, None], 0.5 * np.diff(queue, axis=1)
        points = np.concatenate([mid + half * _t, mid + half * _HALVES], axis=1)
        phi, slope = evaluate(activation, points)
        good = _resolved(phi[:, :_ORDER], phi[:, _ORDER:], floor, typical[0])
        good &= _resolved(slope[:, :_ORDER], slope[:, _ORDER:], floor, typical[1])
        good |= 2.0 * half[:, 0] <= 1e-13 * np.maximum(1.0, np.abs(mid[:, 0]))
        if len(queue) > _MOST:
            good[:] = True
        done.append(queue[good])
        left, right = queue[~good].copy(), queue[~good].copy()
        left[:, 1] = right[:, 0] = mid[~good, 0]
        queue = np.concatenate([left, right])
    panels = np.concatenate(done)
    return panels[np.argsort(panels[:, 0])]


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
        if not found:
            return (), np.append(panels[:, 0], panels[-1, 1])
    else:
        found = [k for k in activation.kink_points if edges[0] < k < edges[-1]]
    near = np.asarray(found)
    apart = np.abs(edges[:, None] - near[None, :]).min(axis=1) > 1e-6 if found else np.ones(len(edges), bool)
    panels = _bisect(activation, np.sort(np.concatenate([edges[apart], near])), floor)
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
