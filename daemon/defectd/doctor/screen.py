"""The report on a terminal: a line as soon as it is found, what to do below it, the sum at the end."""

from __future__ import annotations

import os
import shutil
import textwrap
from typing import Mapping, TextIO

from defectd import __version__
from defectd.doctor.patient import Patient
from defectd.doctor.report import Finding, Level, Report

_COLOURS: Mapping[Level, str] = {Level.OK: "32", Level.SKIPPED: "2", Level.WARNING: "33", Level.ERROR: "1;31"}
_WORDS: Mapping[Level, str] = {Level.OK: "ok", Level.SKIPPED: "--", Level.WARNING: "warning", Level.ERROR: "ERROR"}
_LEVEL_COLUMNS, _SUBJECT_COLUMNS = 9, 15
_IN_ORDER = (Level.ERROR, Level.WARNING, Level.OK, Level.SKIPPED)
_NARROWEST, _WIDEST = 60, 140


class Screen:
    """Writes to *stream*; colours and progress only for a person who looks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._live = stream, stream.isatty()
        self._colours = self._live and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        columns = shutil.get_terminal_size((100, 24)).columns
        self._width = max(_NARROWEST, min(columns, _WIDEST)) if self._live else _WIDEST
        self._section = ""

    def doing(self, what: str) -> None:
        """Shown until the next line comes."""
        if self._live:
            self._stream.write(f"\r\x1b[K{self._tinted(f'… {what}', Level.SKIPPED) if what else ''}")
            self._stream.flush()

    def begins(self, patient: Patient) -> None:
        """The first line."""
        self._clear()
        self._stream.write(f"defectd {__version__}: {patient.station} on {patient.machine}, {patient.config}\n\n")

    def found(self, section: str, finding: Finding) -> None:
        """One line, and its remedy."""
        self._clear()
        if section != self._section:
            self._stream.write(f"{chr(10) if self._section else ''}{self._bold(section)}\n")
            self._section = section
        self._stream.write(self._line(finding))
        self._stream.flush()

    def sum_up(self, report: Report) -> None:
        """The last line, after the errors once more: they are what a person came for."""
        self._clear()
        errors = [finding for _, finding in report.findings if finding.level is Level.ERROR]
        if errors and len(report.findings) > len(errors) + 8:
            self._stream.write(f"\n{self._bold('to be done first')}\n{''.join(map(self._line, errors))}")
        counts = [_counted(report.counts.get(level, 0), level) for level in _IN_ORDER if report.counts.get(level)]
        self._stream.write(f"\n{', '.join(counts)} ({report.took_s:.0f} s): {_verdict(report)}\n")
        self._stream.flush()

    def _line(self, finding: Finding) -> str:
        level = self._tinted(f"{_WORDS[finding.level]:<{_LEVEL_COLUMNS}}", finding.level)
        found = self._wrapped(finding.found, f"{finding.subject:<{_SUBJECT_COLUMNS}}")
        remedy = self._wrapped(finding.remedy, f"{'':<{_SUBJECT_COLUMNS}}-> ") if finding.remedy else ""
        if finding.level is Level.SKIPPED:
            found = self._tinted(found, Level.SKIPPED)
        return f"  {level}{found}\n" + (f"  {'':<{_LEVEL_COLUMNS}}{remedy}\n" if remedy else "")

    def _wrapped(self, text: str, label: str) -> str:
        """*text* behind *label*, its further lines under its first one."""
        margin = 2 + _LEVEL_COLUMNS
        lines = textwrap.wrap(text, self._width - margin - len(label), break_long_words=False, break_on_hyphens=False)
        return label + f"\n{' ' * (margin + len(label))}".join(lines)

    def _clear(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")

    def _tinted(self, text: str, level: Level) -> str:
        return f"\x1b[{_COLOURS[level]}m{text}\x1b[0m" if self._colours else text

    def _bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self._colours else text


def _counted(count: int, level: Level) -> str:
    plural = "s" if count != 1 and level in (Level.ERROR, Level.WARNING) else ""
    return f"{count} {'not looked at' if level is Level.SKIPPED else level.value}{plural}"


def _verdict(report: Report) -> str:
    if not report.is_fit:
        return "the station is not ready"
    if report.counts.get(Level.WARNING):
        return "the station works; see the warnings"
    return "the station is fit"
