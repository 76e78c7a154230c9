"""Records: value semantics and the pytree contract."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit._core.struct import leaf, record, static


@record
class Noise:
    stddev: object = leaf()
    kind: str = static(default="normal")


def test_equal_by_value_and_hashable() -> None:
    assert Noise(0.1) == Noise(0.1) != Noise(0.2)
    assert Noise(0.1) != Noise(0.1, "uniform")
    assert len({Noise(0.1), Noise(0.1), Noise(0.2)}) == 2
    assert Noise(0.1) != 0.1


def test_arrays_compare_by_content() -> None:
    a, b = np.arange(3.0), np.arange(3.0)
    assert Noise(a) == Noise(b) and hash(Noise(a)) == hash(Noise(b))
    assert Noise(a) != Noise(a.astype(np.float32))
    assert Noise(np.array([np.nan])) == Noise(np.array([np.nan]))
    assert Noise(np.array(0.1)) != Noise(0.1)


def test_frozen_copy_pickle_repr() -> None:
    x = Noise(0.1, "uniform")
    with pytest.raises(AttributeError):
        x.stddev = 1.0  # type: ignore[misc]
    assert copy.deepcopy(x) == x == pickle.loads(pickle.dumps(x))
    assert eval(repr(x)) == x


def test_numbers_are_leaves_and_choices_are_structure() -> None:
    leaves, structure = jax.tree.flatten(Noise(0.1, "uniform"))
    assert leaves == [0.1]
    assert structure != jax.tree.structure(Noise(0.1))
    assert jax.tree.map(lambda v: v * 2, Noise(0.5)) == Noise(1.0)
    # Unflattening checks nothing: jax puts placeholders into records.
    assert jax.tree.unflatten(structure, [object()]).kind == "uniform"


def test_numbers_do_not_retrace_and_choices_do() -> None:
    traces = 0

    @jax.jit
    def f(n: Noise) -> jax.Array:
        nonlocal traces
        traces += 1
        return n.stddev * jnp.ones(2)  # type: ignore[operator]

    f(Noise(0.1)), f(Noise(0.2)), f(Noise(0.3))
    assert traces == 1
    f(Noise(0.1, "uniform"))
    assert traces == 2
