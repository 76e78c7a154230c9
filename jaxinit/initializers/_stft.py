"""Kernels of a windowed Fourier transform: a convolution that computes a spectrogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import static
from jaxinit.initializers._base import Initializer, Law, initializer, times, working_dtype

__all__ = ["stft"]

SIDES = ("real", "imag")
SCALINGS = ("density", "spectrum")
# coefficients a_k of the windows sum_k (-1)^k a_k cos(2 pi k t / period)
COSINE_WINDOWS: dict[str, tuple[float, ...]] = {
    "boxcar": (1.0,),
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.5, 0.08),
    "nuttall": (0.3635819, 0.4891775, 0.1365995, 0.0106411),
    "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168),
    "flattop": (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
}
WINDOWS = (*COSINE_WINDOWS, "bartlett", "cosine")


def window_values(name: str, length: int, periodic: bool) -> np.ndarray:
    """The window of a name in float64; symmetric, or one period of a periodic one."""
    if length == 1:
        return np.ones(1)
    t = np.arange(length)
    period = length if periodic else length - 1
    if name == "bartlett":
        return 1 - np.abs(2 * t / period - 1)
    if name == "cosine":
        return np.sin(np.pi * (t + 0.5) / (period + 1))
    waves = [(-1) ** k * a * np.cos(2 * np.pi * k * t / period) for k, a in enumerate(COSINE_WINDOWS[name])]
    return np.sum(waves, axis=0)


@initializer
class Stft(Initializer):
    """cos or sin of the Fourier phases, times a window."""

    side: str = static(default="real")
    window: str | tuple[float, ...] | None = static(default="hann")
    scaling: str | None = static(default="density")
    periodic: bool = static(default=False)

    needs_key = False

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or shape[1] != 1 or shape[2] < 2:
            raise checks.bad(
                "stft", "shape", "(frame_length, 1, fft_length // 2 + 1)", shape,
                "A layer of several channels takes it as a depthwise convolution.",
            )  # fmt: skip
        if isinstance(self.window, tuple) and len(self.window) != shape[0]:
            raise checks.bad("stft", "window", f"as long as the frame, {shape[0]}", len(self.window))

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        frame, _, bins = shape
        fft_length = 2 * (bins - 1)
        # the phase is reduced in integers, so that late samples are as exact as early ones
        turns = np.outer(np.arange(frame), np.arange(bins)) % fft_length
        phase = 2 * np.pi * turns / fft_length
        kernel = np.cos(phase) if self.side == "real" else -np.sin(phase)
        if self.window is not None:
            w = self.window
            values = window_values(w, frame, self.periodic) if isinstance(w, str) else np.asarray(w)
            if self.scaling is not None:
                values = values / (
                    math.sqrt(np.sum(values**2)) if self.scaling == "density" else np.sum(np.abs(values))
                )
            kernel = kernel * values[:, None]
        return times(jnp.asarray(kernel[:, None, :].astype(working_dtype(dtype))), factor).astype(dtype)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        plain = Stft()
        named = ("side", "window", "scaling", "periodic")
        return "stft", (), {n: getattr(self, n) for n in named if getattr(self, n) != getattr(plain, n)}


def stft(
    side: str = "real", window: Any = "hann", scaling: str | None = "density", *, periodic: bool = False
) -> Initializer:
    """The kernel of a 1-D convolution that computes one part of a short-time Fourier transform.

        w[t, 0, k] = v[t] cos(2 pi t k / n)       side "real"
        w[t, 0, k] = -v[t] sin(2 pi t k / n)      side "imag"

    for a frame of T samples and the frequencies k = 0 .. n / 2. The shape is (T, 1, n / 2 + 1), the layer's stride
    the step between frames. Two layers, one a side, give the transform; sqrt(real^2 + imag^2) is its magnitude.

    Args:
        side: "real" or "imag".
        window: v: "boxcar", "hann", "hamming", "blackman", "nuttall", "blackmanharris", "flattop", "bartlett",
            "cosine", or T numbers (such as `scipy.signal.get_window(...)`), or None for none, not scaled either.
        scaling: "density" divides v by sqrt(sum v^2), "spectrum" by sum |v|, None by nothing.
        periodic: whether a named window is one period of a periodic function (for spectral analysis) rather than
            symmetric.

    Values are computed in float64 and rounded; the key is not used.

    Raises:
        ValueError: for an unknown side, window or scaling; when called, for other shapes and for a window that is
            not as long as the frame.

    Source: Keras, `keras.initializers.STFT`; Harris 1978, "On the use of windows for harmonic analysis", for the
    windows.

    Example:
        >>> from jaxinit.initializers import stft
        >>> stft(window=None)(None, (4, 1, 3))[:, 0].round(3) + 0.0
        Array([[ 1.,  1.,  1.],
               [ 1.,  0., -1.],
               [ 1., -1.,  1.],
               [ 1.,  0., -1.]], dtype=float32)
    """
    checks.choice("stft", "side", side, SIDES)
    if scaling is not None:
        checks.choice("stft", "scaling", scaling, SCALINGS)
    if isinstance(window, str):
        checks.choice("stft", "window", window, WINDOWS)
    elif window is not None:
        values = np.asarray(window)
        if values.ndim != 1 or values.size == 0 or not np.isrealobj(values) or values.dtype.kind not in "iuf":
            raise checks.wrong_type("stft", "window", "a name, a sequence of numbers or None", window)
        if not np.isfinite(values).all() or not values.any():
            raise checks.bad("stft", "window", "finite and not all zero", window)
        window = tuple(values.astype(np.float64).tolist())
    return Stft(side, window, scaling, checks.flag("stft", "periodic", periodic))
