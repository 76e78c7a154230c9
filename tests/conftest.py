"""Settings of every test: four virtual CPU devices, strict promotion, rank errors, warnings as errors."""

import gc
import os
from importlib.metadata import version

# The tests spend their time in compiling programs that run for milliseconds: without optimizations, and by the older
# of the CPU compiler's two ways to emit loops, that takes half as long; in one piece, and without a line of source code
# for every operation, it takes a seventh less again. The smoke part and the benchmarks are compiled as users' programs
# are, and tests marked `optimized` nearly so.
CHOSEN: dict[str, object] = {"xla_force_host_platform_device_count": 4, "xla_backend_optimization_level": 1}
if version("jaxlib").startswith("0.10."):  # a flag that is unknown ends the process
    CHOSEN |= {"xla_cpu_use_fusion_emitters": "false", "xla_cpu_parallel_codegen_split_count": 1}
flags = os.environ.get("XLA_FLAGS", "")
for flag, value in CHOSEN.items():
    if flag not in flags:
        flags += f" --{flag}={value}"
os.environ["XLA_FLAGS"] = flags.strip()
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # whose idle threads spin on the cores that the tests need

import jax  # noqa: E402  (after the flags that it reads)
import pytest  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
SWITCH = "jax_disable_most_optimizations"
UNOPTIMIZED = bool(jax.config.read(SWITCH))


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not walk it again, and walks the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Those of the compiler for tests marked `optimized`: bits that are promised, programs that run for long."""
    unoptimized = UNOPTIMIZED and item.get_closest_marker("optimized") is None
    if unoptimized != jax.config.read(SWITCH):
        jax.config.update(SWITCH, unoptimized)
        jax.clear_caches()


@pytest.fixture(scope="session")
def synthetic():
    """The makers of synthetic records."""
    import synthetic

    return synthetic
