"""Options of the compiler: what it does not know, or the user has set, is left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxinit._core import compiling


@pytest.fixture(autouse=True)
def _told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(compiling, "options", compiling.options.__wrapped__)


def test_those_that_it_knows_and_the_user_has_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"xla_cpu_prefer_vector_width": 256}
    monkeypatch.setattr(compiling, "_ALWAYS", {"cpu": {**known, "xla_of_no_compiler": True}})
    assert compiling.options("cpu") == known
    assert compiling.options("tpu", "loops") == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
    assert compiling.options("cpu") == {}


@pytest.mark.parametrize("kind", [None, "loops", "brief"])
def test_every_kind_compiles(kind: compiling.Kind) -> None:
    lowered = jax.jit(lambda x: 2.0 * x).lower(jnp.float32(1.0))
    assert lowered.compile(compiler_options=compiling.options("cpu", kind))(jnp.float32(1.0)) == 2.0


def test_kinds_differ_where_the_compiler_knows_their_options() -> None:
    lowered = jax.jit(lambda: jnp.int32(0)).lower()
    for kind in ("loops", "brief"):
        own = compiling._OF_KIND["cpu", kind]
        try:
            lowered.compile(compiler_options=own)
        except jax.errors.JaxRuntimeError:
            continue
        assert own.items() <= compiling.options("cpu", kind).items()
