"""What to draw: callable records for every scheme, with one call convention and one rounding."""

from jaxinit.initializers._attention import Attention as Attention
from jaxinit.initializers._attention import LoRA as LoRA
from jaxinit.initializers._attention import lora as lora
from jaxinit.initializers._attention import mimetic_attention as mimetic_attention
from jaxinit.initializers._base import Initializer as Initializer
from jaxinit.initializers._base import InitializerLike as InitializerLike
from jaxinit.initializers._base import Law as Law
from jaxinit.initializers._catalogue import from_config as from_config
from jaxinit.initializers._catalogue import get as get
from jaxinit.initializers._catalogue import names as names
from jaxinit.initializers._depth import DeepNorm as DeepNorm
from jaxinit.initializers._depth import admin_skip as admin_skip
from jaxinit.initializers._depth import deepnorm as deepnorm
from jaxinit.initializers._depth import residual as residual
from jaxinit.initializers._fans import fans as fans
from jaxinit.initializers._fixed import random_walk as random_walk
from jaxinit.initializers._fixed import siren as siren
from jaxinit.initializers._fixed import small as small
from jaxinit.initializers._fixed import spectral_normal as spectral_normal
from jaxinit.initializers._fixed import torch_bias as torch_bias
from jaxinit.initializers._fixed import torch_kernel as torch_kernel
from jaxinit.initializers._fixed import wang as wang
from jaxinit.initializers._gain import scaled_for as scaled_for
from jaxinit.initializers._gates import chrono as chrono
from jaxinit.initializers._gates import forget_bias as forget_bias
from jaxinit.initializers._layers import for_conv_local as for_conv_local
from jaxinit.initializers._layers import for_conv_transpose as for_conv_transpose
from jaxinit.initializers._layers import for_dense_general as for_dense_general
from jaxinit.initializers._layers import for_depthwise as for_depthwise
from jaxinit.initializers._layers import for_einsum as for_einsum
from jaxinit.initializers._layers import for_heads as for_heads
from jaxinit.initializers._layers import for_stack as for_stack
from jaxinit.initializers._mirrored import icnr as icnr
from jaxinit.initializers._mirrored import looks_linear as looks_linear
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
from jaxinit.initializers._sparse import sparse as sparse
from jaxinit.initializers._stft import stft as stft
from jaxinit.initializers._structured import delta_orthogonal as delta_orthogonal
from jaxinit.initializers._structured import dirac as dirac
from jaxinit.initializers._structured import hadamard as hadamard
from jaxinit.initializers._structured import identity as identity
from jaxinit.initializers._width import mup as mup
from jaxinit.initializers._wrap import distinct as distinct
from jaxinit.initializers._wrap import scaled as scaled
from jaxinit.initializers._wrap import split as split

__all__ = [
    "Attention",
    "DeepNorm",
    "Initializer",
    "InitializerLike",
    "Law",
    "LoRA",
    "admin_skip",
    "chrono",
    "constant",
    "deepnorm",
    "delta_orthogonal",
    "dirac",
    "distinct",
    "fans",
    "for_conv_local",
    "for_conv_transpose",
    "for_dense_general",
    "for_depthwise",
    "for_einsum",
    "for_heads",
    "for_stack",
    "forget_bias",
    "from_config",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "hadamard",
    "he_normal",
    "he_uniform",
    "icnr",
    "identity",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "looks_linear",
    "lora",
    "mimetic_attention",
    "mup",
    "names",
    "normal",
    "ones",
    "orthogonal",
    "random_walk",
    "residual",
    "scaled",
    "scaled_for",
    "siren",
    "small",
    "sparse",
    "spectral_normal",
    "split",
    "stft",
    "torch_bias",
    "torch_kernel",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "wang",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
