"""Where a record comes from: versions, device, precision flags, time."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import platform
from typing import Any

import jax

_PACKAGES = ("jaxinit", "jax", "jaxlib", "flax", "optax", "numpy")


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def provenance() -> dict[str, Any]:
    """Versions, device and the flags that change numbers, as a dict of plain values."""
    device, flags = jax.devices()[0], jax.config.values
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": dict(_versions()),
        "python": platform.python_version(),
        "platform": device.platform,
        "device": device.device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "x64": bool(flags["jax_enable_x64"]),
        "matmul_precision": str(flags["jax_default_matmul_precision"]),
        "threefry_partitionable": bool(flags["jax_threefry_partitionable"]),
    }
