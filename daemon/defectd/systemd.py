"""systemd's notify protocol, and logs that the journal understands.

The protocol is one datagram to $NOTIFY_SOCKET (sd_notify(3)); doing it here lets the service become READY on machines
where the bindings cannot be built. For structured journal entries systemd-python is used where it is installed.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import TextIO

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def notify(*lines: str) -> None:
    """Tell systemd, for example `READY=1`. Without systemd this does nothing; it never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        logging.getLogger(__name__).warning("systemd cannot be told %s: %s", lines[0], error)


def watchdog_interval_s() -> float | None:
    """How often systemd wants a sign of progress, halved as sd_watchdog_enabled(3) advises; None if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    interval_us = os.environ.get("WATCHDOG_USEC", "")
    return int(interval_us) / 2e6 if interval_us.isdigit() and int(interval_us) > 0 else None


class JournalPrefix(logging.Formatter):
    """`<priority>` before each line, as sd-daemon(3) describes it for what a service writes to stderr."""

    def format(self, record: logging.LogRecord) -> str:
        """One entry; a traceback keeps its priority on every line."""
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def log_handler(stream: TextIO = sys.stderr) -> logging.Handler:
    """To the journal with fields where systemd-python is installed, with priorities where it is not; else readable."""
    if "JOURNAL_STREAM" in os.environ:
        try:
            from systemd.journal import JournalHandler  # noqa: PLC0415 - only there under systemd
        except ImportError:
            handler: logging.Handler = logging.StreamHandler(stream)
            handler.setFormatter(JournalPrefix("%(name)s: %(message)s"))
            return handler
        journal: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER="defectd")
        journal.setFormatter(logging.Formatter("%(message)s"))
        return journal
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    return handler
