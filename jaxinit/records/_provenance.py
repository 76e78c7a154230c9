"""Where a record comes from: versions, device, precision flags, time."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from typing import Any

import jax

_PACKAGES = ("jaxinit", "jax", "jaxlib", "flax", "optax", "numpy")


def provenance() -> dict[str, Any]:
    """Versions, device and the flags that change numbers, as a dict of plain values."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    device = jax.devices()[0]
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": versions,
        "python": platform.python_version(),
        "platform": device.platform,
        "device": device.device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "matmul_precision": str(jax.config.read("jax_default_matmul_precision")),
        "threefry_partitionable": bool(jax.config.read("jax_threefry_partitionable")),
    }
