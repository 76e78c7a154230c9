"""SHA-256 of one small draw of every random scheme, in float32 and bfloat16; written to golden.json.

    python tests/initializers/golden.py > tests/initializers/golden.json

Run it only when the bits are meant to change. float32 bits are those of `jax.random` and of the schemes of
`jax.nn.initializers` (see test_first_set.py); what is recorded here is that neither moves. Values are kept beside
the hashes because the last bits of a QR belong to the LAPACK at hand, and those of logarithms to the build of XLA.
"""

import hashlib
import json
import platform
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from initializers.schemes import CATALOGUE, shape_of

KEY = jax.random.key(20260101)
DTYPES = (jnp.float32, jnp.bfloat16)


def build() -> dict[str, str]:
    """What decides the last bits of transcendental functions."""
    return {"jaxlib": jaxlib.__version__, "machine": platform.machine(), "backend": jax.default_backend()}


def digest(w) -> str:
    """SHA-256 of the bytes of a draw, little-endian, in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(np.asarray(w)).tobytes()).hexdigest()


def draw(name: str, key) -> dict:
    """The draws of one scheme, by the name of the dtype."""
    return {jnp.dtype(d).name: CATALOGUE[name](key, shape_of(name), d) for d in DTYPES}


def main() -> None:
    """Print the record of all schemes as JSON."""
    schemes = {}
    for name, init in CATALOGUE.items():
        drawn = draw(name, KEY)
        values = [float(f"{v:.9g}") for v in np.asarray(drawn["float32"]).ravel()]
        hashes = {dtype: digest(w) for dtype, w in drawn.items()}
        schemes[name] = {"call": repr(init), "shape": list(shape_of(name)), **hashes, "values": values}
    print("{")
    print(f' "made by": {json.dumps(build())},')
    print(' "schemes": {')
    print(",\n".join(f"  {json.dumps(name)}: {json.dumps(record)}" for name, record in schemes.items()))
    print(" }\n}")


if __name__ == "__main__":
    main()
