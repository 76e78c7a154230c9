"""`simulate` through the engine: resumed, split over devices, and refused where it cannot fit."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxinit as ji
from jaxinit.ensemble import _compiled, _memory
from jaxinit.ensemble._devices import Devices
from jaxinit.simulate import _simulate

RECORD = ["second_moment", "correlation"]


def simulate(**options: object) -> ji.Propagation:
    network = ji.Network(2, 8, "tanh", weight_variance=1.5)
    options = {"seeds": 8, "record": RECORD, "keep_seeds": True, "batch": 2, **options}
    return ji.simulate(network, options.pop("seeds"), **options)  # type: ignore[arg-type]


def test_resumed_and_split_with_the_same_bits(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    whole = simulate(chunk=2, devices=1)
    with pytest.raises(KeyboardInterrupt):
        simulate(chunk=2, devices=1, resume=tmp_path, progress=stop)
    for found in (
        simulate(chunk=2, devices=1, resume=tmp_path),
        simulate(chunk=2, devices=4),
    ):
        for name in RECORD:
            np.testing.assert_array_equal(found[name].samples, whole[name].samples)
            np.testing.assert_array_equal(found[name].stderr, whole[name].stderr)
    with pytest.raises(ValueError, match=r"simulate\(resume=...\).*q = 1.0 there, 2.0 here"):
        simulate(chunk=2, q=2.0, resume=tmp_path)


def configuration(activation: Callable, initializer: Callable) -> dict:
    network = ji.Network(2, 8, activation, initializer=initializer)
    weights = tuple(_simulate._weights(network, s, "auto", False, 2) for s in network.shapes)
    program = _simulate._program(network, weights, frozenset(RECORD))
    return _simulate._configuration(network, program, 1.0, 0.5, None, _simulate.FULL)


def test_functions_are_known_by_what_they_do() -> None:
    def draw(by: float) -> Callable:
        return lambda key, shape, dtype=None: by * jax.random.normal(key, shape)

    first = configuration(lambda x: x * x, draw(1.0))
    assert first == configuration(lambda x: x * x, draw(1.0))
    assert first != configuration(lambda x: x + x, draw(1.0))
    assert first != configuration(lambda x: x * x, draw(2.0))


def test_sharded_programs_lower_for_accelerators() -> None:
    network = ji.Network(2, 8, "tanh", weight_variance=1.5)
    weights = tuple(_simulate._weights(network, s, "implicit", False, 2) for s in network.shapes)
    program = _simulate._program(network, weights, frozenset([*RECORD, "grad_second_moment"]))
    data = (network, _simulate._inputs(network, 1.0, 0.5, None))
    for devices in (1, 4):
        mesh = Devices.of("run", devices).mesh()
        seeds, counts = np.arange(2 * devices, dtype=np.uint32), np.full(devices, 2, np.int32)
        traced = _compiled.jitted(_compiled.chunk, "cpu").trace(
            seeds, np.uint32(0), data, program, 2, True, counts, mesh
        )
        assert traced.lower(lowering_platforms=("cuda", "tpu"))


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the memory that this machine seems to have."""

    def set_to(room: int) -> None:
        monkeypatch.setattr(_memory, "host_memory", lambda: room)
        monkeypatch.setattr(_memory, "_SMALL", 0)

    return set_to


def test_what_cannot_fit_is_refused_before_it_runs() -> None:
    # 10^12 numbers a layer: were this to run, it would be known.
    network = ji.Network(1, 1_000_000, "tanh", weight_variance=1.0)
    with pytest.raises(
        ValueError, match=r"simulate\(...\)` needs about [0-9.e+]+ TiB of cpu memory.*sampler='implicit'"
    ):
        ji.simulate(network, 1, sampler="materialized", record=["second_moment"], devices=1)


def test_the_batch_that_is_offered_fits(scarce: Callable[[int], None]) -> None:
    network = ji.Network(1, 4096, "tanh", weight_variance=1.0)
    options = {"record": ["second_moment"], "devices": 1, "chunk": 64}
    scarce(4 << 20)
    with pytest.raises(ValueError, match=r"batches of 64 .* batch=\d+, chunk=\d+ should fit") as error:
        ji.simulate(network, 64, batch=64, **options)  # type: ignore[arg-type]
    batch = int(str(error.value).split("batch=")[1].split(",")[0])
    assert 1 <= batch < 64
    assert ji.simulate(network, 64, batch=batch, **options).count == 64  # type: ignore[arg-type]


def test_samples_that_the_host_cannot_keep_are_refused(scarce: Callable[[int], None]) -> None:
    scarce(1 << 20)
    with pytest.raises(ValueError, match=r"keep_seeds=False"):
        simulate(seeds=100_000, chunk=2, devices=1)


def test_memory_is_known_here_and_limited_by_containers(tmp_path: Path) -> None:
    room = _memory.host_memory()
    assert room is not None and room > 1 << 20
    group, own = tmp_path / "a" / "b", tmp_path / "own"
    group.mkdir(parents=True)
    own.write_text("0::/a/b\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5\n")
    assert _memory._containers(tmp_path, own) == []
    for name, text in (("max", "1000\n"), ("current", "700\n"), ("stat", "anon 1\ninactive_file 50\n")):
        (tmp_path / "a" / f"memory.{name}").write_text(text)
    assert _memory._containers(tmp_path, own) == [350]
    assert _memory._containers(tmp_path, tmp_path / "absent") == []


def test_batches_fill_the_cache_of_a_cpu() -> None:
    from jaxinit.ensemble import batch_size

    assert batch_size(512, 1) == 64 and batch_size(1 << 20, 1) == 1 and batch_size(512, 1, weights=True) == 1
    assert batch_size(512, 1 << 29) == 2
    with pytest.raises(ValueError, match="numbers"):
        batch_size(0, 1)
