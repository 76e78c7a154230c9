"""Finite width: runs a `Network` over seeds, by implicit or by materialized weights."""

from jaxinit.simulate._simulate import simulate as simulate
