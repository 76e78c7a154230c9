"""Every model of the zoo through `probe` and `diagnose`: what was planted against what was found, and where."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from _common import script

import jaxinit as ji

SEEDS = 8
ADAM = optax.adam(1e-3)
#: Records of one model, each of other networks.
ROOTS = (0, 1, 2)
#: Of the tests.
TINY = (
    "ReLU MLP: healthy", "ReLU MLP: one layer ×10", "ReLU MLP: constant weights", "tanh MLP (nnx): N(0, 1) weights",
)  # fmt: skip


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def measure(animal: Any, root: int, path: Path) -> ji.Propagation:
    """The record of a model, made if it is not there."""
    if not path.is_file():
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*the same signal for every seed", category=UserWarning
            )
            run = ji.probe(animal.model, animal.x, seeds=SEEDS, root=root, optimizer=ADAM, **animal.options)
        run.save(path)
    return ji.load(path)


def inside(names: tuple[str, ...], places: tuple[str, ...]) -> bool:
    """Whether one of the names is a place, or lies in one."""
    return any(f"/{place}" in f"/{name}" for name in names for place in places)


def row(animal: Any, run: ji.Propagation) -> dict[str, Any]:
    found = ji.diagnose(run)
    said = found.at_least("likely")
    named = [f for f in said if f.kind in animal.kinds] if animal.fault else list(said)
    return {
        "name": animal.name, "family": animal.family, "fault": animal.fault, "word": found.word,
        "hit": bool(named), "sure": any(f.severity != "likely" for f in named),
        "placed": None if animal.places is None else any(inside(f.where, animal.places) for f in named),
        "kinds": [f.kind for f in said], "where": [f.place for f in said], "what": [str(f) for f in found],
        "notes": [f.kind for f in found if f.severity == "note"], "verdict": found.verdict,
    }  # fmt: skip


def main(out: Path, *, tiny: bool = False, again: bool = False) -> Path:
    zoo = script("diagnose_models", "zoo")
    animals = zoo.zoo()
    tuning = {a.name for a in zoo.half(animals, "tuning")}
    (out / "records").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for animal in animals:
        if tiny and animal.name not in TINY:
            continue
        for root in ROOTS[:1] if tiny else ROOTS:
            path = out / "records" / f"{slug(animal.name)}-{root}.npz"
            if again and not path.is_file():
                continue
            with np.errstate(all="ignore"):
                found = row(animal, measure(animal, root, path))
            rows.append({"half": "tuning" if animal.name in tuning else "test", "root": root, **found})
        words = ", ".join(dict.fromkeys(k for r in rows if r["name"] == animal.name for k in r["kinds"]))
        print(f"{animal.name}: {words or 'nothing'}", file=sys.stderr, flush=True)
        content = {"seconds": time.perf_counter() - start, "rows": rows}
        (out / "zoo.json").write_text(json.dumps(content, indent=0))
        jax.clear_caches()  # of this model's programs, each of which holds pages of memory
    return out


def outcome(out: Path) -> str:
    """Counts by half, then the confusion table: what was planted, what was said, and in the right place."""
    rows = json.loads((out / "zoo.json").read_text())["rows"]
    lines = [
        "| half | models | false alarms: sure | likely | faults named surely | likely | missed | named elsewhere |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for half in ("tuning", "test"):
        own = [r for r in rows if r["half"] == half]
        if not own:
            continue
        bad, fine = [r for r in own if r["fault"]], [r for r in own if not r["fault"]]
        placed = [r for r in bad if r["hit"] and r["placed"] is not None]
        lines.append(
            f"| {half} | {len({r['name'] for r in own})} | {sum(r['sure'] for r in fine)} of {len(fine)} | "
            f"{sum(r['hit'] and not r['sure'] for r in fine)} | {sum(r['sure'] for r in bad)} of {len(bad)} | "
            f"{sum(r['hit'] and not r['sure'] for r in bad)} | {sum(not r['hit'] for r in bad)} | "
            f"{sum(not r['placed'] for r in placed)} of {len(placed)} |"
        )
    lines += ["", "| half | model | planted | said | named | in place |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(r["name"] for r in rows):
        own = [r for r in rows if r["name"] == name]
        said = Counter(kind for r in own for kind in set(r["kinds"]))
        words = ", ".join(k if n == len(own) else f"{k} ({n} of {len(own)})" for k, n in said.most_common())
        first = own[0]
        hits = sum(r["hit"] for r in own)
        named = f"{hits} of {len(own)}" if first["fault"] else "false alarm" if hits else "–"
        place = "–" if first["placed"] is None else f"{sum(bool(r['placed']) for r in own)} of {len(own)}"
        cells = (first["half"], first["family"], first["fault"] or "–", words or "alive", named, place)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
