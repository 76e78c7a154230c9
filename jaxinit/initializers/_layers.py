"""One word for each Flax layer that tells its initializer too little about the kernel's axes."""

from __future__ import annotations

from typing import Any

from jaxinit._core import checks
from jaxinit.initializers._base import Initializer
from jaxinit.initializers._scaling import VarianceScaling
from jaxinit.initializers._wrap import as_initializer, split

__all__ = [
    "for_conv_local", "for_conv_transpose", "for_dense_general", "for_depthwise", "for_einsum", "for_heads",
    "for_stack",
]  # fmt: skip


def _with_axes(where: str, init: Any, **changes: Any) -> Initializer:
    found = as_initializer(where, init)
    try:
        return found._with_axes(**changes)
    except NotImplementedError:
        rule = "an initializer whose law depends on the axes, such as he_normal() or orthogonal()"
        raise checks.wrong_type(where, "init", rule, init) from None


def for_conv_transpose(init: Any, stride: Any, *, transpose_kernel: bool = False) -> Initializer:
    """`init` for `ConvTranspose`: an output sees only kernel / stride taps an axis.

    Args:
        init: an initializer with fans.
        stride: the layer's strides, a number or one for each spatial axis.
        transpose_kernel: the layer's option of that name; the kernel is then (*spatial, out, in).

    Example:
        >>> from jaxinit.initializers import for_conv_transpose, lecun_normal
        >>> for_conv_transpose(lecun_normal(), 2)
        lecun_normal(stride=2)
    """
    where = "for_conv_transpose"
    swapped = (
        {"in_axis": -1, "out_axis": -2} if checks.flag(where, "transpose_kernel", transpose_kernel) else {}
    )
    return _with_axes(where, init, stride=stride, **swapped)


def for_conv_local(init: Any) -> Initializer:
    """`init` for `ConvLocal`, whose kernel (*positions, window, out) has its own weights at every position.

    Example:
        >>> from jaxinit.initializers import for_conv_local, he_normal
        >>> for_conv_local(he_normal())
        he_normal(batch_axis='rest')
    """
    return _with_axes("for_conv_local", init, batch_axis="rest")


def for_depthwise(init: Any, groups: int) -> Initializer:
    """`init` for a grouped or depthwise `Conv(feature_group_count=groups)`: the fan-out is that of one group.

    Example:
        >>> from jaxinit.initializers import for_depthwise, glorot_uniform
        >>> for_depthwise(glorot_uniform(), 64)
        glorot_uniform(groups=64)
    """
    return _with_axes("for_depthwise", init, groups=groups)


def for_einsum(init: Any, equation: str) -> Initializer:
    """`init` for `Einsum` and attention kernels: the equation (inputs first) says which axes are summed over.

    Example:
        >>> from jaxinit.initializers import for_einsum, lecun_normal
        >>> for_einsum(lecun_normal(), "bc,hcd->bhd")
        lecun_normal(einsum='bc,hcd->bhd')
    """
    return _with_axes("for_einsum", init, einsum=equation)


def for_stack(init: Any, axis: Any = 0) -> Initializer:
    """`init` for stacked kernels, such as scanned layers or experts: `axis` counts independent copies.

    Example:
        >>> from jaxinit.initializers import for_stack, orthogonal
        >>> for_stack(orthogonal())
        orthogonal(batch_axis=0)
    """
    return _with_axes("for_stack", init, batch_axis=axis)


def for_dense_general(init: Any, batch: int) -> Initializer:
    """`init` for `DenseGeneral(batch_dims=...)`, whose flattened kernel (batch * in, out) holds `batch` kernels.

    Args:
        init: an initializer with fans.
        batch: the product of the layer's batch dimensions.

    Example:
        >>> from jaxinit.initializers import for_dense_general, lecun_normal
        >>> round(for_dense_general(lecun_normal(), 16).law((1600, 8)).stddev, 12)
        0.1
    """
    n = checks.integer("for_dense_general", "batch", batch, at_least=1)
    return split(_with_axes("for_dense_general", init, batch_axis=0, in_axis=-2), 0, (n, -1))


def for_heads(init: Any, heads: int, side: str = "out") -> Initializer:
    """`init` for attention projections drawn head by head, so that every head is orthogonal.

    The fans of the variance-scaling family are right for these kernels as they are: such an `init` is returned
    unchanged.

    Args:
        init: `orthogonal(...)`, scaled or not, or an initializer with fans.
        heads: number of heads.
        side: "out" for query, key and value kernels (in, heads * size), "in" for the output kernel
            (heads * size, out).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxinit.initializers import for_heads, orthogonal
        >>> w = for_heads(orthogonal(), 4)(jax.random.key(0), (32, 4 * 8)).reshape(32, 4, 8)
        >>> bool(jnp.abs(w[:, 1].T @ w[:, 1] - jnp.eye(8)).max() < 1e-6)
        True
    """
    n = checks.integer("for_heads", "heads", heads, at_least=1)
    checks.choice("for_heads", "side", side, ("in", "out"))
    if isinstance(init, VarianceScaling):
        return init
    if side == "out":
        return split(_with_axes("for_heads", init, in_axis=0, out_axis=2, batch_axis=1), 1, (n, -1))
    return split(_with_axes("for_heads", init, in_axis=1, out_axis=2, batch_axis=0), 0, (n, -1))
