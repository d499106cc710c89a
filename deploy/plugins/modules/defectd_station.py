#!/usr/bin/python
"""One command of station.pyz, which make deploy has put on the station."""

from __future__ import annotations

import json
import sys

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: defectd_station
short_description: one command of station.pyz
description: See deploy/station. Its JSON becomes the result, its error the message.
options:
  command: {description: which, type: str, required: true}
  options: {description: for it, type: dict, default: {}}
  program: {description: where it lies, type: path, default: /opt/defectd/deploy/station.pyz}
"""
READS = ("facts", "holder", "plan", "due", "status", "outcome", "seen", "doctor", "lock", "unlock")


def main() -> None:
    """In check mode only what reads is run."""
    module = AnsibleModule(
        argument_spec={
            "command": {"type": "str", "required": True},
            "options": {"type": "dict", "default": {}},
            "program": {"type": "path", "default": "/opt/defectd/deploy/station.pyz"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    if module.check_mode and wanted["command"] not in READS:
        module.exit_json(changed=True, msg="would be run")
    code, out, err = module.run_command(
        [sys.executable, wanted["program"], wanted["command"], json.dumps(wanted["options"])]
    )
    try:
        result = json.loads(out)
    except ValueError:
        result = {"error": f"{wanted['command']} ended with {code}: {(err or out).strip()[-800:]}"}
    if "error" in result:
        module.fail_json(msg=result["error"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
