"""Many seeds through one compiled program: chunks dealt to devices and processes, batches within, moments merged."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinit._core import compiling, lapack
from jaxinit._core.files import pack_arrays, unpack_arrays
from jaxinit._core.moments import Moments
from jaxinit.ensemble import _compiled, _memory
from jaxinit.ensemble._chunk import Chunk
from jaxinit.ensemble._devices import Devices
from jaxinit.ensemble._folder import Folder, describe_data, describe_seeds, software
from jaxinit.ensemble._processes import agree, exchange
from jaxinit.ensemble._progress import Progress, reporter
from jaxinit.ensemble._split import Split


def run(
    one: Callable[[jax.Array, Any], dict[str, Any]],
    data: Any,
    seeds: np.ndarray,
    *,
    root: int = 0,
    batch: int = 1,
    chunk: int | None = None,
    seed_by_seed: bool = False,
    keep: bool = False,
    progress: bool | Progress = False,
    devices: Any = None,
    resume: str | os.PathLike[str] | None = None,
    configuration: dict[str, Any] | None = None,
    where: str = "run",
) -> tuple[dict[str, Moments], dict[str, np.ndarray] | None]:
    """Moments over seeds of every value that `one(key, data)` returns.

    The seeds are cut into chunks of one size; a compiled call computes one chunk on each device, in batches. A CPU that
    is one device computes as many chunks of batches at a time as it has cores.
    Seed i is the key fold_in(key(root), i), so the networks drawn are the same, to the bit, whatever the
    split. What is computed from them is so to the compiler's rounding; and to the bit where the size of the chunks
    is the same, on any number of devices and processes: chunks are merged in their own order.

    Over several processes (`initialize`) each computes its share of the chunks on its own devices, and all
    return the same. They meet at the start and at the end; no device waits for another in between.

    Arguments:
        one: `(key, data) -> dict of arrays or Scaled`, traceable and hashable (a function of a module, or a
            record): programs are cached by it. Where it has a method `moments(keys, count, data) -> PackedMoments`,
            over the first `count` keys, that is called for chunks of one batch if no samples are kept. An
            attribute `compiled_for` says what its time goes into: "loops" or "brief" (`_core.compiling`).
        data: pytree of numbers; changing them does not recompile.
        seeds: 1-D uint32; seed i is the key fold_in(key(root), i).
        batch: seeds computed together (vectorised) within a chunk; on CPU one by one where the program would
            factorize matrices in batches, which hangs.
        chunk: at most so many seeds a device and compiled call; the host merges chunks and reports progress
            between them. All at once by default.
        seed_by_seed: with `batch` 1, each seed by a call of its own instead of a loop in one call: for large
            networks on a CPU.
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
        ValueError: the program does not fit into memory (before it runs), `resume` holds another run, or other
            processes call this with other arguments.
        OSError: `resume` cannot be written.
    """
    team = Devices.of(where, devices)
    key = np.uint32(root)
    batch = min(batch, len(seeds))
    if jax.process_count() > 1:
        asked = {"seeds": describe_seeds(seeds), "root": int(root), "keep_seeds": keep, "chunk": chunk}
        batch = _common_batch(where, batch, {**asked, "devices": len(team.every)})
    folder_of_run: Any = nullcontext()
    if resume is not None:
        settled = {
            **(configuration or {}), "seeds": describe_seeds(seeds), "root": int(root), "keep_seeds": keep,
            "batch": batch, "chunk": chunk, "data": describe_data(data),
            "software": {**software(team.platform), "compiler": compiling.options(team.platform, _compiled.kind(one))},
        }  # fmt: skip
        folder_of_run = Folder(where, resume, settled)
    with folder_of_run as folder:
        lanes = team.lanes() if batch > 1 else 1
        shares = len(team.every) * (lanes if jax.process_count() == 1 else 1)
        split = _agreed(folder, Split.of(len(seeds), chunk, batch, shares))
        owners = [d.process_index for d in team.every]
        mine = split.of_process(owners, jax.process_index())
        if folder is not None:
            folder.begin(split, mine)
        compute = _Program(
            where, one, data, seeds, key, min(batch, split.size), seed_by_seed, keep, team, split, lanes
        )
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


def _common_batch(where: str, batch: int, asked: dict[str, Any]) -> int:
    """The smallest batch of all processes, of which each knows the memory of its own devices; the rest must agree."""
    first, *others = told = agree({"batch": batch, **asked})
    for process, other in enumerate(others, 1):
        for name in asked:
            if other[name] != first[name]:
                raise ValueError(
                    f"`{where}(...)` must be called alike in every process: {name} is {first[name]!r} in process 0 and "
                    f"{other[name]!r} in process {process}. Start the same program in each."
                )
    return int(min(each["batch"] for each in told))


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
        self, where: str, one: Any, data: Any, seeds: np.ndarray, root: np.uint32, batch: int, seed_by_seed: bool,
        keep: bool, team: Devices, split: Split, lanes: int,
    ) -> None:  # fmt: skip
        self.where, self.one, self.seeds, self.root = where, one, seeds, root
        self.batch, self.keep, self.team, self.split = batch, keep, team, split
        self.seed_by_seed = seed_by_seed and batch == 1
        self.mesh = team.mesh()
        self.data = data if self.mesh is None else _on_every(data, self.mesh)
        self.lanes = lanes
        self.compiled: Any = None
        self.arrays = jax.tree.map(_array, self.data) if lanes > 1 else None
        self.checked = False

    @property
    def places(self) -> int:
        """The most chunks of a round: one a device, or several on the only one."""
        return self.lanes * len(self.team.own)

    def __call__(self, numbers: list[int]) -> Iterator[tuple[int, Chunk]]:
        """The chunks of these numbers, at most one a place. If one fails, the others come before the error."""
        parts = [numbers] if self.lanes == 1 else [[number] for number in numbers]
        filled = [self.split.filled(self.seeds, part, len(self.team.own)) for part in parts]
        if not self.checked:
            self._check(*filled[0])
        failure: BaseException | None = None
        for part, (_, counts), result in zip(parts, filled, self._results(filled), strict=True):
            try:
                figures, samples = result()
            except BaseException as error:  # Ctrl-C too: what other threads have at hand is kept
                failure = failure or error
                continue
            for place, number in enumerate(part):
                yield number, Chunk.from_device(figures, samples, place, int(counts[place]))
        if failure is not None:
            raise failure

    def _results(self, filled: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[Callable[[], Any]]:
        """What to call for the outputs of each part, at work meanwhile where there are lanes."""
        if self.compiled is None or self.lanes == 1:
            yield from (lambda each=each: jax.device_get(self._here(*each)) for each in filled)
            return
        # What one thread dispatches to a device runs in order, what several dispatch runs at the same time.
        with ThreadPoolExecutor(max(1, self.lanes - 1)) as pool:
            others = [pool.submit(self._elsewhere, *each) for each in filled[1:]]
            yield lambda: jax.device_get(self._here(*filled[0]))
            yield from (other.result for other in others)

    def _here(self, rows: np.ndarray, counts: np.ndarray) -> Any:
        if self.seed_by_seed:
            return _compiled.seed_by_seed(
                rows, self.root, self.data, self.one, self.keep, counts, self.mesh, self.team.platform
            )
        return self._jitted(_compiled.chunk)(*self._arguments(rows, counts))

    def _jitted(self, function: Callable[..., Any]) -> Any:
        return _compiled.jitted(function, self.team.platform, self.one)

    def _elsewhere(self, rows: np.ndarray, counts: np.ndarray) -> Any:
        """The same in another thread, where the settings of this one (x64, say) do not hold: nothing is traced."""
        return jax.device_get(self.compiled(rows, self.root, self.arrays, counts))

    def _arguments(self, rows: np.ndarray, counts: np.ndarray) -> tuple[Any, ...]:
        return rows, self.root, self.data, self.one, self.batch, self.keep, counts, self.mesh

    def _check(self, rows: np.ndarray, counts: np.ndarray) -> None:
        """Compile, and refuse what does not fit, before anything runs. The call that follows compiles no more."""
        leaves, structure = jax.tree.flatten(self.data)
        shapes = tuple((jnp.shape(v), jnp.result_type(v)) for v in leaves)
        program = (
            self.one, self.batch, self.seed_by_seed, self.keep, self.mesh, len(rows), structure, shapes,
            self.lanes > 1, jnp.result_type(float),
        )  # fmt: skip
        if program not in _NEEDS:
            if len(_NEEDS) >= _MOST_NEEDS:
                del _NEEDS[next(iter(_NEEDS))]
            _NEEDS[program] = self._needs(rows, counts)
        found = _NEEDS[program]
        if found is None:
            self.batch = self.lanes = 1
            return self._check(rows, counts)
        each, numbers, self.compiled = found
        self.lanes = _memory.lanes(each, self.team, self.lanes)
        _memory.check(
            self.where, each, self.team, size=self.split.size, batch=self.batch,
            sample=8 * numbers, kept=16 * numbers * len(self.seeds) if self.keep else 0,
        )  # fmt: skip
        self.checked = True

    def _needs(self, rows: np.ndarray, counts: np.ndarray) -> tuple[int | None, int, Any] | None:
        places = len(self.team.own)
        if self.seed_by_seed:
            first = rows.reshape((len(counts), -1))[:, 0]
            lowered = self._jitted(_compiled.seed).lower(first, self.root, self.data, self.one, self.mesh)
            numbers = sum(v.size for v in jax.tree.leaves(lowered.out_info)) // places
            each = _memory.needed(lowered.compile())
            return None if each is None else _compiled.AT_WORK * each, numbers, None
        lowered = self._jitted(_compiled.chunk).lower(*self._arguments(rows, counts))
        if self.batch > 1 and self.team.platform == "cpu" and lapack.is_batched(lowered.as_text()):
            return None
        figures, _ = lowered.out_info
        compiled = lowered.compile()
        numbers = sum(m.mean.size for m in figures.moments) // places
        return _memory.needed(compiled), numbers, compiled if self.lanes > 1 else None


#: What a program takes on each device, numbers that a seed yields (the compiler is slow to say), and, where it runs in
#: lanes, what was compiled. None for a program whose seeds must come one after the other (see `_core.lapack`).
_NEEDS: dict[Any, tuple[int | None, int, Any] | None] = {}
_MOST_NEEDS = 256


def _finished(compute: _Program, folder: Folder | None, mine: list[int]) -> Iterator[list[tuple[int, Chunk]]]:
    """This process's chunks in their order, by rounds: from the folder, or else computed and put there."""
    waiting: list[tuple[int, Chunk | None]] = []
    for number in mine:
        waiting.append((number, None if folder is None else folder.read(number)))
        absent = [i for i, found in waiting if found is None]
        places = compute.places
        if number != mine[-1] and len(absent) < places and len(waiting) < 4 * places:
            continue
        fresh: dict[int, Chunk] = {}
        for i, found in compute(absent) if absent else ():
            fresh[i] = found
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


def _array(value: Any) -> Any:
    """A number of a pytree as an array of the dtype that it has here, where x64 may be on."""
    return (
        value if isinstance(value, jax.Array) else jax.device_put(np.asarray(value, jnp.result_type(value)))
    )


def _on_every(data: Any, mesh: Mesh) -> Any:
    """The arrays of a pytree on every device of the mesh; Python's numbers stay what they are."""
    same = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda v: jax.device_put(v, same) if isinstance(v, (jax.Array, np.ndarray)) else v, data
    )
