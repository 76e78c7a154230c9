"""The devices of a run, over all processes, and the mesh of those that are this process's own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxinit._core import checks

#: The one axis of the mesh.
AXIS = "seeds"


@dataclasses.dataclass(frozen=True)
class Devices:
    """`every` device of the run in one order on all processes, and `own`, those of this process."""

    every: tuple[Any, ...]

    @staticmethod
    def of(where: str, devices: Any = None) -> Devices:
        """From None (all, or `jax_default_device` if that is set), a count, a Mesh, or devices."""
        rule = "a number of devices, a Mesh, or a sequence of distinct jax devices"
        if devices is None:
            default = jax.config.values["jax_default_device"]
            if default is None or jax.process_count() > 1:
                return Devices(tuple(jax.devices()))
            return Devices((jax.local_devices(backend=default)[0] if isinstance(default, str) else default,))
        if isinstance(devices, (int, np.integer)) and not isinstance(devices, bool):
            count = checks.integer(where, "devices", devices, at_least=1)
            found = jax.devices()
            if count > len(found):
                raise checks.bad(
                    where, "devices", f"at most {len(found)}, the devices of the {found[0].platform} backend", count,
                    "On a CPU, jax.config.update('jax_num_cpu_devices', n) before JAX is used makes n of them.",
                )  # fmt: skip
            return Devices(tuple(found[:count]))
        if isinstance(devices, Mesh):
            devices = devices.devices.ravel().tolist()
        if not isinstance(devices, Sequence) or isinstance(devices, str):
            raise checks.wrong_type(where, "devices", rule, devices)
        if not devices or not all(isinstance(d, jax.Device) for d in devices):
            raise checks.bad(where, "devices", rule, devices, "jax.devices() lists them.")
        if len(set(devices)) < len(devices) or len({d.platform for d in devices}) > 1:
            raise checks.bad(where, "devices", "distinct devices of one platform", devices)
        return Devices(tuple(devices))

    @property
    def own(self) -> tuple[Any, ...]:
        """The devices of this process."""
        here = jax.process_index()
        return tuple(d for d in self.every if d.process_index == here)

    @property
    def platform(self) -> str:
        """ "cpu", "gpu", "tpu"."""
        return str(self.every[0].platform)

    def lanes(self) -> int:
        """How many chunks a device computes at the same time: on a CPU one for each core that it has to itself.

        XLA divides single operations among cores, which gains little where they are small.
        """
        if len(self.own) != 1 or self.platform != "cpu":
            return 1
        return max(1, _cores() // len(jax.local_devices()))

    def mesh(self) -> Mesh | None:
        """A mesh with one Auto axis over this process's devices; None if the default device is the only one."""
        if self.own in ((), (jax.local_devices()[0],)):
            return None
        return Mesh(np.array(self.own), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
