"""Training comparisons: initializers x learning rates x seeds through one compiled program."""

from jaxinit.compare._data import DataNotAvailable as DataNotAvailable
from jaxinit.compare._data import Dataset as Dataset
from jaxinit.compare._data import load_data as load_data
from jaxinit.compare._study import compare as compare
from jaxinit.compare._synthetic import mnist1d as mnist1d
from jaxinit.compare._synthetic import parity as parity
from jaxinit.compare._synthetic import teacher as teacher
