"""`compare` against the best hand-written Optax loop over the same runs, warm, in one process.

The loop by hand is what an expert writes for one study: the whole training of a run is one jitted `lax.scan`
with the learning rate as data and the parameters drawn beforehand, so that it, too, compiles once. Both train
the same networks on the same batches, and evaluate as often; the script checks that they find the same losses.

    python experiments/bench/compare_training.py [--depth 30] [--width 64] [--steps 300] [--seeds 2]

Prints seconds of both, warm and cold, their ratio, and the number of programs.
"""

from __future__ import annotations

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _timing import cold, paired

from jaxinit import initializers
from jaxinit.compare import compare, load_data
from jaxinit.compare._training import epochs
from jaxinit.models import MLP


def by_hand(model, draws, data, rates, seeds, steps, every, batch_size):
    """Runs of a study, each one jitted scan; returns a function that runs them and gives the losses."""
    x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    held = [(jnp.asarray(a), jnp.asarray(b)) for a, b in
            ((data.x_validation, data.y_validation), (data.x_test, data.y_test))]  # fmt: skip

    def loss(params, batch, labels):
        logits = model.apply({"params": params}, batch)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def figures(params, batch, labels):
        logits = model.apply({"params": params}, batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits.argmax(-1) == labels).mean()

    @jax.jit
    def train(params, rate, order):
        optimizer = optax.sgd(rate, momentum=0.9)

        def step(carry, index):
            params, memory = carry
            value, gradient = jax.value_and_grad(loss)(params, x[index], y[index])
            updates, memory = optimizer.update(gradient, memory, params)
            return (optax.apply_updates(params, updates), memory), value

        def period(carry, orders):
            start = figures(carry[0], *held[0])
            carry, values = jax.lax.scan(step, carry, orders)
            return carry, (values, start)

        orders = order.reshape(steps // every, every, -1)
        (params, _), (values, curve) = jax.lax.scan(period, (params, optimizer.init(params)), orders)
        return values.reshape(-1), curve, figures(params, *held[0]), figures(params, *held[1])

    def run():
        losses = np.empty((len(draws), len(rates), seeds, steps), np.float32)
        for s in range(seeds):
            key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), s)
            order = epochs(jax.random.fold_in(key, 1), len(x), batch_size, steps)
            for i, draw in enumerate(draws):
                params = model.clone(kernel_init=draw).init(jax.random.fold_in(key, 0), x[:1])["params"]
                for r, rate in enumerate(rates):
                    losses[i, r, s] = train(params, jnp.float32(rate), order)[0]
        return losses

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("depth", 30), ("width", 64), ("steps", 300), ("seeds", 2), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    data = load_data("digits")
    model = MLP(options.depth, options.width, data.outputs)
    names, rates = ["he", "xavier", "random"], [0.0003, 0.001, 0.003]
    every = max(1, options.steps // 20)
    steps = every * (options.steps // every)
    draws = [initializers.get(n) for n in names]
    for draw in draws:  # what draws the parameters is the same for both: compiled before either is timed
        model.clone(kernel_init=draw).init(jax.random.key(0, impl="threefry2x32"), data.x_train[:1])
    hand = by_hand(model, draws, data, rates, options.seeds, steps, every, 64)
    found = {}

    def ours():
        found["ours"] = compare(model, names, data, "momentum", seeds=options.seeds, learning_rates=rates,
                                steps=steps, evaluate_every=every)  # fmt: skip
        found.setdefault("programs", found["ours"].config["programs"])

    def by_hand_again():
        found["by hand"] = hand()

    cold_ours, cold_by_hand = cold(ours), cold(by_hand_again)
    np.testing.assert_allclose(found["ours"].train_loss, found["by hand"], rtol=0.05, atol=1e-3)
    best = paired({"ours": ours, "by hand": by_hand_again}, options.repeats)
    print(
        json.dumps(
            {
                "runs": int(found["ours"].diverged_at.size),
                "steps": steps,
                "device": jax.devices()[0].device_kind,
                "compare_cold_s": round(cold_ours, 2),
                "by_hand_cold_s": round(cold_by_hand, 2),
                "compare_warm_s": round(best["ours"], 2),
                "by_hand_warm_s": round(best["by hand"], 2),
                "warm_ratio": round(best["ours"] / best["by hand"], 3),
                "programs": found["programs"],
            }
        )
    )


if __name__ == "__main__":
    main()
