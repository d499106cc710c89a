"""`make prove-deploy`: what a command can show of the deployment, on real hosts, one line per item.

    PYTHONPATH=daemon:tests python -m acceptance.prove_deploy [--list] [--only NAME] [--quick]

Needs root and DEFECTD_SYSTEMD_HOST. Laptop, broker and hosts are in network namespaces of their own: from the first
deployment on nothing of it has internet.
"""

from __future__ import annotations

import sys

from acceptance.deploy_days import DAYS
from acceptance.deploy_interrupted import INTERRUPTED
from acceptance.deploy_life import LAST, LIFE
from acceptance.deploy_line import LINE
from acceptance.deploy_refusals import REFUSED
from acceptance.deploy_runbook import RUNBOOK
from acceptance.deploy_systems import SYSTEMS
from support.proving import main

PROOFS = (*LIFE, *DAYS, *REFUSED, *SYSTEMS, *LINE, *INTERRUPTED, *RUNBOOK, *LAST)

if __name__ == "__main__":
    sys.exit(main("prove-deploy", PROOFS))
