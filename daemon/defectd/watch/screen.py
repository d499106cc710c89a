"""Shows a tally while it grows: the live view on a terminal, a line for each message elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live

from defectd.watch.lines import line_of
from defectd.watch.listener import Link, Listener
from defectd.watch.tally import Tally
from defectd.watch.view import render
from defectd.watch.wire import Inspected, Message, StationStatus

_REFRESH_S = 0.25


class Screen:
    """Plain when asked to, and when nobody could see a live view; `show` folds in what was heard."""

    def __init__(self, broker: str, plain: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._broker = broker
        self._console = Console(file=self._stream, highlight=False)
        self.plain = plain or not self._console.is_terminal
        self._live = None if self.plain else Live(console=self._console, auto_refresh=False, screen=True)
        self._said_link: Link | None = None
        self._said: dict[str, str] = {}
        self._last: RenderableType | None = None
        self.note = ""

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            if self._last is not None:
                self._console.print(self._last)  # the live view was on a screen of its own

    def say(self, note: str) -> None:
        """A line of whoever runs the view."""
        if note != self.note and self.plain and note:
            self._print(note)
        self.note = note

    def follow(self, listener: Listener, tally: Tally, duration_s: float = _REFRESH_S) -> list[tuple[str, Message]]:
        """Hear for *duration_s*, fold it in, show it; what was new."""
        ends_s = time.monotonic() + duration_s
        news = []
        while (remaining_s := ends_s - time.monotonic()) > 0:
            for station, message in listener.hear(remaining_s):
                if tally.take(station, message, time.monotonic()):
                    news.append((station, message))
        self._show(listener.link, tally, news)
        return news

    def _show(self, link: Link, tally: Tally, news: list[tuple[str, Message]]) -> None:
        if self._live is not None:
            size = self._console.size
            area = size.width, size.height
            self._last = render(tally, link, self._broker, area, time.monotonic(), self.note)
            self._live.update(self._last, refresh=True)
            return
        if link != self._said_link:
            self._said_link = link
            self._print(f"broker {self._broker}: {'connected' if link.connected else 'away'}: {link.detail}")
        for station, message in news:
            self._print_news(station, message)

    def _print_news(self, station: str, message: Message) -> None:
        """A retained message that says what was said before is no news."""
        timeless = replace(message, at="") if isinstance(message, StationStatus) else message
        gist, key = line_of(station, timeless), f"{station}/{type(message).__name__}"
        if isinstance(message, Inspected) or self._said.get(key) != gist:
            self._print(line_of(station, message))
        self._said[key] = gist

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
