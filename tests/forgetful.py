"""A wrong law for twins: products with a matrix that is never formed, in which P is forgotten.

Of what is drawn afresh nothing is taken out that had been seen: D W^T = stddev [ (D G^T) Q + R_D Gamma ].
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import pytest

from jaxinit._core.normals import normals
from jaxinit.implicit import _frames, _gaussian


@contextmanager
def forgotten_projections() -> Iterator[None]:
    """Programs traced meanwhile draw by the wrong law; those that are cached do not, so take another batch size."""

    def backward(key: jax.Array, residual: tuple, d: jax.Array, stddev: jax.Array) -> tuple:
        (q, g), (q_d, r_d) = residual, _frames.orthonormalize(d)
        fresh = normals(key, len(q_d), len(q[0]), d.dtype)
        return stddev * (_frames.combine(_frames.gram(d, g), q) + _frames.combine(r_d, fresh)), (0, 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gaussian, "backward_and_seen", backward)
        patch.setattr(_frames, "project_out", lambda v, frame: v)
        yield
