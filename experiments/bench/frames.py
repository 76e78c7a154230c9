"""Frames of a few long vectors: Gram-Schmidt twice, row by row, against LAPACK's Householder QR and Cholesky's factor.

CPU seconds of one factorization, warm, by the number of vectors and their length, and those of the others over those of
Gram-Schmidt: medians over rounds in which the methods take turns (quartiles in brackets), so that a busy machine does
not tilt them. The last column is what `implicit._frames` takes, and whether LAPACK is faster by more than the noise.
That is LAPACK on one thread; OPENBLAS_NUM_THREADS=2 shows what threads add that wait busily beside other programs.

    python experiments/bench/frames.py [--rows 2 4 8 16 32 64 128 256] [--lengths 1024 8192 28672]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # whose idle threads would count

import jax
import jax.numpy as jnp
from _timing import ratio, turns
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


def chosen(rows: int, length: int) -> str:
    """As `orthonormalize`; unrolled Gram-Schmidt counts as such."""
    return "gram-schmidt" if rows <= min(max(_frames.ROW_BY_ROW, _frames.UNROLLED), length) else "householder"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 8192, 28672])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}; CPU milliseconds of Gram-Schmidt, and ratios"
    )
    print(f"{'rows':>5} {'length':>7} {'gram-schmidt':>13} {'householder':>20} {'cholesky':>20}  taken")
    for length in args.lengths:
        for rows in (r for r in args.rows if r <= length):
            x = jax.random.normal(jax.random.key(0), (rows, length))
            calls = {name: jax.jit(f) for name, f in METHODS.items()}
            spent = turns({name: (lambda f=f, x=x: f(x)) for name, f in calls.items()}, args.rounds)
            base = spent["gram-schmidt"]
            cells = [ratio(spent[name], base) for name in list(METHODS)[1:]]
            taken = chosen(rows, length)
            lapack = cells[0]
            wrong = lapack[2] < 1 if taken == "gram-schmidt" else lapack[1] > 1
            print(
                f"{rows:>5} {length:>7} {1e3 * sorted(base)[len(base) // 2]:>13.3f} "
                + " ".join(f"{f'{m:.2f} [{lo:.2f}, {hi:.2f}]':>20}" for m, lo, hi in cells)
                + f"  {taken}{' (slower)' if wrong else ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
