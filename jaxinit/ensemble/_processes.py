"""Several processes: joining them, and handing every process what all of them found."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np


def initialize(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the processes of this job, by `jax.distributed`; later runs are shared among them.

    Call it before anything else of JAX, in every process, and start the same program in each. Afterwards
    `ji.simulate` computes a share of the seeds on each process's devices, and returns the same record
    in every process. A process that is already joined stays so.

    Arguments:
        coordinator_address: "host:port" of process 0. On SLURM, Open MPI, Kubernetes and Cloud TPU leave all three out:
            JAX finds them.
        num_processes, process_id: how many there are, and which one this is, from 0.

    Raises:
        ValueError: nothing is given and no cluster is found, or only a part is given.
        RuntimeError: JAX has been used before, or the others do not answer.

    Example:
        >>> from jaxinit import ensemble
        >>> ensemble.initialize("127.0.0.1:1234", 1)
        Traceback (most recent call last):
        ...
        ValueError: `initialize(...)` takes coordinator_address, num_processes and process_id together, or none of them.
    """
    given = [v is not None for v in (coordinator_address, num_processes, process_id)]
    if any(given) and not all(given):
        raise ValueError(
            "`initialize(...)` takes coordinator_address, num_processes and process_id together, or none of them."
        )
    if jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, TypeError) as error:
        if any(given):
            raise
        raise ValueError(
            "`initialize()` found no cluster here (SLURM, Open MPI, Kubernetes, Cloud TPU). Pass "
            "coordinator_address='host:port' of process 0, num_processes and process_id."
        ) from error


def exchange(content: bytes) -> list[bytes]:
    """The contents of all processes, in their order; every process must call it."""
    if jax.process_count() == 1:
        return [content]
    from jax.experimental.multihost_utils import process_allgather

    lengths = process_allgather(np.array([len(content)], np.uint32)).ravel()
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = process_allgather(padded)
    return [row[:length].tobytes() for row, length in zip(rows, lengths.tolist(), strict=True)]


def agree(found: Any, error: Exception | None = None) -> list[Any]:
    """What every process found (values that JSON holds); raises in all of them if one failed."""
    if jax.process_count() == 1:
        if error is not None:
            raise error
        return [found]
    told = {"found": found, "error": None if error is None else str(error)}
    answers = [json.loads(content) for content in exchange(json.dumps(told).encode())]
    if error is not None:
        raise error
    for process, answer in enumerate(answers):
        if answer["error"] is not None:
            raise ValueError(f"process {process}: {answer['error']}")
    return [answer["found"] for answer in answers]
