"""Models of every kind come out as the same two pure functions, and the initializer reaches every kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxinit as ji
from jaxinit import ensemble
from jaxinit.models import MLP, Model, adapt, from_functions

KEY = jax.random.key(3)
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)), jnp.float32)
ONES = jax.nn.initializers.ones


class Recorder:
    """An initializer that notes the shapes it is asked for."""

    def __init__(self):
        self.shapes = []

    def __call__(self, key, shape, dtype=jnp.float32, out_sharding=None):
        self.shapes.append(tuple(shape))
        return jax.random.normal(key, shape, dtype)


class WithField(nn.Module):
    kernel_init: object = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, kernel_init=self.kernel_init)(
            nn.relu(nn.Dense(4, kernel_init=self.kernel_init)(x))
        )


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)(x[None])[0]


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        scan = nn.scan(
            lambda layer, carry, _: (nn.relu(layer(carry)), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=4,
        )
        return scan(nn.Dense(6, name="layers"), x, None)[0]


class InSetup(nn.Module):
    kernel_init: object = nn.initializers.lecun_normal()

    def setup(self):
        self.w = self.param("w", self.kernel_init, (6, 2))

    def __call__(self, x):
        return x @ self.w


class Outer(nn.Module):
    def setup(self):
        self.inner = InSetup()

    def __call__(self, x):
        return self.inner(x)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.List([nnx.Linear(6, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.general = nnx.LinearGeneral(4, (2, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        for layer in self.inner:
            x = nnx.relu(layer(x))
        return self.drop(self.norm(self.general(x).reshape(x.shape[0], -1)))


def kernels(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [leaf for path, leaf in leaves if getattr(path[-1], "key", None) in ("kernel", "w")]


MODELS = {
    "class": WithField,
    "instance with a field": WithField(),
    "factory by keyword": lambda kernel_init: WithField(kernel_init=kernel_init),
    "factory by position": lambda init: WithField(kernel_init=init),
    "any module": nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)]),
    "attention": Attention(),
    "scanned": Stack(),
    "drawn in setup": Outer(),
    "mlp": MLP(depth=3, width=5, features=2),
    "nnx factory": NnxNet,
    "nnx lambda": lambda rngs: nnx.Linear(6, 2, rngs=rngs),
    "nnx with kernel_init": lambda kernel_init, rngs: nnx.Linear(6, 2, kernel_init=kernel_init, rngs=rngs),
}


@pytest.mark.parametrize("name", MODELS)
def test_initializer_reaches_every_kernel_and_apply_runs(name):
    model = adapt(MODELS[name])
    assert isinstance(model, Model)
    params, state = model.init(ONES, KEY, X)
    found = kernels(params)
    assert found and all(bool((kernel == 1).all()) for kernel in found)
    outputs, new_state = jax.jit(model.apply, static_argnums=3)(params, state, X, True, KEY)
    assert outputs.shape[0] == 5
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    a, _ = model.apply(params, state, X, False, None)
    b, _ = model.apply(params, state, X, False, None)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MODELS)
def test_key_decides_the_draw(name):
    model = adapt(MODELS[name])
    normal = jax.nn.initializers.normal(1.0)
    first, again, other = (kernels(model.init(normal, k, X)[0]) for k in (KEY, KEY, jax.random.key(4)))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    flat = [np.asarray(k).ravel()[:4] for k in first]
    assert all(not np.array_equal(flat[i], flat[j]) for i in range(len(flat)) for j in range(i))


def test_own_initializers_are_kept_for_none():
    module = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)])
    params, _ = adapt(module).init(None, KEY, X)
    np.testing.assert_array_equal(
        params["layers_0"]["kernel"], module.init(KEY, X)["params"]["layers_0"]["kernel"]
    )
    params, _ = adapt(NnxNet).init(None, KEY, X)
    own = NnxNet(rngs=nnx.Rngs(KEY))
    np.testing.assert_array_equal(params["inner"][0]["kernel"], own.inner[0].kernel[...])
    with pytest.raises(ValueError, match="no initializer of its own"):
        adapt(lambda kernel_init: WithField(kernel_init)).init(None, KEY, X)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (Attention(), {(6, 8), (8, 6)}),
        (Stack(), {(6, 6)}),
        (NnxNet, {(6, 4), (4, 4), (4, 6)}),
        (lambda rngs: nnx.Conv(6, 2, kernel_size=(3,), rngs=rngs), {(3, 6, 2)}),
    ],
)
def test_layers_hand_over_the_shape_whose_fans_are_right(model, shapes):
    recorder = Recorder()
    adapt(model).init(recorder, KEY, X)
    assert set(recorder.shapes) == shapes


def test_stacked_nnx_layers_are_drawn_one_by_one():
    def make(rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stack(r):
            return nnx.Linear(6, 6, rngs=r)

        class Net(nnx.Module):
            def __init__(self):
                self.layers = stack(rngs)

            def __call__(self, x):
                for i in range(3):
                    x = x @ self.layers.kernel[...][i]
                return x

        return Net()

    recorder = Recorder()
    params, _ = adapt(make).init(recorder, KEY, X)
    assert recorder.shapes == [(6, 6)] * 3
    kernel = params["layers"]["kernel"]
    assert kernel.shape == (3, 6, 6) and not np.array_equal(kernel[0], kernel[1])


def test_state_moves_in_training_only():
    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))

    for made in (Norm(), NnxNet):
        model = adapt(made)
        params, state = model.init(ONES, KEY, X)
        _, moved = model.apply(params, state, X, True, KEY)
        _, kept = model.apply(params, state, X, False, None)
        plain = [
            leaf for leaf in jax.tree.leaves(state) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        ]
        after = [
            leaf for leaf in jax.tree.leaves(moved) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        ]
        assert any(not np.array_equal(a, b) for a, b in zip(plain, after, strict=True))
        assert kept is state


def test_mlp_is_the_recursion_it_says():
    model = MLP(depth=3, width=5, features=2, activation="tanh", bias_init=nn.initializers.normal(0.3))
    params = model.init(KEY, X)["params"]
    z = np.asarray(X, np.float64)
    for layer in (1, 2, 3):
        z = (z if layer == 1 else np.tanh(z)) @ np.asarray(params[f"layer_{layer}"]["kernel"], np.float64)
        z = z + np.asarray(params[f"layer_{layer}"]["bias"], np.float64)
    np.testing.assert_allclose(model.apply({"params": params}, X), z, rtol=2e-5, atol=1e-6)


def test_mlp_in_bfloat16_and_with_an_output_of_its_own():
    model = MLP(depth=2, width=5, features=2, output_init=nn.initializers.zeros, param_dtype=jnp.bfloat16)
    params, _ = adapt(model).init(jax.nn.initializers.ones, KEY, X)
    assert params["layer_1"]["kernel"].dtype == jnp.bfloat16
    assert float(params["layer_1"]["kernel"].min()) == 1 and float(params["layer_2"]["kernel"].max()) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, r"`MLP\(depth=...\)` must be an integer of at least 1, got 0"),
        ({"width": -1}, r"`MLP\(width=...\)`"),
        ({"activation": "rellu"}, "Did you mean 'relu'"),
        ({"activation": 3}, "a name or a callable"),
    ],
)
def test_mlp_refuses(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MLP(**({"depth": 2, "width": 3, "features": 2} | arguments))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, "must be a model, got 3"),
        (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "factory `rngs -> nnx.Module`"),
        (lambda a, b: None, "takes the arguments a, b"),
        (lambda: None, "takes no argument"),
        (lambda kernel_init: 3, "`kernel_init -> linen module`"),
    ],
)
def test_adapt_refuses(model, message):
    with pytest.raises(TypeError, match=message):
        adapt(model)


def test_plain_functions():
    model = from_functions(
        lambda init, key, x: {"w": init(key, (6, 2))}, lambda params, x: x @ params["w"], name="linear"
    )
    params, state = model.init(ONES, KEY, X)
    np.testing.assert_allclose(model.apply(params, state, X, False, None)[0][:, 0], X.sum(1), rtol=1e-5)
    with pytest.raises(TypeError, match="from_functions"):
        from_functions(3, lambda params, x: x)


class Buffered(nnx.Module):
    """Arrays that are no variables, of which one is drawn, beside a layer whose scales have tuples for names."""

    def __init__(self, rngs):
        self.layer = nnx.WeightNorm(nnx.Linear(6, 4, rngs=rngs), rngs=rngs)
        self.table = jnp.arange(1.0, 5.0)[None]
        self.drawn = jax.random.normal(rngs.params(), (1, 4))
        self.more = nnx.List([jnp.full((1, 4), 2.0)])
        self.named = nnx.data({("a", "b"): jnp.full((1, 4), 0.5)})

    def __call__(self, x):
        return self.layer(x) * self.table * self.drawn + self.more[0] * self.named["a", "b"]


def test_arrays_that_are_no_variables_are_part_of_the_state():
    model = adapt(Buffered)
    outs = []
    for seed in (0, 1):
        key = jax.random.key(seed)
        params, state = jax.jit(model.init, static_argnums=0)(None, key, X)
        out, _ = model.apply(params, state, X, False, None)
        np.testing.assert_allclose(out, Buffered(nnx.Rngs(key))(X), rtol=1e-6)
        outs.append(out)
    assert float(jnp.abs(outs[0] - outs[1]).max()) > 0.1
    run = ji.probe(Buffered, X, seeds=2, record=["second_moment"], backward=False, keep_seeds=True)
    found = run.second_moment.samples[:, -1, 0]
    by_hand = [jnp.square(Buffered(nnx.Rngs(k))(X)).mean() for k in ensemble.keys_of(range(2), 0)]
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    module, _ = ji.calibrate(Buffered, X, KEY)
    np.testing.assert_array_equal(module.table[0], jnp.arange(1.0, 5.0))
    assert module(X).shape == (5, 4) and bool(jnp.all(module.drawn != 0))
