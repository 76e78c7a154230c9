"""Random matrices that are never formed: exact products with Gaussian and Haar matrices."""

from jaxinit.implicit._gradient import gradient_norm as gradient_norm
from jaxinit.implicit._operator import ImplicitMatrix as ImplicitMatrix
from jaxinit.implicit._operator import gaussian as gaussian
from jaxinit.implicit._operator import haar as haar
from jaxinit.implicit._tied import TiedMatrix as TiedMatrix
from jaxinit.implicit._tied import tied as tied
