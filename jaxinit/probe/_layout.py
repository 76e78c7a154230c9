"""What a row of numbers holds: the sums that are taken at a place, and the statistics made of them, all places at once.

The sums of a place stay as they are until those of all places lie in one array; what is computed from them is
computed there. So a program holds a few small operations, and not a few for every place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinit._core.scaled import Scaled

__all__ = ["BACKWARD", "FORWARD", "PAIRWISE", "Layout", "exponent", "power"]

#: Powers of two beyond which float32 has no normal numbers.
_FAR = 126

_SIGNAL = {"second_moment", "log_second_moment", "mean", "kurtosis", "nonfinite_fraction"}
_ANGLES = {"correlation", "one_minus_correlation"}
_SLOPE = {"grad_second_moment", "log_grad_second_moment", "grad_nonfinite_fraction", "grad_zero_fraction"}
_FLAT_NAMES = ("dead_fraction", "saturated_fraction", "zero_fraction")
_FLAT = set(_FLAT_NAMES)
#: The entries of a row in order: how many (one an input, an example, a pair, or one), and the statistics that need
#: them. With values y over a power of two, the one at or below the largest of them, `top`:
#: `units` of an example; per example `squares`, the sum of y^2; `level` and `fourth`, the sums of y and of the fourth
#: power of its distance from the mean. Of examples apart the `cosine` of each pair and 1 minus it, `distance`; of
#: examples pooled, `off`: the sum of |y / |y| - v|^2, v the mean of all y / |y|; a y that is 0 counts as 0.
#: `flat`: shares of dead and saturated units and of zeros.
#: `spread` and `places`, per example: |sum of unit vectors of its positions|^2, and how many of these are not 0.
_FORWARD = {
    "units": ("", _SIGNAL), "top": ("input", _SIGNAL), "squares": ("example", _SIGNAL | _ANGLES),
    "level": ("input", {"mean", "kurtosis"}), "fourth": ("input", {"kurtosis"}),
    "cosine": ("pair", _ANGLES), "distance": ("pair", _ANGLES), "off": ("pool", _ANGLES),
    "flat": ("flat", _FLAT),
    "spread": ("example", {"position_correlation"}), "places": ("example", {"position_correlation"}),
}  # fmt: skip
_BACKWARD = {
    "units": ("", _SLOPE), "top": ("input", _SLOPE), "squares": ("example", _SLOPE | {"grad_correlation"}),
    "cosine": ("pair", {"grad_correlation"}), "distance": ("pair", {"grad_correlation"}),
    "off": ("pool", {"grad_correlation"}), "grad_zero_fraction": ("", {"grad_zero_fraction"}),
}  # fmt: skip
#: Of a variance below this share of the mean square too few digits are left.
_CANCELLED = 1e-4

#: Statistics of pairs of examples.
PAIRWISE = frozenset({*_ANGLES, "grad_correlation"})
#: Statistics of values, and of gradients.
FORWARD = frozenset(name for _, uses in _FORWARD.values() for name in uses)
BACKWARD = frozenset(name for _, uses in _BACKWARD.values() for name in uses)
#: Statistics with one entry a place.
PER_SITE = _FLAT | {
    "position_correlation",
    "nonfinite_fraction",
    "grad_nonfinite_fraction",
    "grad_zero_fraction",
}


class Layout(NamedTuple):
    """What a row holds, and of how many examples.

    `examples` in a batch; `apart`: whether each has entries of its own, or all are pooled into one.
    `wanted`: names of statistics, those of pairs included only if there are two examples.
    """

    examples: int
    apart: bool
    wanted: frozenset[str]

    @property
    def inputs(self) -> int:
        return self.examples if self.apart else 1

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        if self.examples < 2:
            return ()
        if not self.apart:
            return ((0, 1),)
        return tuple((a, b) for a in range(self.examples) for b in range(a + 1, self.examples))

    def forward(self) -> dict[str, int]:
        """The entries of a forward row, in order: name -> how many."""
        return self._entries(_FORWARD)

    def backward(self) -> dict[str, int]:
        """The entries of a backward row."""
        return self._entries(_BACKWARD)

    def _entries(self, kinds: dict[str, tuple[str, set[str]]]) -> dict[str, int]:
        pairs, several = len(self.pairs), self.examples > 1 and not self.apart
        lengths = {
            "input": self.inputs, "example": self.examples, "": 1, "flat": len(_FLAT_NAMES),
            "pair": pairs if self.apart else 0, "pool": int(several),
        }  # fmt: skip
        chosen = {name: axis for name, (axis, uses) in kinds.items() if uses & self.wanted}
        return {"ran": 1} | {name: lengths[axis] for name, axis in chosen.items() if lengths[axis]}

    def statistics(self, rows: Any, backward: bool) -> dict[str, Any]:
        """Statistics by name: (rows, inputs), (rows, pairs) or (rows,). Of rows that did not run, nan."""
        entries, e, start = self.backward() if backward else self.forward(), dict[str, Any](), 0
        for name, length in entries.items():
            e[name] = rows[:, start : start + length]
            start += length
        prefix = "grad_" if backward else ""
        out = {name: e[name] for name in set(e) & self.wanted}
        if "flat" in e:
            out |= {name: e["flat"][:, n : n + 1] for n, name in enumerate(_FLAT_NAMES)}
        if "top" in e:
            out |= self._moments(e, prefix)
        if "grad_zero_fraction" in out:  # of gradients that are no numbers nothing can be said
            out["grad_zero_fraction"] = jnp.where(
                out["grad_nonfinite_fraction"] > 0, jnp.nan, out["grad_zero_fraction"]
            )
        if "off" in e or "distance" in e:
            cosine, distance = (e["cosine"], e["distance"]) if self.apart else _pooled(e["squares"], e["off"])
            out[f"{prefix}correlation"] = cosine
            out[f"{prefix}one_minus_correlation"] = distance
        if "spread" in e:
            each = (e["spread"] - e["places"]) / (e["places"] * (e["places"] - 1))
            out["position_correlation"] = jnp.mean(jnp.where(e["places"] > 1, each, jnp.nan), axis=1)
        ran = e["ran"] > 0
        return {
            name: _defined(value, ran, name in PER_SITE) for name, value in out.items() if name in self.wanted
        }

    def _moments(self, e: dict[str, Any], prefix: str) -> dict[str, Any]:
        def over(name: str) -> Any:
            """Means over the units of each input: of one example, or of all."""
            value = e[name] / e["units"]
            return value if self.apart else jnp.sum(value, axis=1, keepdims=True) / self.examples

        scale, square = exponent(e["top"]), over("squares")
        # A maximum does not tell of nan everywhere; the squares do.
        finite = jnp.isfinite(e["top"]) & jnp.isfinite(square)
        log2 = jnp.where(finite, 2 * scale, 0)
        out: dict[str, Any] = {
            f"{prefix}second_moment": Scaled(jnp.where(finite, square, jnp.inf), log2),
            f"log_{prefix}second_moment": Scaled(jnp.where(finite, square, jnp.inf), log2, True),
            f"{prefix}nonfinite_fraction": jnp.mean(~jnp.isfinite(e["squares"]), axis=1, dtype=jnp.float32),
        }
        if "level" in e:
            level = over("level")
            out["mean"] = jnp.where(finite, level * power(scale, jnp.float32), jnp.nan)
        if "fourth" in e:
            variance = square - jnp.square(level)
            kurtosis = over("fourth") / jnp.square(variance) - 3
            out["kurtosis"] = jnp.where(variance > _CANCELLED * square, kurtosis, jnp.nan)
        return out


def _defined(value: Any, ran: Any, per_site: bool) -> Any:
    if isinstance(value, Scaled):
        return Scaled(jnp.where(ran, value.mantissa, jnp.nan), value.exponent, value.log)
    value = jnp.where(ran, value.reshape((len(ran), -1)), jnp.nan)
    return value[:, 0] if per_site else value


def _pooled(squares: Any, off: Any) -> tuple[Any, Any]:
    """The mean cosine of two different examples among those that are not 0, and 1 minus it without cancellation.

    Of m unit vectors u_a with mean v, the mean of |u_a - u_b|^2 / 2 over a != b is sum_a |u_a - v|^2 / (m - 1). What is
    given, S, counts n - m zeros among them and their mean, w = m v / n: S = m - n |w|^2, from which that sum follows.
    """
    n = squares.shape[1]
    m = jnp.sum(squares > 0, axis=1, keepdims=True, dtype=jnp.float32)
    spread = jnp.where(m < n, off - (m - off) * (n - m) / m, off)
    distance = jnp.where(m > 1, spread / (m - 1), jnp.nan)
    return 1 - distance, distance


def exponent(top: Any) -> Any:
    """The power of two at or below a positive float32, from its bits, within the range of normal numbers."""
    bits = jax.lax.bitcast_convert_type(top.astype(jnp.float32), jnp.int32)
    return jnp.clip((bits >> 23) - 127, -_FAR, _FAR)


def power(exponent: Any, dtype: Any) -> Any:
    """2^exponent, exact."""
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32).astype(dtype)
