"""A table of the stations at the end, and in it why one failed, also where a play ended early."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: stations
type: aggregate
short_description: a table of the stations at the end
description: What `set_stats` says under `station`, and the message of the task that failed.
"""


class CallbackModule(CallbackBase):
    """Listens; changes nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "stations"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._failed: dict[str, str] = {}
        self._began_s: dict[str, float] = {}
        self._ended_s: dict[str, float] = {}
        self._meant: set[str] = set()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """All hosts of the play, those of later waves, too."""
        inventory = play.get_variable_manager()._inventory
        self._meant |= {host.get_name() for host in inventory.get_hosts(play.hosts, ignore_restrictions=True)}

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """The clock of a host."""
        del task
        self._began_s.setdefault(host.get_name(), time.monotonic())

    def v2_runner_on_ok(self, result: Any) -> None:
        """The clock of a host."""
        self._ended_s[result._host.get_name()] = time.monotonic()

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """The first word of a failure counts; what comes after is its echo."""
        host = result._host.get_name()
        self._ended_s[host] = time.monotonic()
        if not ignore_errors:
            message = str(result._result.get("msg") or result._result.get("stderr") or "failed")
            self._failed.setdefault(host, message)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """SSH."""
        host = result._host.get_name()
        self._ended_s[host] = time.monotonic()
        said = str(result._result.get("msg", "")).strip().splitlines()
        words = said[-1].replace("Task failed: ", "") if said else "no answer"
        self._failed.setdefault(
            host,
            f"SSH: {words}\nIs it switched on, is ansible_host in the inventory right, and does `ssh {host}` work? "
            "If the connection was cut: run the same command again, it goes on where the station is",
        )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The table."""
        rows = []
        for host in sorted(stats.processed):
            if host == "localhost":
                continue
            said = dict(stats.custom.get(host, {}).get("station", {}))
            took_s = self._ended_s.get(host, 0.0) - self._began_s.get(host, 0.0)
            if host in self._failed:
                said["result"] = "FAILED"
                said["detail"] = self._failed[host].splitlines()[0]
            changed = str(stats.summarize(host)["changed"])
            rows.append((host, said.get("release") or "-", said.get("result", "-"), changed, f"{took_s:.0f} s",
                         said.get("detail", "")))  # fmt: skip
        if rows:
            rows += [(host, "-", "not begun", "0", "-", "a station before it failed; this one was not touched")
                     for host in sorted(self._meant - set(stats.processed) - {"localhost"})]  # fmt: skip
        if not rows:
            for message in self._failed.values():
                self._display.display(f"\n{message}", color="red")
            return
        head = ("station", "release", "result", "changed", "took", "")
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(5)]
        show = self._display.display
        show("")
        for row in [head, *rows]:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row[:5], widths, strict=False))
            show(f"{line}  {row[5]}".rstrip(), color="red" if row[2] == "FAILED" else None)
        for host, message in self._failed.items():
            if "\n" in message and host != "localhost":
                show(f"\n{host}: {message}", color="red")
