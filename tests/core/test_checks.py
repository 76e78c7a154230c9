"""Each refusal names the argument, the rule, the value and the way out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit._core import checks


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, np.float32(-2)])
def test_number_out_of_bounds(value: float) -> None:
    with pytest.raises(ValueError, match=r"`f\(scale=...\)` must be a finite number at least 0, got"):
        checks.number("f", "scale", value, at_least=0.0)


@pytest.mark.parametrize("value", ["1", None, True, np.True_, [1.0], 1j, jnp.ones(2)])
def test_number_of_the_wrong_kind(value: object) -> None:
    with pytest.raises(TypeError, match=r"`f\(scale=...\)` must be a real"):
        checks.number("f", "scale", value)


def test_numbers_pass() -> None:
    assert checks.number("f", "a", np.float32(0.5)) == 0.5
    assert checks.number("f", "a", 3) == 3.0
    assert jax.jit(lambda x: checks.number("f", "a", x) * 2)(1.5) == 3.0


def test_reals() -> None:
    def f(value: object) -> object:
        return checks.reals("f", "c", value, at_least=-1.0, at_most=1.0)

    assert f(np.array(0.5)) == f(0.5) == 0.5 and isinstance(f(np.float32(0.5)), float)
    assert np.array_equal(f([0, 1]), [0, 1]) and np.isnan(f(np.array([np.nan, 1.0]))[0])
    rounded = jnp.float32([1.0000001])
    assert f(rounded) is rounded
    assert jax.jit(lambda c: f(c) * 2)(jnp.ones(2) * 5).tolist() == [10.0, 10.0]
    for value in ([0.0, 1.5], jnp.array([-1.001]), np.array([[0], [2]])):
        with pytest.raises(
            ValueError, match=r"`f\(c=...\)` must be real numbers of at (least -1|most 1), got \["
        ):
            f(value)
    for wrong in (["a"], [None], [True], [1j], [[1.0], 2.0]):
        with pytest.raises(TypeError, match=r"`f\(c=...\)` must be real numbers, got"):
            f(wrong)
    for wrong in ("a", None, 1j, {}):
        with pytest.raises(TypeError, match=r"`f\(c=...\)` must be a real number, got"):
            f(wrong)


def test_flag() -> None:
    assert checks.flag("f", "first", np.True_) is True and checks.flag("f", "first", False) is False
    for value in ("no", 0, None, np.ones(2)):
        with pytest.raises(TypeError, match=r"`f\(first=...\)` must be True or False, got"):
            checks.flag("f", "first", value)


def test_integer() -> None:
    assert checks.integer("f", "n", np.int64(3)) == 3
    with pytest.raises(ValueError, match="an integer of at least 1, got 0"):
        checks.integer("f", "n", 0, at_least=1)
    for value in (1.0, True, "3"):
        with pytest.raises(TypeError, match="an integer"):
            checks.integer("f", "n", value)

    with pytest.raises(ValueError, match="an integer of at most 3, got 10000"):
        checks.integer("f", "n", 10**400, at_least=1, at_most=3)


def test_what_is_shown_of_a_value_is_short() -> None:
    class Half:
        def __repr__(self) -> str:
            return self.never  # type: ignore[attr-defined, no-any-return]

    tree = {f"layer_{n}": np.zeros((3, 3)) for n in range(500)}
    for refuse in (checks.bad, checks.wrong_type):
        text = str(refuse("f", "params", "a key", tree, "Make one."))
        assert len(text) < 300 and "\n" not in text
        assert text.startswith("`f(params=...)` must be a key, got {'layer_0': array([[0., 0., 0.], [0.,")
        assert text.endswith("0., 0.]])} of type dict. Make one.")
        assert "got a value of type Half." in str(refuse("f", "a", "a key", Half()))
        assert "got a value of type int." in str(refuse("f", "a", "a key", 10**5000))
    assert str(checks.bad("f", "a", "a key", "x" * 190)).endswith(f"got '{'x' * 190}'.")
    with pytest.raises(KeyError, match="no layer 5. Known names: a"):
        checks.named("layer", 5, {"a": 1})  # type: ignore[arg-type]


def test_choice_offers_the_nearest() -> None:
    with pytest.raises(
        ValueError, match="'fan_in', 'fan_out' or 'fan_avg', got 'fan_inn'. Did you mean 'fan_in'?"
    ):
        checks.choice("f", "mode", "fan_inn", ["fan_in", "fan_out", "fan_avg"])


def test_nearest() -> None:
    assert checks.nearest("kaimin", ["kaiming", "he"]) == "Did you mean 'kaiming'?"
    assert checks.nearest("zzz", ["b", "a"]) == "Known names: a, b."


def test_shape() -> None:
    assert checks.shape("f", "shape", [np.int64(2), 0]) == (2, 0)
    with pytest.raises(ValueError, match="at least 0"):
        checks.shape("f", "shape", (2, -1))
    for wrong in ((2.0,), b"ab", {2: 3}):
        with pytest.raises(TypeError):
            checks.shape("f", "shape", wrong)


def test_seeds() -> None:
    assert checks.seeds("f", "seeds", 3).tolist() == [0, 1, 2]
    assert checks.seeds("f", "seeds", [7, 5]).tolist() == [7, 5]
    for value, words in (
        (0, "at least 1"),
        (2**32 + 1, r"at most 2\*\*32"),
        ([], "not empty"),
        ([1, 1], "distinct"),
        ([-1], r"\[0, 2\*\*32\)"),
        ([2**40], r"\[0, 2\*\*32\)"),
    ):
        with pytest.raises(ValueError, match=words):
            checks.seeds("f", "seeds", value)
    for value in (1.5, "abc", [[1, 2]], [0.5]):
        with pytest.raises(TypeError, match="a count or a 1-D array of integers"):
            checks.seeds("f", "seeds", value)


def test_keys() -> None:
    typed = jax.random.key(3, impl="threefry2x32")
    raw = checks.require_threefry("f", "key", jax.random.PRNGKey(3))
    assert (jax.random.key_data(raw) == jax.random.key_data(typed)).all()
    with pytest.raises(ValueError, match="threefry"):
        checks.require_threefry("f", "key", jax.random.key(0, impl="rbg"))
    with pytest.raises(ValueError, match="one key"):
        checks.require_threefry("f", "key", jax.random.split(typed, 2))
    with pytest.raises(TypeError, match="jax.random key"):
        checks.require_threefry("f", "key", 0)
