"""Synthetic records whose numbers are known exactly."""

import numpy as np

from jaxinit.records import Convergence, Propagation, Statistic


def spread(log_values, seeds, width=0.5):
    """Samples over seeds of log values: symmetric about the given ones, so that their mean is exact."""
    offsets = np.linspace(-width, width, seeds) if seeds > 1 else np.zeros(1)
    return np.asarray(log_values)[None] + offsets.reshape(-1, *([1] * np.ndim(log_values)))


def propagation(
    rate=0.5, depth=30, *, seeds=8, inputs=2, label="synthetic", source="simulation", sites=None, **config
):
    """z^2 and the gradient fall by `rate` a layer, forward and backward; `seeds` 0: a theory's record."""
    layers = np.arange(depth, dtype=float)[:, None] * np.ones(inputs)
    with np.errstate(divide="ignore", invalid="ignore"):
        forward = (
            np.where(layers == 0, 0.0, layers * np.log(rate)) if rate > 0 else np.full(layers.shape, -np.inf)
        )
        backward = forward[::-1]
    correlation = 1 - 0.5 * np.exp(-np.arange(depth) / 5.0)[:, None]

    def stat(values, log=False):
        if seeds == 0:
            return Statistic.exact(np.exp(values) if log else values)
        samples = spread(values, seeds, 0.0 if rate == 0 else 0.5)
        return Statistic.of(np.exp(samples) if log else samples, keep=True)

    def plain(values):
        return Statistic.exact(values) if seeds == 0 else Statistic.of(np.stack([values] * seeds))

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return Propagation(
            source=source if seeds else "theory",
            sites=tuple(sites or (str(l) for l in range(1, depth + 1))),
            inputs=inputs,
            pairs=((0, 1),) if inputs == 2 else (),
            second_moment=stat(forward, log=True),
            log_second_moment=stat(forward),
            grad_second_moment=stat(backward, log=True),
            log_grad_second_moment=stat(backward),
            correlation=plain(correlation) if inputs == 2 else None,
            one_minus_correlation=plain(1 - correlation) if inputs == 2 else None,
            dead_fraction=plain(np.linspace(0.0, 0.4, depth)),
            config={"label": label, **config},
            provenance={"versions": {"jaxinit": "0.1.0", "jax": "0.10.2"}, "device": "cpu", "x64": False},
        )


def convergence(names=("xavier", "he"), rates=(0.01, 0.1), seeds=3, steps=60, *, accuracy=True, diverge=None):
    """Losses 2.3 exp(-k t), k from the initializer and the rate; run `diverge` = (i, r, s) dies at 20."""
    at = np.arange(0, steps + 1, 10)
    speed = np.array([0.0, 1.0, 0.5, 0.2, 0.8])[: len(names), None, None] * np.asarray(rates)[None, :, None]
    speed = speed * (1 + 0.1 * np.arange(seeds)) * np.ones((len(names), len(rates), seeds))

    def loss(steps):
        return (2.3 * np.exp(-speed[..., None] * steps)).astype(np.float32)

    train, validation = loss(np.arange(steps)), loss(at)
    score = (0.1 + 0.9 * (1 - validation / 2.3)).astype(np.float32)
    died = np.full(speed.shape, -1)
    if diverge is not None:
        died[diverge] = 20
        train[diverge][20:] = np.nan
        validation[diverge][2:] = np.nan
        score[diverge][2:] = np.nan
    return Convergence(
        initializers=tuple(names),
        learning_rates=np.asarray(rates),
        seeds=np.arange(seeds),
        evaluated_at=at,
        train_loss=train,
        validation_loss=validation,
        validation_accuracy=score if accuracy else None,
        test_loss=validation[..., -1],
        test_accuracy=score[..., -1] if accuracy else None,
        diverged_at=died,
        stopped_at=np.full(speed.shape, -1),
        config={
            "model": "MLP 30 x 64",
            "data": "digits",
            "optimizer": "sgd",
            "chance": 0.1,
            "test_size": 360,
        },
        provenance={"versions": {"jaxinit": "0.1.0", "jax": "0.10.2"}, "device": "cpu"},
    )
