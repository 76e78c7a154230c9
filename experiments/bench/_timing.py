"""Paired timings in one process: cold (with compilation) and warm apart, everything blocked until ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def cold(f: Callable[[], Any]) -> float:
    """Seconds of the first call: tracing, compilation, one run."""
    start = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter() - start


def paired(calls: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Best seconds of each call over `rounds`, the calls taking turns so that noise hits them alike."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, f in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(f())
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def turns(calls: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, np.ndarray]:
    """CPU seconds of every call in every round, after one that compiles.

    The calls take turns, and only their own CPU time counts: what else the machine does hits a round as a whole, and
    `ratio` compares within rounds. LAPACK's threads wait busily: set OPENBLAS_NUM_THREADS=1 before JAX is imported.
    """
    for f in calls.values():
        jax.block_until_ready(f())
    spent = np.empty((len(calls), rounds))
    for i in range(rounds):
        for j, f in enumerate(calls.values()):
            start = time.process_time()
            jax.block_until_ready(f())
            spent[j, i] = time.process_time() - start
    return dict(zip(calls, spent, strict=True))


def ratio(over: np.ndarray, under: np.ndarray) -> tuple[float, float, float]:
    """The median of over / under of each round, and its quartiles."""
    low, middle, high = np.quantile(over / under, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)
