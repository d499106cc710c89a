"""`make prove-rollout`: candidates on a running line, good ones and bad ones, and the bad days of a rollout, for real.

    PYTHONPATH=daemon:tests python -m acceptance.prove_rollout [--list] [--only NAME] [--quick]

Needs root for what needs a small file system; items that miss something say `skipped`.
"""

from __future__ import annotations

import logging
import sys

from acceptance.rollout_bad import BAD_DAYS
from acceptance.rollout_line import LINE
from acceptance.rollout_people import PEOPLE
from acceptance.rollout_refusals import REFUSALS
from support.proving import main

PROOFS = (*LINE, *REFUSALS, *PEOPLE, *BAD_DAYS)

if __name__ == "__main__":
    logging.getLogger("paho").setLevel(logging.CRITICAL)  # it calls it an error that a sender has hung up
    sys.exit(main("prove-rollout", PROOFS))
