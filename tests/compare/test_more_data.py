"""Data made on the spot, and folders in the formats of their publishers."""

import gzip
import pickle
import struct

import numpy as np
import pytest

from jaxinit.compare import DataNotAvailable, load_data, mnist1d, parity, teacher
from jaxinit.compare._synthetic import _smooth


def test_mnist1d_is_the_same_every_time_and_balanced():
    x, y = mnist1d(400)
    again, labels = mnist1d(400)
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(y, labels)
    assert np.bincount(y).tolist() == [40] * 10
    assert not np.array_equal(x, mnist1d(400, seed=1)[0])


def test_mnist1d_is_as_hard_as_published():
    """Logistic regression reaches 32 % of the published 5000 (Greydanus & Kobak, table 1), nearest digits more."""
    from sklearn.linear_model import LogisticRegression

    x, y = mnist1d()
    fitted = LogisticRegression(max_iter=300).fit(x[:4000], y[:4000])
    assert abs(fitted.score(x[4000:], y[4000:]) - 0.32) < 5 * np.sqrt(0.32 * 0.68 / 1000)


def test_smoothing_is_scipys_gaussian_filter():
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(0).standard_normal(72)
    np.testing.assert_allclose(_smooth(noise), gaussian_filter(noise, 2), atol=1e-12)


def test_parity_hides_from_every_single_bit():
    x, y = parity(20000, bits=6, order=3)
    assert abs(y.mean() - 0.5) < 5 * 0.5 / np.sqrt(20000)
    assert (np.abs(x.T @ (2 * y - 1)) / 20000 < 5 / np.sqrt(20000)).all()
    np.testing.assert_array_equal(y, x[:, :3].prod(axis=1) < 0)
    with pytest.raises(ValueError, match="at most bits = 3"):
        parity(10, bits=3, order=4)


def test_teacher_has_the_variance_of_its_law():
    x, y = teacher(2000, outputs=3, noise=0.1, seed=4)
    clean = teacher(2000, outputs=3, seed=4)[1]
    assert x.shape == (2000, 20) and y.shape == (2000, 3)
    assert abs((y - clean).std() - 0.1) < 5 * 0.1 / np.sqrt(2 * 6000)


@pytest.mark.parametrize("name", ["mnist1d", "parity", "teacher"])
def test_names_load(name):
    data = load_data(name)
    assert data.name == name and data.classification == (name != "teacher")


def idx(array, code, dtype):
    return (
        bytes([0, 0, code, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(dtype).tobytes()
    )


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (30, 4, 5)).astype(np.uint8), rng.integers(0, 3, 30).astype(np.uint8)


def test_idx_folder(tmp_path, images):
    x, y = images
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(x[:20], 8, ">u1"))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y[:20], 8, ">u1")))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(x[20:], 8, ">u1"))
    with pytest.raises(DataNotAvailable, match="train-images-idx3-ubyte"):
        load_data(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(y[20:], 8, ">u1"))
    data = load_data(tmp_path, standardize=None)
    np.testing.assert_array_equal(data.x_test, x[20:].astype(np.float32))
    np.testing.assert_array_equal(data.y_test, y[20:])
    assert len(data.x_train) == 16
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(y[20:], 8, ">u1")[:-1])
    with pytest.raises(ValueError, match="no whole IDX file: 9 bytes of data, 10 announced"):
        load_data(tmp_path)


def cifar(x, y):
    return pickle.dumps({b"data": x, b"labels": list(map(int, y))}, protocol=2)


def test_cifar_folder(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 3072)).astype(np.uint8), rng.integers(0, 10, 12)
    for i in range(5):
        (tmp_path / f"data_batch_{i + 1}").write_bytes(cifar(x[2 * i : 2 * i + 2], y[2 * i : 2 * i + 2]))
    (tmp_path / "test_batch").write_bytes(cifar(x[10:], y[10:]))
    data = load_data(tmp_path, standardize=None)
    assert data.x_train.shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(data.x_test[:, 5, 7, 1], x[10:, 1024 + 5 * 32 + 7])


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Evil()}))
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(ValueError, match="no whole CIFAR-10 python batch: the file asks for builtins.print"):
        load_data(tmp_path)
