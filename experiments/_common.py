"""What the experiments share: a study trained into a saved record, its figures in rows, the end of a figure."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from flax import linen as nn

import jaxinit as ji
from jaxinit.models import Model, from_functions
from jaxinit.plot import curves, learning_rate_sensitivity, new_figure, save
from jaxinit.plot._style import look
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


@dataclasses.dataclass(frozen=True)
class Scheme:
    """An arm of a study that draws a whole model: `ji.reinit` with these rules."""

    rules: tuple[tuple[str, Any], ...]

    def __call__(self, params: Any, key: Any) -> Any:
        return ji.reinit(params, dict(self.rules), key)


def schemes(**arms: dict[str, Any]) -> dict[str, Scheme]:
    """Arms by name; "_" in a name reads " "."""
    return {name.replace("_", " "): Scheme(tuple(rules.items())) for name, rules in arms.items()}


def by_schemes(module: nn.Module) -> Model:
    """A model whose initializers are schemes; one compiled draw for each."""

    @functools.partial(jax.jit, static_argnums=0)
    def init(scheme: Scheme | None, key: Any, x: Any) -> Any:
        params = module.init(key, x)["params"]
        return params if scheme is None else scheme(params, key)

    return from_functions(init, lambda params, x: module.apply({"params": params}, x), type(module).__name__)


def train(out: Path, name: str, *study: Any, **options: Any) -> ji.Convergence:
    """`ji.compare`, going on from what an interrupted call left, with its record saved as `out/<name>.npz`."""
    record = ji.compare(*study, resume=out / f"unfinished_{name}.npz", progress=True, **options)
    record.save(out / f"{name}.npz")
    return record


def effective_rank(matrix: np.ndarray) -> float:
    """exp of the entropy of the normalized singular values (Roy & Vetterli 2007); 0 for a matrix of zeros."""
    s = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    if s[0] == 0:
        return 0.0
    p = s[s > 1e-12 * s[0]] / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


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


def accuracy_curves(record: ji.Convergence, ax: Any, title: str) -> None:
    """Validation accuracy of each initializer at its best rate, with room for the legend."""
    curves(record, "validation_accuracy", ax=ax).legend(fontsize=8, loc="upper left", ncols=2)
    ax.set(ylim=(-0.03, 1.05 + 0.1 * -(-len(record.initializers) // 2)), yticks=np.linspace(0.0, 1.0, 6))
    ax.set_title(title)


def by_rate(record: ji.Convergence, ax: Any, title: str) -> None:
    """Test accuracy over the learning rate, with room for the legend."""
    learning_rate_sensitivity(record, "test_accuracy", ax=ax).legend(fontsize=8, loc="upper left")
    ax.set(ylim=(-0.03, 1.05 + 0.07 * len(record.initializers)), yticks=np.linspace(0.0, 1.0, 6))
    ax.set_title(title)


def by_depth(found: dict[int, ji.Convergence], ax: Any, axis: str) -> None:
    """Test accuracy at the best rate of each initializer over the depth: medians with 95 % bootstrap intervals."""
    record = next(iter(found.values()))
    for i, name in enumerate(record.initializers):
        estimates = [study.summary()[name] for study in found.values()]
        value, low, high = (
            np.array([getattr(e, part) for e in estimates]) for part in ("value", "low", "high")
        )
        style = look(i)
        ax.errorbar(
            list(found), value, [value - low, high - value], color=style.colour, ls=style.dash,
            marker=style.marker, ms=5, lw=1.4, capsize=3, label=name,
        )  # fmt: skip
    ax.set(xlabel=axis, ylabel="test accuracy", ylim=(-0.03, 1.03))
    ax.set_title(f"after {record.steps} steps at the best rate; {len(record.seeds)} seeds, 95 % intervals")
    ax.legend(fontsize=8)


def depth_figure(
    found: dict[int, ji.Convergence],
    unit: str,
    before: dict[str, np.ndarray],
    quantity: str,
    title: str,
    scale: str,
) -> Any:
    """Over the depth: a figure before training, by initializer, and test accuracy; curves and rates of the deepest."""
    deepest = max(found)
    figure, (start, accuracy, training, rates) = new_figure(2, 2, size=(10.6, 7.8))
    for i, (name, values) in enumerate(before.items()):
        style = look(i)
        start.plot(list(found), values, color=style.colour, marker=style.marker, ms=5, label=name)
    start.set(xlabel=unit, ylabel=quantity, yscale=scale)
    start.set_title(title)
    start.legend(fontsize=8)
    by_depth(found, accuracy, unit)
    for ax in (start, accuracy):
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(found), [str(depth) for depth in found])
    seeds = len(found[deepest].seeds)
    accuracy_curves(
        found[deepest], training, f"{deepest} {unit} at their best rates, {seeds} seeds: median and range"
    )
    by_rate(found[deepest], rates, f"{deepest} {unit}")
    return figure


def finish(figure: Any, target: Path) -> Path:
    """Save a figure of several panels, their titles small enough for one line."""
    for ax in figure.axes:
        ax.title.set_fontsize(10)
    return save(figure, target, dpi=110)
