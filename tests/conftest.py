"""Settings of every test: four virtual CPU devices, strict promotion, rank errors, warnings as errors."""

import os

# The tests spend their time in compiling programs that run for milliseconds: level 1 takes half as long.
flags = os.environ.get("XLA_FLAGS", "")
for flag, value in (("xla_force_host_platform_device_count", 4), ("xla_backend_optimization_level", 1)):
    if flag not in flags:
        flags += f" --{flag}={value}"
os.environ["XLA_FLAGS"] = flags.strip()
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402  (after the flags that it reads)
import pytest  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def synthetic():
    """The makers of synthetic records."""
    import synthetic

    return synthetic
