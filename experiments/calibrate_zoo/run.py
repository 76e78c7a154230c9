"""Models whose scales are off by ten either way at random, through `calibrate`; measured again by `watch`.

Each model's rows are kept in DIR/models with the state of the code they were made by. A run goes on where one was cut
short; what another state of the code had found is found anew, and never stands in one table with the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from _common import HERE, script

import jaxinit as ji

METHODS = ("lsuv", "analytic", "critical")
#: Cotangents over which gradients are averaged: of a network of one direction, the mean of so many squares of normals.
KEYS = 64
#: Fresh draws, each calibrated, over which a prediction for the mean over draws is judged.
DRAWS = 16
#: Where the standard error of a site's mean over those exceeds `UNSURE`, kernels are drawn at the scales that the same
#: analysis suggests, in one compiled program, until it is below `SURE`, `CAP` draws at most.
UNSURE, SURE, CAP = 0.05, 0.02, 16384


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
            "model": animal.name, "method": method, "keys": KEYS, "sites": len(record), "counts": record.counts,
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
    """The worst distance of a mean over draws, each calibrated, from its target, of the sites that no draw measures;
    with its standard error, that of a mean of lognormal numbers, and what a single draw does.

    A distance that exceeds 15 % by at most twice its standard error is within it as far as the draws can tell.
    """
    drawn, records = list[dict[str, float]](), list[Any]()
    for seed in range(1, 1 + DRAWS):
        new, record = ji.calibrate(
            animal.model, animal.x, jax.random.key(seed), params=zoo.spoiled(animal, seed), method="analytic"
        )
        if all(not s.parameters or s.why.startswith("measured") for s in record):
            why = [reason(s.why) for s in record if s.why.startswith("measured")]
            return {"draws": seed, "judged": 0, "measured": len(why), "why": why, "mean within": True}
        drawn.append(look(new, 1)[0])
        records.append(record)
    said = [s for s in records[0] if s.why.startswith("measured")]
    apart = {
        s.name
        for record in records
        for s in record
        if s.why.startswith("measured") or s.status != "converged"
    }
    sites = [s.name for s in records[0] if s.name not in apart]
    row = {"draws": DRAWS, "judged": len(sites), "measured": len(said), "why": [reason(s.why) for s in said]}
    logs = np.log([[found[name] for name in sites] for found in drawn])
    if np.max(judged(logs)[1]) > UNSURE:
        sites, logs = by_law(animal.model, animal.x, sites)
        row |= {"draws": len(logs), "by law": True}
    off, error = judged(logs)
    worst = int(np.argmax(off - 2 * error))
    return row | {
        "mean off": float(off[worst]), "standard error": float(error[worst]), "mean site": sites[worst],
        "mean within": bool(off[worst] - 2 * error[worst] <= 0.15),
        "log spread of a draw": float(np.max(np.std(logs, axis=0, ddof=1))),
    }  # fmt: skip


def judged(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By site, how far the mean over draws is from 1, and its standard error; of the logs, (draws, sites)."""
    spread = np.std(logs, axis=0, ddof=1)
    return np.abs(np.exp(logs).mean(axis=0) - 1), np.sqrt(np.expm1(spread**2) / len(logs))


