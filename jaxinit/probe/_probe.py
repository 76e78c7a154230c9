"""The entry point: a model, inputs and seeds to a Propagation."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from jax.extend import core

from jaxinit import ensemble
from jaxinit._core import checks
from jaxinit._core.moments import Moments
from jaxinit.models import Marked, fitted, marked
from jaxinit.probe import _inputs as inputs
from jaxinit.probe import _losses as losses
from jaxinit.probe import _purity as purity
from jaxinit.probe._choices import Sites, choose_sites, choose_statistics
from jaxinit.probe._constants import equal_entries
from jaxinit.probe._evaluate import Watched
from jaxinit.probe._layout import Layout
from jaxinit.probe._program import Measure, Program
from jaxinit.probe._record import propagation
from jaxinit.probe._trace import Traced, refused, trace
from jaxinit.probe._treatment import Treatment, treat
from jaxinit.records import Propagation, Statistic

__all__ = ["measure_of", "probe"]

WEIGHTS = ("materialized", "implicit")
#: Up to this many examples are kept apart.
APART = 4
#: Bytes that the seeds computed together may keep.
_BYTES = 1 << 30
#: The most seeds computed together, and the most of a chunk whose seeds are computed one after the other.
_MOST, _PACK = 64, 8


def probe(
    model: Any,
    x: Any,
    *,
    seeds: Any,
    params: Any = None,
    loss: Callable[..., Any] | None = None,
    labels: Any = None,
    weights: str = "materialized",
    approximate: bool = False,
    backward: bool = True,
    record: Sequence[str] | None = None,
    train: bool = False,
    rngs: Mapping[str, Any] | None = None,
    method: Any = None,
    optimizer: Any = None,
    sites: Sites | None = None,
    keep_seeds: bool = False,
    root: int = 0,
    chunk: int | None = None,
    progress: bool | ensemble.Progress = False,
    devices: Any = None,
    resume: str | os.PathLike[str] | None = None,
) -> Propagation:
    """Draw a model for every seed and measure its signal and its gradients, module by module.

    The model is traced once, with its modules' boundaries marked; in the traced program every site reduces its
    value, and its gradient, to a few numbers on the spot. So scanned, rematerialized, conditional and jitted
    parts are seen like any other, a row for every iteration of a scan, and no activation leaves the program.
    One compiled program serves all seeds.

    Args:
        model: a linen module; an nnx factory `rngs -> module`; an nnx module (what it holds is the one draw:
            seeds=1); a pair `(init, apply)` with `init(key)` or `init(key, *args)` and `apply(params, *args)`;
            or a `jaxinit.models.Model`. It is left as it was.
        x: a batch: an array whose first axis counts the examples, a tuple of the call's arguments, or any other
            tree (one argument); with jax.ShapeDtypeStruct in place of an array, entries are drawn N(0, 1) for
            every seed. A list holds several batches of the same shapes: each seed's figures are averaged over
            them.
        seeds: a count, or distinct integers; network i is the model drawn with fold_in(key(root), i).
        params: what you hold, in place of drawn parameters (then seeds=1): a tree such as `variables` or
            `variables["params"]` of a linen module, `nnx.state(module)` or its pure dict of an nnx one; or the folder
            of an Orbax checkpoint of such a tree (`jaxinit.models.restore`).
        loss: `loss(output)`, or `loss(output, labels)` when labels are given, to a scalar. By default
            L = sum over examples of <r, f(x_a)> with r iid N(0, 1/n_out), the same for all examples, drawn per
            seed: gradients then speak of the network and not of a task. n_out is the size of the output for
            one example (of each leaf, if there are several).
        labels: arrays for the loss, or a list of them, one for each batch.
        weights: "materialized"; or "implicit": matrices with independent normal entries, and uniform orthogonal
            ones, that are only ever multiplied with the signal are never formed (also as batches of matrices, as
            kernels of convolutions, in groups of channels or delta orthogonal); nor are embeddings but for the rows
            looked up. Products are drawn from their law, forward and backward jointly, and the norms of their
            gradients are exact, so the figures have the same law at any width (other networks than those of the same
            seeds materialized, though), and memory and time grow with the width instead of its square. A matrix
            multiplied again (a recurrent cell, a layer called several times, an embedding that is the output head
            too) is drawn given all its products so far. Where products need more numbers than the matrix has (more
            than about a quarter of the width of signals in all for a square matrix multiplied again, half of it
            for one multiplied once), and for all other parameters, the parameter is materialized;
            `config["parameters"]` says of each what was done and why. Laws are read from the program that draws.
        approximate: with weights="implicit", also take truncated normal and uniform entries, and those rounded to
            16 bits, for normal ones of their variance: an error of order 1/width. Flax's defaults are truncated
            normal.
        backward: also measure gradients.
        record: names of statistics (`jaxinit.records.STATISTICS` and `PROBE_STATISTICS`); all by default.
        train: whether the model is told that it is being trained (batch statistics, dropout): a linen module by the
            argument `train`, `training`, `is_training` or `deterministic` of its `__call__`, an nnx module by its
            `train()` or `eval()`, a `Model` by the argument of its `apply`.
        rngs: streams of a linen module that stay the same for every seed, e.g. {"dropout": key}. All others
            follow from the seed.
        method: call this instead of `__call__`: a name, or a function `(module, *args)`.
        optimizer: an Optax optimizer: `parameters.update_ratio` is then the norm of its first step, relative.
        sites: "modules", the outputs of all modules (and operations in them that no output stands for); "ops",
            the products of parameters with the signal, found by following the parameters; "all", inputs of modules
            too; glob patterns over those names ("encoder/*", ["*/attention/*", "output"]); or a function of a
            name. Default: "modules", or "ops" for plain functions.
        keep_seeds: keep each statistic's `samples`, seeds first.
        root: seed of the root key.
        chunk: seeds a device and compiled call; chosen from memory by default.
        progress: True for a bar on stderr, or a function of (done, total).
        devices: all by default; or their number, a sequence of them, or a Mesh (`jaxinit.ensemble.run`).
        resume: a folder for finished chunks, from which the same call goes on.

    Returns:
        A Propagation of source "probe": see there for what its figures mean. `layout` says what each site is,
        `parameters` how each parameter fares, `opaque` what could not be looked into.

    Raises:
        ValueError, TypeError: an argument breaks its rule, or the model cannot be called with x; before anything
            is compiled.

    Warns:
        UserWarning: the model does more than compute its output: it calls the host, reads numbers of NumPy or Python
            while it is traced, keeps values of the trace, assigns to its attributes, changes the shape or dtype of a
            variable; or it draws the same parameters for every seed; it takes no notice of train=True;
            weights="implicit" has nothing to leave unformed.

    Example:
        >>> import numpy as np, flax.linen as nn
        >>> from jaxinit.probe import probe
        >>> model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(64), nn.relu, nn.Dense(10)])
        >>> run = probe(model, np.random.default_rng(0).normal(size=(32, 16)).astype("f4"), seeds=8)
        >>> run.sites
        ('layers_0', 'layers_2', 'layers_4')
        >>> run.layout[0].shape, run.layout[0].activation, run.layout[2].activation
        ((32, 64), True, False)
    """
    where = "probe"
    checks.choice(where, "weights", weights, WEIGHTS)
    if approximate and weights != "implicit":
        raise checks.bad(
            where,
            "approximate",
            f"False with weights={weights!r}",
            approximate,
            "Nothing is approximated then.",
        )
    if optimizer is not None and weights == "implicit":
        raise checks.bad(
            where, "optimizer", "None with weights='implicit'", optimizer,
            "Its step needs the gradient's entries, which are never formed. Use weights='materialized'.",
        )  # fmt: skip
    seed_array = checks.seeds(where, "seeds", seeds)
    root = checks.integer(where, "root", root, at_least=0)
    batches = inputs.batches_of(where, x)
    targets = _targets(where, labels, loss, len(batches))
    record = record if record is None or isinstance(record, str) else tuple(record)
    built = _remembered(
        where, model, batches[0], targets[0],
        train=train, method=method, rngs=rngs, loss=loss, backward=backward, record=record, optimizer=optimizer,
        params=params, sites=tuple(sites) if isinstance(sites, list) else sites,
        unformed=None if weights == "materialized" else "approximate" if approximate else "exact",
    )  # fmt: skip
    adapted, program, traced = built.program.model, built.program, built.traced
    if adapted.given is not None and len(seed_array) > 1:
        raise checks.bad(
            where, "seeds", "1 for a module that has been drawn already", len(seed_array),
            "For more draws leave params out." if params is not None
            else "For more draws pass a factory: lambda rngs: MyModule(..., rngs=rngs).",
        )  # fmt: skip
    for target in targets:
        if target is not None:
            losses.check_labels(where, loss, built.traced, target)
    each = ensemble.worth_a_call(traced.bytes, devices=devices, where=where)
    size = (
        _chunk(traced, len(seed_array), _PACK if each else _MOST)
        if chunk is None
        else checks.integer(where, "chunk", chunk, at_least=1)
    )
    for remark in built.remarks:
        warnings.warn(remark, UserWarning, stacklevel=2)
    treatment = program.measure.treatment
    if treatment is not None and not treatment.laws:
        reasons = "; ".join(f"{path}: {why}" for path, why in treatment.config["parameters"].items())
        warnings.warn(
            f"weights='implicit' forms every parameter of {adapted.name}. {reasons}",
            UserWarning,
            stacklevel=2,
        )
    config = {
        "label": adapted.name,
        "loss": None if not backward else losses.RANDOM if loss is None else _name(loss),
        "inputs": [inputs.shapes(batch) for batch in batches],
        "train": train,
        "sites": sites if isinstance(sites, str) else None if sites is None else repr(sites),
        "optimizer": None if optimizer is None else True,
        "weights": weights,
        **({} if treatment is None else {"approximate": approximate, **treatment.config}),
        "assumed_batch_axis": traced.assumed,
        "equal_entries": list(built.equal),
        "seeds": seed_array,
        "root": root,
        "chunk": size,
    }

    several = len(batches) > 1
    found = [
        ensemble.run(
            program, (inputs.given_of(batch), target, adapted.given), seed_array, root=root,
            batch=1 if each else size, chunk=size, seed_by_seed=each,
            keep=keep_seeds or several, progress=progress, devices=devices, where=where,
            resume=None if resume is None else Path(resume) / str(n) if several else resume,
            configuration=None if resume is None else _configuration(config, built),
        )
        for n, (batch, target) in enumerate(zip(batches, targets, strict=True))
    ]  # fmt: skip
    moments, samples = found[0] if not several else _averaged([samples for _, samples in found])
    statistics = {
        name: Statistic.from_moments(
            m, len(seed_array), samples[name] if samples is not None and keep_seeds else None
        )
        for name, m in moments.items()
    }
    result = propagation(program.measure, statistics, config, adapted.name)
    if len(seed_array) > 1 and program.draw is None:
        _warn_if_same(result, adapted.name)
    return result


@dataclasses.dataclass(frozen=True)
class _Built:
    """A probe that is ready to be compiled."""

    program: Program
    traced: Traced
    args: Any
    remarks: list[str]
    equal: tuple[str, ...]

    @functools.cached_property
    def text(self) -> str:
        """The programs that draw the model and run it, with the numbers they hold."""
        key = jax.random.key(0, impl="threefry2x32")
        draw = jax.make_jaxpr(self.program.model.init)(key, self.args)
        block = self.traced.plan.block
        held = [np.asarray(v).tobytes() for v in (*draw.consts, *block.consts) if not _is_key(v)]
        return hashlib.sha256(repr((str(draw.jaxpr), str(block.jaxpr), held)).encode()).hexdigest()


_built: list[tuple[Any, _Built]] = []
_REMEMBERED = 16


def _remembered(where: str, model: Any, args: Any, labels: Any, **choices: Any) -> _Built:
    """The same program for the same question, so that it is traced and compiled once."""
    if isinstance(model, nnx.Module) or choices["rngs"] is not None or choices["params"] is not None:
        # these hold numbers, which may have changed
        return _build(where, model, args, labels, **choices)
    leaves, structure = jax.tree.flatten((args, labels))
    abstract = [(isinstance(v, jax.ShapeDtypeStruct), v.shape, v.dtype) for v in leaves]
    numerics = [getattr(jax.config, name) for name in ("jax_enable_x64", "jax_default_matmul_precision")]
    question = (model, abstract, structure, numerics, choices)
    known = next((n for n, (asked, _) in enumerate(_built) if _equal(asked, question)), None)
    if known is not None and isinstance(model, nn.Module):
        _built.append(_built.pop(known))
        return _built[-1][1]
    built = _build(where, model, args, labels, **choices)
    if known is not None:  # a function may have come to mean something else; then its program is another
        _, old = _built.pop(known)
        built = old if old.text == built.text else built
    _built.append((question, built))
    del _built[:-_REMEMBERED]
    return built


def _equal(a: Any, b: Any) -> bool:
    """Whether two questions are one; those with arrays in them never are."""
    try:
        return bool(type(a[0]) is type(b[0]) and a == b)
    except (TypeError, ValueError):
        return False


def _build(
    where: str,
    model: Any,
    args: Any,
    labels: Any,
    *,
    train: bool,
    method: Any,
    rngs: Any,
    loss: Any,
    backward: bool,
    record: Any,
    optimizer: Any,
    sites: Any,
    unformed: str | None,
    params: Any = None,
) -> _Built:
    adapted = marked(model, train=train, method=method, rngs=rngs, where=where)
    draw, shapes = inputs.drawer(args), inputs.abstract(args)
    key = jax.random.key(0, impl="threefry2x32")
    try:
        drawn, (trained, state) = jax.make_jaxpr(adapted.init, return_shape=True)(key, shapes)
    except Exception as error:
        raise refused(where, adapted, shapes, error) from error
    if params is not None:
        adapted = dataclasses.replace(adapted, given=fitted(where, params, trained, state))
    traced = trace(where, adapted, trained, state, shapes)
    closed = core.ClosedJaxpr(traced.plan.block.jaxpr, traced.plan.block.consts)
    remarks = purity.remarks_on(adapted, drawn, closed, (trained, state, shapes), settled=traced.settled)
    treatment, structure = None, jax.tree.structure((trained, state))
    if unformed is not None:
        if adapted.given is not None:
            raise checks.bad(
                where, "weights", "'materialized' for a module that has been drawn already", "implicit",
                "Leave params out." if params is not None else "Pass a factory: lambda rngs: MyModule(..., rngs=rngs).",
            )  # fmt: skip
        treatment = treat(traced.plan, drawn, structure, unformed == "approximate")
    measure = measure_of(
        where, adapted, traced, inputs.examples_of(shapes) or 1, inputs.abstract(labels),
        loss=loss, backward=backward, record=record, optimizer=optimizer, sites=sites, treatment=treatment,
    )  # fmt: skip
    program = Program(adapted, measure, draw, drawn, structure)
    if purity.partial(closed):
        purity.rehearse(where, program, shapes, (inputs.given_of(args), labels, adapted.given))
    names = traced.plan.parameters if params is None and adapted.given is None else []
    same = equal_entries(drawn)  # of the parameters, then of the state
    equal = tuple("/".join(name) for name, alike in zip(names, same, strict=False) if alike)
    return _Built(program, traced, shapes, remarks, equal)


def measure_of(
    where: str,
    model: Marked,
    traced: Traced,
    examples: int,
    labels: Any,
    *,
    loss: Any,
    backward: bool,
    record: Any,
    optimizer: Any,
    sites: Any,
    treatment: Treatment | None = None,
) -> Measure:
    """What is measured in a traced model, all choices checked."""
    if optimizer is not None and not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise checks.wrong_type(
            where, "optimizer", "an Optax optimizer", optimizer, "For example optax.adam(1e-3)."
        )
    if not backward and (loss is not None or optimizer is not None):
        name = "loss" if loss is not None else "optimizer"
        raise checks.bad(where, name, "None when backward=False", name)
    wanted = choose_statistics(where, record, backward, examples)
    layout = Layout(examples, examples <= APART, wanted)
    sites = ("modules" if model.marks else "ops") if sites is None else sites
    watched = Watched(
        traced.plan.block, traced.plan.places, choose_sites(where, sites, traced.plan, model.marks), layout
    )
    scalar = losses.adapted(where, loss, traced, labels) if backward else None
    return Measure(traced.plan, watched, layout, traced.output, scalar, optimizer, treatment)


def _targets(where: str, labels: Any, loss: Any, count: int) -> list[Any]:
    """The labels of each batch."""
    if labels is None:
        return [None] * count
    if loss is None:
        raise checks.bad(
            where, "labels", "None without a loss", "labels",
            "Pass loss=lambda output, labels: ... as well, or leave the labels out.",
        )  # fmt: skip
    given = labels if count > 1 else [labels]
    if not isinstance(given, list) or len(given) != count:
        raise checks.bad(
            where, "labels", f"a list of {count}, one for each batch of x", type(labels).__name__
        )
    return [jax.tree.map(jnp.asarray, target) for target in given]


def _chunk(traced: Traced, seeds: int, most: int) -> int:
    """Seeds a chunk: at most so many, as many as memory takes, in chunks of equal size."""
    most = max(1, min(_BYTES // max(traced.bytes, 1), most, seeds))
    return -(-seeds // -(-seeds // most))


def _averaged(found: Sequence[Any]) -> tuple[dict[str, Moments], dict[str, np.ndarray]]:
    """Each seed's figures averaged over the batches on which they exist, and their moments over seeds."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # figures that exist on no batch stay nan
        samples = {name: np.nanmean([each[name] for each in found], axis=0) for name in found[0]}
    return {name: Moments.of(value) for name, value in samples.items()}, samples


def _warn_if_same(result: Propagation, name: str) -> None:
    """Seeds that draw one and the same network answer no question."""
    stat = result.second_moment or result.log_second_moment
    if (
        stat is not None
        and np.array_equal(stat.min, stat.max, equal_nan=True)
        and np.nanmax(stat.mean, initial=0.0) > 0
    ):
        warnings.warn(
            f"{name} has the same signal for every seed: does it draw its parameters from the key it is given?",
            UserWarning, stacklevel=3,
        )  # fmt: skip


def _configuration(config: dict[str, Any], built: _Built) -> dict[str, Any]:
    """What, beside the seeds and the inputs, decides the figures: the program itself."""
    kept = {name: value for name, value in config.items() if name not in ("seeds", "root", "chunk")}
    return {**kept, "program": built.text}


def _is_key(value: Any) -> bool:
    return jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended)


def _name(f: Any) -> str:
    return getattr(f, "__name__", type(f).__name__)
