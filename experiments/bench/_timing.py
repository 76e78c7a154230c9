"""Paired timings in one process: cold (with compilation) and warm apart, everything blocked until ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax


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
