"""Every network of the zoo through `diagnose`: what was planted against what was found.

Records that DIR/records already holds are not made again: change a threshold and run once more.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _common import script

import jaxinit as ji
from jaxinit.diagnose import diagnose
from jaxinit.records import Statistic

SEEDS = 32
#: The first seed of each half's networks.
FIRST = {"tuning": 0, "test": 1000}
#: Seeds a record -> how many records of that many are made of the 32 networks.
BATCHES = {16: 2, 4: 8, 1: 8}


def part(record: ji.Propagation, seeds: slice) -> ji.Propagation:
    """The record of some of the seeds, without their samples."""
    chosen = {name: Statistic.of(stat.samples[seeds]) for name, stat in record.statistics()}
    return dataclasses.replace(record, **chosen)


#: How sure a finding is, from its severity; what names a planted fault in a note is neither named nor missed.
LEVELS = {"error": "sure", "warning": "sure", "likely": "likely", "note": "noted"}


def certainty(found: ji.Diagnosis, kinds: frozenset[str]) -> str:
    """How surely one of the kinds was found, of a healthy network anything that is no note; "" if it was not."""
    said = [f for f in found if f.kind in kinds or (not kinds and f.severity != "note")]
    return LEVELS[said[0].severity] if said else ""


def examine(
    animal: Any, kinds: frozenset[str], seeds: Any, batches: dict[int, int], path: Path
) -> list[dict[str, Any]]:
    """One row a record: how many seeds, what was found, how surely what was planted, the word, the notes."""
    if not path.is_file():
        ji.simulate(animal.network, seeds, keep_seeds=True).save(path)
    whole = ji.load(path)
    rows = []
    for size, count in batches.items():
        for b in range(count):
            d = diagnose(part(whole, slice(b * size, (b + 1) * size)))
            level = certainty(d, kinds)
            rows.append(
                {
                    "name": animal.name, "planted": animal.planted, "seeds": size, "batch": b, "word": d.word,
                    "kinds": [f.kind for f in d.at_least("likely")], "certainty": level,
                    "notes": [f.kind for f in d if f.severity == "note"], "hit": level in ("sure", "likely"),
                }
            )  # fmt: skip
    return rows


def main(out: Path, *, tiny: bool = False, again: bool = False) -> Path:
    """All records of both halves; the seeds of the test half are of their own."""
    module = script("diagnose_zoo", "zoo")
    animals = module.zoo()
    start = time.perf_counter()
    test = {id(a) for a in module.half(animals, "test")}
    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True, exist_ok=True)
    for n, animal in enumerate(animals):
        if tiny and animal.network.depth != 10:
            continue
        which, batches = "test" if id(animal) in test else "tuning", {4: 1} if tiny else BATCHES
        kinds, path = module.KINDS[animal.planted], out / "records" / f"{n:02d}.npz"
        if again and not path.is_file():
            continue
        seeds: Any = 4 if tiny else np.arange(SEEDS) + FIRST[which]
        with np.errstate(all="ignore"):
            found = examine(animal, kinds, seeds, batches, path)
        rows += [{"half": which, **r} for r in found]
        words = ", ".join(dict.fromkeys(r["word"] for r in found))
        print(f"{which:7} {animal.planted:10} {animal.name}: {words}", file=sys.stderr, flush=True)
        content = {"seconds": time.perf_counter() - start, "rows": rows}
        (out / "zoo.json").write_text(json.dumps(content, indent=0))
    return out


def confusion(rows: list[dict[str, Any]]) -> str:
    """Planted faults against the word of the diagnosis, in numbers of records, and how surely they were named."""
    words = list(dict.fromkeys(r["word"] for r in rows))
    words.sort(key=lambda w: (w != "alive", w))
    lines = [
        "| planted | networks | " + " | ".join(words) + " | surely | likely | in a note | not named |",
        "|" + "---|" * (len(words) + 6),
    ]
    for planted in dict.fromkeys(r["planted"] for r in rows):
        own = [r for r in rows if r["planted"] == planted]
        counts = Counter(r["word"] for r in own)
        levels = Counter(r["certainty"] for r in own)
        networks = len({r["name"] for r in own})
        cells = " | ".join(str(counts.get(w, "")) for w in words)
        named = " | ".join(str(levels.get(level, "")) for level in ("sure", "likely", "noted", ""))
        lines.append(f"| {planted} | {networks} | {cells} | {named} |")
    return "\n".join(lines)


def outcome(out: Path) -> str:
    """The confusion tables, by half and number of seeds, and what went wrong."""
    rows = json.loads((out / "zoo.json").read_text())["rows"]
    parts = []
    for which in ("tuning", "test"):
        for size in sorted({r["seeds"] for r in rows}, reverse=True):
            own = [r for r in rows if r["half"] == which and r["seeds"] == size]
            healthy = [r for r in own if r["planted"] == "healthy"]
            wrong = [r for r in own if r["hit"] == (r["planted"] == "healthy")]
            parts.append(
                f"### {which} half, {size} seeds a record: {sum(r['hit'] for r in healthy)} false alarms in "
                f"{len(healthy)} records, {sum(not r['hit'] for r in own if r['planted'] != 'healthy')} missed of "
                f"{len(own) - len(healthy)}\n\n{confusion(own)}\n\nOf healthy networks: not named is right."
            )
            mistakes = Counter((r["planted"], r["name"], ", ".join(r["kinds"]) or "nothing") for r in wrong)
            parts += [f"- {p}, {n}: {k} ({c} records)" for (p, n, k), c in mistakes.items()]
    notes = Counter(k for r in rows if r["planted"] == "healthy" for k in set(r["notes"]))
    total = sum(r["planted"] == "healthy" for r in rows)
    parts.append("Notes on healthy networks, of " + str(total) + " records: " + str(dict(notes)))
    return "\n\n".join(parts)
