"""Models as pairs of pure functions, whatever they are made of; the only area that knows Flax modules."""

from jaxinit.models._changes import MadeLate as MadeLate
from jaxinit.models._checkpoint import fitted as fitted
from jaxinit.models._checkpoint import restore as restore
from jaxinit.models._functional import Model as Model
from jaxinit.models._functional import adapt as adapt
from jaxinit.models._functional import from_functions as from_functions
from jaxinit.models._marked import Marked as Marked
from jaxinit.models._marked import marked as marked
from jaxinit.models._marks import MARK as MARK
from jaxinit.models._mlp import MLP as MLP
from jaxinit.models._nnx import abstract as abstract
from jaxinit.models._nnx import filled as filled
