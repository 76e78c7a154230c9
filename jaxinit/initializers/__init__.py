"""What to draw: callable records for every scheme, with one call convention and one rounding."""

from jaxinit.initializers._base import Initializer as Initializer
from jaxinit.initializers._base import InitializerLike as InitializerLike
from jaxinit.initializers._base import Law as Law
from jaxinit.initializers._catalogue import from_config as from_config
from jaxinit.initializers._catalogue import get as get
from jaxinit.initializers._catalogue import names as names
from jaxinit.initializers._fans import fans as fans
from jaxinit.initializers._orthogonal import orthogonal as orthogonal
from jaxinit.initializers._scaling import glorot_normal as glorot_normal
from jaxinit.initializers._scaling import glorot_normal as xavier_normal
from jaxinit.initializers._scaling import glorot_uniform as glorot_uniform
from jaxinit.initializers._scaling import glorot_uniform as xavier_uniform
from jaxinit.initializers._scaling import he_normal as he_normal
from jaxinit.initializers._scaling import he_normal as kaiming_normal
from jaxinit.initializers._scaling import he_uniform as he_uniform
from jaxinit.initializers._scaling import he_uniform as kaiming_uniform
from jaxinit.initializers._scaling import lecun_normal as lecun_normal
from jaxinit.initializers._scaling import lecun_uniform as lecun_uniform
from jaxinit.initializers._scaling import variance_scaling as variance_scaling
from jaxinit.initializers._simple import constant as constant
from jaxinit.initializers._simple import normal as normal
from jaxinit.initializers._simple import ones as ones
from jaxinit.initializers._simple import truncated_normal as truncated_normal
from jaxinit.initializers._simple import uniform as uniform
from jaxinit.initializers._simple import zeros as zeros

__all__ = [
    "Initializer",
    "InitializerLike",
    "Law",
    "constant",
    "fans",
    "from_config",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "names",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
