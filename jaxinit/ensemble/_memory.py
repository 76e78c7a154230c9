"""Memory: how many seeds fill a device, and plans that do not fit, refused before they run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax

from jaxinit._core import checks
from jaxinit.ensemble._devices import Devices

#: Numbers a step and batch that fill a CPU core's cache, and an accelerator.
_CPU_NUMBERS, _ACCELERATOR_NUMBERS = 1 << 15, 1 << 22
#: Bytes that a batch may keep on a CPU, and the share of an accelerator's memory.
_CPU_BYTES, _ACCELERATOR_SHARE = 1 << 30, 0.25
#: Bytes of one seed on a CPU from which a call of its own is the faster way.
_CPU_CALL = 3 << 20
#: Bytes that are there without asking.
_SMALL = 1 << 24
#: The most seeds of a batch.
_CPU_MOST, _ACCELERATOR_MOST = 64, 4096


def batch_size(
    numbers: int, kept: int, *, weights: bool = False, devices: Any = None, where: str = "batch_size"
) -> int:
    """Seeds to compute together on one device.

    On a CPU small batches that stay in the cache, one after the other; single seeds if they form `weights`, since
    a batch of matrix products is slower there than one product after the other. On an accelerator as many as
    fill it.

    Arguments:
        numbers: numbers that a step of one seed works on.
        kept: bytes that one seed keeps meanwhile.
        weights: whether a seed forms weight matrices.
        devices: as given to `run`.
        where: the function that errors speak of.

    Raises:
        ValueError, TypeError: `numbers` is below 1, or `kept` below 0.
    """
    numbers = checks.integer(where, "numbers", numbers, at_least=1)
    kept = checks.integer(where, "kept", kept, at_least=0)
    weights = checks.flag(where, "weights", weights)
    device = Devices.of(where, devices).every[0]
    if device.platform == "cpu":
        return 1 if weights else max(1, min(_CPU_NUMBERS // numbers, _CPU_BYTES // max(kept, 1), _CPU_MOST))
    room = _ACCELERATOR_SHARE * (available(device) or _CPU_BYTES)
    return max(1, min(_ACCELERATOR_NUMBERS // numbers, int(room) // max(kept, 1), _ACCELERATOR_MOST))


def worth_a_call(kept: int, *, devices: Any = None, where: str = "worth_a_call") -> bool:
    """Whether a seed that keeps so many bytes is best a call of its own (`run(seed_by_seed=True)`): on a CPU, if the
    work it does outweighs the call. Errors speak of the function `where`."""
    kept = checks.integer(where, "kept", kept, at_least=0)
    return Devices.of(where, devices).every[0].platform == "cpu" and kept > _CPU_CALL


def available(device: Any) -> int | None:
    """Bytes that are free for a program on the device; None if nobody knows.

    Example:
        >>> import jax
        >>> from jaxinit import ensemble
        >>> free = ensemble.available(jax.local_devices()[0])
        >>> free is None or free > 0
        True
    """
    if device.platform == "cpu":
        return host_memory()
    stats = device.memory_stats() if device.process_index == jax.process_index() else None
    if not stats or "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))


def host_memory() -> int | None:
    """Bytes that this process may still allocate: what the machine has free, within the limit of its container."""
    found = [
        n
        for n in (_machine(), *_containers(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))
        if n is not None
    ]
    return min(found, default=None)


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _containers(root: Path, own: Path) -> list[int]:
    """What the memory limits of control groups (version 2) leave: of this one and those it lies in."""
    try:
        name = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        name = "/"
    folder, out = root / name.strip().lstrip("/"), []
    for place in (folder, *folder.parents):
        try:
            limit, used = (place / "memory.max").read_text().strip(), (place / "memory.current").read_text()
            if limit != "max":
                out.append(int(limit) - int(used) + _cache(place))
        except (OSError, ValueError):
            pass
        if place == root:
            break
    return out


def _cache(place: Path) -> int:
    """Bytes of files kept in memory, which the kernel gives up when they are needed."""
    for line in (place / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def needed(compiled: Any) -> int | None:
    """Bytes that a compiled program takes on each device, beside its code; None if the compiler does not say."""
    try:
        stats = compiled.memory_analysis()
    except (jax.errors.JaxRuntimeError, NotImplementedError):
        return None
    if stats is None:
        return None
    parts = (stats.temp_size_in_bytes, stats.argument_size_in_bytes, stats.output_size_in_bytes)
    return int(sum(parts))


def lanes(each: int | None, devices: Devices, most: int) -> int:
    """How many programs that take so many bytes run at the same time: `most`, or what half of the memory holds."""
    room = available(devices.own[0]) if each and most > 1 else None
    return most if room is None or each is None else max(1, min(most, room // 2 // each))


def amount(count: float) -> str:
    """Bytes in a person's units.

    Example:
        >>> from jaxinit import ensemble
        >>> ensemble.amount(3 * 2**29)
        '1.5 GiB'
    """
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"


def check(
    where: str, each: int | None, devices: Devices, *, size: int, batch: int, sample: int, kept: int
) -> None:
    """Raise ValueError if the program, or what the host keeps of it, does not fit.

    Arguments:
        each: bytes that the program takes on a device.
        size, batch: seeds of a chunk, and computed together.
        sample: bytes of one seed's values; they lie on the device until the chunk is reduced.
        kept: bytes of samples that the host keeps.
    """
    if each is None:
        return
    device = devices.own[0]
    shared = device.platform == "cpu"  # virtual devices, and the host, share one memory
    total = each * len(devices.own) + kept if shared else each
    if total + kept < _SMALL:
        return
    room = available(device)
    if room is None or total <= room:
        return _check_host(where, 0 if shared else kept)
    what = f"`{where}(...)` needs about {amount(total)} of {device.platform} memory"
    if shared and kept > room / 2:
        raise ValueError(
            f"{what}, {amount(kept)} of it for the samples of every seed, and {amount(room)} are available. "
            "Leave them out (keep_seeds=False), or record fewer statistics."
        )
    raise ValueError(
        f"{what} for batches of {batch} seeds in chunks of {size}, and {amount(room)} are available. "
        + _way_out(each, (room - kept) // len(devices.own) if shared else room, size, batch, 2 * sample)
    )


def _way_out(each: int, room: int, size: int, batch: int, sample: int) -> str:
    """The batch and chunk that fit into `room`: `each` is taken by `batch` seeds at work and `size` samples."""
    seed = max(each - sample * size, 1) // batch
    fitting = min(batch, room // max(seed + sample, 1))
    if fitting < 1:
        return (
            "Not even one seed fits: take a smaller width or depth, or where weights are drawn whose law allows it, "
            "weights that are never formed (`simulate(sampler='implicit')`, `probe(weights='implicit')`)."
        )
    chunk = min(size, (room - fitting * seed) // max(sample, 1) // fitting * fitting)
    return f"batch={fitting}, chunk={max(fitting, chunk)} should fit."


def _check_host(where: str, kept: int) -> None:
    room = host_memory()
    if room is not None and kept > room:
        raise ValueError(
            f"`{where}(...)` would keep {amount(kept)} of samples on the host, and {amount(room)} are available. "
            "Leave them out (keep_seeds=False), or record fewer statistics."
        )
