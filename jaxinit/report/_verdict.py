"""One verdict a network, of its signal and of its training together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxinit.diagnose import Verdict, propagation_verdict
from jaxinit.records import Convergence, Diagnosis, Propagation


def verdicts(records: Mapping[str, Any]) -> list[Verdict]:
    """One verdict a network, in the order of the records.

    Where an initializer of a training comparison bears the label of a Propagation, one verdict speaks of
    both: what happens at initialization, then what training made of it.
    """
    out: dict[str, Verdict] = {}
    for label, record in records.items():
        if isinstance(record, Propagation):
            out[label] = propagation_verdict(label, record)
        elif isinstance(record, Diagnosis):
            out[label] = Verdict(label, record.word, record.verdict.rstrip("."))
    for record in records.values():
        if not isinstance(record, Convergence):
            continue
        for name, sentence in record.verdicts().items():
            sentence = sentence.rstrip(".")
            if name in out:
                known = out[name]
                said = sentence.removeprefix("Trains: ")
                said = said[:1].lower() + said[1:]
                out[name] = dataclasses.replace(known, text=f"{known.text}. Training: {said}")
            else:
                out[name] = Verdict(name, "", sentence)
    return list(out.values())
