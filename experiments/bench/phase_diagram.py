"""Phase diagrams: 100 x 100 tanh, cold and warm, against fixed points by scipy.integrate on a sample of points.

    python experiments/bench/phase_diagram.py

Prints seconds (cold: tables and compilation included; warm: the same call again), the errors of the sample, and
what SciPy's quad and dblquad take a point.
"""

from __future__ import annotations

import math
import time

import numpy as np
import scipy.integrate
import scipy.optimize

from jaxinit.meanfield import fixed_point, phase_diagram


def reference(sw2: float, sb2: float) -> tuple[float, float, float]:
    """q*, chi_1 and the correlation map's residual integral, by SciPy."""
    density = lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # noqa: E731

    def second(f, q: float) -> float:
        return (
            2
            * scipy.integrate.quad(
                lambda z: f(math.sqrt(q) * z) ** 2 * density(z), 0, 10, epsabs=1e-12, epsrel=1e-12, limit=200
            )[0]
        )

    q = scipy.optimize.brentq(lambda q: sw2 * second(math.tanh, q) + sb2 - q, 1e-9, sw2 + sb2 + 1, xtol=1e-12)
    chi_1 = sw2 * second(lambda x: math.cosh(min(abs(x), 300.0)) ** -2, q)
    return q, chi_1, math.nan


def correlation(sw2: float, sb2: float, q: float, c: float) -> float:
    """C(c) by SciPy's dblquad."""
    density = lambda x, y: math.exp(-(x * x + y * y) / 2) / (2 * math.pi)  # noqa: E731
    s, r = math.sqrt(q), math.sqrt(1 - c * c)
    value, _ = scipy.integrate.dblquad(
        lambda y, x: math.tanh(s * x) * math.tanh(s * (c * x + r * y)) * density(x, y),
        -8,
        8,
        -8,
        8,
        epsabs=1e-8,
    )
    return (sw2 * value + sb2) / q


def main() -> None:
    sw2, sb2 = np.linspace(0.25, 16.0, 100), np.linspace(0.0, 1.0, 100)
    for label in ("cold", "warm", "warm"):
        start = time.perf_counter()
        diagram = phase_diagram("tanh", sw2, sb2)
        print(f"phase_diagram 100x100 tanh, {label}: {time.perf_counter() - start:.3f} s", diagram)
    rng = np.random.default_rng(0)
    points = [(int(i), int(j)) for i, j in zip(rng.integers(0, 100, 6), rng.integers(1, 100, 6), strict=True)]
    start = time.perf_counter()
    found = [reference(float(sw2[i]), float(sb2[j])) for i, j in points]
    per_point = (time.perf_counter() - start) / len(points)
    errors = [
        (abs(diagram.q[p] / f[0] - 1), abs(diagram.chi_1[p] / f[1] - 1))
        for p, f in zip(points, found, strict=True)
    ]
    start = time.perf_counter()
    residual = max(
        abs(
            correlation(float(sw2[i]), float(sb2[j]), float(diagram.q[i, j]), float(diagram.c[i, j]))
            - diagram.c[i, j]
        )
        for i, j in points[:3]
        if diagram.c[i, j] < 1 - 1e-6
    )
    per_map = (time.perf_counter() - start) / 3
    print(f"scipy: {per_point:.3f} s a point for q* and chi_1, {per_map:.3f} s a c-map")
    print("largest relative errors of q*, chi_1, and |C(c*) - c*|:", *np.max(errors, axis=0), residual)
    exact = [fixed_point("tanh", float(sw2[i]), float(sb2[j])) for i, j in points]
    print(
        "against the scalar fixed_point, c*, xi_c:",
        max(abs(diagram.c[p] - e.c) for p, e in zip(points, exact, strict=True)),
        max(abs(diagram.xi_c[p] / e.xi_c - 1) for p, e in zip(points, exact, strict=True)),
    )


if __name__ == "__main__":
    main()
