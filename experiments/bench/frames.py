"""Frames of a few long vectors: Gram-Schmidt twice, row by row, against LAPACK's Householder QR and Cholesky's factor.

CPU seconds of one factorization, warm, by the number of vectors and their length; what `implicit._frames` chooses by.

    python experiments/bench/frames.py [--rows 2 4 8 16 32 64 128 256] [--lengths 1024 8192 28672]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxinit.implicit import _frames


def cholesky(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Shifted Cholesky QR, four times (Fukaya et al. 2020): what equal vectors need in float32."""
    eye = jnp.eye(len(x), dtype=x.dtype)
    shift = 4 * jnp.finfo(x.dtype).eps * len(x) * eye
    table, length = eye, jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True))
    frame = x / length
    for _ in range(4):
        lower = jnp.linalg.cholesky(_frames.gram(frame, frame) + shift)
        frame = _frames.combine(solve_triangular(lower, eye, lower=True), frame)
        table = _frames.combine(table, lower)
    return frame, length * table


METHODS: dict[str, Callable[[Any], Any]] = {
    "gram-schmidt": _frames.gram_schmidt, "householder": _frames.householder, "cholesky": cholesky,
}  # fmt: skip


def seconds(program: Any, x: Any, rounds: int) -> float:
    """The least CPU seconds of a run."""
    best = float("inf")
    for _ in range(rounds + 1):
        start = time.process_time()
        jax.block_until_ready(program(x))
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 8192, 28672])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; CPU milliseconds")
    print(f"{'rows':>5} {'length':>7} " + " ".join(f"{name:>13}" for name in METHODS))
    for length in args.lengths:
        for rows in (r for r in args.rows if r <= length):
            x = jax.random.normal(jax.random.key(0), (rows, length))
            cells = [seconds(jax.jit(f), x, args.rounds) for f in METHODS.values()]
            print(f"{rows:>5} {length:>7} " + " ".join(f"{1e3 * c:>13.2f}" for c in cells), flush=True)


if __name__ == "__main__":
    main()
