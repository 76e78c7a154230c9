"""Data: split once and for all, standardized by the training part alone, never downloaded."""

import sys

import numpy as np
import pytest

from jaxinit.compare import DataNotAvailable, Dataset, _batches, load_data

RNG = np.random.default_rng(5)


def arrays(n=50, shape=(3,), classes=4):
    return RNG.normal(2.0, 3.0, size=(n, *shape)), RNG.integers(0, classes, size=n)


def test_digits_are_split_without_loss_or_overlap():
    data = load_data("digits", standardize=None)
    parts = (data.x_train, data.x_validation, data.x_test)
    assert [len(p) for p in parts] == [1079, 359, 359]
    whole = sorted(map(bytes, np.concatenate(parts)))
    from sklearn.datasets import load_digits

    assert whole == sorted(map(bytes, load_digits().data.astype(np.float32)))
    assert data.outputs == 10 and data.classification


def test_split_is_deterministic_and_seeded():
    a, b, c = load_data("digits"), load_data("digits"), load_data("digits", seed=1)
    np.testing.assert_array_equal(a.x_train, b.x_train)
    assert not np.array_equal(a.y_train, c.y_train)


@pytest.mark.parametrize("how", ["feature", "global"])
def test_standardization_sees_the_training_part_alone(how):
    x, y = arrays(200)
    data = load_data((x, y), standardize=how)
    axes = 0 if how == "feature" else None
    np.testing.assert_allclose(data.x_train.mean(axis=axes), 0, atol=1e-6)
    np.testing.assert_allclose(data.x_train.std(axis=axes), 1, rtol=1e-5)
    assert abs(data.x_test.mean()) > 1e-4
    moved = x.copy()
    held = load_data((x, y), standardize=None).x_test.astype(np.float64)
    is_test = (np.abs(x[:, None].astype(np.float32) - held[None]).max(-1) == 0).any(1)
    moved[is_test] += 100
    np.testing.assert_array_equal(load_data((moved, y), standardize=how).x_train, data.x_train)


def test_a_constant_feature_does_not_divide_by_zero():
    x, y = arrays()
    x[:, 1] = 7
    assert (load_data((x, y)).x_train[:, 1] == 0).all()


def test_regression_targets_are_columns_and_standardized():
    x = RNG.normal(size=(100, 3))
    for y, outputs in ((x @ [1.0, 2.0, 3.0], 1), (x @ RNG.normal(size=(3, 2)), 2)):
        data = load_data((x, y))
        assert not data.classification and data.outputs == outputs and data.y_test.shape == (20, outputs)
        np.testing.assert_allclose(data.y_train.std(axis=0), 1, rtol=1e-5)


def test_baseline_is_the_best_constant_answer():
    x, _ = arrays(100)
    y = np.array([0] * 70 + [1] * 30)
    base = load_data((x, y)).baseline()
    data = load_data((x, y))
    assert base["chance"] == pytest.approx(np.mean(data.y_test == 0))
    p = np.mean(data.y_train == 0)
    expected = -np.mean(np.where(data.y_test == 0, np.log(p), np.log(1 - p)))
    assert base["baseline_loss"] == pytest.approx(expected)
    real = load_data((x, x[:, 0]))
    assert real.baseline()["baseline_loss"] == pytest.approx(float(np.square(real.y_test).mean()), rel=1e-5)


def test_npz_keeps_its_own_test_part(tmp_path):
    x, y = arrays(40, (4, 4))
    x = (np.abs(x) * 20).astype(np.uint8)
    path = tmp_path / "images.npz"
    np.savez(path, x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    for given in (path, str(path)):
        data = load_data(given, standardize=None)
        np.testing.assert_array_equal(data.x_test, x[30:].astype(np.float32))
        assert len(data.x_train) == 24 and len(data.x_validation) == 6 and data.name == "images"
    assert len(load_data(path, limit=10).x_train) == 8


def test_a_dataset_passes_unchanged():
    data = load_data(arrays())
    assert load_data(data) is data and isinstance(data, Dataset)


def test_absent_file_says_where_it_looked(tmp_path):
    with pytest.raises(DataNotAvailable, match=r"looked for .*nowhere\.npz.*never downloads.*data='digits'"):
        load_data(str(tmp_path / "nowhere.npz"))
    with pytest.raises(DataNotAvailable, match="Did you mean 'digits'"):
        load_data("digit")


def test_absent_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataNotAvailable, match=r"pip install 'jaxinit\[data\]'"):
        load_data("digits")


