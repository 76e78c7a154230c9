"""Singular values of the input-output Jacobian at infinite width, by free probability."""

from jaxinit.spectra._density import density as density
from jaxinit.spectra._isometry import STATUS as STATUS
from jaxinit.spectra._isometry import Isometry as Isometry
from jaxinit.spectra._isometry import dynamical_isometry as dynamical_isometry
from jaxinit.spectra._moments import SpectralMoments as SpectralMoments
from jaxinit.spectra._moments import moments as moments
