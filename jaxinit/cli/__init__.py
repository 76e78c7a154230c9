"""The command line: `jaxinit COMMAND`, or `python -m jaxinit COMMAND`.

Importing it, or asking for help, loads neither jax nor matplotlib: the commands do.
"""

from jaxinit.cli._main import main as main
