"""Data made on the spot, the same numbers every time: MNIST-1D, a teacher network, parity."""

from __future__ import annotations

import numpy as np

from jaxinit._core import checks

__all__ = ["mnist1d", "parity", "teacher"]

#: The ten digits as 12 heights each (Greydanus & Kobak, 2020, the published templates).
_DIGITS = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
_TEMPLATE, _CANVAS, _LENGTH = 12, 72, 40


def mnist1d(examples: int = 5000, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """MNIST-1D: ten one-dimensional digits, padded, stretched, shifted, scaled, sheared and hidden in noise.

    Follows the published recipe with its published settings: 36 to 60 zeros are appended and the result is
    resampled to 72 points, scaled by 1 +- 0.2, rotated by up to 48 points; the zeros are replaced by noise
    of standard deviation 0.25 smoothed by a Gaussian of width 2, noise of 0.02 is added everywhere, the
    signal is sheared by up to +-0.375 and resampled to 40 points. The random numbers are our own, so that
    the examples are of the same law as the published file, and not the same ones.

    Returns:
        `x` `(examples, 40)` and labels `y` `(examples,)`, in random order, classes equally frequent.

    Source: Greydanus & Kobak (2020), "Scaling down deep learning with MNIST-1D", arXiv 2011.14439.

    Example:
        >>> from jaxinit.compare import mnist1d
        >>> x, y = mnist1d(100)
        >>> x.shape, int((y == 3).sum())
        ((100, 40), 10)
    """
    examples = checks.integer("mnist1d", "examples", examples, at_least=10)
    generator = np.random.default_rng(checks.integer("mnist1d", "seed", seed, at_least=0))
    heights = np.asarray(_DIGITS, np.float64)
    heights = (heights - heights.mean(axis=1, keepdims=True)) / heights.std(axis=1, keepdims=True)
    heights = (heights - heights[:, :1]) / 6.0
    y = generator.permutation(np.arange(examples) % 10)
    x = np.stack([_example(heights[label], generator) for label in y])
    return x, y.astype(np.int32)


def _example(heights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    length = _TEMPLATE + generator.integers(36, 61)
    position = np.linspace(0.0, length - 1.0, _CANVAS)
    signal = np.interp(position, np.arange(_TEMPLATE + 1), np.append(heights, 0.0), right=0.0)
    inside = position < _TEMPLATE
    shift = generator.integers(0, 48)
    signal, inside = np.roll(signal * generator.uniform(0.8, 1.2), shift), np.roll(inside, shift)
    signal = np.where(inside, signal, _smooth(0.25 * generator.standard_normal(_CANVAS)))
    signal = signal + 0.02 * generator.standard_normal(_CANVAS)
    signal = signal - generator.uniform(-0.375, 0.375) * np.linspace(-0.5, 0.5, _CANVAS)
    return np.interp(np.linspace(0.0, _CANVAS - 1.0, _LENGTH), np.arange(_CANVAS), signal)


def _smooth(noise: np.ndarray, width: float = 2.0, reach: int = 8) -> np.ndarray:
    """Convolution with a Gaussian of standard deviation `width`, mirrored at the ends."""
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / width))
    return np.convolve(np.pad(noise, reach, mode="symmetric"), kernel / kernel.sum(), mode="valid")


def teacher(
    examples: int = 4000,
    inputs: int = 20,
    hidden: int = 10,
    outputs: int = 1,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A regression whose answer is a network: y = V tanh(W x) + noise, x iid N(0, 1).

    W is `(hidden, inputs)` with entries N(0, 4/inputs), so that the units leave the linear range; V is
    `(outputs, hidden)` with entries N(0, 1/hidden). More hidden units make a harder task.

    Source: Gardner & Derrida (1989), "Three unfinished works on the optimal storage capacity of networks".

    Example:
        >>> from jaxinit.compare import teacher
        >>> x, y = teacher(100, inputs=5, outputs=2)
        >>> x.shape, y.shape
        ((100, 5), (100, 2))
    """
    sizes = {"examples": examples, "inputs": inputs, "hidden": hidden, "outputs": outputs}
    for name, value in sizes.items():
        checks.integer("teacher", name, value, at_least=1)
    checks.number("teacher", "noise", noise, at_least=0.0)
    generator = np.random.default_rng(checks.integer("teacher", "seed", seed, at_least=0))
    w = generator.standard_normal((inputs, hidden)) * 2.0 / np.sqrt(inputs)
    v = generator.standard_normal((hidden, outputs)) / np.sqrt(hidden)
    x = generator.standard_normal((examples, inputs))
    return x, np.tanh(x @ w) @ v + noise * generator.standard_normal((examples, outputs))


def parity(
    examples: int = 4000, bits: int = 12, order: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Sparse parity: is the product of the first `order` of `bits` signs negative?

    `x` has entries -1 and 1, iid; no single bit says anything about the label, nor do any `order - 1`.

    Source: Barak et al. (2022), "Hidden progress in deep learning: SGD learns parities near the computational
    limit".

    Example:
        >>> from jaxinit.compare import parity
        >>> x, y = parity(4, bits=3, order=2)
        >>> bool((y == (x[:, 0] * x[:, 1] < 0)).all())
        True
    """
    for name, value in {"examples": examples, "bits": bits, "order": order}.items():
        checks.integer("parity", name, value, at_least=1)
    if order > bits:
        raise checks.bad("parity", "order", f"at most bits = {bits}", order)
    generator = np.random.default_rng(checks.integer("parity", "seed", seed, at_least=0))
    x = generator.choice([-1.0, 1.0], size=(examples, bits))
    return x, (x[:, :order].prod(axis=1) < 0).astype(np.int32)
