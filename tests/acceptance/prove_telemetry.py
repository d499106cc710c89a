"""`make prove-telemetry`: heat, clocks and latency, told and acted upon, for real.

    PYTHONPATH=daemon:tests python -m acceptance.prove_telemetry [--list] [--only NAME] [--quick]

`heat` needs Debian's prometheus, `jtop` a simulated Jetson (DEFECTD_JETSON_SIM); without them they say `skipped`.
"""

from __future__ import annotations

import logging
import sys

from acceptance.telemetry_bad import BAD
from acceptance.telemetry_clock import CLOCK
from acceptance.telemetry_cost import COST
from acceptance.telemetry_doctor import DOCTOR
from acceptance.telemetry_heat import HEAT
from acceptance.telemetry_jtop import JTOP
from acceptance.telemetry_trees import TREES
from support.proving import main

PROOFS = (*TREES, *HEAT, *JTOP, *COST, *CLOCK, *DOCTOR, *BAD)

if __name__ == "__main__":
    logging.getLogger("paho").setLevel(logging.CRITICAL)  # it calls it an error that a sender has hung up
    sys.exit(main("prove-telemetry", PROOFS))
