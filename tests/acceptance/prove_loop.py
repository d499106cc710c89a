"""`make prove-loop`: what a command can show of the inspection loop, for real, one line per item.

    PYTHONPATH=daemon:tests python -m acceptance.prove_loop [--list] [--only NAME] [--quick]

Every item starts real daemons and a real Mosquitto, and sends real signals. Items that need something that is not
here say `skipped` and how to have them run.
"""

from __future__ import annotations

import sys

from acceptance.loop_bad_input import BAD_INPUT
from acceptance.loop_commands import COMMANDS
from acceptance.loop_faults import FAULTS
from acceptance.loop_images import IMAGES
from acceptance.loop_refusals import REFUSALS
from acceptance.loop_state import STATE
from support.proving import main

PROOFS = (*IMAGES, *FAULTS, *REFUSALS, *STATE, *BAD_INPUT, *COMMANDS)

if __name__ == "__main__":
    sys.exit(main("prove-loop", PROOFS))
