"""Seeds to chunks to batches to merged moments; the only area that knows devices and processes."""

from jaxinit.ensemble._engine import Progress as Progress
from jaxinit.ensemble._engine import keys_of as keys_of
from jaxinit.ensemble._engine import run as run
