"""The options of the compiler by kind of program (`jaxinit._core.compiling`): warm calls of `simulate`, paired.

tanh, depth 64, two inputs, forward and backward; programs of one network, compiled with XLA's own options and as each
kind of program is, take turns in one process. Seconds to compile are of the first call with each; the ratios, of the
medians over rounds, are to XLA's own options. "*": the kind that `simulate` takes.

    python experiments/bench/compiling.py [--kinds dense normalized convolutional tied] [--rounds 10]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np
from simulate_cold import KINDS, network

import jaxinit as ji
from jaxinit._core import compiling
from jaxinit.ensemble import _compiled, _engine

SEEDS = {"convolutional": 4, "tied": 4}
VARIANTS: tuple[Any, ...] = ("plain", None, "loops", "brief")
LINE = "{:<14} {:<8} {:>9} {:>10} {:>7}"


@contextlib.contextmanager
def variant(kind: Any, kept: dict[Any, Any], taken: list[Any]) -> Iterator[None]:
    """Programs are compiled as this kind; what was compiled is kept apart, and what they say they are is noted."""
    options, own = compiling.options, _compiled.kind

    def told(one: Any) -> Any:
        taken.append(own(one))
        return kind

    with (
        mock.patch.object(_compiled, "kind", told),
        mock.patch.object(compiling, "options", lambda p, k=None: {} if k == "plain" else options(p, k)),
        mock.patch.object(_engine, "_NEEDS", kept),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    print(f"{jax.default_backend()}, jax {jax.__version__}")
    print(LINE.format("network", "options", "first", "warm", "ratio"))
    for name in args.kinds:
        net, seeds, taken = network(name, 64), SEEDS.get(name, 64), list[Any]()
        kept: dict[Any, dict[Any, Any]] = {kind: {} for kind in VARIANTS}
        spent: dict[Any, list[float]] = {kind: [] for kind in VARIANTS}
        for _ in range(args.rounds + 1):
            for kind in VARIANTS:
                with variant(kind, kept[kind], taken):
                    start = time.perf_counter()
                    ji.simulate(net, seeds)
                    spent[kind].append(time.perf_counter() - start)
        plain = np.median(spent["plain"][1:])
        for kind, times in spent.items():
            warm = float(np.median(times[1:]))
            said = f"{kind or 'always'}{'*' if kind == taken[0] else ''}"
            row = name, said, f"{times[0]:.1f} s", f"{warm * 1e3:.1f} ms", f"{warm / plain:.2f}x"
            print(LINE.format(*row), flush=True)


if __name__ == "__main__":
    main()
