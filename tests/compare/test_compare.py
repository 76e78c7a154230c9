"""Training: one program for all runs, equal to a plain Optax loop, paired, resumable, honest about failure."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxinit.compare import compare, load_data
from jaxinit.compare._arms import label_of
from jaxinit.compare._execute import Compiled, Pace, forget
from jaxinit.compare._optimizers import NAMED, takes_traced_rate
from jaxinit.compare._outcomes import Outcomes, Store
from jaxinit.compare._task import task
from jaxinit.compare._training import Programs, Work, batches, epochs
from jaxinit.initializers import he_normal
from jaxinit.models import MLP, adapt, from_functions

RNG = np.random.default_rng(11)
X = RNG.normal(size=(240, 6))
Y = (X @ RNG.normal(size=(6, 3))).argmax(axis=1)
MODEL = MLP(depth=3, width=12, features=3)


def run(initializers=("he", "zeros"), data=(X, Y), optimizer="momentum", model=MODEL, **options):
    defaults = {
        "seeds": 2,
        "learning_rates": [0.01, 0.1],
        "steps": 25,
        "batch_size": 16,
        "evaluate_every": 10,
    }
    return compare(model, initializers, data, optimizer, **(defaults | options))


@pytest.fixture(scope="module")
def record():
    forget()
    return run()


def test_axes_and_first_figures(record):
    assert record.train_loss.shape == (2, 2, 2, 25)
    assert record.evaluated_at.tolist() == [0, 10, 20, 25]
    assert record.validation_loss.shape == record.validation_accuracy.shape == (2, 2, 2, 4)
    assert np.isfinite(record.train_loss).all() and np.isfinite(record.test_loss).all()
    assert (record.diverged_at == -1).all() and (record.stopped_at == -1).all()
    # zeros: the output is 0, so the first loss is log(classes), at any rate
    np.testing.assert_allclose(record.train_loss[1, :, :, 0], np.log(3), rtol=1e-6)
    np.testing.assert_array_equal(record.validation_loss[:, 0, :, 0], record.validation_loss[:, 1, :, 0])


def test_it_learns_and_zeros_does_not():
    record = run(steps=150, seeds=3)
    assert record.summary()["he"].value > 0.8
    assert record.summary()["zeros"].value < 0.6
    assert record.verdicts()["he"].startswith("Trains")


def test_a_run_is_a_plain_optax_loop(record):
    """The same draws, the same batches, one step at a time, without scan, map or a traced rate."""
    data = load_data((X, Y))
    rate, s = 0.1, 1
    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), s)
    model = MLP(depth=3, width=12, features=3, kernel_init=jax.nn.initializers.he_normal())
    params = model.init(jax.random.fold_in(key, 0), data.x_train[:1])["params"]
    order = epochs(jax.random.fold_in(key, 1), len(data.x_train), 16, 25)
    optimizer = optax.sgd(rate, momentum=0.9)
    memory = optimizer.init(params)

    def loss(p, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply({"params": p}, x), y).mean()

    @jax.jit
    def step(params, memory, x, y):
        value, gradient = jax.value_and_grad(loss)(params, x, y)
        updates, memory = optimizer.update(gradient, memory, params)
        return optax.apply_updates(params, updates), memory, value

    losses = []
    for index in order:
        params, memory, value = step(params, memory, data.x_train[index], jnp.asarray(data.y_train[index]))
        losses.append(float(value))
    np.testing.assert_allclose(record.train_loss[0, 1, s], losses, rtol=2e-4)
    outputs = model.apply({"params": params}, data.x_test)
    assert record.test_accuracy[0, 1, s] == pytest.approx(np.mean(outputs.argmax(1) == data.y_test))
    expected = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.asarray(data.y_test)).mean()
    assert record.test_loss[0, 1, s] == pytest.approx(float(expected), rel=2e-4)
    validation = loss(params, data.x_validation, jnp.asarray(data.y_validation))
    assert record.validation_loss[0, 1, s, -1] == pytest.approx(float(validation), rel=2e-4)


def test_one_program_for_all_runs(record):
    """start and stretch, for 8 runs here and for 12 with other rates and seeds."""
    assert record.config["programs"] == 2
    more = run(initializers=["he", "xavier", "zeros"], seeds=[5, 9, 7], learning_rates=[0.3, 0.02, 0.1])
    assert more.config["programs"] == 0, "an equal model and optimizer use the programs that are there"


def test_a_seed_is_the_same_run_in_any_study(record):
    other = run(initializers=["xavier", "he"], seeds=[7, 1], learning_rates=[0.1], steps=12)
    np.testing.assert_allclose(other.train_loss[1, 0, 1], record.train_loss[0, 1, 1, :12], rtol=1e-6)
    assert not np.allclose(other.train_loss[1, 0, 0], other.train_loss[1, 0, 1])


def test_seeds_are_paired():
    """The initializer does not touch the order of data: runs from one and the same draw are one run."""
    same = {"a": he_normal(), "b": "he"}
    twins = run(same, learning_rates=[0.1])
    np.testing.assert_array_equal(twins.train_loss[0], twins.train_loss[1])


@pytest.mark.parametrize("at_once", [pytest.param(3, marks=pytest.mark.slow), 8])
def test_many_at_once_is_one_after_the_other(record, at_once):
    """Also over four devices (8 runs), and with a group that is not full (3)."""
    many = run(batching="vmap", runs_at_once=at_once)
    np.testing.assert_allclose(many.train_loss, record.train_loss, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(many.validation_loss, record.validation_loss, rtol=1e-3)
    np.testing.assert_allclose(many.test_accuracy, record.test_accuracy, atol=0.021)


@pytest.mark.parametrize("batching", ["sequential", "vmap"])
def test_divergence_is_recorded_and_spares_the_others(batching):
    record = run(optimizer="sgd", learning_rates=[0.05, 1e20], batching=batching)
    assert (record.diverged_at[0, 1] > 0).all() and (record.diverged_at[0, 0] == -1).all()
    for s in range(2):
        first = record.diverged_at[0, 1, s]
        assert np.isfinite(record.train_loss[0, 1, s, :first]).all()
        assert np.isnan(record.train_loss[0, 1, s, first:]).all()
    assert np.isnan(record.test_accuracy[0, 1]).all() and np.isfinite(record.test_accuracy[0, 0]).all()
    assert record.best_rate()[0] == 0


def test_parameters_that_break_in_the_last_step_are_seen():
    record = run(optimizer="sgd", learning_rates=[1e38], steps=1, initializers=["he"])
    assert np.isfinite(record.train_loss).all()
    assert (record.diverged_at == 1).all() and np.isnan(record.test_loss).all()


@pytest.mark.parametrize("batching", ["sequential", pytest.param("vmap", marks=pytest.mark.slow)])
def test_early_stop_holds_the_run_where_it_was(batching):
    options = {"steps": 100, "learning_rates": [0.1], "initializers": ["he", "zeros"]}
    full = run(**options)
    record = run(**options, stop_at={"validation_accuracy": 0.75}, batching=batching)
    assert (record.stopped_at[1] == -1).all(), "zeros must run on"
    assert (record.stopped_at[0] > 0).all()
    for s in range(2):
        stop = record.stopped_at[0, 0, s]
        e = int(np.flatnonzero(record.evaluated_at == stop)[0])
        curve = full.validation_accuracy[0, 0, s]
        assert curve[e] >= 0.75 and (curve[:e] < 0.75).all()
        assert np.isnan(record.train_loss[0, 0, s, stop:]).all()
        np.testing.assert_allclose(
            record.train_loss[0, 0, s, :stop], full.train_loss[0, 0, s, :stop], rtol=1e-3
        )
    shorter = run(initializers=["he"], steps=int(stop), learning_rates=[0.1], seeds=[s])
    assert record.test_loss[0, 0, s] == pytest.approx(float(shorter.test_loss[0, 0, 0]), rel=1e-3)


@pytest.mark.parametrize("batching", ["sequential", pytest.param("vmap", marks=pytest.mark.slow)])
def test_resume_continues_where_it_was(tmp_path, record, monkeypatch, batching):
    """Killed after 10 of the 25 steps of the fifth run, it goes on from there, with the same bits."""
    monkeypatch.setattr(Pace, "seconds", 0.0)
    file = tmp_path / "study.npz"
    options = {"batching": batching, "runs_at_once": 4}

    class Interrupted(Exception):
        pass

    def stop(done, total):
        if done > total // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(resume=file, progress=stop, **options)
    assert file.exists()
    seen = []
    again = run(resume=file, progress=lambda done, total: seen.append(done), **options)
    step = 10 if batching == "sequential" else 40
    assert seen[:3] == [100, 100 + step, 100 + 2 * step] and seen[-1] == 8 * 25
    whole = record if batching == "sequential" else run(**options)
    np.testing.assert_array_equal(again.train_loss, whole.train_loss)
    np.testing.assert_array_equal(again.validation_loss, whole.validation_loss)
    np.testing.assert_array_equal(again.test_accuracy, whole.test_accuracy)
    if batching == "vmap":
        return
    finished = run(resume=file)
    np.testing.assert_array_equal(finished.train_loss, record.train_loss)
    with pytest.raises(ValueError, match=r"differs in steps = 25 there, 26 here"):
        run(resume=file, steps=26)
    with pytest.raises(ValueError, match="data_checksum"):
        run(resume=file, data=(X + 0.1 * Y[:, None], Y))
    with pytest.raises(ValueError, match="unfinished study"):
        run(resume=record.save(tmp_path / "record.npz"))


def test_a_carry_survives_the_disk_bit_by_bit(tmp_path):
    keys = jax.random.split(jax.random.key(3), 2)
    carry = {"half": jnp.array([1.0, -0.0, jnp.nan], jnp.bfloat16), "key": keys, "on": jnp.array([True, False]),
             "none": jnp.zeros((0, 3)), "count": jnp.int32(7)}  # fmt: skip
    store = Store(tmp_path / "a.npz", Outcomes.empty({}, (1, 1, 2), 2, 2, {}))
    store.reached([(0, 0, 0)], 1, carry)
    store.write()
    start = jax.tree.map(lambda a: a if a.dtype == keys.dtype else jnp.zeros_like(a), carry) | {
        "key": keys[::-1]
    }
    first, again = Store(tmp_path / "a.npz", store.outcomes).taken_up([(0, 0, 0)], start)
    assert first == 2
    for old, new in zip(jax.tree.leaves(carry), jax.tree.leaves(again), strict=True):
        raw = [jax.random.key_data(a) if a.dtype == keys.dtype else a for a in (old, new)]
        assert raw[0].dtype == raw[1].dtype and np.asarray(raw[0]).tobytes() == np.asarray(raw[1]).tobytes()
    for other_runs, other in (([(0, 0, 1)], start), ([(0, 0, 0)], start | {"none": jnp.zeros(1)})):
        first, taken = Store(tmp_path / "a.npz", store.outcomes).taken_up(other_runs, other)
        assert first == 0 and taken is other


def test_pace_looks_twice_a_second():
    pace = Pace()
    assert pace.until(0, 20) == 1
    pace.took(1, 30.0)  # the call that compiles
    assert pace.until(1, 20) == 2
    pace.took(1, 0.1)
    assert pace.until(2, 20) == 7 and pace.until(18, 20) == 20
    pace.took(5, 10.0)
    assert pace.until(7, 20) == 8


def test_progress_counts_steps():
    seen = []
    run(progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 200) and seen[-1] == (200, 200)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


class WithState(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(nn.relu(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(6, 12, rngs=rngs), nnx.Linear(12, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.b(self.drop(nnx.relu(self.a(x))))


def plain_init(initializer, key, x):
    draw = initializer or jax.nn.initializers.he_normal()
    return {"w": draw(key, (6, 3), jnp.float32)}


MODELS = [
    WithState(),
    Nnx,
    from_functions(plain_init, lambda p, x: x @ p["w"]),
    lambda kernel_init: MLP(3, 12, 3, kernel_init=kernel_init),
    nn.Sequential([nn.Dense(12), nn.relu, nn.Dense(3)]),
]


@pytest.mark.parametrize(
    ("model", "batching"),
    [
        *((model, "sequential") for model in MODELS),
        *(pytest.param(model, "vmap", marks=pytest.mark.slow) for model in MODELS[:2]),
    ],
)
def test_any_model_trains(model, batching):
    record = run(["he"], model=model, steps=120, learning_rates=[0.1], batching=batching)
    assert record.test_accuracy.min() > 0.7


def test_default_is_the_models_own_initializer():
    own = MLP(depth=3, width=12, features=3, kernel_init=jax.nn.initializers.normal(0.3))
    record = run({"own": None, "same": jax.nn.initializers.normal(0.3), "other": "he"}, model=own)
    np.testing.assert_array_equal(record.train_loss[0], record.train_loss[1])
    assert not np.allclose(record.train_loss[0], record.train_loss[2])
    assert run([None, "default "[:7]][:1], model=own).initializers == ("default",)


def schedule(rate):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(rate, 25)))


def warmup(rate):
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, rate, 5, 25))


@pytest.mark.slow
@pytest.mark.parametrize(("factory", "programs"), [(schedule, 2), (warmup, 4), (optax.lion, 2)])
def test_schedules_and_clipping_come_with_the_factory(factory, programs):
    """A schedule that must look at its rate costs one set of programs a rate; the others none."""
    record = run(["he"], optimizer=factory, steps=20, seeds=1)
    assert record.config["programs"] == programs
    model = MLP(depth=3, width=12, features=3, kernel_init=jax.nn.initializers.he_normal())
    data = load_data((X, Y))
    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 0)
    params = model.init(jax.random.fold_in(key, 0), data.x_train[:1])["params"]
    optimizer = factory(0.1)
    memory = optimizer.init(params)

    @jax.jit
    def step(params, memory, x, y):
        def loss(p):
            return optax.softmax_cross_entropy_with_integer_labels(model.apply({"params": p}, x), y).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, memory = optimizer.update(gradient, memory, params)
        return optax.apply_updates(params, updates), memory, value

    with jax.numpy_dtype_promotion("standard"):
        for k, index in enumerate(epochs(jax.random.fold_in(key, 1), len(data.x_train), 16, 20)):
            x, y = data.x_train[index], jnp.asarray(data.y_train[index])
            params, memory, value = step(params, memory, x, y)
            assert record.train_loss[0, 1, 0, k] == pytest.approx(float(value), rel=1e-3)


def test_labels_are_the_same_in_every_process():
    drawn = functools.partial(jax.nn.initializers.normal(), dtype=jnp.float32)
    assert " at 0x" in repr(drawn) and " at 0x" not in label_of(drawn)
    assert [label_of(v) for v in (None, "he", he_normal())] == ["default", "he", "he_normal()"]


def test_several_optimizers_are_arms():
    forget()
    record = run(optimizer={"plain": "sgd", "baseline": "none"})
    assert record.initializers == ("he, plain", "he, baseline", "zeros, plain", "zeros, baseline")
    np.testing.assert_array_equal(record.train_loss[[0, 2]], run(optimizer="sgd").train_loss)
    assert record.config["programs"] == 4
    drawn = record.validation_loss[[1, 3]]
    np.testing.assert_array_equal(drawn, np.broadcast_to(drawn[..., :1], drawn.shape))
    assert (drawn[..., 0] == record.validation_loss[[0, 2], ..., 0]).all(), "the same networks, not trained"


def test_named_optimizers_take_a_traced_rate():
    assert all(takes_traced_rate(factory) for factory in NAMED.values())
    assert not takes_traced_rate(warmup)


def test_regression_and_losses_of_ones_own():
    y = X @ RNG.normal(size=(6, 2))
    record = run(["he"], data=(X, y), model=MLP(2, 24, 2), steps=200, learning_rates=[0.05])
    assert record.validation_accuracy is None and record.measure == "loss"
    assert record.test_loss.max() < 0.3
    own = run(
        ["he"], loss=lambda outputs, labels: optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    )
    np.testing.assert_allclose(own.train_loss, run(["he"]).train_loss, rtol=1e-4)


def test_bfloat16_parameters_stay_bfloat16():
    model = MLP(3, 12, 3, param_dtype=jnp.bfloat16, dtype=jnp.bfloat16)
    programs = Programs(adapt(model), NAMED["adam"], task(None, True))
    params, state = adapt(model).init(None, jax.random.key(0), jnp.ones((1, 6)))
    carry = programs.start(params, state, jnp.float32(0.01))
    order = jnp.zeros((2, 4), jnp.int32)
    work = Work(jnp.ones((20, 6)), jnp.zeros(20, jnp.int32), jnp.array([0, 2]), (0.0, 1.0), None)
    rate, key = jnp.float32(0.01), jax.random.key(1)
    after, losses = programs.advance(carry, jnp.full(2, jnp.nan), rate, key, order, work, 0, 2)
    assert [a.dtype for a in jax.tree.leaves(after)] == [a.dtype for a in jax.tree.leaves(carry)]
    assert after.params["layer_1"]["kernel"].dtype == jnp.bfloat16 and losses.dtype == jnp.float32
    assert run(["he"], model=model, steps=100, learning_rates=[0.1]).test_accuracy.min() > 0.7


def test_epochs_are_permutations_and_prefixes():
    key = jax.random.key(5)
    order = epochs(key, 50, 8, 20)
    assert order.shape == (20, 8)
    for e in range(3):
        epoch = order[6 * e : 6 * (e + 1)].ravel()
        assert len(set(epoch.tolist())) == 48
    np.testing.assert_array_equal(epochs(key, 50, 8, 7), order[:7])
    assert not np.array_equal(order[:6], order[6:12])


def test_every_example_is_evaluated_once():
    x = np.arange(10.0)[:, None]
    bx, _, weight, number = batches(x, np.arange(10), 3, 4)
    assert bx.shape == (3, 4, 1) and weight.sum() == 10 and number == 3
    assert batches(x, np.arange(10), 5, 4)[3] == 3
    np.testing.assert_array_equal(bx[weight > 0][:, 0], np.arange(10))


@pytest.mark.parametrize("together", [False, True])
def test_programs_lower_for_accelerators(together):
    programs = Compiled(Programs(adapt(MODEL), NAMED["adam"], task(None, True)), together)
    params, state = adapt(MODEL).init(None, jax.random.key(0), jnp.ones((1, 6)))
    stack = lambda tree: jax.tree.map(lambda a: jnp.stack([a] * (1 + together)), tree)  # noqa: E731
    rate, key, order = stack((jnp.float32(0.1), jax.random.key(1), jnp.zeros((2, 4), jnp.int32)))
    x, y = jnp.ones((20, 6)), jnp.zeros(20, jnp.int32)
    work = Work(x, y, jnp.array([0, 2]), (0.1, 0.9), (x, y))
    carry = programs.start(stack(params), state, rate)
    cases = [
        (programs.start, (stack(params), state, rate)),
        (programs.stretch, (carry, rate, key, order, work, 0, 2, (x[None], y[None], jnp.ones((1, 20)), 1))),
    ]
    for function, arguments in cases:
        lowered = function.trace(*arguments).lower(lowering_platforms=("cuda", "tpu"))
        assert "func.func" in lowered.as_text()


class Failing:
    def __call__(self, key, shape, dtype=jnp.float32):
        raise ValueError("this one fails")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"initializers": ["hee"]}, ValueError, "Did you mean"),
        ({"initializers": []}, ValueError, "initializers.* must be not empty"),
        ({"initializers": ["he", "he"]}, ValueError, "distinct"),
        ({"initializers": {"a": 3}}, TypeError, "names, callables"),
        ({"initializers": {1: "he"}}, TypeError, "labelled by strings"),
        ({"initializers": {"a": Failing()}}, ValueError, "this one fails"),
        ({"learning_rates": []}, ValueError, "learning_rates"),
        ({"learning_rates": [0.1, 0.1]}, ValueError, "distinct"),
        ({"learning_rates": [-0.1]}, ValueError, "greater than 0"),
        ({"learning_rates": [np.nan]}, ValueError, "finite"),
        ({"learning_rates": "fast"}, TypeError, "numbers"),
        ({"seeds": 0}, ValueError, "seeds"),
        ({"seeds": [1, 1]}, ValueError, "distinct"),
        ({"steps": 0}, ValueError, "steps"),
        ({"steps": 2.5}, TypeError, "steps"),
        (
            {"steps": 2**31},
            ValueError,
            r"compare\(steps=...\)` must be an integer of at most.*steps times batch_size",
        ),
        ({"learning_rates": [10**400]}, TypeError, r"learning_rates=...\)` must be numbers"),
        ({"learning_rates": 1e300}, ValueError, "within the range of float32"),
        ({"root": 2**32}, ValueError, "at most 4294967295"),
        ({"signals": "no"}, TypeError, r"signals=...\)` must be True or False"),
        ({"label": 3}, TypeError, "a string or None"),
        ({"batch_size": 1000}, ValueError, "at most the 144 examples"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every"),
        ({"optimizer": "sdg"}, ValueError, "Did you mean 'sgd'"),
        ({"optimizer": optax.sgd(0.1)}, TypeError, "factory of the learning rate"),
        ({"optimizer": 3}, TypeError, "a name or a factory"),
        ({"optimizer": {}}, ValueError, "optimizer"),
        ({"optimizer": lambda rate: rate}, TypeError, "GradientTransformation"),
        ({"loss": "mse"}, ValueError, "needs real targets"),
        ({"loss": "mean"}, ValueError, "'cross_entropy' or 'mse'"),
        ({"loss": 3}, TypeError, "loss"),
        ({"stop_at": 0.9}, TypeError, "a dict of one metric"),
        ({"stop_at": {"test_accuracy": 0.9}}, ValueError, "stop_at"),
        ({"batching": "pmap"}, ValueError, "batching"),
        ({"runs_at_once": 0}, ValueError, "runs_at_once"),
        ({"progress": 3}, TypeError, "progress"),
        ({"model": MLP(3, 12, 5)}, ValueError, "Set the width of its last layer to 3"),
        ({"model": MLP}, TypeError, r"`compare\(model=.*Make one: MLP\(depth=..., width=..., features=...\)"),
        ({"model": 3}, TypeError, r"`compare\(model=...\)` must be a model"),
        ({"data": "mnist.npz"}, FileNotFoundError, "looked for"),
    ],
)
def test_bad_input_is_refused_before_anything_compiles(options, error, message, monkeypatch):
    def never(*args):
        raise AssertionError("compiled")

    monkeypatch.setattr(Programs, "start", never)
    with pytest.raises(error, match=message):
        run(**options)


def test_initializers_must_give_one_model():
    def by_initializer(kernel_init):
        return MLP(3, 12 if kernel_init is jax.nn.initializers.zeros else 13, 3, kernel_init=kernel_init)

    with pytest.raises(ValueError, match="'b' and 'a' give other parameters"):
        run({"a": jax.nn.initializers.zeros, "b": jax.nn.initializers.ones}, model=by_initializer)
