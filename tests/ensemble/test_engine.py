"""The engine: moments over chunks are the moments of the whole, progress is told, programs are reused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit import ensemble
from jaxinit._core.moments import Moments
from jaxinit._core.scaled import Scaled
from jaxinit.ensemble import _compiled, _devices, _engine, _memory
from jaxinit.ensemble._split import Split


def one(key: jax.Array, data: jax.Array) -> dict[str, object]:
    bits = jax.random.bits(key, (3,), jnp.uint16).astype(jnp.float32)
    x = jnp.sin(bits) + data
    return {"bits": bits, "x": x, "scaled": Scaled(x, jnp.full((3,), 2, jnp.int32))}


SEEDS = np.arange(10, dtype=np.uint32)


@pytest.fixture(scope="module")
def alone() -> list[dict]:
    """Every seed by itself."""
    program = jax.jit(one)
    return [program(k, jnp.float32(1.0)) for k in ensemble.keys_of(SEEDS, 0)]


def test_keys_name_networks() -> None:
    root = jax.random.key(4, impl="threefry2x32")
    keys = ensemble.keys_of(np.array([9, 2], np.uint32), 4)
    assert (jax.random.key_data(keys[1]) == jax.random.key_data(jax.random.fold_in(root, 2))).all()


@pytest.mark.parametrize(
    ("batch", "chunk", "devices", "apart"),
    [(1, None, 1, False), (10, None, 1, False), (3, 4, 1, False), (2, 100, 4, False), (1, None, 3, False),
     (1, 4, 1, True), (1, None, 3, True)],
)  # fmt: skip
def test_moments_whatever_the_split(
    alone: list[dict], batch: int, chunk: int | None, devices: int, apart: bool
) -> None:
    moments, samples = ensemble.run(
        one, jnp.float32(1.0), SEEDS, batch=batch, chunk=chunk, keep=True, devices=devices, seed_by_seed=apart
    )
    want = np.stack([np.asarray(sample["x"]) for sample in alone])
    assert samples is not None
    # The draws are the same to the bit; what is computed from them, to the compiler's rounding.
    np.testing.assert_array_equal(samples["bits"], np.stack([np.asarray(sample["bits"]) for sample in alone]))
    np.testing.assert_allclose(samples["x"], want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(samples["scaled"], 4.0 * want, rtol=1e-6, atol=4e-6)
    for name, factor in (("x", 1.0), ("scaled", 4.0)):
        np.testing.assert_allclose(moments[name].mean, factor * Moments.of(want).mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moments[name].stderr, factor * Moments.of(want).stderr, rtol=1e-4)
        np.testing.assert_array_equal(moments[name].count, 10)
        np.testing.assert_allclose(moments[name].max, factor * want.max(axis=0), rtol=1e-6)


@pytest.mark.parametrize("apart", [False, True])
def test_a_chunk_of_the_same_size_gives_the_same_bits_on_any_devices(apart: bool) -> None:
    def figures(devices: object) -> tuple:
        return ensemble.run(
            one, jnp.float32(1.0), SEEDS, batch=1 if apart else 2, chunk=3, keep=True, devices=devices,
            seed_by_seed=apart,
        )  # fmt: skip

    moments, samples = figures(1)
    for devices in (4, jax.devices()[2:3]):
        found, kept = figures(devices)
        for name, value in moments.items():
            for field in ("count", "mean", "m2", "min", "max"):
                np.testing.assert_array_equal(getattr(found[name], field), getattr(value, field), strict=True)
            np.testing.assert_array_equal(kept[name], samples[name], strict=True)


@pytest.mark.parametrize("wide", [False, True])
def test_a_core_each_for_chunks_on_one_device(monkeypatch: pytest.MonkeyPatch, wide: bool) -> None:
    elsewhere, call = [], _engine._Program._elsewhere
    monkeypatch.setattr(_engine._Program, "_elsewhere", lambda *given: elsewhere.append(1) or call(*given))

    def run(cores: int) -> tuple:
        monkeypatch.setattr(_devices, "_cores", lambda: cores * len(jax.local_devices()))
        with jax.enable_x64(wide):  # a setting of this thread
            return ensemble.run(one, 1.0, SEEDS, batch=2, chunk=2, keep=True, devices=1)

    (moments, samples), (expected, alone) = run(3), run(1)
    assert len(elsewhere) == 3  # five chunks in rounds of three and two
    for name, of in expected.items():
        np.testing.assert_array_equal(samples[name], alone[name], strict=True)
        np.testing.assert_array_equal(moments[name].mean, of.mean)
        np.testing.assert_array_equal(moments[name].count, 10)


def test_lanes_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    team = _devices.Devices.of("test", 1)
    monkeypatch.setattr(_devices, "_cores", lambda: 6 * len(jax.local_devices()))
    monkeypatch.setattr(_memory, "host_memory", lambda: 1000)
    assert team.lanes() == 6
    assert [_memory.lanes(each, team, 6) for each in (None, 80, 200, 2000)] == [6, 6, 2, 1]
    assert _devices.Devices.of("test", 2).lanes() == 1  # they share the cores already


def test_all_devices_take_part_by_default() -> None:
    seen: list[tuple[int, int]] = []
    ensemble.run(
        one, jnp.float32(0.0), SEEDS[:8], chunk=2, progress=lambda done, total: seen.append((done, total))
    )
    assert jax.device_count() == 4 and seen == [(8, 8)]
    with jax.default_device(jax.devices()[1]):
        ensemble.run(one, jnp.float32(0.0), SEEDS[:4], chunk=2, progress=lambda *now: seen.append(now))
    assert seen[1:] == [(2, 4), (4, 4)]


def test_committed_data_goes_to_every_device() -> None:
    data = jax.device_put(jnp.float32(1.0), jax.devices()[1])
    moments, _ = ensemble.run(one, data, SEEDS, devices=4)
    assert np.all(moments["x"].count == 10)


def test_undefined_samples_are_not_counted_and_integers_are_averaged() -> None:
    def odd(key: jax.Array, data: jax.Array) -> dict[str, jax.Array]:
        return {"n": jnp.ones((2,), jnp.int32), "b": jnp.array([True]), "undefined": data * jnp.nan}

    moments, _ = ensemble.run(odd, jnp.ones(1), SEEDS[:5], chunk=1, devices=2)
    assert moments["undefined"].count == [0] and np.isnan(moments["undefined"].mean)
    np.testing.assert_array_equal(moments["n"].mean, [1.0, 1.0])
    assert moments["b"].count == [5] and moments["b"].mean == [1.0]


def test_progress() -> None:
    calls: list[tuple[int, int]] = []
    ensemble.run(
        one, jnp.float32(0.0), SEEDS, chunk=4, devices=1, progress=lambda done, total: calls.append((done, total))
    )  # fmt: skip
    assert calls == [(4, 10), (8, 10), (10, 10)]


def test_bar_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    ensemble.run(one, jnp.float32(0.0), SEEDS, chunk=4, devices=1, progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "seeds" in captured.err and "10/10" in captured.err


def test_numbers_and_seeds_do_not_recompile() -> None:
    ensemble.run(one, jnp.float32(0.0), SEEDS, chunk=3, devices=2)
    before = _compiled.jitted(_compiled.chunk, "cpu", one)._cache_size()
    ensemble.run(one, jnp.float32(5.0), SEEDS + 7, root=3, chunk=3, devices=2)
    ensemble.run(one, jnp.float32(5.0), SEEDS[:9], root=3, chunk=3, devices=2)
    assert _compiled.jitted(_compiled.chunk, "cpu", one)._cache_size() == before


def test_seed_by_seed_one_program_serves_chunks_of_any_size() -> None:
    def figures(chunk: int) -> dict[str, Moments]:
        return ensemble.run(one, jnp.float32(0.0), SEEDS, chunk=chunk, devices=1, seed_by_seed=True)[0]

    figures(3)
    before = _compiled.jitted(_compiled.seed, "cpu", one)._cache_size()
    figures(5)
    assert _compiled.jitted(_compiled.seed, "cpu", one)._cache_size() == before


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("batch", [2, 8])
def test_lowers_for_accelerators(devices: int, batch: int) -> None:
    mesh = ensemble._devices.Devices.of("run", devices).mesh()
    traced = _compiled.jitted(_compiled.chunk, "cpu", one).trace(
        np.arange(4 * devices, dtype=np.uint32), np.uint32(0), jnp.float32(0.0), one, batch, True,
        np.full(devices, 4, np.int32), mesh,
    )  # fmt: skip
    assert traced.lower(lowering_platforms=("cuda", "tpu"))
    single = _compiled.jitted(_compiled.seed, "cpu", one).trace(
        np.arange(devices, dtype=np.uint32), np.uint32(0), jnp.float32(0.0), one, mesh
    )  # fmt: skip
    assert single.lower(lowering_platforms=("cuda", "tpu"))


@pytest.mark.parametrize(
    ("devices", "error", "words"),
    [
        (0, ValueError, "at least 1"),
        (9, ValueError, r"at most 4, .*jax_num_cpu_devices"),
        ("cpu", TypeError, "a number of devices"),
        ([], ValueError, "a number of devices"),
        ([1], ValueError, "jax.devices"),
        ([jax.devices()[0]] * 2, ValueError, "distinct"),
    ],
)
def test_bad_devices(devices: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        ensemble.run(one, jnp.float32(0.0), SEEDS, devices=devices, where="simulate")
    for asked in (ensemble.batch_size, ensemble.worth_a_call):
        with pytest.raises(error, match=r"`probe\(devices=\.\.\.\)`"):
            asked(1, *[1] * (asked is ensemble.batch_size), devices=devices, where="probe")


@pytest.mark.parametrize("total", [1, 7, 64, 1000, 1001])
@pytest.mark.parametrize("chunk", [None, 1, 5, 64, 5000])
@pytest.mark.parametrize("batch", [1, 8])
def test_every_seed_lies_in_one_chunk_of_one_process(total: int, chunk: int | None, batch: int) -> None:
    for owners in ([0], [0, 1], [0, 0, 0, 1, 2]):
        split = Split.of(total, chunk, batch, len(owners))
        assert chunk is None or split.size <= chunk
        shares = [split.of_process(owners, p) for p in range(3)]
        assert sorted(c for share in shares for c in share) == list(range(split.chunks))
        covered = [i for c in range(split.chunks) for i in range(*split.bounds(c))]
        assert covered == list(range(total))
        assert split.group(split.chunks - 1) < 256


def factorized(key: jax.Array, data: jax.Array) -> dict[str, jax.Array]:
    """Several factorizations that a vmap over seeds would batch: on two threads such a program never ends."""
    keys = jax.random.split(key, 8)
    return {"r": jnp.stack([jnp.abs(jnp.linalg.qr(jax.random.normal(k, (16, 16)))[1][0, 0]) for k in keys])}


def test_seeds_that_factorize_matrices_run_one_by_one_on_cpu() -> None:
    seeds = np.arange(160, dtype=np.uint32)
    batched, alone = (
        ensemble.run(factorized, jnp.float32(0.0), seeds, batch=batch, keep=True, devices=1)[1]
        for batch in (160, 1)
    )
    assert batched is not None and alone is not None
    np.testing.assert_array_equal(batched["r"], alone["r"])