def by_law(model: Any, x: Any, sites: Sequence[str], first: int = 1024) -> tuple[list[str], np.ndarray]:
    """The logs of second moments at `sites`, relative to what the analysis expects there, (draws, sites), of kernels
    drawn at the scales that it suggests (one for all layers of a stack): until the standard error of each site's mean
    is below `SURE`, or `CAP` draws are done."""
    scales = {s.parameter: s.stddev / s.now for s in ji.suggest(model, x, residual=False) if s.now > 0}

    def scaled(path: Any, leaf: Any) -> Any:
        return leaf * jnp.asarray(scales.get("/".join(k.key for k in path), 1.0), leaf.dtype)

    def draw(key: Any) -> Any:
        return jax.tree_util.tree_map_with_path(scaled, model.init(key, x)["params"])

    def apply(params: Any, x: Any) -> Any:
        return model.apply({"params": params}, x)

    said = ji.analyze((draw, apply), x)
    expected = said.second_moment.mean[[said.sites.index(name) for name in sites], 0]
    logs, done, more = [], 0, first
    while more:
        run = ji.probe(
            (draw, apply), x, seeds=np.arange(done, done + more), sites="ops", backward=False, keep_seeds=True
        )
        at = [run.sites.index(name) for name in sites]
        logs.append(np.log(run.second_moment.samples.mean(axis=2)[:, at] / expected))
        done += more
        more = min(done, CAP - done) if np.max(judged(np.concatenate(logs))[1]) > SURE else 0
    return list(sites), np.concatenate(logs)


def reason(why: str) -> str:
    """Of a measured site, without its numbers."""
    return re.sub(r"\d[\d.e+-]*", "x", "; ".join(why.split("; ")[1:]))


def state() -> dict[str, str]:
    """What the numbers depend on: the library, the models, what is done with them, and what compiles them."""
    files = [
        *sorted(Path(ji.__file__).parent.rglob("*.py")),
        *(HERE / "calibrate_zoo" / n for n in ("run.py", "zoo.py")),
    ]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return {"code": digest[:12], "jax": jax.__version__, "flax": flax.__version__}


def asked(animals: list[Any], models: Sequence[str]) -> list[Any]:
    """The models whose names hold one of these, whatever their case; all without any."""
    for text in models:
        if not any(text.lower() in a.name.lower() for a in animals):
            raise SystemExit(f"no model is called {text!r}: " + "; ".join(a.name for a in animals))
    return [a for a in animals if not models or any(text.lower() in a.name.lower() for text in models)]


def main(out: Path, *, tiny: bool = False, models: Sequence[str] = ()) -> Path:
    """Rows of each model that are not there already; once all are, the README of the experiment."""
    zoo, now = script("calibrate_zoo", "zoo"), state()
    animals = zoo.zoo(tiny)
    for folder in ("records", "models"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for animal in asked(animals, models):
        path = out / "models" / f"{slug(animal.name)}.json"
        held = json.loads(path.read_text()) if path.is_file() else None
        if held is not None and held["state"] == now:
            print(f"{animal.name}: there already", file=sys.stderr)
            continue
        if held is not None:
            print(f"{animal.name}: found by another state of the code, again", file=sys.stderr)
        wall, cpu = time.perf_counter(), time.process_time()
        rows = examine(animal, zoo, out)
        found = {
            "state": now, "seconds": time.perf_counter() - wall, "CPU seconds": time.process_time() - cpu, "rows": rows
        }  # fmt: skip
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found, indent=1))
        part.replace(path)
    held, states = load(out)
    if not tiny and len(states) == 1 and len(held) == len(animals):
        (HERE / "calibrate_zoo" / "README.md").write_text(script("calibrate_zoo", "readme").page(held))
    return out


def load(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """What is there, in the order of the zoo, and the states of the code that found it."""
    zoo = script("calibrate_zoo", "zoo").zoo
    paths = [out / "models" / f"{slug(a.name)}.json" for a in (*zoo(), *zoo(tiny=True))]
    held = [json.loads(path.read_text()) for path in paths if path.is_file()]
    return held, [json.loads(text) for text in sorted({json.dumps(h["state"]) for h in held})]


def outcome(out: Path) -> list[str]:
    """Both tables, and what is said of gradients that are not level."""
    held, states = load(out)
    if len(states) > 1:
        named = "; ".join(f"{s['code']}: {sum(h['state'] == s for h in held)} models" for s in states)
        return [f"Found by {len(states)} states of the code ({named}): no table. Run it again."]
    return script("calibrate_zoo", "readme").tables(held)
