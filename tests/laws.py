"""How random claims are tested: two samples of one law, with thresholds fixed beforehand.

Every test that uses `same_law` has a twin that feeds it a wrong law and uses `other_law`.
"""

import numpy as np
from scipy import stats

#: A correct pair fails one test in a hundred thousand; a wrong one must be far beyond that.
SAME, OTHER = 1e-5, 1e-9


def p_value(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov; for quantities that do not vary, whether they are the same number."""
    a, b = np.ravel(np.asarray(a, np.float64)), np.ravel(np.asarray(b, np.float64))
    size = max(np.abs(a).max(), np.abs(b).max())
    if max(np.ptp(a), np.ptp(b)) <= 1e-5 * size:
        return 1.0 if abs(a.mean() - b.mean()) <= 1e-5 * size else 0.0
    return float(stats.ks_2samp(a, b, method="asymp").pvalue)


def same_law(a: dict, b: dict) -> None:
    """Every named scalar functional has the same law in both samples."""
    assert a.keys() == b.keys() and a
    values = {name: p_value(a[name], b[name]) for name in a}
    assert min(values.values()) > SAME, values


def other_law(a: dict, b: dict) -> None:
    """At least one functional tells the two samples apart beyond doubt."""
    values = {name: p_value(a[name], b[name]) for name in a}
    assert min(values.values()) < OTHER, values
