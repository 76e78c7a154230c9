"""The canonical networks: one description that theory predicts and simulation draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxinit import initializers
from jaxinit._core import checks
from jaxinit._core.struct import leaf, record, static
from jaxinit.activations._catalogue import resolve
from jaxinit.initializers._catalogue import resolve as resolve_initializer

ENSEMBLES = ("gaussian", "orthogonal")
ORDERS = ("pre", "post")
NORMS = ("layer", "rms")
PADDINGS = ("circular", "zero")
#: The most layers: a record lists every one.
_DEEPEST = 1 << 24


@record
class Residual:
    """Skip connections around the layers of a `Network`, alpha times the stream plus beta times the branch.

        "pre":   z^l = alpha z^(l-1) + beta (W^l phi(z^(l-1)) + b^l)               l = 2 .. depth
        "post":  x^l = alpha x^(l-1) + beta phi(z^l),   z^l = W^l x^(l-1) + b^l    l = 2 .. depth - 1

    "pre" applies phi before the weights (pre-activation networks: He et al. 2016, "Identity mappings"; Yang &
    Schoenholz 2017, "Mean field residual networks: on the edge of chaos", without a second matrix); "post" applies
    it after them (the reduced residual network of Yang & Schoenholz). The first layer maps the input to
    the width and has no skip; in a "post" network x^1 = phi(z^1) and the last layer reads the stream out,
    f(x) = z^depth = W x^(depth-1) + b.

    Networks with phi after the sum, phi(alpha h + beta W h), are not among them: their pre-activations are not
    Gaussian at any width.

    Arguments:
        alpha: factor of the stream, at least 0.
        beta: factor of the branch, at least 0; depth**-0.5 keeps a deep network's signal of order 1.
        order: "pre" or "post".

    Example:
        >>> from jaxinit.network import Residual
        >>> Residual(beta=0.1)
        Residual(alpha=1.0, beta=0.1, order='pre')
    """

    alpha: Any = leaf(default=1.0)
    beta: Any = leaf(default=1.0)
    order: str = static(default="pre")

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = checks.number("Residual", name, getattr(self, name), at_least=0.0)
            object.__setattr__(self, name, value)
        checks.choice("Residual", "order", self.order, ORDERS)


@record
class Spatial:
    """The places of a convolutional `Network`, and which of them a unit reads: every layer becomes

        z_x(i) = sum_d sum_j W_ij(d) phi(z_(x + d)(j)) + b_i,    Var W_ij(d) = weight_variance / (taps n_in),

    one kernel W for all places x of `shape`, offsets d from -(k - 1) / 2 to (k - 1) / 2 along an axis of kernel width
    k, one bias a channel, stride 1. Beyond the border are the places of the other side ("circular") or zeros
    ("zero": places near it then have a smaller signal). The first layer is such a convolution of the input, and the
    output is z of the last one, at all places.

    Arguments:
        shape: places along each axis: (1000,) or a number for signals, (32, 32) for images.
        kernel: odd width of the kernel, or one for each axis.
        padding: "circular" or "zero".

    Raises:
        ValueError, TypeError: not one or two axes of positive length, an even kernel, or an unknown padding.

    Source: Xiao, Bahri, Sohl-Dickstein, Schoenholz & Pennington 2018, "Dynamical isometry and a mean field theory of
    CNNs"; `jaxinit.meanfield.convolution` is the limit of many channels, with circular padding.

    Example:
        >>> from jaxinit.network import Spatial
        >>> Spatial((32, 32), kernel=3)
        Spatial(shape=(32, 32), kernel=(3, 3), padding='circular')
    """

    shape: tuple[int, ...] = static()
    kernel: tuple[int, ...] = static(default=3)
    padding: str = static(default="circular")

    def __post_init__(self) -> None:
        where = "Spatial"
        shape = _axes(where, "shape", self.shape)
        if len(shape) not in (1, 2):
            raise checks.bad(where, "shape", "of one or two axes", self.shape)
        kernel = _axes(where, "kernel", self.kernel)
        kernel = kernel * len(shape) if isinstance(self.kernel, (int, np.integer)) else kernel
        if len(kernel) != len(shape) or any(k % 2 == 0 for k in kernel):
            raise checks.bad(
                where, "kernel", f"an odd width, or {len(shape)} of them", self.kernel,
                "A kernel of even width has no centre to keep a signal in its place.",
            )  # fmt: skip
        checks.choice(where, "padding", self.padding, PADDINGS)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "kernel", kernel)

    @property
    def places(self) -> int:
        """How many places there are."""
        return math.prod(self.shape)

    @property
    def taps(self) -> int:
        """How many places a unit reads."""
        return math.prod(self.kernel)


@record
class Plain:
    """A function `(key, shape, dtype)` that is no record of jaxinit: of unknown law, compared by identity."""

    draw: Callable[..., Any] = static()

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = None) -> Any:
        return self.draw(key, shape, dtype)

    def __repr__(self) -> str:
        return getattr(self.draw, "__name__", repr(self.draw))


@record
class Network:
    """A deep network at initialization, fully connected or (`spatial`) convolutional.

    z^1 = W^1 x + b^1,   z^l = W^l phi(z^(l-1)) + b^l  (l = 2 .. depth),   output f(x) = z^depth.

    The weights are either given by their variance, Var(W_ij) = weight_variance / n_in, drawn from the
    `ensemble` "gaussian" (iid normal) or "orthogonal" (Haar, scaled to that variance of the entries), or by an
    `initializer` (a record, a name, or any function `(key, (n_in, n_out), dtype)`). Biases are iid
    N(0, bias_variance).

    Skips (`residual`), a normalization of the pre-activations (`norm`) and dropout may be added:

    z^l = W^l h^(l-1) + b^l,   h^l = m^l phi(norm(z^l)) / (1 - dropout),   m^l iid Bernoulli(1 - dropout),

    with norm(z) = z / rms(z) ("rms") or (z - mean(z)) / std(z) ("layer"), over units and without gains; the
    output z^depth is neither normalized nor dropped, and masks of different inputs are independent.

    Arguments:
        depth: the number of weight layers L, at least 1 and at most 2^24.
        width: units of every layer, or a sequence of `depth` widths n_1 .. n_L.
        activation: name of the catalogue, a JAX callable, or an Activation.
        weight_variance: sigma_w^2, at least 0; exclusive with `initializer`.
        initializer: exclusive with `weight_variance`.
        bias_variance: sigma_b^2, at least 0 (0: no biases).
        ensemble: "gaussian" or "orthogonal", the law of weights given by `weight_variance`.
        input_width: entries of x; `width` (its first entry) by default.
        residual: a `Residual`, which needs equal widths ("post": of all but the last layer); None for no skips.
        norm: "layer", "rms" or None.
        dropout: probability that a unit is dropped, in [0, 1).
        spatial: a `Spatial` for a convolutional network, whose `width` and `input_width` count channels. Its fan-in is
            n_in times the taps of the kernel; `ensemble="orthogonal"` is delta-orthogonal (a Haar matrix at the
            kernel's centre, zeros elsewhere: Xiao et al. 2018); an `initializer` is asked for kernels
            (*kernel, n_in, n_out). Units are the channels at all places, also for `norm`.
        tied: a recurrent network: one W and one b for all layers, which are `depth` steps of time from the state x.
            Needs equal widths. In the limit of infinite width, and without skips, its figures at each step are those
            of the network of independent layers (Chen, Pennington & Schoenholz 2018, "Dynamical isometry and a mean
            field theory of RNNs"; Yang 2020, "Tensor programs III"); at finite width they are not.
        input_weight_variance: sigma_u^2 of a recurrent network (tied=True) that reads an input x_t at every step,

                z_t = W phi(z_(t-1)) + U x_t + b,   phi(z_0) = 0,   t = 1 .. depth,

            Var(U_ij) = sigma_u^2 / input_width, iid normal; None: it reads only its first state. `x` of `simulate` is
            then (inputs, depth, input_width), and its default another pair of inputs at every step.

    Raises:
        ValueError, TypeError: an argument breaks its rule; the message names it.

    `weight_variance` and `bias_variance` are numbers: networks that differ only in them share one compiled
    program. With weight_variance = 2 and ReLU this is He initialization (He et al. 2015, eq. 10).

    Example:
        >>> import jaxinit as ji
        >>> network = ji.Network(depth=30, width=256, activation="relu", weight_variance=2.0)
        >>> network.widths[:3], network.input_width
        ((256, 256, 256), 256)
    """

    depth: int = static()
    width: int | tuple[int, ...] = static()
    activation: Any = static()
    weight_variance: Any = leaf(default=None)
    initializer: Any = leaf(default=None)
    bias_variance: Any = leaf(default=0.0)
    ensemble: str = static(default="gaussian")
    input_width: int | None = static(default=None)
    residual: Residual | None = leaf(default=None)
    norm: str | None = static(default=None)
    dropout: Any = leaf(default=0.0)
    spatial: Spatial | None = static(default=None)
    tied: bool = static(default=False)
    input_weight_variance: Any = leaf(default=None)

    def __init__(
        self,
        depth: int,
        width: int | Sequence[int],
        activation: str | Callable[..., Any],
        weight_variance: Any = None,
        initializer: Any = None,
        bias_variance: Any = 0.0,
        ensemble: str = "gaussian",
        input_width: int | None = None,
        residual: Residual | None = None,
        norm: str | None = None,
        dropout: Any = 0.0,
        spatial: Spatial | None = None,
        tied: bool = False,
        input_weight_variance: Any = None,
    ) -> None:
        where = "Network"
        depth = checks.integer(where, "depth", depth, at_least=1, at_most=_DEEPEST)
        if isinstance(width, np.ndarray):
            width = width.tolist()
        if isinstance(width, Sequence) and not isinstance(width, (str, bytes)):
            widths = tuple(checks.integer(where, "width", n, at_least=1, at_most=checks.MOST) for n in width)
            if len(widths) != depth:
                raise checks.bad(where, "width", f"one integer or depth = {depth} integers", width)
            width = widths[0] if len(set(widths)) == 1 else widths
        else:
            width = checks.integer(where, "width", width, at_least=1, at_most=checks.MOST)
        first = width if isinstance(width, int) else width[0]
        input_width = (
            first
            if input_width is None
            else checks.integer(where, "input_width", input_width, at_least=1, at_most=checks.MOST)
        )
        if weight_variance is None and initializer is None:
            raise ValueError(
                "`Network(...)` needs the law of its weights: weight_variance= (Var(W) = weight_variance / n_in) or "
                "initializer=. For He initialization pass initializer='he', or weight_variance=2.0."
            )
        if initializer is not None:
            initializer = resolve_initializer(where, "initializer", initializer)
            if not isinstance(initializer, initializers.Initializer):
                initializer = Plain(initializer)
            if weight_variance is not None:
                raise checks.bad(
                    where, "weight_variance", f"left out when initializer={initializer!r} is given",
                    weight_variance, "Each says what the weights are: keep one of them.",
                )  # fmt: skip
        else:
            weight_variance = checks.number(where, "weight_variance", weight_variance, at_least=0.0)
        checks.choice(where, "ensemble", ensemble, ENSEMBLES)
        if initializer is not None and ensemble != "gaussian":
            raise checks.bad(
                where, "ensemble", "left at its default when initializer= is given", ensemble,
                "Pass initializer=ji.orthogonal(), or weight_variance= with ensemble='orthogonal'.",
            )  # fmt: skip
        if residual is not None:
            _check_residual(residual, depth, width)
        if norm is not None:
            checks.choice(where, "norm", norm, NORMS)
        if spatial is not None and not isinstance(spatial, Spatial):
            raise checks.wrong_type(
                where, "spatial", "a Spatial or None", spatial,
                "Pass jaxinit.network.Spatial(shape=(32, 32), kernel=3, padding='circular').",
            )  # fmt: skip
        if not isinstance(tied, bool):
            raise checks.wrong_type(where, "tied", "True or False", tied)
        if input_weight_variance is not None:
            input_weight_variance = checks.number(
                where, "input_weight_variance", input_weight_variance, at_least=0.0
            )
            if not tied:
                raise checks.bad(
                    where, "input_weight_variance", "None unless tied=True", input_weight_variance,
                    "Only a recurrent network reads an input at every step.",
                )  # fmt: skip
        values = {
            "depth": depth,
            "width": width,
            "activation": resolve(where, activation),
            "weight_variance": weight_variance,
            "initializer": initializer,
            "bias_variance": checks.number(where, "bias_variance", bias_variance, at_least=0.0),
            "ensemble": ensemble,
            "input_width": input_width,
            "residual": residual,
            "norm": norm,
            "dropout": checks.number(where, "dropout", dropout, at_least=0.0, below=1.0),
            "spatial": spatial,
            "tied": tied,
            "input_weight_variance": input_weight_variance,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if tied:
            _check_tied(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of layers 1 .. depth."""
        return (self.width,) * self.depth if isinstance(self.width, int) else self.width

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(n_in, n_out) of the weights of layers 1 .. depth (channels, where there are places)."""
        first = self.widths[0] if self.driven else self.input_width or self.widths[0]
        return tuple(itertools.pairwise((first, *self.widths)))

    @property
    def driven(self) -> bool:
        """Whether it reads an input at every step."""
        return self.input_weight_variance is not None

    @property
    def places(self) -> int:
        """Places at which every layer has its channels; 1 where it is fully connected."""
        return 1 if self.spatial is None else self.spatial.places

    @property
    def plain(self) -> bool:
        """Whether z^l = W^l phi(z^(l-1)) + b^l: no places, skips, normalization, dropout or shared weights."""
        return self.chain and not self.tied

    @property
    def chain(self) -> bool:
        """Whether it is `plain`, or would be if every layer had weights of its own."""
        bare = self.residual is None and self.norm is None and self.spatial is None and is_zero(self.dropout)
        return bare and not self.driven

    @property
    def label(self) -> str:
        """A short description, for legends and tables."""
        if self.initializer is not None:
            law = repr(self.initializer)
        else:
            law = f"{self.ensemble}, σw²={self.weight_variance:.4g}"
        bias = "" if is_zero(self.bias_variance) else f", σb²={self.bias_variance:.4g}"
        extras = ""
        if self.residual is not None:
            extras += f", {self.residual.alpha:.3g} + {self.residual.beta:.3g} × {self.residual.order}"
        if self.norm is not None:
            extras += f", {self.norm} norm"
        if not is_zero(self.dropout):
            extras += f", dropout {self.dropout:.3g}"
        if self.spatial is not None:
            extras += f", {'×'.join(map(str, self.spatial.kernel))} {self.spatial.padding} convolution"
        if self.tied:
            extras += ", tied"
        if self.driven:
            extras += f", driven, σu²={self.input_weight_variance:.4g}"
        return f"{self.activation.name} {law}{bias}{extras}"


def require_fully_connected(where: str, network: Any, *, driven: bool = False) -> None:
    """Raises for what is no Network, or one with places, which theories of one vector a layer do not cover; or, unless
    `driven`, one that reads an input at every step."""
    if not isinstance(network, Network):
        raise checks.wrong_type(where, "network", "a jaxinit.Network", network)
    if network.spatial is not None:
        raise checks.bad(
            where, "network", "fully connected", network,
            "For convolutional networks use jaxinit.meanfield.convolution, the map of covariances between places, or "
            "jaxinit.simulate.",
        )  # fmt: skip
    if network.driven and not driven:
        raise checks.bad(
            where, "network", "without input_weight_variance", network,
            "For networks that read an input at every step use jaxinit.meanfield.propagate or jaxinit.simulate.",
        )  # fmt: skip


def _check_residual(residual: Any, depth: int, width: int | tuple[int, ...]) -> None:
    if not isinstance(residual, Residual):
        raise checks.wrong_type(
            "Network", "residual", "a Residual or None", residual,
            "Pass jaxinit.network.Residual(alpha=1.0, beta=0.5, order='pre').",
        )  # fmt: skip
    widths = (width,) * depth if isinstance(width, int) else width
    joined = widths if residual.order == "pre" else widths[:-1]
    if len(set(joined)) > 1:
        which = "for every layer" if residual.order == "pre" else "for all layers but the last"
        raise checks.bad(
            "Network", "width", f"the same {which} when residual={residual!r}", widths,
            "A skip adds a layer's input to its output; only input_width may differ.",
        )  # fmt: skip


def _check_tied(network: Network) -> None:
    if network.spatial is not None:
        raise checks.bad("Network", "tied", "False for convolutional networks", True)
    if len(set(network.shapes)) > 1 or len(set(network.shapes[0])) > 1:
        raise checks.bad(
            "Network", "width", "one number, and input_width the same, when tied=True without input_weight_variance",
            (network.input_width, *network.widths), "One matrix serves all layers.",
        )  # fmt: skip


def _axes(where: str, argument: str, value: Any) -> tuple[int, ...]:
    """A number or several, all positive, as a tuple."""
    sizes = (value,) if isinstance(value, (int, np.integer)) else checks.shape(where, argument, value)
    return tuple(checks.integer(where, argument, n, at_least=1) for n in sizes)


def is_zero(value: Any) -> bool:
    """Whether it is the Python number 0: what is left out of a program, rather than data of it."""
    return isinstance(value, (int, float)) and value == 0
