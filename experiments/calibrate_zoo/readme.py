"""The page of this experiment, every figure of it from the rows of one run."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import script, text

__all__ = ["page", "tables"]

#: Squares of gradients' lengths are level where the first is within this factor of the last, either way.
LEVEL = 2.0

TITLE = "# Does `calibrate` mend models whose scales are off by ten, either way, layer by layer at random?"
CLAIM = """
**Claim**: after calibration by data every calibrated site's second moment is within 5 % of its target, whatever the
model; gradients keep their length within a factor 2 where scales can do that; where they cannot, the status says why.
By analysis the mean over draws is within 15 %.
"""
COMMANDS = """
    python experiments calibrate_zoo                     # {models} models, {minutes:.0f} min of CPU; goes on if cut
    python experiments calibrate_zoo --models LSTM VGG   # some of them
    python experiments calibrate_zoo --tiny              # two of them
"""
MODELS = """
`zoo.py` holds the models: deep MLPs (tanh, gelu, leaky ReLU, a nonlinearity in no catalogue, bfloat16), VGG-like,
residual CNNs without and with norm, U-Net, Transformers (pre-LN with a tied head, post-LN, gated, scanned and
rematerialized, bfloat16 signals), LSTM, experts by einsum. Every matrix, and every layer of a stack, is multiplied by
10^u, u uniform in (-1, 1). Afterwards `watch` measures all sites again, with {keys} random cotangents of its own for
the gradients. Gradients are squares of lengths, at the first site that is scaled over those at the last.
"""
ORIGIN = "This page is written by `readme.py`, from one run of one state of the code ({code}, jax {jax}, flax {flax})."
DRAWN = """
What is predicted is a mean over draws: the worst site of those that are not measured, by its distance after twice its
standard error, that of a mean of so many lognormal numbers. A single draw of a narrow network strays by the factor
beside it, and no prediction can know which way. {within} of {all} models are within 15 % as far as the draws can
tell{outside}.{law}
"""
LAW = """ Where {draws} draws, each calibrated, say less than a standard error of {unsure:.0f} %, kernels are drawn at
the scales that the same analysis suggests, until it is below {sure:.0f} % at every site or {cap} are drawn: {models}.
"""


def page(held: list[dict[str, Any]]) -> str:
    """The whole README."""
    minutes = sum(h["CPU seconds"] for h in held) / 60
    commands = COMMANDS.format(models=len(held), minutes=minutes).strip("\n")
    models = MODELS.format(keys=held[0]["rows"][0]["keys"])
    parts = [
        TITLE, paragraph(CLAIM), commands, paragraph(models), paragraph(ORIGIN.format(**held[0]["state"])),
        *tables(held),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def paragraph(words: str) -> str:
    return textwrap.fill(" ".join(words.split()), 124, break_long_words=False, break_on_hyphens=False)


def tables(held: list[dict[str, Any]]) -> list[str]:
    """By data and by analysis, each with what it shows."""
    models = [{row["method"]: row for row in h["rows"]} for h in held]
    return [
        "**Outcome, by data**:", text([_data(m) for m in models]), *_of_data(models), *_of_gradients(models),
        "**By analysis** (`method=\"analytic\"`):", text([_analysis(m) for m in models]), *_of_analysis(models),
    ]  # fmt: skip


def _data(m: dict[str, Any]) -> dict[str, str]:
    lsuv, critical = m["lsuv"], m["critical"]
    (low, high), (least, largest) = lsuv["before"], critical["after"]
    return {
        "model": lsuv["model"],
        "second moments before": f"{low:.0e} to {high:.0e}",
        "`lsuv`: worst off": f"{lsuv['worst']:.0e}",
        "gradient first/last before": f"{lsuv['gradient before']:.0e}",
        "`lsuv`": f"{lsuv['gradient after']:.2g}",
        "`critical`": f"{critical['gradient after']:.2g}",
        "second moments of `critical`": f"{least:.2g} to {largest:.2g}",
    }


def _of_data(models: list[dict[str, Any]]) -> list[str]:
    worst = max((m["lsuv"] for m in models), key=lambda row: row["worst"])
    within = sum(m["lsuv"]["worst"] <= 0.05 for m in models)
    plain, level = (sum(map(_level_of(method), models)) for method in ("lsuv", "critical"))
    left = [f"{m['lsuv']['model']}: {said}" for m in models for said in m["lsuv"]["left"]]
    return [
        paragraph(f"""Second moments after `lsuv` are within 5 % of their targets in {within} of {len(models)} models;
            the worst is off by {100 * worst["worst"]:.2g} % ({worst["model"]}, {worst["worst site"]}). Unit variance
            alone keeps the gradient within a factor {LEVEL:.0f} in {plain} of them, `critical` in {level}. The price is
            in the last column."""),
        *(["Sites that `lsuv` left, and why:", _listed(left)] if left else []),
    ]  # fmt: skip


def _of_gradients(models: list[dict[str, Any]]) -> list[str]:
    """What the statuses say where `critical` does not keep its promise."""
    uneven = [m["critical"] for m in models if not _level_of("critical")(m)]
    if not uneven:
        return []
    told = []
    for row in uneven:
        ends = [
            f"{what} {value:.3g}"
            for what, value in row["figures"].items()
            if what.endswith("first/last, now")
        ]
        silent = f"no site says why; measured by the calibration itself: {', '.join(ends)}"
        told.append(f"{row['model']}, {row['gradient after']:.2g}: {'; '.join(row['left']) or silent}")
    return [f"Beyond a factor {LEVEL:.0f} after `critical`, and what its sites say:", _listed(told)]


def _listed(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _level_of(method: str) -> Callable[[dict[str, Any]], bool]:
    return lambda m: 1 / LEVEL <= m[method]["gradient after"] <= LEVEL


def _analysis(m: dict[str, Any]) -> dict[str, str]:
    row = m["analytic"]
    judged = row["judged"] > 0
    return {
        "model": row["model"],
        "sites": str(row["sites"]),
        "measured": str(row["measured"]),
        "draws": str(row["draws"]) if judged else "",
        "mean over draws off": _off(row) if judged else "all measured",
        "at": row["mean site"] if judged else "",
        "spread of one draw": f"× {np.exp(row['log spread of a draw']):.2f}" if judged else "",
    }


def _off(row: dict[str, Any]) -> str:
    found = f"{100 * row['mean off']:.0f} ± {100 * row['standard error']:.0f} %"
    return found if row["mean within"] else f"**{found}**"


def _of_analysis(models: list[dict[str, Any]]) -> list[str]:
    rows = [m["analytic"] for m in models]
    outside = [r["model"] for r in rows if not r["mean within"]]
    why = Counter(reason for r in rows for reason in r["why"])
    many = [r["model"] for r in rows if r.get("by law")]
    run = script("calibrate_zoo", "run")
    law = LAW.format(
        draws=run.DRAWS, unsure=100 * run.UNSURE, sure=100 * run.SURE, cap=run.CAP, models=", ".join(many)
    )
    told = DRAWN.format(
        within=len(rows) - len(outside), all=len(rows), law=law if many else "",
        outside=f"; not {', '.join(outside)}" if outside else "",
    )  # fmt: skip
    reasons = (
        "Sites where the analysis may be wrong are measured on the batch, and say why (of the first draw):"
    )
    return [
        paragraph(told),
        *([reasons, _listed([f"{n} sites: {text}" for text, n in why.most_common()])] if why else []),
    ]
