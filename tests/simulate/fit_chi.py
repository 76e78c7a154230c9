"""How the coefficients of `jaxinit.simulate._chi.ROOT` were found, and how far they are from SciPy's inverse.

A chi-square's root sqrt(x / nu) as a polynomial in y = z sqrt(e) and e = 2 / nu: least squares on Chebyshev points of z
and sqrt(e), reweighted until the largest weighted error is small everywhere; the terms of Cornish & Fisher (1938) stay.

    python tests/simulate/fit_chi.py
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special

from jaxinit.simulate._chi import LEAST, ROOT

#: Degrees in y of the terms with e^0, e^1, ...
DEGREES = tuple(len(row) - 1 for row in ROOT)
#: Terms y^i e^k that are known.
FIXED = {(0, 0): 1.0, (1, 0): 0.5, (2, 0): 1 / 24, (0, 1): -1 / 6}
#: The size of the largest normal of float32 that is drawn; the smallest spread sqrt(2 / nu) that is fitted; rounds.
FAR, NEAR, ROUNDS = 6.8, 0.01, 80


def quantile(z: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """x / nu with P(chi2_nu <= x) = P(Z <= z), by SciPy and Newton steps in logarithms."""
    a, p, low = nu / 2, special.ndtr(-np.abs(z)), z < 0
    x = np.where(low, special.gammaincinv(a, p), special.gammainccinv(a, p))
    for _ in range(3):
        tail = np.where(low, special.gammainc(a, x), special.gammaincc(a, x))
        density = np.exp((a - 1) * np.log(x) - x - special.gammaln(a))
        x = x - np.where(low, 1, -1) * tail * np.log(tail / p) / density
    return np.asarray(x / a)


def fitted() -> tuple[np.ndarray, dict[str, float]]:
    """The coefficients, row by row, and the largest relative error of x over ranges of |z|."""
    nodes = [np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in (30, 120)]
    spread, z = (
        v.ravel()
        for v in np.meshgrid(NEAR + (np.sqrt(2 / LEAST) - NEAR) * (0.5 + 0.5 * nodes[0]), FAR * nodes[1])
    )
    root = np.sqrt(quantile(z, 2 / spread**2))
    terms = [(i, k) for k, degree in enumerate(DEGREES) for i in range(degree + 1)]
    table = np.stack([(spread * z) ** i * spread ** (2 * k) for i, k in terms], axis=1)
    coefficients = np.array([FIXED.get(term, 0.0) for term in terms])
    free = np.array([term not in FIXED for term in terms])
    target, columns = root - table @ coefficients, table[:, free]
    size = np.abs(columns).max(axis=0)
    # As exact as float32 in the middle, less so where hardly a normal lies.
    importance = (
        np.minimum(1, np.exp(-0.8 * (np.abs(z) - 2.5))) * np.exp(-np.maximum(np.abs(z) - 5, 0)) / root
    )
    weight, least = importance.copy(), np.inf
    for _ in range(ROUNDS):
        found = np.linalg.lstsq(columns / size * weight[:, None], target * weight, rcond=1e-15)[0] / size
        error = np.abs((columns @ found - target) * importance)
        if error.max() < least:
            least, coefficients[free] = error.max(), found
        weight = weight * np.sqrt(1e-3 + error / error.max())
        weight /= np.median(weight / importance)
    off = np.abs((table @ coefficients / root) ** 2 - 1)
    edges = (0.0, 2.5, 4.7, 5.5, 6.3, FAR)
    ranges = {
        f"|z| in {a} .. {b}": off[(np.abs(z) >= a) & (np.abs(z) <= b)].max()
        for a, b in itertools.pairwise(edges)
    }
    return coefficients, ranges


if __name__ == "__main__":
    found, ranges = fitted()
    rest = list(found)
    for degree in DEGREES:
        print("(" + ", ".join(f"{rest.pop(0):.9g}" for _ in range(degree + 1)) + "),")
    for name, off in ranges.items():
        print(f"{name}: {off:.1e}")
    print(f"largest difference from ROOT: {np.abs(found - np.concatenate(ROOT)).max():.1e}")
