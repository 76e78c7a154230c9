"""Statistics of the network itself along training: is the signal alive, do units die, do weights move?"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.compare._outputs import kernel_outputs
from jaxinit.compare._training import Carry, Programs

#: What is recorded at each site (each kernel), by name.
SIGNALS = {
    "weight_rms": "root mean square of the kernel's entries",
    "grad_rms": "root mean square of dL/dW on the batch",
    "update_ratio": "Frobenius norm of the next update over that of the kernel",
    "second_moment": "mean over units and examples of z^2, z the output of the kernel's layer",
    "silent_fraction": "share of units with z <= 0 on every example: dead, if a ReLU follows",
}


def sites_of(params: Any) -> tuple[str, ...]:
    """The places of the kernels, in natural order (layer_2 before layer_10)."""
    names = [_site(path) for path, _ in _kernels(params)]
    return tuple(sorted(names, key=lambda n: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", n)]))


def observe(programs: Programs, carry: Carry, rate: Any, x: Any, y: Any) -> dict[str, Any]:
    """Every signal on one batch, `(sites,)` each, without moving the run; nan for outputs out of sight."""
    params = carry.params

    def apply(parameters: Any, batch: Any, state: Any) -> Any:
        return programs.model.apply(parameters, state, batch, False, None)[0]

    def loss(parameters: Any) -> Any:
        return jnp.mean(programs.task.losses(apply(parameters, x, carry.state), y))

    with jax.numpy_dtype_promotion("standard"):
        gradient = jax.grad(loss)(params)
        updates, _ = programs.optimizer(rate).update(gradient, carry.memory, params)
        places = {path: _site(path) for path, _ in _kernels(params)}
        outputs = kernel_outputs(apply, params, lambda path: places.get(path), x, carry.state)
    weights, gradients, moves = (
        {_site(p): leaf for p, leaf in _kernels(t)} for t in (params, gradient, updates)
    )
    columns: dict[str, list[Any]] = {name: [] for name in SIGNALS}
    for site in sites_of(params):
        norm = _rms(weights[site])
        columns["weight_rms"].append(norm)
        columns["grad_rms"].append(_rms(gradients[site]))
        columns["update_ratio"].append(_rms(moves[site]) / norm)
        z = outputs.get(site)
        columns["second_moment"].append(jnp.float32(jnp.nan) if z is None else jnp.square(_rms(z)))
        silent = (
            jnp.float32(jnp.nan)
            if z is None
            else jnp.mean(jnp.all(_units(z) <= 0, axis=0).astype(jnp.float32))
        )
        columns["silent_fraction"].append(silent)
    return {name: jnp.stack(values) for name, values in columns.items()}


def _units(z: Any) -> Any:
    return z.reshape(-1, z.shape[-1])


def _rms(array: Any) -> Any:
    """Root mean square without overflow or underflow of the squares, in float32."""
    array = array.astype(jnp.float32)
    top = jnp.max(jnp.abs(array))
    scale = jnp.where((top > 0) & jnp.isfinite(top), top, 1.0)
    return scale * jnp.sqrt(jnp.mean(jnp.square(array / scale)))


def _kernels(tree: Any) -> list[tuple[Any, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [(path, leaf) for path, leaf in leaves if _key(path[-1]) == "kernel"]
    return named or [(path, leaf) for path, leaf in leaves if jnp.ndim(leaf) >= 2]


def _key(part: Any) -> str:
    return str(getattr(part, "key", getattr(part, "idx", getattr(part, "name", part))))


def _site(path: Any) -> str:
    parts = [_key(part) for part in path]
    return "/".join(parts[:-1] if parts[-1] == "kernel" and len(parts) > 1 else parts)
