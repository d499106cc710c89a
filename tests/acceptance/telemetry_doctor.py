"""`defectd doctor` as a deployment runs it: exit codes, and lines that say what to do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List

from defectd.configuration import load_settings
from defectd.doctor.patient import Places
from defectd.doctor.report import Finding, Level, Report
from defectd.doctor.run import STEPS, Nobody, Options, examine
from defectd.telemetry.sample import Roots
from support import trees
from support.brokers import free_port
from support.proving import Proof, Setting, Short
from support.proving_ground import ground
from support.station import defectd, environment, merged, write_config
from support.trees import tree

_WITHIN_S = 300.0
_FIT, _UNFIT = 0, 1
_UNITS = 2000

Findings = List[Dict[str, Any]]


def _here(setting: Setting) -> str:
    """This machine: with all that a station needs, beside its running daemon, and with what is wrong."""
    with ground(setting.directory, _UNITS, 10.0, started=False) as here:
        config = here.daemon.config
        fit = _asked(config, _FIT)
        here.daemon.start()
        here.daemon.wait_ready()
        here.await_units(20)
        beside = _asked(config, _FIT)
        here.await_units(len(here.collector.inspections) + 20)
        here.terminate()
        audited = here.report(once=False)
        settings = {"mqtt": {"port": free_port()}, "model": {"path": here.directory / "gone.torchscript"}}
        wrong = _asked(write_config(setting.directory / "wrong", _changed(config, settings)), _UNFIT)
    if any("error" in event["verdict"] for event in here.collector.inspections):
        raise Short(f"units failed while the doctor looked: {audited}")
    _says(beside, "cameras", "skipped", "daemon runs")
    told = [_says(wrong, "broker", "error", ""), _says(wrong, "configuration", "error", "gone.torchscript")]
    return (
        f"fit: exit 0, {_counted(fit)}; beside a daemon: exit 0, {_counted(beside)}, {audited}; "
        f"wrong: exit 1, {_counted(wrong)}: {' | '.join(told)}"
    )


def _changed(config: Path, changes: dict[str, Any]) -> dict[str, Any]:
    settings = load_settings(config)
    return merged(json.loads(settings.model_dump_json(exclude_none=True, exclude_unset=True)), changes)


def _asked(config: Path, exit_code: int) -> Findings:
    """What it finds, each error and warning with a remedy, as lines and as JSON. Raises Short."""
    done = subprocess.run(
        defectd("doctor", "--config", config, "--quick", "--dev", "--json"), env=environment(), capture_output=True,
        text=True, timeout=_WITHIN_S, check=False,
    )  # fmt: skip
    if done.returncode != exit_code or "Traceback" in done.stderr:
        raise Short(f"exit {done.returncode}, expected {exit_code}: {done.stdout[-1500:]} {done.stderr[-500:]}")
    report = json.loads(done.stdout)
    findings: Findings = report["findings"]
    helpless = [one for one in findings if one["level"] in ("error", "warning") and not one["remedy"]]
    if helpless or report["ok"] != (exit_code == _FIT):
        raise Short(f"without a remedy: {helpless}; ok is {report['ok']}")
    return findings


def _says(findings: Findings, section: str, level: str, words: str) -> str:
    """A finding as a line. Raises Short."""
    for one in findings:
        if one["section"] == section and one["level"] == level and words in one["found"]:
            return f"{one['subject']}: {one['found'][:110]} -> {(one['remedy'] or '')[:90]}"
    raise Short(f"no {level} of {section} with {words!r}: {[one for one in findings if one['section'] == section]}")


def _counted(findings: Findings) -> str:
    levels = [one["level"] for one in findings]
    return ", ".join(f"{levels.count(level)} {level}" for level in dict.fromkeys(levels))


def _machines(setting: Setting) -> str:
    """Machines that are not here: an Orin in order, a hot and throttled one, a Xavier, a PC."""

    def machine(platform: str) -> Roots:
        return tree(setting.directory / platform, platform)

    hot = machine("agx-orin-jp5")
    trees.set_temp(hot, "gpu-thermal", 99.0)
    trees.set_throttle(hot)
    trees.set_gpu_clock(hot, max_mhz=612.0)
    trees.set_over_current(hot, "oc3", 27)
    figures = [
        _line(_report(setting, machine("agx-orin-jp6")), "power mode", Level.OK, "MAXN"),
        _line(_report(setting, hot), "throttling", Level.WARNING, "gpu"),
        _line(_report(setting, hot), "power supply", Level.WARNING, "oc3 27 times"),
        _line(_report(setting, hot), "heat", Level.WARNING, "99 °C"),
        _line(_report(setting, machine("orin-nano")), "power mode", Level.WARNING, "15W"),
        _line(_report(setting, machine("agx-xavier")), "heat", Level.OK, "42 °C"),
        _line(_report(setting, machine("pc")), "GPU clock", None, ""),
    ]
    return "; ".join(figures)


def _report(setting: Setting, roots: Roots) -> Report:
    """All but what takes long or needs a broker."""
    steps = [step for step in STEPS if step.section == "machine"]
    options = Options(quick=True, dev=True, places=Places(roots=roots), steps=steps)
    return examine(setting.directory / "none.toml", options, Nobody())


def _line(report: Report, subject: str, level: Level | None, words: str) -> str:
    """That finding in words; None: there must be none. Raises Short."""
    mine: list[Finding] = [one for _, one in report.findings if one.subject == subject]
    if level is None:
        if mine:
            raise Short(f"{report.machine}: {mine}")
        return f"{report.machine}: nothing of {subject}"
    fit = [one for one in mine if one.level is level and words in one.found]
    if not fit:
        raise Short(f"{report.machine}: no {level.value} of {subject} with {words!r}: {mine or report.findings}")
    return f"{subject}: {fit[0].found[:90]}" + (f" -> {fit[0].remedy[:70]}" if fit[0].remedy else "")


DOCTOR = (
    Proof("doctor.here", "exit 0 for a station that is fit, beside its daemon, too; exit 1 with remedies", _here),
    Proof("doctor.machines", "power modes, throttling, power supply and heat of machines that are not here", _machines),
)
