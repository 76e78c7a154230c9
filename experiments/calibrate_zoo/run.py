"""Models whose scales are off by ten either way at random, through `calibrate`; measured again by `watch`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import script

import jaxinit as ji

METHODS = ("lsuv", "analytic", "critical")
#: Cotangents over which gradients are averaged.
KEYS = 8
#: Of the tests: homogeneous, normalized and recurrent.
TINY = ("leaky ReLU MLP, 30 layers", "mixture of experts (einsum)")


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


class Look:
    """Second moments of the products of a model, and lengths of gradients there: compiled once a model."""

    def __init__(self, animal: Any, params: Any) -> None:
        self.x = animal.x
        self.watch = ji.watch(animal.model, params, animal.x, sites="ops")
        self.call = jax.jit(lambda p, key: self.watch(p, self.x, key=key))

    def __call__(self, params: Any) -> ji.Propagation:
        return self.watch.record([self.call(params, jax.random.key(1000 + n)) for n in range(KEYS)])


def squares(run: ji.Propagation) -> dict[str, float]:
    return {s: float(v.mean()) for s, v in zip(run.sites, run.second_moment.mean, strict=True)}


def lengths(run: ji.Propagation) -> dict[str, float]:
    """Mean over cotangents of the sum of squares of the gradient at a site."""
    sizes = [float(np.prod(site.shape)) for site in run.layout]
    return {
        s: float(v.mean()) * n for s, v, n in zip(run.sites, run.grad_second_moment.mean, sizes, strict=True)
    }


def examine(animal: Any, zoo: Any, out: Path, seed: int = 0) -> list[dict[str, Any]]:
    params = zoo.spoiled(animal, seed)
    look = Look(animal, params)
    bad = look(params)
    rows = []
    for method in METHODS:
        start = time.perf_counter()
        new, record = ji.calibrate(animal.model, animal.x, jax.random.key(seed), params=params, method=method)
        seconds = time.perf_counter() - start
        record.save(out / "records" / f"{slug(animal.name)}-{method}.npz")
        after = look(new)
        rows.append(
            {
                "model": animal.name, "method": method, "sites": len(record), "counts": record.counts,
                "evaluations": record.evaluations, "seconds": round(seconds, 2),
                **moments(record, squares(bad), squares(after), method),
                **gradients(record, lengths(bad), lengths(after)),
                "left": [str(site) for site in record if not site.ok],
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def moments(record: Any, bad: dict[str, float], after: dict[str, float], method: str) -> dict[str, Any]:
    """How far second moments are from their targets, at sites that say they were set by theirs."""
    chosen = [s for s in record if s.status == "converged" and (method != "critical" or s.why)]
    off = {s.name: abs(after[s.name] / s.target - 1) for s in chosen if s.name in after}
    was = [bad[name] for name in off if bad[name] > 0]
    worst = max(off, key=off.__getitem__) if off else ""
    return {
        "checked": len(off), "worst": off.get(worst, 0.0), "worst site": worst,
        "before": [min(was, default=0.0), max(was, default=0.0)],
    }  # fmt: skip


def gradients(record: Any, bad: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """First over last length of the gradient, between the sites that were scaled; and over the longest stretch of
    layers without skips (those that "critical" sets by chi_1)."""
    scaled = [s.name for s in record if s.status == "converged" and s.name in after]
    ruled = [s for s in record if s.status == "converged" and not s.why and s.target == 1.0]
    whole = (scaled[0], scaled[-1])

    def ratio(found: dict[str, float], ends: tuple[str, str]) -> float:
        first, last = found[ends[0]], found[ends[1]]
        return first / last if last > 0 else float("nan")

    return {
        "gradient before": ratio(bad, whole), "gradient after": ratio(after, whole),
        "ruled": len(ruled) if record.method == "critical" else 0,
        "chain": record.figures.get("product of chi_1"), "stretch": record.figures.get("layers in a row"),
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
        low, high = data["before"]
        chain = critical["chain"]
        table.append(
            {
                "model": name,
                "sites": str(data["sites"]),
                "second moments before": f"{low:.1e} to {high:.1e}",
                "lsuv: worst off": f"{100 * data['worst']:.2g} %",
                "evaluations": str(data["evaluations"]),
                "analytic: worst off": f"{100 * theory['worst']:.2g} %",
                "gradient first/last before": f"{data['gradient before']:.1e}",
                "lsuv": f"{data['gradient after']:.2g}",
                "critical": f"{critical['gradient after']:.2g}",
                "chi_1 set at": f"{critical['ruled']}",
                "longest stretch": "" if chain is None else f"{critical['stretch']:.0f} layers: {chain:.3g}",
            }
        )
    return table
