"""The schemes that the batteries run through, all of them drawn as (16, 8); and one for each name of the catalogue."""

import jaxinit.initializers as ji

RANDOM = [
    ji.normal(0.02),
    ji.uniform(-0.3, 0.3),
    ji.truncated_normal(0.02),
    ji.truncated_normal(1.0, -1.0, 3.0, corrected=True),
    ji.he_normal(),
    ji.he_uniform(negative_slope=0.2),
    ji.glorot_normal(distribution="normal"),
    ji.spectral_normal(),
    ji.siren(),
    ji.random_walk(),
    ji.scaled(ji.lecun_normal(), 0.5),
    ji.residual(ji.glorot_uniform(), 12, "deepnorm"),
    ji.mup(ji.normal(0.1), (16, 16)),
    ji.distinct(ji.he_normal()),
    ji.split(ji.lecun_normal(batch_axis=0), 0, (2, -1)),
    ji.scaled_for("tanh"),
]
MATRICES = [
    ji.orthogonal(),
    ji.orthogonal(1.4, preserve="variance"),
    ji.orthogonal(preserve="spectral"),
    ji.delta_orthogonal(),
    ji.sparse(connections=3),
    ji.sparse(0.01, sparsity=0.9, per="input"),
    ji.looks_linear(),
    ji.for_heads(ji.orthogonal(), 4),
    ji.chrono(100.0),
]
FIXED = [
    ji.zeros(),
    ji.constant(0.3),
    ji.identity(),
    ji.dirac(2.0, groups=2),
    ji.hadamard(),
    ji.forget_bias(),
]
ALL = [*RANDOM, *MATRICES, *FIXED]

#: one of each random factory of the catalogue
CATALOGUE = {
    "normal": ji.normal(0.02, mean=0.5),
    "uniform": ji.uniform(-0.3, 0.2),
    "truncated_normal": ji.truncated_normal(0.5, -1.0, 3.0, corrected=True),
    "variance_scaling": ji.variance_scaling(1.7, "fan_geo_avg", "normal"),
    "he_normal": ji.he_normal(),
    "he_uniform": ji.he_uniform(negative_slope=0.2),
    "glorot_normal": ji.glorot_normal(),
    "glorot_uniform": ji.glorot_uniform(),
    "lecun_normal": ji.lecun_normal(),
    "lecun_uniform": ji.lecun_uniform(),
    "orthogonal": ji.orthogonal(1.4, preserve="variance"),
    "delta_orthogonal": ji.delta_orthogonal(),
    "sparse": ji.sparse(connections=3),
    "looks_linear": ji.looks_linear(outputs=True),
    "icnr": ji.icnr(),
    "siren": ji.siren(),
    "random_walk": ji.random_walk(),
    "spectral_normal": ji.spectral_normal(),
    "small": ji.small(),
    "wang": ji.wang(12),
    "torch_kernel": ji.torch_kernel(),
    "torch_bias": ji.torch_bias(300),
    "chrono": ji.chrono(100.0, layout="ifgo"),
    "scaled": ji.scaled(ji.he_normal(), 0.3),
    "distinct": ji.distinct(ji.he_uniform()),
    "split": ji.split(ji.lecun_normal(batch_axis=0), 0, (2, -1)),
    "residual": ji.residual(ji.glorot_uniform(), 12, "deepnorm"),
    "mup": ji.mup(ji.normal(0.1), (16, 16)),
    "scaled_for": ji.scaled_for("tanh"),
}
#: and the factories that draw nothing
DETERMINISTIC = {"zeros", "ones", "constant", "identity", "dirac", "hadamard", "forget_bias", "stft"}


def shape_of(name: str) -> tuple[int, ...]:
    """A small shape that a scheme of `CATALOGUE` can take."""
    return (2, 4, 4) if name == "icnr" else (8, 4)
