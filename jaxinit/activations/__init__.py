"""A nonlinearity as a Gaussian sees it: record and catalogue, kinks, quadrature, moments, gains."""

from jaxinit.activations._activation import Activation as Activation
from jaxinit.activations._catalogue import get as get
from jaxinit.activations._catalogue import names as names
from jaxinit.activations._gains import gain as gain
from jaxinit.activations._gains import torch_gain as torch_gain
from jaxinit.activations._moments import Moments as Moments
from jaxinit.activations._moments import hermite as hermite
from jaxinit.activations._moments import moments as moments
