"""What a probed model has at its sites, and how its parameters fare: companions of `Propagation`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from jaxinit._core import checks
from jaxinit.records._codec import saved
from jaxinit.records._record import Record
from jaxinit.records._statistic import Statistic

#: Per statistic of a parameter: what it is.
PARAMETER_STATISTICS: dict[str, str] = {
    "norm": "Frobenius norm of the parameter",
    "gradient_norm": "Frobenius norm of the gradient of the loss",
    "gradient_ratio": "gradient norm over parameter norm",
    "update_ratio": "norm of the optimizer's first update over parameter norm",
    "gradient_nonfinite": "1 where the gradient has an entry that is nan or infinite, else 0",
}


@saved
@dataclasses.dataclass(frozen=True)
class Site:
    """A place in a probed model at which the signal is measured.

    Attributes:
        name: as in `Propagation.sites`: the path of the module, "Dense_0" or "encoder/fc"; "encoder/fc#1" is
            the second call of the same module ("#k" for call k, none for the first); "layers[3]/fc" is
            iteration 3 of a scanned stack; "lstm.0.1" is leaf `0.1` of an output that is a tuple or dict.
        role: "output", what a module returned; "operation", the product of a parameter with the signal (a
            matrix product or convolution, its bias included, or a lookup in a table) that is no module of its
            own; "input", what a module was given.
        kind: what is there: the class of the module ("Dense", "LayerNorm", "Block"), or the primitive of an
            operation ("dot_general", "conv_general_dilated", "gather").
        module: path of the module, without call and iteration; "" for the model itself.
        shape: of one evaluation, examples included: (32, 128).
        dtype: of the signal there.
        batch_axis: the axis of `shape` that counts the examples, or None where there is none.
        parameters: paths of the parameters that enter here, the kernel first; empty for containers.
        activation: whether an elementwise nonlinearity is applied to this value and nothing but it is used:
            the value is a pre-activation, and `dead_fraction`, `saturated_fraction` and `zero_fraction` speak
            of that nonlinearity. So it is where the nonlinearity is applied to a sum of this value with others, or
            to parts of it (the gates of recurrent cells, the end of a residual block): then they speak of the sum,
            and of several parts each is the largest. Elsewhere the first two are undefined (nan) and the third
            speaks of the value.
        loops: lengths of the loops (scans) around the place; a site is one of their iterations.
        container: whether other sites lie inside (a block, a stack, the model itself).
        branch: for a place inside a `cond` or `switch`: which branch; None elsewhere. A seed that does not
            take the branch does not count in `defined`.
    """

    name: str
    role: str
    kind: str
    module: str
    shape: tuple[int, ...]
    dtype: str
    batch_axis: int | None = 0
    parameters: tuple[str, ...] = ()
    activation: bool = False
    loops: tuple[int, ...] = ()
    container: bool = False
    branch: int | None = None

    @property
    def units(self) -> int:
        """Length of the last axis: features, or channels."""
        return self.shape[-1] if self.shape else 1


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ParameterStatistics(Record):
    """Per parameter: its norm, its gradient, and how far an optimizer's first step would move it.

    Each statistic has shape (parameters,). Parameters that a scan stacks are taken apart, one row a layer:
    "layers[3]/fc/kernel". `update_ratio` is None without an optimizer. A parameter that the loss does not
    depend on has gradient norm 0; `gradient_ratio` of a parameter that is 0 (a fresh bias) is undefined.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    norm: Statistic
    gradient_norm: Statistic | None = None
    gradient_ratio: Statistic | None = None
    update_ratio: Statistic | None = None
    gradient_nonfinite: Statistic | None = None
    label: str = "parameters"

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        """The recorded statistics, by name."""
        for name in PARAMETER_STATISTICS:
            value = getattr(self, name)
            if value is not None:
                yield name, value

    def index(self, name: str) -> int:
        """The row of a parameter; KeyError names the nearest."""
        if name not in self.names:
            raise KeyError(f"no parameter {name!r} was recorded. {checks.nearest(name, self.names)}")
        return self.names.index(name)

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.statistics())
        return f"ParameterStatistics({len(self.names)} parameters, {self.norm.count} seeds: {names})"

    def rows(self) -> list[dict[str, Any]]:
        """One dict a parameter and statistic."""
        return [
            {
                "label": self.label, "parameter": parameter, "shape": str(shape), "statistic": name,
                "mean": float(stat.mean[i]), "stderr": float(stat.stderr[i]),
                "min": float(stat.min[i]), "max": float(stat.max[i]), "count": stat.count,
            }
            for name, stat in self.statistics()
            for i, (parameter, shape) in enumerate(zip(self.names, self.shapes, strict=True))
        ]  # fmt: skip

    def table(self, max_rows: int = 40) -> Any:
        """One row a parameter; at most `max_rows`, evenly spaced."""
        from jaxinit.records._tables import parameter_table

        return parameter_table(self, max_rows)