def test_foreign_files_are_refused(tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(ValueError, match="no whole"):
        load_data(broken)
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros(3))
    with pytest.raises(
        ValueError, match=r"with x_train, y_train, x_test, y_test, got 'other.npz with images'"
    ):
        load_data(other)
    objects = tmp_path / "objects.npz"
    np.savez(objects, x_train=np.array([{}], dtype=object), y_train=[0], x_test=[0], y_test=[0])
    with pytest.raises(ValueError, match="allow_pickle"):
        load_data(objects)
    unlike = tmp_path / "unlike.npz"
    np.savez(
        unlike,
        x_train=np.zeros((9, 3)),
        y_train=np.zeros(9, int),
        x_test=np.zeros((3, 4)),
        y_test=np.zeros(3, int),
    )
    with pytest.raises(ValueError, match="alike in its parts, but test"):
        load_data(unlike)


def test_batches_are_the_arrays_they_hold():
    x, y = arrays(60)
    whole = load_data((x, y))

    def generator(buffer):
        for i in range(0, 60, 8):  # one buffer for all batches, as loaders do; the last is short
            n = min(8, 60 - i)
            buffer[0][:n], buffer[1][:n] = x[i : i + n], y[i : i + n]
            yield buffer[0][:n], buffer[1][:n]

    memory = np.empty((8, 3)), np.empty(8, int)
    as_dicts = [{"image": x[:30], "label": y[:30], "id": 1}, {"image": x[30:], "label": y[30:], "id": 2}]
    pairs = [(x[:30], y[:30]), (x[30:], y[30:])]
    for given in (
        generator(memory),
        lambda: generator(memory),
        as_dicts,
        pairs,
        [list(pair) for pair in [*pairs, (x[:0], y[:0])]],
    ):
        data = load_data(given)
        for part in ("x_train", "y_train", "x_validation", "x_test", "y_test"):
            np.testing.assert_array_equal(getattr(data, part), getattr(whole, part))
        assert data.name == "batches"


def test_an_endless_iterable_needs_a_limit(monkeypatch):
    def forever():
        while True:
            yield X, Y

    data = load_data(forever, limit=70)
    assert [len(part) for part in (data.x_train, data.x_validation, data.x_test)] == [42, 14, 14]
    monkeypatch.setattr(_batches, "MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match=r"limit=\.\.\."):
        load_data(forever)


def test_parts_of_ones_own():
    x, y = arrays(60)
    parts = {"train": [(x[:40], y[:40])], "test": (x[50:], y[50:])}
    data = load_data(parts, standardize=None)
    assert [len(p) for p in (data.x_train, data.x_validation, data.x_test)] == [32, 8, 10]
    data = load_data(parts | {"validation": lambda: [(x[40:50], y[40:50])]}, standardize=None)
    np.testing.assert_array_equal(data.x_validation, x[40:50].astype(np.float32))
    assert len(data.x_train) == 40 and sorted(data.y_train) == sorted(y[:40])


X, Y = arrays()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (3, TypeError, "a name, .x, y. arrays"),
        ([], ValueError, "at least one batch"),
        (lambda: 3, TypeError, "returns an iterable"),
        ([X, Y, Y], TypeError, r"batches \(x, y\), or dicts with 'x' and 'y' or 'image' and 'label'"),
        ([{"a": X}], TypeError, "batches"),
        ([(X, Y[:3])] * 3, ValueError, "as many targets"),
        ([(X, Y), (X[:, :2], Y)], ValueError, "one shape"),
        ({"train": (X, Y)}, ValueError, "'train', 'test' and perhaps"),
        ({"train": (X, Y), "test": 3}, TypeError, "'test' is"),
        ({"train": (X, Y), "test": (X[:, :2], Y)}, ValueError, "alike in its parts, but test"),
        ((X, Y[:-1]), ValueError, "x of shape"),
        ((X[:, 0], Y), ValueError, "x of shape"),
        ((X, np.eye(4, dtype=int)[Y]), ValueError, "argmax"),
        ((X, Y - 1), ValueError, "integer labels"),
        ((np.where(X > 2, np.nan, X), Y), ValueError, "finite"),
        ((X[:0], Y[:0]), ValueError, "not empty"),
        ((X[:2], Y[:2]), ValueError, "enough examples"),
        ((X.astype(str), Y), TypeError, "numbers"),
    ],
)
def test_arrays_that_do_not_fit(data, error, message):
    with pytest.raises(error, match=message):
        load_data(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 0.0}, "validation"),
        ({"test": 1.0}, "test"),
        ({"standardize": "features"}, "Did you mean 'feature'"),
        ({"seed": -1}, "seed"),
        ({"limit": 2}, "limit"),
    ],
)
def test_options_out_of_bounds(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_data((X, Y), **arguments)
