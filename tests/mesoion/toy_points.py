"""Functions of a point for the tests of sweeps; light, because every worker imports them."""

from __future__ import annotations

import os
import signal
import time

from mesoion.errors import MesoionError


def square(x: float, log: str = "", pause: float = 0.0) -> dict[str, float]:
    """x², with a line in `log` when it starts."""
    if log:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{x}\n".encode())
        os.close(descriptor)
    time.sleep(pause)
    if x == 13:
        raise MesoionError("thirteen is not allowed")
    if x == 14:
        raise ZeroDivisionError("fourteen")
    if x == 15:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"y": x * x / 3}


def wrong_kind(x: float) -> float:
    return x
