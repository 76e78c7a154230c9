"""The plain deep network on which initializers are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxinit._core import checks

__all__ = ["MLP"]

_ACTIVATIONS = (
    "elu", "gelu", "identity", "leaky_relu", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus",
    "swish", "tanh",
)  # fmt: skip


class MLP(nn.Module):
    """A fully connected network: `depth` weight layers, `depth - 1` activations, no normalization, no skips.

    z^1 = x W^1 + b^1,  z^l = phi(z^{l-1}) W^l + b^l,  output z^L. Inputs of any shape are flattened behind
    their first axis. Layer l has the path `layer_l`.

    Attributes:
        depth: L, the number of weight layers.
        width: units of each hidden layer.
        features: units of the output.
        activation: a name of `jax.nn` (or "identity"), or any callable.
        kernel_init: draws every W^l, the last included.
        output_init: draws the last W^L instead, if given.
        bias_init: draws every b^l; unused when `use_bias` is False.
        dtype: of the computation; None takes that of inputs and parameters.
        param_dtype: of the parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxinit.models import MLP
        >>> model = MLP(depth=3, width=16, features=2, kernel_init=jax.nn.initializers.he_normal())
        >>> params = model.init(jax.random.key(0), jnp.ones((1, 4)))["params"]
        >>> sorted(params), params["layer_2"]["kernel"].shape
        (['layer_1', 'layer_2', 'layer_3'], (16, 16))
    """

    depth: int
    width: int
    features: int
    activation: str | Callable[[Any], Any] = "relu"
    kernel_init: Callable[..., Any] = nn.initializers.he_normal()
    output_init: Callable[..., Any] | None = None
    bias_init: Callable[..., Any] = nn.initializers.zeros_init()
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for name in ("depth", "width", "features"):
            checks.integer("MLP", name, getattr(self, name), at_least=1)
        if isinstance(self.activation, str):
            checks.choice("MLP", "activation", self.activation, _ACTIVATIONS)
        elif not callable(self.activation):
            raise checks.wrong_type("MLP", "activation", "a name or a callable", self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Any) -> Any:
        phi = getattr(jax.nn, self.activation) if isinstance(self.activation, str) else self.activation
        z = x.reshape(x.shape[0], -1)
        for layer in range(1, self.depth + 1):
            last = layer == self.depth
            z = nn.Dense(
                self.features if last else self.width,
                use_bias=self.use_bias,
                kernel_init=self.output_init if last and self.output_init is not None else self.kernel_init,
                bias_init=self.bias_init,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"layer_{layer}",
            )(z)
            z = z if last else phi(z)
        return z
