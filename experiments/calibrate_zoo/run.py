"""Models whose scales are off by ten either way at random, through `calibrate`; measured again by `watch`."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import script

import jaxinit as ji

METHODS = ("lsuv", "analytic", "critical")
#: Cotangents over which gradients are averaged: of a network of one direction, the mean of so many squares of normals.
KEYS = 64
#: Fresh draws, each calibrated, over which a prediction for the mean over draws is judged.
DRAWS = 8
#: Of the tests: homogeneous, normalized and recurrent.
TINY = ("leaky ReLU MLP, 30 layers", "mixture of experts (einsum)")


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


class Look:
    """Second moments of the products of a model, and lengths of gradients there: compiled once a model."""

    def __init__(self, animal: Any, params: Any) -> None:
        self.watch = ji.watch(animal.model, params, animal.x, sites="ops")
        self.call = jax.jit(lambda p, key: self.watch(p, animal.x, key=key))

    def __call__(self, params: Any, keys: int = KEYS) -> tuple[dict[str, float], dict[str, float]]:
        """By site as `calibrate` names it, steps of time together: second moments, and the mean over cotangents of the
        sum of squares of the gradient."""
        run = self.watch.record([self.call(params, jax.random.key(1000 + n)) for n in range(keys)])
        square, length = dict[str, list[float]](), dict[str, list[float]]()
        for site, q, g in zip(run.layout, run.second_moment.mean, run.grad_second_moment.mean, strict=True):
            for name in {site.name, re.sub(r"\[\d+\]", "", site.name)}:
                square.setdefault(name, []).append(float(q.mean()))
                length.setdefault(name, []).append(float(g.mean() * np.prod(site.shape)))
        return {n: float(np.mean(v)) for n, v in square.items()}, {n: sum(v) for n, v in length.items()}


def examine(animal: Any, zoo: Any, out: Path, seed: int = 0) -> list[dict[str, Any]]:
    params = zoo.spoiled(animal, seed)
    look = Look(animal, params)
    bad = look(params)
    rows = []
    for method in METHODS:
        wall, cpu = time.perf_counter(), time.process_time()
        new, record = ji.calibrate(animal.model, animal.x, jax.random.key(seed), params=params, method=method)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        record.save(out / "records" / f"{slug(animal.name)}-{method}.npz")
        after = look(new)
        row = {
            "model": animal.name, "method": method, "sites": len(record), "counts": record.counts,
            "evaluations": record.evaluations, "seconds": round(wall, 2), "CPU seconds": round(cpu, 2),
            **moments(record, bad[0], after[0]), **gradients(record, bad[1], after[1]),
            "figures": record.figures, "left": [str(site) for site in record if not site.ok],
        }  # fmt: skip
        if method == "analytic":
            row |= over_draws(animal, zoo, look)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def moments(record: Any, bad: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """How far second moments are from 1, at sites that came to rest."""
    off = {s.name: abs(after[s.name] - 1) for s in record if s.status == "converged"}
    was = [bad[name] for name in off if bad[name] > 0]
    worst = max(off, key=off.__getitem__) if off else ""
    return {
        "checked": len(off), "worst": off.get(worst, 0.0), "worst site": worst,
        "before": [min(was, default=0.0), max(was, default=0.0)],
        "after": [min((after[n] for n in off), default=0.0), max((after[n] for n in off), default=0.0)],
    }  # fmt: skip


def gradients(record: Any, bad: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """First over last square of the gradient's length, between the sites that were scaled."""
    scaled = [s.name for s in record if s.parameters]

    def ratio(found: dict[str, float]) -> float:
        first, last = found[scaled[0]], found[scaled[-1]]
        return first / last if last > 0 else float("nan")

    return {"gradient before": ratio(bad), "gradient after": ratio(after)}


def over_draws(animal: Any, zoo: Any, look: Look) -> dict[str, Any]:
    """The worst distance of a mean over draws, each calibrated, from its target; with its standard error, that of a
    mean of lognormal numbers, and what a single draw does.

    A distance that exceeds 15 % by at most twice its standard error is within it as far as the draws can tell.
    """
    logs, sites, measured = [], list[str](), 0
    for seed in range(1, 1 + DRAWS):
        new, record = ji.calibrate(
            animal.model, animal.x, jax.random.key(seed), params=zoo.spoiled(animal, seed), method="analytic"
        )
        if seed == 1:
            sites = [s.name for s in record if s.status == "converged"]
            measured = sum(s.why.startswith("measured") for s in record)
        found = look(new, 1)[0]
        logs.append(np.log([found[name] for name in sites]))
    spread = np.std(logs, axis=0, ddof=1)
    off, error = np.abs(np.exp(logs).mean(axis=0) - 1), np.sqrt(np.expm1(spread**2) / DRAWS)
    worst = int(np.argmax(off - 2 * error))
    return {
        "mean off": float(off[worst]), "standard error": float(error[worst]), "mean site": sites[worst],
        "mean within": bool(off[worst] - 2 * error[worst] <= 0.15), "judged": len(sites), "measured": measured,
        "log spread of a draw": [float(np.median(spread)), float(np.max(spread))],
    }  # fmt: skip


def main(out: Path, *, tiny: bool = False) -> Path:
    zoo = script("calibrate_zoo", "zoo")
    begin = time.perf_counter()
    animals = [a for a in zoo.zoo() if not tiny or a.name in TINY]
    (out / "records").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for animal in animals:
        rows += examine(animal, zoo, out)
        found = {"rows": rows, "seconds": time.perf_counter() - begin}
        (out / "zoo.json").write_text(json.dumps(found, indent=1))
    return out


def outcome(out: Path) -> list[dict[str, str]]:
    """One row a model."""
    rows = json.loads((out / "zoo.json").read_text())["rows"]
    table = []
    for name in dict.fromkeys(r["model"] for r in rows):
        own = {r["method"]: r for r in rows if r["model"] == name}
        data, theory, critical = (own[m] for m in METHODS)
        mean, error = 100 * theory["mean off"], 100 * theory["standard error"]
        low, high = data["before"]
        least, largest = critical["after"]
        table.append(
            {
                "model": name,
                "second moments before": f"{low:.0e} to {high:.0e}",
                "lsuv: worst off": f"{data['worst']:.0e}",
                "analytic: mean of draws off": f"{mean:.0f} ± {error:.0f} %",
                "measured": f"{theory['measured']} of {theory['judged']}",
                "a draw": f"× {np.exp(theory['log spread of a draw'][1]):.2g}",
                "gradient before": f"{data['gradient before']:.0e}",
                "lsuv": f"{data['gradient after']:.2g}",
                "critical": f"{critical['gradient after']:.2g}",
                "critical: second moments": f"{least:.2g} to {largest:.2g}",
            }
        )
    return table
