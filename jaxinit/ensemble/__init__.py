"""Seeds to chunks to batches to merged moments; the only area that knows devices and processes."""

from jaxinit.ensemble._compiled import keys_of as keys_of
from jaxinit.ensemble._engine import run as run
from jaxinit.ensemble._memory import amount as amount
from jaxinit.ensemble._memory import available as available
from jaxinit.ensemble._memory import batch_size as batch_size
from jaxinit.ensemble._memory import worth_a_call as worth_a_call
from jaxinit.ensemble._processes import initialize as initialize
from jaxinit.ensemble._progress import Progress as Progress
from jaxinit.ensemble._progress import rate_column as rate_column
from jaxinit.ensemble._progress import reporter as reporter
