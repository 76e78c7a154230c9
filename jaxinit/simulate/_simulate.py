"""The entry point: a network, seeds, and what to record, to a Propagation."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import ensemble
from jaxinit._core import checks
from jaxinit.implicit import _frames
from jaxinit.network import Network, Plain, is_zero
from jaxinit.records import STATISTICS, ParameterStatistics, Propagation, Statistic, provenance
from jaxinit.simulate import _lanczos as lanczos
from jaxinit.simulate import _radial as radial
from jaxinit.simulate import _statistics as st
from jaxinit.simulate._convolution import Convolution
from jaxinit.simulate._dense import PARAMETER, Dense, Layer
from jaxinit.simulate._driven import Driven
from jaxinit.simulate._inputs import Inputs
from jaxinit.simulate._jacobian import Jacobian, log_singular_values, plan
from jaxinit.simulate._local import Activate
from jaxinit.simulate._precision import FULL, Precision
from jaxinit.simulate._radial import Radial
from jaxinit.simulate._signal import Nonlinearity
from jaxinit.simulate._tied import Tied
from jaxinit.simulate._weights import IMPLICIT_LAWS, Weights, law_of

SAMPLERS = ("auto", "implicit", "materialized", "radial")

#: Where lengths are drawn alone: the most seeds of a batch, whose vectors stay in the cache, and layers of them.
_RADIAL_SEEDS, _RADIAL_LAYERS = 1 << 14, 1 << 24
#: A matrix is not formed where its smaller side is at least so many times the columns it is multiplied with, so many if
#: these are the patches of a convolution, and so many where they are too many to be made orthogonal without LAPACK
#: (`experiments/bench/convolution.py`).
_SHARE, _PATCHES_SHARE, _LAPACK_SHARE = 4, 8, 16
#: A network keeps its weights, or the normals of implicit ones, for the backward pass as long as all that it keeps is
#: at most so many bytes; else it draws them twice.
_STORE_BYTES = 1 << 30


def simulate(
    network: Network,
    seeds: Any,
    *,
    q: float = 1.0,
    correlation: float = 0.5,
    x: Any = None,
    sampler: str = "auto",
    approximate: bool = False,
    backward: bool = True,
    record: Sequence[str] | None = None,
    dtype: Any = None,
    keep_seeds: bool = False,
    root: int = 0,
    batch: int | None = None,
    chunk: int | None = None,
    progress: bool | ensemble.Progress = False,
    jacobian: bool | int = False,
    devices: Any = None,
    resume: str | os.PathLike[str] | None = None,
) -> Propagation:
    """Draw the network for every seed and measure its signal and its gradient, layer by layer.

    Two inputs of mean square entry `q` and cosine `correlation` are sent through the network (or the given
    `x`), and L = <r, f(x)>, r iid N(0, 1/n_out), is sent back. Statistics are those of `Propagation`: moments
    over units per seed, then mean, standard error and extremes over seeds.

    With the "implicit" sampler no weight matrix is formed: the products that the forward and the backward
    pass ask of it are drawn exactly, jointly, at cost O(width) instead of O(width^2) a layer
    (`jaxinit.implicit`). Depth is a scan, exponents are carried apart: neither depth 100,000 nor a signal of
    1e-3000 overflows or underflows.

    Arguments:
        network: a `Network`.
        seeds: a count, or distinct integers that name the networks; seed i is fold_in(key(root), i).
        q, correlation: of the two inputs; unused when `x` is given.
        x: (inputs, input_width), (inputs, *places, input_width) of a convolutional network, or (inputs, depth,
            input_width) of one that reads an input at every step; the same for every seed.
        sampler: "implicit" (laws "gaussian" and "orthogonal"), "materialized" (any initializer), or "auto":
            implicit where it is exact and cheaper, materialized otherwise; `config["sampler"]` says which.
            "radial" draws nothing but lengths, exactly, at a cost that does not depend on the width: for one input
            (of mean square `q`, or `x`), Gaussian weights, no biases, and (leaky) ReLU or linear units.
        approximate: let "implicit" and "auto" treat other iid laws (uniform, truncated normal) as Gaussian of
            the same variance: their statistics agree to O(1/width) behind a layer of that width; a first layer that
            reads few entries of x, such as one-hot rows, keeps an error of order one in fourth moments.
        backward: also measure gradients.
        record: names of the statistics to record (see `jaxinit.records.STATISTICS`); by default all but
            "update_ratio", whose chi-square doubles the time to compile. With it, a network of tied weights also has
            `parameters`: the norm of its matrix "W", that of dL/dW, the sum over all layers, and their ratio. (Figures
            at a site speak of that layer's part of dL/dW.)
        dtype: what layers compute in: "bfloat16", "float16", "float32" or "float64" (which needs jax_enable_x64), as
            the `dtype=` of a Flax model of float32 parameters. Inputs, weights and biases are rounded to it, and so is
            what every product (summed in float32 or better), sum, normalization and operation of an activation
            yields, forward and backward; what is beyond its range becomes 0 or infinite. Statistics, and norms of
            weight gradients, are computed from these numbers in float32 or better. A seed names the same network in
            every dtype. By default numbers are float32 with exponents apart: of no range.
        keep_seeds: keep each statistic's `samples`, seeds first.
        root: seed of the root key.
        batch: seeds computed together; chosen from the width and the kind of device by default.
        chunk: at most so many seeds a device and compiled call, between which progress is reported; chosen from
            memory by default.
        progress: True for a bar on stderr, or a function of (done, total).
        jacobian: True for all singular values of dz^L / dx at the first input, or how many of the largest; only for
            networks without skips, normalization or dropout. All of them need the weights, so the sampler is
            "materialized", up to widths of a few thousand. Beyond, "auto" has the largest few, and "implicit" at any
            width, without weights, by Lanczos steps whose products are drawn from their exact law (not of tied
            weights): steps end when every value is known to 1e-3, and a warning says where they do not get there.
        devices: all by default; or their number, a sequence of them, or a Mesh (see `jaxinit.ensemble.run`). The
            networks drawn are the same whatever they are, and so is every bit for the same `batch` and `chunk`.
        resume: a folder for finished chunks. The same call goes on from them, and ends with the same bits.

    Over several processes (`jaxinit.ensemble.initialize`) each computes a share of the seeds, and every one returns
    the whole record.

    Returns:
        A Propagation with sites "1" .. "depth" and source "simulation". Statistics at the last site, the
        output, treat it as a pre-activation like the others. With `jacobian`, `extra` has
        "jacobian_singular_values" and their natural logs "jacobian_log_singular_values", float64 of shape
        (seeds, count), descending; the logs hold also where the values leave the range of float64. Where no weights
        are formed, "jacobian_log_errors" bounds the distance of each log to that of some singular value (rounding, of
        1e-6 of the largest or so, apart; none is above its own, and that none between was missed is as sure as
        Lanczos from a random start), and "jacobian_steps" counts the steps of each seed.

    Raises:
        ValueError, TypeError: an argument breaks its rule, before anything is compiled; the plan does not fit
            into memory, before it runs; or `resume` holds another run.

    Example:
        >>> import jaxinit as ji
        >>> he = ji.simulate(ji.Network(50, 512, "relu", weight_variance=2.0), seeds=64)
        >>> xavier = ji.simulate(ji.Network(50, 512, "relu", weight_variance=1.0), seeds=64)
        >>> round(float((he.log_second_moment.mean - xavier.log_second_moment.mean)[49, 0] / 50), 2)  # log 2
        0.69
    """
    where = "simulate"
    if not isinstance(network, Network):
        raise checks.wrong_type(
            where, "network", "a jaxinit.Network", network, "For a Flax model use `probe`."
        )
    seed_array = checks.seeds(where, "seeds", seeds)
    _check_flags(progress, approximate=approximate, backward=backward, keep_seeds=keep_seeds)
    checks.choice(where, "sampler", sampler, SAMPLERS)
    precision = Precision.of(where, dtype)
    inputs = _inputs(network, q, correlation, x, alone=sampler == "radial", held=precision.held)
    rows = inputs.shape[0]
    singular_values, sampler = plan(jacobian, network, sampler, approximate, rows)
    if precision.dtype is not None and (sampler == "radial" or singular_values):
        raise checks.bad(
            where, "dtype", "left out with sampler='radial', which draws lengths only, and with jacobian=, which is "
            "computed in float64 (float32 if no weights are formed)", dtype,
        )  # fmt: skip
    program: Dense | Radial
    if sampler == "radial":
        program = _radial(network, rows, _wanted(record, backward, rows, radial.STATISTICS))
        default_batch = max(1, min(_RADIAL_SEEDS, _RADIAL_LAYERS // network.depth))
    else:
        each = {
            shape: _weights(network, shape, sampler, approximate, rows, precision)
            for shape in set(network.shapes)
        }
        weights = tuple(each[shape] for shape in network.shapes)
        wanted = _wanted(record, backward, rows)
        if "update_ratio" in wanted:  # for which the whole matrix is looked at
            weights = tuple(dataclasses.replace(w, whole=True) if isinstance(w, Tied) else w for w in weights)
        driven = Driven.of(network, sampler, rows, precision)
        program = _program(network, weights, wanted, precision, driven)
        default_batch = _batch(weights, rows, devices) if batch is None else 1
    batch = default_batch if batch is None else checks.integer(where, "batch", batch, at_least=1)
    chunk = (
        _chunk(program, network.depth, batch)
        if chunk is None
        else checks.integer(where, "chunk", chunk, at_least=1)
    )
    root = checks.integer(where, "root", root, at_least=0, at_most=2**32 - 1)

    moments, samples = ensemble.run(
        program, (network, inputs), seed_array,
        root=root, batch=batch, chunk=chunk, keep=keep_seeds, progress=progress, devices=devices, resume=resume,
        configuration=None if resume is None else _configuration(network, program, q, correlation, x, precision),
        where=where,
    )  # fmt: skip
    statistics: dict[str, Any] = {
        name: Statistic.from_moments(m, len(seed_array), None if samples is None else samples[name])
        for name, m in moments.items()
    }
    of_matrix = {
        name.removeprefix(PARAMETER): statistics.pop(name)
        for name in tuple(statistics)
        if name.startswith(PARAMETER)
    }
    config = {
        "label": network.label,
        "network": repr(network),
        "depth": network.depth,
        "widths": list(network.widths),
        "activation": network.activation.name,
        "q": None if x is not None else float(q),
        "correlation": None if x is not None else float(correlation),
        "sampler": _describe(program),
        "approximate": bool(approximate),
        "dtype": precision.dtype,
        "seeds": seed_array,
        "root": root,
        "batch": batch,
        "chunk": chunk,
        "loss": "<r, f(x)>, r iid N(0, 1/n_out)",
    }
    extra: dict[str, np.ndarray] = {}
    if singular_values:
        assert isinstance(program, Dense)
        own = tuple(w.weights if isinstance(w, (Tied, Convolution)) else w for w in weights)
        of_network = own, program.activate.nonlinearity, program.biased
        asked = network, inputs, seed_array, root, singular_values
        if sampler == "implicit":
            gradients = rows if program.wanted & st.BACKWARD else 1
            logs, errors, steps = lanczos.log_singular_values(
                lanczos.Lanczos(*of_network, rows, gradients), *asked
            )
            extra = {"jacobian_log_errors": errors, "jacobian_steps": steps}
        else:
            logs = log_singular_values(Jacobian(*of_network), *asked)
        with np.errstate(over="ignore", under="ignore"):
            extra |= {"jacobian_singular_values": np.exp(logs), "jacobian_log_singular_values": logs}
    sites = tuple(str(l + 1) for l in range(network.depth))
    return Propagation(
        "simulation",
        sites,
        rows,
        st.pairs(rows),
        parameters=ParameterStatistics(("W",), (network.shapes[0],), **of_matrix) if of_matrix else None,
        extra=extra,
        config=config,
        provenance=provenance(),
        **statistics,
    )


def _program(
    network: Network,
    weights: tuple[Layer, ...],
    wanted: frozenset[str],
    precision: Precision = FULL,
    driven: Driven | None = None,
) -> Dense:
    nonlinearity, drops = Nonlinearity.of(network.activation), not is_zero(network.dropout)
    activate = Activate(nonlinearity, network.norm, drops, precision)
    skips = None if network.residual is None else network.residual.order
    return Dense(weights, activate, not is_zero(network.bias_variance), wanted, skips, driven)


def _check_flags(progress: Any, **flags: Any) -> None:
    for name, value in flags.items():
        checks.flag("simulate", name, value)
    if not isinstance(progress, (bool, np.bool_)) and not callable(progress):
        raise checks.wrong_type(
            "simulate", "progress", "True for a bar, False, or a function of (done, total)", progress
        )


def _wanted(
    record: Sequence[str] | None, backward: bool, rows: int, told: frozenset[str] = st.FORWARD | st.BACKWARD
) -> frozenset[str]:
    allowed = told if backward else told & st.FORWARD
    if rows < 2:
        allowed -= st.PAIRWISE
    if record is None:
        return allowed - {"update_ratio"}
    try:
        names = None if isinstance(record, str) else tuple(record)
    except TypeError:
        names = None
    if names is None or not all(isinstance(name, str) for name in names):
        way_out = f"Pass [{record!r}]." if isinstance(record, str) else ""
        raise checks.wrong_type("simulate", "record", "a sequence of names of statistics", record, way_out)
    for name in names:
        if name not in STATISTICS:
            raise checks.bad(
                "simulate", "record", "names of statistics", name, checks.nearest(name, STATISTICS)
            )
        if name in st.PAIRWISE and rows < 2:
            raise checks.bad("simulate", "record", "statistics of one input when x has one row", name)
        if name not in told:
            raise checks.bad("simulate", "record", f"of {sorted(told)} with sampler='radial'", name)
        if name not in allowed:
            raise checks.bad("simulate", "record", "names of forward statistics when backward=False", name)
    if not names:
        raise checks.bad("simulate", "record", "at least one statistic", record)
    return frozenset(names)


def _inputs(
    network: Network, q: float, correlation: float, x: Any, alone: bool = False, held: Any = np.float32
) -> Inputs:
    where, channels = "simulate", network.input_width or network.shapes[0][0]
    places: tuple[int, ...] = () if network.spatial is None else network.spatial.shape
    steps = (network.depth,) if network.driven else ()
    n = network.places * channels
    if x is not None:
        try:
            array = np.asarray(x)
        except ValueError:
            raise checks.wrong_type(where, "x", "an array of real numbers", x) from None
        if array.ndim < 2 or array.shape[1:] != (*steps, *places, channels) or array.shape[0] < 1:
            axes = ", ".join(["inputs", *map(str, (*steps, *places)), "input_width"])
            way_out = "Set Network(input_width=...) to the length of your inputs."
            if array.shape == (*steps, *places, channels):
                way_out = "Pass x[None] for one input."
            elif steps and array.shape[1:] == (channels,):
                way_out = "A network with input_weight_variance reads an input at every step."
            raise checks.bad(
                where, "x", f"of shape ({axes}) with input_width = {channels}", array.shape, way_out
            )
        if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
            raise checks.wrong_type(where, "x", "an array of real numbers", array.dtype)
        if not np.all(np.isfinite(array)):
            raise checks.bad(where, "x", "finite", "an array with nan or infinite entries")
        with np.errstate(over="ignore"):
            array = array.astype(held)
        if not np.all(np.isfinite(array)):
            raise checks.bad(
                where, "x", f"within the range of {array.dtype}", "larger entries", "Scale it down."
            )
        rows = jnp.asarray(array).reshape((array.shape[0], *steps, n))
        return Inputs(None, jnp.moveaxis(rows, 0, -2), (array.shape[0], n))
    q = checks.number(where, "q", q, at_least=0.0)
    c = checks.number(where, "correlation", correlation, at_least=-1.0, at_most=1.0)
    for name, value in (("q", q), ("correlation", c)):
        if not checks.is_concrete(value):
            raise checks.wrong_type(
                where, name, "a number known now", value, "Call simulate outside of jit, grad and vmap."
            )
    if held == np.float32:
        info = np.finfo(np.float32)
        least, most = float(info.tiny / info.eps) ** 2, (float(info.max) / 4) ** 2 / n
        if q and not least <= q <= most:
            raise checks.bad(
                where, "q", f"0, or from {least:.0e} to {most:.0e}, where float32 holds the entries of the inputs", q,
                "Scale the inputs, or pass dtype='float64', which needs jax_enable_x64.",
            )  # fmt: skip
    if alone:
        return Inputs(np.full((1, 1), np.sqrt(q), np.float32), None, (1, n))
    if n < 2 and abs(c) < 1:
        raise checks.bad(
            where, "correlation", "1 or -1 for a network of input_width 1", correlation,
            "Two inputs of another angle need input_width of at least 2.",
        )  # fmt: skip
    mix = np.sqrt(q) * np.asarray([[1.0, 0.0], [c, math.sqrt((1 - c) * (1 + c))]])
    return Inputs(mix.astype(held), None, (2, n))


def _radial(network: Network, rows: int, wanted: frozenset[str]) -> Radial:
    slopes = radial.slopes_of(network.activation)
    gaussian = network.initializer is None and network.ensemble == "gaussian"
    if slopes is None or not gaussian or not is_zero(network.bias_variance) or not network.plain or rows > 1:
        raise checks.bad(
            "simulate", "sampler", "'auto' unless there is one input and the network is fully connected, of Gaussian "
            "weights given by weight_variance, without biases, skips, normalization, dropout or tied weights, and "
            "(leaky) ReLU or linear", "radial",
        )  # fmt: skip
    return Radial(network.shapes, slopes, wanted)


def _weights(
    network: Network,
    shape: tuple[int, int],
    sampler: str,
    approximate: bool,
    rows: int,
    precision: Precision = FULL,
) -> Layer:
    spatial = network.spatial
    kernel: tuple[int, ...] = ()
    if spatial is not None:
        rows *= spatial.places
        if network.initializer is not None or network.ensemble != "orthogonal":  # whose matrix has one tap
            kernel, shape = spatial.kernel, (spatial.taps * shape[0], shape[1])
    law = law_of(network, shape, kernel)
    if approximate and law == "iid":
        law = "gaussian"
    if sampler == "implicit" and law not in IMPLICIT_LAWS:
        way_out = f"{network.initializer!r} draws {law!r} entries."
        if law == "iid":
            way_out += " Pass distribution='normal' to it, or approximate=True to treat them as normal (to O(1/width))."
        elif law == "unknown":
            way_out += " Pass an initializer of jaxinit, such as ji.normal(0.1), whose law is known."
        raise checks.bad(
            "simulate", "sampler", "'materialized' or 'auto' for a law that is neither normal nor orthogonal", sampler,
            way_out,
        )  # fmt: skip
    rounded = law == "orthogonal" and precision.short
    if sampler == "implicit" and rounded:
        raise checks.bad(
            "simulate", "dtype", "of as many digits as orthogonal weights that are never formed", precision.dtype,
            "Rounded they are not orthogonal: pass sampler='materialized'.",
        )  # fmt: skip
    if sampler == "auto":  # a matrix that is used again is conditioned on all its products
        columns = rows * network.depth if network.tied else rows
        few = _SHARE if spatial is None else _PATCHES_SHARE
        share = few if rows <= _frames.ROW_BY_ROW else _LAPACK_SHARE
        exact = law in IMPLICIT_LAWS and not rounded
        sampler = "implicit" if exact and share * columns <= min(shape) else "materialized"
    taps = 1 if spatial is None else spatial.taps
    if sampler == "materialized":
        kept = 4 * taps * sum(a * b for a, b in network.shapes)
    else:  # the slopes of every layer, its frame and its normals
        kept = 4 * rows * sum(2 * taps * a + b for a, b in network.shapes)
    store = (law == "orthogonal" and sampler == "implicit") or kept <= _STORE_BYTES
    weights = Weights(sampler, law, shape, store, kernel, precision)
    if network.tied:
        return Tied(weights, network.depth)
    return weights if spatial is None else Convolution(weights, spatial)


def _batch(weights: tuple[Layer, ...], rows: int, devices: Any) -> int:
    numbers = max(w.numbers(rows) for w in weights)
    kept = sum(w.bytes_kept(rows) for w in weights)
    forms = any(w.sampler == "materialized" for w in weights)
    return ensemble.batch_size(numbers, kept, weights=forms, devices=devices, where="simulate")


def _chunk(program: Dense | Radial, depth: int, batch: int) -> int:
    return batch if isinstance(program, Radial) else max(batch, (1 << 19) // max(depth, 512) // batch * batch)


def _configuration(
    network: Network, program: Dense | Radial, q: float, correlation: float, x: Any, precision: Precision
) -> dict[str, Any]:
    """What a run on disk is known by, in words and numbers that stay the same from process to process."""
    points = jnp.linspace(-3.0, 3.0, 16, dtype=jnp.float32)
    given = {"q": float(q), "correlation": float(correlation)} if x is None else {"x": "given"}
    drawn = None
    if isinstance(network.initializer, Plain):  # a name alone does not tell two functions apart
        drawn = np.asarray(network.initializer(jax.random.key(0), (4, 4), jnp.float32)).ravel().tolist()
    return {
        "network": re.sub(r" at 0x[0-9a-f]+", "", repr(network)),
        "activation_values": np.asarray(network.activation(points), np.float64).tolist(),
        "initializer_values": drawn,
        **given,
        "sampler": _describe(program),
        "dtype": precision.dtype,
        "record": sorted(program.wanted),
    }


def _describe(program: Dense | Radial) -> str:
    if isinstance(program, Radial):
        return "radial (gaussian)"
    weights = program.weights
    kinds = [f"{w.sampler} ({w.law})" for w in weights]
    return kinds[0] if len(set(kinds)) == 1 else ", ".join(kinds)
