"""Infinite width: maps, recursions, fixed points, critical lines, phase diagrams, kernels."""

from jaxinit.meanfield._convolution import conv_modes as conv_modes
from jaxinit.meanfield._convolution import convolution as convolution
from jaxinit.meanfield._critical import CriticalPoint as CriticalPoint
from jaxinit.meanfield._critical import critical as critical
from jaxinit.meanfield._critical import critical_line as critical_line
from jaxinit.meanfield._finite_width import FiniteWidth as FiniteWidth
from jaxinit.meanfield._finite_width import finite_width as finite_width
from jaxinit.meanfield._fixed_point import STATUS as STATUS
from jaxinit.meanfield._fixed_point import FixedPoint as FixedPoint
from jaxinit.meanfield._fixed_point import all_fixed_points as all_fixed_points
from jaxinit.meanfield._fixed_point import fixed_point as fixed_point
from jaxinit.meanfield._kernels import Kernels as Kernels
from jaxinit.meanfield._kernels import kernels as kernels
from jaxinit.meanfield._maps import chi as chi
from jaxinit.meanfield._maps import correlation_map as correlation_map
from jaxinit.meanfield._maps import length_map as length_map
from jaxinit.meanfield._maps import one_minus_correlation_map as one_minus_correlation_map
from jaxinit.meanfield._phase_diagram import phase_diagram as phase_diagram
from jaxinit.meanfield._propagate import propagate as propagate
from jaxinit.meanfield._traced_fixed_point import fixed_point_one_minus_c as fixed_point_one_minus_c
from jaxinit.meanfield._traced_fixed_point import fixed_point_q as fixed_point_q
