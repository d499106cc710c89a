"""What is easily forgotten in a task."""

from __future__ import annotations

import re
from pathlib import Path

ROLE = Path(__file__).resolve().parents[2] / "deploy/roles/station/tasks"
ITS_PYTHON = '  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}"}'


def test_what_runs_on_the_controller_does_not_look_for_the_stations_python_there():
    tasks = [task for path in ROLE.glob("*.yml") for task in re.split(r"\n(?=- name: )", path.read_text())]
    delegated = [task for task in tasks if "delegate_to: localhost" in task]
    assert len(delegated) >= 6
    assert all(ITS_PYTHON in task for task in delegated)
