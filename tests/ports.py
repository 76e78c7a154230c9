"""Ports for processes that tests start."""

import os
import socket


def free_port() -> int:
    """A free port that nobody else is given until it is used.

    Systems give away ports from 32768 on, and tests that run side by side begin their search at different places.
    """
    for step in range(1000):
        port = 10_000 + (os.getpid() * 16 + step) % 20_000
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError("no free port between 10000 and 30000")
