"""Finite width: runs a `Network` over seeds, by implicit or by materialized weights."""

from jaxinit.simulate._simulate import simulate as simulate
from jaxinit.simulate._sweep import sweep as sweep
