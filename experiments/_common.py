"""What the experiments share: a study trained into a saved record, its figures in rows, the end of a figure."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxinit as ji
from jaxinit.plot import save
from jaxinit.records._convergence_table import format_crossing, format_estimate

HERE = Path(__file__).parent


def names() -> list[str]:
    """The experiments: every folder with a run.py."""
    return sorted(path.parent.name for path in HERE.glob("*/run.py"))


def script(experiment: str, part: str) -> ModuleType:
    """`experiments/<experiment>/<part>.py` as a module."""
    name = f"{experiment}.{part}"
    spec = importlib.util.spec_from_file_location(name, HERE / experiment / f"{part}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no experiments/{experiment}/{part}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draws(experiment: str) -> bool:
    """Whether it has a figure. Its `outcome(out)` is in figure.py then, else in run.py."""
    return (HERE / experiment / "figure.py").is_file()


def train(out: Path, name: str, *study: Any, **options: Any) -> ji.Convergence:
    """`ji.compare`, going on from what an interrupted call left, with its record saved as `out/<name>.npz`."""
    record = ji.compare(*study, resume=out / f"unfinished_{name}.npz", progress=True, **options)
    record.save(out / f"{name}.npz")
    return record


def rows(record: ji.Convergence) -> list[dict[str, Any]]:
    """One row an initializer: test accuracy at its best rate and at the common one, steps to a level, divergence."""
    best, common, steps = record.summary(), record.summary(at="common"), record.steps_to()
    rate, edge, diverged = record.best_rate(), record.at_edge(), record.divergence_rate()
    shared = f"{record.learning_rates[record.common_rate()]:g}"
    return [
        {
            "initializer": name,
            "best rate": f"{record.learning_rates[rate[i]]:g}" + {0: "", -1: " ▼", 1: " ▲"}[int(edge[i])],
            "test accuracy": format_estimate(best[name]),
            "at the common rate": f"{format_estimate(common[name])} at {shared}",
            "steps to the level": f"{format_crossing(steps[name])} to {steps[name].threshold:.2f}",
            "diverged": f"{100 * diverged[i].mean():.0f} %",
        }
        for i, name in enumerate(record.initializers)
    ]


def text(outcome: str | Sequence[Any]) -> str:
    """Rows as a Markdown table; text and lines of text as they are."""
    if isinstance(outcome, str):
        return outcome
    if not outcome or isinstance(outcome[0], str):
        return "\n".join(outcome)
    head = list(outcome[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in outcome:
        cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def finish(figure: Any, target: Path) -> Path:
    """Save a figure of several panels, their titles small enough for one line."""
    for ax in figure.axes:
        ax.title.set_fontsize(10)
    return save(figure, target, dpi=110)
