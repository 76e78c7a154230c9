"""Any model at initialization: forward and backward statistics of every module and operation, over seeds."""

from jaxinit.probe._probe import probe as probe
from jaxinit.probe._watch import Watch as Watch
from jaxinit.probe._watch import watch as watch
