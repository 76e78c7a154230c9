"""Many seeds through one compiled program: chunks dealt to devices and processes, batches within, moments merged."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinit._core import lapack, scaled
from jaxinit._core.files import pack_arrays, unpack_arrays
from jaxinit._core.moments import Moments
from jaxinit.ensemble import _memory
from jaxinit.ensemble._chunk import Chunk, counted
from jaxinit.ensemble._devices import AXIS, Devices
from jaxinit.ensemble._folder import Folder, describe_data, describe_seeds, software
from jaxinit.ensemble._processes import agree, exchange
from jaxinit.ensemble._progress import Progress, reporter
from jaxinit.ensemble._split import Split


def keys_of(seeds: Any, root: Any) -> jax.Array:
    """The keys that name the networks: seed i is fold_in(root key, i), whatever chunk or device it runs on."""
    key = jax.random.key(root, impl="threefry2x32")
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(seeds, jnp.uint32))


@partial(jax.jit, static_argnames=("one", "batch", "keep", "mesh"))
def _chunk(
    seeds: jax.Array, root: jax.Array, data: Any, one: Any, batch: int, keep: bool,
    counts: jax.Array | None = None, mesh: Mesh | None = None,
) -> Any:  # fmt: skip
    """The chunks of a round, one a device: moments and samples, whose leading axis counts the devices."""
    counts = jnp.full((1,), seeds.shape[0], jnp.int32) if counts is None else counts
    program = partial(_one_chunk, one, batch, keep)
    if mesh is not None:
        own, same = PartitionSpec(AXIS), PartitionSpec()
        program = jax.shard_map(
            program, mesh=mesh, in_specs=(own, own, same, same), out_specs=own, check_vma=False
        )
    return program(seeds, counts, root, data)


def _one_chunk(
    one: Any, batch: int, keep: bool, seeds: jax.Array, counts: jax.Array, root: jax.Array, data: Any
) -> Any:
    size = seeds.shape[0]
    if batch >= size and not keep and hasattr(one, "moments"):
        figures = one.moments(keys_of(seeds, root), counts[0], data)
        return jax.tree.map(lambda v: v[None], (figures, None))
    if batch >= size:
        samples = jax.vmap(lambda key: one(key, data))(keys_of(seeds, root))
    else:
        # A ragged last batch is filled up and cut off again: one body to compile instead of two.
        filling = jnp.broadcast_to(seeds[-1:], (-size % batch,))
        keys = keys_of(jnp.concatenate([seeds, filling]), root)
        samples = jax.lax.map(lambda key: one(key, data), keys, batch_size=batch if batch > 1 else None)
        samples = jax.tree.map(lambda v: v[:size], samples)
    figures = scaled.reduce_all(counted(samples, counts[0]))
    return jax.tree.map(lambda v: v[None], (figures, samples if keep else None))


def run(
    one: Callable[[jax.Array, Any], dict[str, Any]],
    data: Any,
    seeds: np.ndarray,
    *,
    root: int = 0,
    batch: int = 1,
    chunk: int | None = None,
    keep: bool = False,
    progress: bool | Progress = False,
    devices: Any = None,
    resume: str | os.PathLike[str] | None = None,
    configuration: dict[str, Any] | None = None,
    where: str = "run",
) -> tuple[dict[str, Moments], dict[str, np.ndarray] | None]:
    """Moments over seeds of every value that `one(key, data)` returns.

    The seeds are cut into chunks of one size; a compiled call computes one chunk on each device, in batches.
    Seed i is the key fold_in(key(root), i), so the networks drawn are the same, to the bit, whatever the
    split. What is computed from them is so to the compiler's rounding; and to the bit where the size of the chunks
    is the same, on any number of devices and processes: chunks are merged in their own order.

    Over several processes (`initialize`) each computes its share of the chunks on its own devices, and all
    return the same. They meet at the start and at the end; no device waits for another in between.

    Arguments:
        one: `(key, data) -> dict of arrays or Scaled`, traceable and hashable (a function of a module, or a
            record): programs are cached by it. Where it has a method `moments(keys, count, data) -> PackedMoments`,
            over the first `count` keys, that is called for chunks of one batch if no samples are kept.
        data: pytree of numbers; changing them does not recompile.
        seeds: 1-D uint32; seed i is the key fold_in(key(root), i).
        batch: seeds computed together (vectorised) within a chunk; on CPU one by one where the program would
            factorize matrices in batches, which hangs.
        chunk: at most so many seeds a device and compiled call; the host merges chunks and reports progress
            between them. All at once by default.
        keep: also return the samples, seeds first.
        progress: True for a bar on stderr, or a function of (done, total), seeds of this process.
        devices: all of the default backend (over all processes) by default; or their number, a sequence of
            them, or a Mesh; the same in every process.
        resume: a folder. Every finished chunk is put there, and the same call goes on from what is there: a run
            that was cut short loses at most the chunks in work. On several machines, a shared folder or one each.
        configuration: with `resume`, what else decides the figures (what `one` is): plain values. Another
            configuration than the folder's is refused.
        where: the function that errors speak of.

    Returns:
        Moments by name, and the samples by name (None unless `keep`).

    Raises:
        ValueError: the program does not fit into memory (before it runs), or `resume` holds another run.
    """
    team = Devices.of(where, devices)
    key = jnp.asarray(root, jnp.uint32)
    batch = min(batch, len(seeds))
    folder_of_run: Any = nullcontext()
    if resume is not None:
        settled = {
            **(configuration or {}), "seeds": describe_seeds(seeds), "root": int(root), "keep_seeds": keep,
            "batch": batch, "chunk": chunk, "data": describe_data(data), "software": software(team.platform),
        }  # fmt: skip
        folder_of_run = Folder(where, resume, settled)
    with folder_of_run as folder:
        split = _agreed(folder, Split.of(len(seeds), chunk, batch, len(team.every)))
        owners = [d.process_index for d in team.every]
        mine = split.of_process(owners, jax.process_index())
        if folder is not None:
            folder.begin(split, mine)
        compute = _Program(where, one, data, seeds, key, min(batch, split.size), keep, team, split)
        groups: dict[int, Chunk] = {}
        done, total = 0, sum(stop - start for start, stop in map(split.bounds, mine))
        failure: Exception | None = None
        try:
            with reporter(progress) as report:
                for finished in _finished(compute, folder, mine):
                    for number, found in finished:
                        group, (start, stop) = split.group(number), split.bounds(number)
                        groups[group] = groups[group].merge(found) if group in groups else found
                        done += stop - start
                    report(done, total)
        except Exception as error:
            failure = error
        agree(None, failure)  # no process waits for one that failed
        whole = _merged(groups)
    return whole.moments, whole.stacked()


def _agreed(folder: Folder | None, split: Split) -> Split:
    """The split of all processes: that of the run in the folder, if there is one."""
    found: int | None = None
    error: Exception | None = None
    try:
        found = None if folder is None else folder.open()
    except (ValueError, OSError) as failure:
        error = failure
    sizes = {size for size in agree(found, error) if size is not None}
    if len(sizes) > 1:
        raise ValueError(f"the folders of the processes hold runs cut into chunks of {sorted(sizes)} seeds: they are "
                         "parts of different runs. Name other folders.")  # fmt: skip
    return Split(split.total, sizes.pop()) if sizes else split


class _Program:
    """The compiled program of a run, and how a round of chunks goes through it."""

    def __init__(
        self, where: str, one: Any, data: Any, seeds: np.ndarray, root: jax.Array, batch: int, keep: bool,
        team: Devices, split: Split,
    ) -> None:  # fmt: skip
        self.where, self.one, self.seeds, self.root = where, one, seeds, root
        self.batch, self.keep, self.team, self.split = batch, keep, team, split
        self.mesh = team.mesh()
        self.data = data if self.mesh is None else _on_every(data, self.mesh)
        self.checked = False

    def __call__(self, numbers: list[int]) -> list[Chunk]:
        """The chunks of these numbers, at most one a device."""
        places = len(self.team.own)
        rows, counts = self.split.filled(self.seeds, numbers, places)
        if not self.checked:
            self._check(rows, counts)
        figures, samples = jax.device_get(_chunk(*self._arguments(rows, counts)))
        return [
            Chunk.from_device(figures, samples, place, int(counts[place])) for place in range(len(numbers))
        ]

    def _arguments(self, rows: np.ndarray, counts: np.ndarray) -> tuple[Any, ...]:
        return rows, self.root, self.data, self.one, self.batch, self.keep, counts, self.mesh

    def _check(self, rows: np.ndarray, counts: np.ndarray) -> None:
        """Compile, and refuse what does not fit, before anything runs. The call that follows compiles no more."""
        leaves, structure = jax.tree.flatten(self.data)
        shapes = tuple((jnp.shape(v), jnp.result_type(v)) for v in leaves)
        program = (self.one, self.batch, self.keep, self.mesh, len(rows), structure, shapes)
        if program not in _NEEDS:
            lowered = _chunk.lower(*self._arguments(rows, counts))
            if len(_NEEDS) >= _MOST_NEEDS:
                del _NEEDS[next(iter(_NEEDS))]
            if self.batch > 1 and self.team.platform == "cpu" and lapack.is_batched(lowered.as_text()):
                _NEEDS[program] = None
            else:
                figures, _ = lowered.out_info
                numbers = sum(m.mean.size for m in figures.moments) // len(self.team.own)
                _NEEDS[program] = (_memory.needed(lowered.compile()), numbers)
        found = _NEEDS[program]
        if found is None:
            self.batch = 1
            return self._check(rows, counts)
        each, numbers = found
        _memory.check(
            self.where, each, self.team, size=self.split.size, batch=self.batch,
            sample=8 * numbers, kept=16 * numbers * len(self.seeds) if self.keep else 0,
        )  # fmt: skip
        self.checked = True


#: What a program takes on each device, and numbers that a seed yields: the compiler is slow to say. None for a
#: program whose seeds must come one after the other (see `_core.lapack`).
_NEEDS: dict[Any, tuple[int | None, int] | None] = {}
_MOST_NEEDS = 256


def _finished(compute: _Program, folder: Folder | None, mine: list[int]) -> Iterator[list[tuple[int, Chunk]]]:
    """This process's chunks in their order, by rounds: from the folder, or else computed and put there."""
    places = len(compute.team.own)
    waiting: list[tuple[int, Chunk | None]] = []
    for number in mine:
        waiting.append((number, None if folder is None else folder.read(number)))
        absent = [i for i, found in waiting if found is None]
        if number != mine[-1] and len(absent) < places and len(waiting) < 4 * places:
            continue
        fresh = dict(zip(absent, compute(absent), strict=True)) if absent else {}
        for i, found in fresh.items():
            if folder is not None:
                folder.write(i, found)
        yield [(i, fresh[i] if found is None else found) for i, found in waiting]
        waiting = []


def _merged(groups: dict[int, Chunk]) -> Chunk:
    """The groups of all processes, merged in their order."""
    if jax.process_count() > 1:
        buffer = io.BytesIO()
        for number, group in groups.items():
            content = pack_arrays(group.arrays(), compress=False)
            buffer.write(np.array([number, len(content)], np.int64).tobytes())
            buffer.write(content)
        groups = {}
        for content in exchange(buffer.getvalue()):
            start = 0
            while start < len(content):
                number, length = np.frombuffer(content[start : start + 16], np.int64).tolist()
                start += 16 + length
                groups[number] = Chunk.from_arrays(unpack_arrays(content[start - length : start]))
    first, *rest = (groups[number] for number in sorted(groups))
    for group in rest:
        first = first.merge(group)
    return first


def _on_every(data: Any, mesh: Mesh) -> Any:
    """The arrays of a pytree on every device of the mesh; Python's numbers stay what they are."""
    same = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda v: jax.device_put(v, same) if isinstance(v, (jax.Array, np.ndarray)) else v, data
    )
