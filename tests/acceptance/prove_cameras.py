"""`make prove-cameras`: the cameras of a real line, one line per item.

    PYTHONPATH=daemon:tests python -m acceptance.prove_cameras [--list] [--only NAME] [--quick]

Real GigE Vision streams, RTSP servers and workers, killed and frozen; items that miss something say `skipped`.
"""

from __future__ import annotations

import logging
import sys

from acceptance.cameras_csi import CSI
from acceptance.cameras_gige import GIGE
from acceptance.cameras_many import MANY
from acceptance.cameras_rtsp import RTSP
from acceptance.cameras_units import UNITS
from acceptance.cameras_web import WEB
from support.proving import main

PROOFS = (*GIGE, *RTSP, *UNITS, *MANY, *WEB, *CSI)

if __name__ == "__main__":
    logging.getLogger("paho").setLevel(logging.CRITICAL)  # it calls it an error that a sender has hung up
    sys.exit(main("prove-cameras", PROOFS))
