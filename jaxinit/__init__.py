"""jaxinit: will this network's signal survive initialization, and which initializer should I use?

Draw (`he_normal`, ...), predict (`meanfield`), simulate exactly (`Network`, `simulate`), measure any model
(`probe`), judge it (`diagnose`), and prove the difference by training (`compare`). Names are loaded on first use,
so `import jaxinit` and `jaxinit --help` are instant.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxinit import activations as activations
    from jaxinit import ensemble as ensemble
    from jaxinit import implicit as implicit
    from jaxinit import initializers as initializers
    from jaxinit import meanfield as meanfield
    from jaxinit import models as models
    from jaxinit import plot as plot
    from jaxinit import records as records
    from jaxinit import spectra as spectra
    from jaxinit.activations import Activation as Activation
    from jaxinit.activations import gain as gain
    from jaxinit.activations import torch_gain as torch_gain
    from jaxinit.adapt import analyze as analyze
    from jaxinit.adapt import calibratable as calibratable
    from jaxinit.adapt import calibrate as calibrate
    from jaxinit.adapt import calibrated as calibrated
    from jaxinit.adapt import coordinate_check as coordinate_check
    from jaxinit.adapt import critical as critical
    from jaxinit.adapt import init_table as init_table
    from jaxinit.adapt import mup_learning_rates as mup_learning_rates
    from jaxinit.adapt import mup_table as mup_table
    from jaxinit.adapt import reinit as reinit
    from jaxinit.adapt import suggest as suggest
    from jaxinit.compare import compare as compare
    from jaxinit.diagnose import diagnose as diagnose
    from jaxinit.initializers import Initializer as Initializer
    from jaxinit.initializers import admin_skip as admin_skip
    from jaxinit.initializers import chrono as chrono
    from jaxinit.initializers import constant as constant
    from jaxinit.initializers import deepnorm as deepnorm
    from jaxinit.initializers import delta_orthogonal as delta_orthogonal
    from jaxinit.initializers import dirac as dirac
    from jaxinit.initializers import distinct as distinct
    from jaxinit.initializers import fans as fans
    from jaxinit.initializers import for_conv_local as for_conv_local
    from jaxinit.initializers import for_conv_transpose as for_conv_transpose
    from jaxinit.initializers import for_dense_general as for_dense_general
    from jaxinit.initializers import for_depthwise as for_depthwise
    from jaxinit.initializers import for_einsum as for_einsum
    from jaxinit.initializers import for_heads as for_heads
    from jaxinit.initializers import for_stack as for_stack
    from jaxinit.initializers import forget_bias as forget_bias
    from jaxinit.initializers import from_config as from_config
    from jaxinit.initializers import get as get
    from jaxinit.initializers import glorot_normal as glorot_normal
    from jaxinit.initializers import glorot_uniform as glorot_uniform
    from jaxinit.initializers import hadamard as hadamard
    from jaxinit.initializers import he_normal as he_normal
    from jaxinit.initializers import he_uniform as he_uniform
    from jaxinit.initializers import icnr as icnr
    from jaxinit.initializers import identity as identity
    from jaxinit.initializers import kaiming_normal as kaiming_normal
    from jaxinit.initializers import kaiming_uniform as kaiming_uniform
    from jaxinit.initializers import lecun_normal as lecun_normal
    from jaxinit.initializers import lecun_uniform as lecun_uniform
    from jaxinit.initializers import looks_linear as looks_linear
    from jaxinit.initializers import lora as lora
    from jaxinit.initializers import mimetic_attention as mimetic_attention
    from jaxinit.initializers import mup as mup
    from jaxinit.initializers import names as names
    from jaxinit.initializers import normal as normal
    from jaxinit.initializers import ones as ones
    from jaxinit.initializers import orthogonal as orthogonal
    from jaxinit.initializers import random_walk as random_walk
    from jaxinit.initializers import residual as residual
    from jaxinit.initializers import scaled as scaled
    from jaxinit.initializers import scaled_for as scaled_for
    from jaxinit.initializers import siren as siren
    from jaxinit.initializers import small as small
    from jaxinit.initializers import sparse as sparse
    from jaxinit.initializers import spectral_normal as spectral_normal
    from jaxinit.initializers import stft as stft
    from jaxinit.initializers import torch_bias as torch_bias
    from jaxinit.initializers import torch_kernel as torch_kernel
    from jaxinit.initializers import truncated_normal as truncated_normal
    from jaxinit.initializers import uniform as uniform
    from jaxinit.initializers import variance_scaling as variance_scaling
    from jaxinit.initializers import wang as wang
    from jaxinit.initializers import xavier_normal as xavier_normal
    from jaxinit.initializers import xavier_uniform as xavier_uniform
    from jaxinit.initializers import zeros as zeros
    from jaxinit.models import MLP as MLP
    from jaxinit.network import Network as Network
    from jaxinit.network import Residual as Residual
    from jaxinit.network import Spatial as Spatial
    from jaxinit.probe import probe as probe
    from jaxinit.probe import watch as watch
    from jaxinit.records import Calibration as Calibration
    from jaxinit.records import Convergence as Convergence
    from jaxinit.records import Diagnosis as Diagnosis
    from jaxinit.records import Finding as Finding
    from jaxinit.records import PhaseDiagram as PhaseDiagram
    from jaxinit.records import Propagation as Propagation
    from jaxinit.records import Spectrum as Spectrum
    from jaxinit.records import Statistic as Statistic
    from jaxinit.records import Suggestion as Suggestion
    from jaxinit.records import Sweep as Sweep
    from jaxinit.records import WidthTable as WidthTable
    from jaxinit.records import WidthTransfer as WidthTransfer
    from jaxinit.records import load as load
    from jaxinit.report import report as report
    from jaxinit.simulate import simulate as simulate
    from jaxinit.simulate import sweep as sweep

#: Area -> the public names it defines (a test holds this to the imports above).
_NAMES = {
    "activations": "Activation gain torch_gain",
    "adapt": """
        analyze calibratable calibrate calibrated coordinate_check critical init_table mup_learning_rates mup_table
        reinit suggest
    """,
    "compare": "compare",
    "diagnose": "diagnose",
    "initializers": """
        Initializer admin_skip chrono constant deepnorm delta_orthogonal dirac distinct fans for_conv_local
        for_conv_transpose for_dense_general for_depthwise for_einsum for_heads for_stack forget_bias
        from_config get glorot_normal glorot_uniform hadamard he_normal he_uniform icnr identity
        kaiming_normal kaiming_uniform lecun_normal lecun_uniform looks_linear lora mimetic_attention mup
        names normal ones orthogonal random_walk residual scaled scaled_for siren small sparse
        spectral_normal stft torch_bias torch_kernel truncated_normal uniform variance_scaling wang
        xavier_normal xavier_uniform zeros
    """,
    "models": "MLP",
    "network": "Network Residual Spatial",
    "probe": "probe watch",
    "records": """
        Calibration Convergence Diagnosis Finding PhaseDiagram Propagation Spectrum Statistic Suggestion Sweep
        WidthTable WidthTransfer load
    """,
    "report": "report",
    "simulate": "simulate sweep",
}
#: Areas that are themselves public names.
_AREAS = (
    "activations",
    "ensemble",
    "implicit",
    "initializers",
    "meanfield",
    "models",
    "plot",
    "records",
    "spectra",
)
_AREA = {name: area for area, names in _NAMES.items() for name in names.split()}

__all__ = [*_AREA, *_AREAS]


def __getattr__(name: str) -> Any:
    if name in _AREA:
        value = getattr(importlib.import_module(f"jaxinit.{_AREA[name]}"), name)
    elif name in _AREAS:
        value = importlib.import_module(f"jaxinit.{name}")
    else:
        raise AttributeError(f"module 'jaxinit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Face(types.ModuleType):
    """The package, in which a function that shares its name with its area (`simulate`) wins over the area."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _AREA and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
