"""Depth rules: by how much the weights of a residual branch shrink so that the sum of branches stays bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw
from jaxinit.initializers._base import Initializer, Law, initializer, working_dtype
from jaxinit.initializers._wrap import Wrapper, as_initializer, scaled_law

__all__ = ["DeepNorm", "admin_skip", "deepnorm", "residual"]

RULES = ("gpt2", "fixup", "t_fixup", "deepnorm", "depth_mup", "complete_p", "layerwise")
ROLES = ("encoder", "decoder")
# the options of each rule, with their defaults; None: must be given
OPTIONS: dict[str, dict[str, Any]] = {
    "gpt2": {"branches": 2},
    "fixup": {"branch_layers": 2, "last": False},
    "t_fixup": {"role": "encoder"},
    "deepnorm": {"role": "encoder", "other_depth": 0},
    "depth_mup": {},
    "complete_p": {},
    "layerwise": {"branches": 2, "layer": None},
}


class DeepNorm(NamedTuple):
    """The two constants of DeepNorm: `LN(alpha * x + f(x))`, with `beta` times the Xavier weights inside f."""

    alpha: float
    beta: float


def deepnorm(depth: int, role: str = "encoder", other_depth: int = 0) -> DeepNorm:
    """The constants of DeepNorm for a stack of `depth` layers.

    With N encoder and M decoder layers:

        encoder only              alpha = (2N)^(1/4)              beta = (8N)^(-1/4)
        decoder only              alpha = (2M)^(1/4)              beta = (8M)^(-1/4)
        encoder of both           alpha = 0.81 (N^4 M)^(1/16)     beta = 0.87 (N^4 M)^(-1/16)
        decoder of both           alpha = (3M)^(1/4)              beta = (12M)^(-1/4)

    Args:
        depth: layers of this stack.
        role: "encoder" or "decoder".
        other_depth: layers of the other stack, 0 if there is none.

    Source: Wang et al. 2022, "DeepNet: scaling Transformers to 1,000 layers", figure 2. Public ports of the paper
    agree on 0.81 and 0.87; the authors' torchscale uses 1.15 (N^4 M)^(-1/16) for the encoder's beta of both instead.

    Example:
        >>> from jaxinit.initializers import deepnorm
        >>> deepnorm(8)
        DeepNorm(alpha=2.0, beta=0.3535533905932738)
    """
    d = checks.integer("deepnorm", "depth", depth, at_least=1, at_most=checks.MOST)
    checks.choice("deepnorm", "role", role, ROLES)
    other = checks.integer("deepnorm", "other_depth", other_depth, at_least=0, at_most=checks.MOST)
    if not other:
        return DeepNorm((2 * d) ** 0.25, (8 * d) ** -0.25)
    if role == "encoder":
        both = (d**4 * other) ** (1 / 16)
        return DeepNorm(0.81 * both, 0.87 / both)
    return DeepNorm((3 * d) ** 0.25, (12 * d) ** -0.25)


def admin_skip(depth: int, change: str = "log") -> float:
    """The weight omega of every skip, `LN(omega * x + f(x))`, that bounds how a small update changes the output.

        change       omega                                   output change after an update of size 1 in each branch
        "linear"     1                                       O(N): the plain post-norm residual
        "log"        sqrt((N + 1) / log(N + 1) - 1)          O(log N)
        "constant"   sqrt(N)                                 O(1)

    For branches that keep the lengths and the angle of what they are given, a relative step delta in every weight
    moves the output by a mean square of N delta^2 / (omega^2 + 1); omega follows from what that shall be.

    Admin of the paper measures the variances of the branches in a profiling pass; this is its authors' later form,
    which takes them to be equal and needs no pass. Weights inside the branches stay as they are (Xavier). omega may
    be trained, one value a feature: `constant(admin_skip(N))`.

    Args:
        depth: N: residual branches of the whole stack; two in a Transformer layer (encoder), three (decoder).
        change: "log", "constant" or "linear".

    Raises:
        ValueError: for a depth below 1 or an unknown `change`.

    Source: Liu et al. 2020, "Understanding the difficulty of training Transformers", arXiv 2004.08249;
    microsoft/admin-torch for the form without profiling.

    Example:
        >>> from jaxinit.initializers import admin_skip
        >>> round(admin_skip(12), 4), admin_skip(16, "constant")
        (2.017, 4.0)
    """
    n = checks.integer("admin_skip", "depth", depth, at_least=1, at_most=checks.MOST)
    checks.choice("admin_skip", "change", change, ("log", "constant", "linear"))
    if change == "linear":
        return 1.0
    return math.sqrt(n if change == "constant" else (n + 1) / math.log(n + 1) - 1)


def _factor(rule: str, depth: int, options: dict[str, Any]) -> float:
    if rule == "gpt2":
        return 1 / math.sqrt(options["branches"] * depth)
    if rule == "fixup":
        m = options["branch_layers"]
        return 0.0 if options["last"] else float(depth ** (-1 / (2 * m - 2)))
    if rule == "t_fixup":
        return 0.67 * depth**-0.25 if options["role"] == "encoder" else (9 * depth) ** -0.25
    if rule == "deepnorm":
        return deepnorm(depth, options["role"], options["other_depth"]).beta
    if rule == "depth_mup":
        return 1 / math.sqrt(depth)
    if rule == "complete_p":
        return 1 / depth
    return 1 / math.sqrt(options["branches"] * options["layer"])


@initializer
class Residual(Wrapper):
    """`init` times the factor that a depth rule gives the weights of a residual branch."""

    init: Any = leaf()
    depth: int = static()
    rule: str = static(default="gpt2")
    options: tuple[tuple[str, Any], ...] = static(default=())

    @property
    def factor(self) -> float:
        """The number that multiplies the draws of `init`."""
        return _factor(self.rule, self.depth, OPTIONS[self.rule] | dict(self.options))

    def law(self, shape: Sequence[int]) -> Law | None:
        if self.factor == 0:
            return Law(0.0, 0.0, "constant", "constant")
        return scaled_law(self.init.law(shape), self.factor)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        if self.factor == 0:
            return jnp.zeros(shape, dtype)
        by = _draw.as_scalar(self.factor, working_dtype(dtype))
        return self.init._sample(key, shape, dtype, _draw.product(by, factor))

    def _around(self, init: Initializer) -> Initializer:
        return Residual(init, self.depth, self.rule, self.options)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        rule = () if self.rule == "gpt2" else (self.rule,)
        return "residual", (self.init, self.depth, *rule), dict(self.options)


def residual(
    init: Any,
    depth: int,
    rule: str = "gpt2",
    *,
    branches: int | None = None,
    branch_layers: int | None = None,
    last: bool | None = None,
    role: str | None = None,
    other_depth: int | None = None,
    layer: int | None = None,
) -> Initializer:
    """`init` for a layer inside the residual branches of a deep network: the draw times a factor of the depth.

        rule          factor                                        for which layers, with which `init`
        "gpt2"        1 / sqrt(branches * L)                        last of each branch; normal(0.02)
        "fixup"       L^(-1 / (2m - 2)), 0 for the last             all in a branch of m layers; he_normal(); no
                                                                    normalization
        "t_fixup"     encoder 0.67 L^(-1/4), decoder (9 L)^(-1/4)   value, output, feed-forward (and embeddings);
                                                                    glorot_normal(); no normalization, no warm-up
        "deepnorm"    beta of `deepnorm`                            value, output, feed-forward; glorot_normal();
                                                                    with LN(alpha x + f(x))
        "depth_mup"   1 / sqrt(L)                                   last of each branch
        "complete_p"  1 / L                                         last of each branch
        "layerwise"   1 / sqrt(branches * layer)                    last of each branch, layer = 1 .. L

    Args:
        init: an initializer, or the name of one.
        depth: L: the number of blocks ("gpt2", "layerwise": blocks of `branches` branches), of residual branches
            ("fixup", "depth_mup", "complete_p"), of layers of the stack ("t_fixup", "deepnorm").
        rule: one of the above.
        branches: residual branches in a block, 2 by default.
        branch_layers: weight layers m in a branch, at least 2 (default).
        last: whether this is the last layer of its branch ("fixup": zeros).
        role, other_depth: "encoder" or "decoder", and the depth of the other stack, see `deepnorm`.
        layer: the position of this block, from 1.

    Raises:
        ValueError: for an unknown rule, a depth below 1, or an option the rule does not have.

    Source: Radford et al. 2019, section 2.3 (gpt2); Zhang, Dauphin & Ma 2019 (fixup); Huang et al. 2020
    (t_fixup); Wang et al. 2022, figure 2 (deepnorm); Yang, Yu, Zhu & Hayou 2023, arXiv 2310.02244
    (depth_mup); Dey et al. 2025, arXiv 2505.01618 (complete_p); Bao et al. 2021, BEiT (layerwise).

    Example:
        >>> from jaxinit.initializers import he_normal, normal, residual
        >>> round(residual(normal(0.02), 8).factor, 12)
        0.25
        >>> residual(he_normal(), 16, "fixup").factor
        0.25
    """
    where = "residual"
    d = checks.integer(where, "depth", depth, at_least=1, at_most=checks.MOST)
    checks.choice(where, "rule", rule, RULES)
    given = {
        "branches": branches, "branch_layers": branch_layers, "last": last, "role": role,
        "other_depth": other_depth, "layer": layer,
    }  # fmt: skip
    known = OPTIONS[rule]
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            if name in known and known[name] is None:
                raise checks.bad(where, name, f"given for rule={rule!r}", value, f"Pass {name}=1 .. {d}.")
            continue
        if name not in known:
            options = ", ".join(known) or "none"
            raise checks.bad(where, name, f"left out for rule={rule!r} (options: {options})", value)
        if name == "role":
            chosen[name] = checks.choice(where, name, value, ROLES)
        elif name == "last":
            chosen[name] = checks.flag(where, name, value)
        else:
            low = {"branch_layers": 2, "other_depth": 0}.get(name, 1)
            chosen[name] = checks.integer(where, name, value, at_least=low, at_most=checks.MOST)
    if chosen.get("layer", 1) > d:
        raise checks.bad(where, "layer", f"at most the depth {d}", layer)
    options_kept = tuple((k, v) for k, v in chosen.items() if v != known[k])
    return Residual(as_initializer(where, init), d, rule, options_kept)
