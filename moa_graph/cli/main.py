"""Where the command `moa` begins; it imports the rest where Ctrl-C is expected already."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from moa_graph.cli import streams

_FAILED, _STOPPED = 1, 130


def main() -> None:
    """Run the `moa` command."""
    try:
        streams.prepare()
        from moa_graph.cli.app import app  # noqa: PLC0415 - takes a second

        logging.getLogger("moa_graph").addHandler(logging.NullHandler())  # the display shows errors
        try:
            app()
        finally:
            streams.flush()
    except KeyboardInterrupt:
        _leave(_STOPPED)
    except OSError as error:
        if not streams.is_lost(error):
            raise
        _leave(_FAILED, "" if isinstance(error, BrokenPipeError) else f"{error.strerror}.")


def _leave(code: int, why: str = "") -> None:
    streams.give_up()
    if why:
        with suppress(OSError):
            sys.stderr.write(f"Nothing can be written: {why}\n")
            sys.stderr.flush()
    streams.give_up()
    sys.exit(code)
