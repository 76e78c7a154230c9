"""Ports for processes that tests start."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A port of this machine that nobody else is given meanwhile, and that a server which is told of it can take.

    It is bound and never listened on. The system gives a port to one asker, and to those who name it only if they
    share ports (SO_REUSEPORT), as the coordinator of `jax.distributed` does.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
