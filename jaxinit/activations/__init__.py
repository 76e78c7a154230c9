"""A nonlinearity as a Gaussian sees it: record and catalogue, kinks, quadrature, moments, gains."""

from jaxinit.activations._activation import Activation as Activation
from jaxinit.activations._catalogue import get as get
from jaxinit.activations._catalogue import names as names
