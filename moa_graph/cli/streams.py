"""Standard streams that are closed, full, or read by nobody any more."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

_LOST = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
_NAMES = {"stdin": "r", "stdout": "w", "stderr": "w"}


def prepare() -> None:
    """Make the standard streams usable: those that are closed read and write nothing."""
    for name, mode in _NAMES.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an encoding may lack a character of an answer


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that a standard stream cannot be written or read any more."""
    return isinstance(error, OSError) and error.filename is None and error.errno in _LOST


def flush() -> None:
    """Write what is left to the standard streams.

    Raises:
        OSError: If that is not possible.
    """
    sys.stdout.flush()
    sys.stderr.flush()


def give_up() -> None:
    """Drop what is left for streams that cannot be written, so that the process can end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, stream.fileno())
                os.close(nothing)
