"""`make prove-models`: from best.pt to the fastest engine that is proven on this device, for real.

    PYTHONPATH=daemon:tests python -m acceptance.prove_models [--list] [--only NAME] [--quick]

Needs DEFECTD_DEEPPCB (a folder with best.pt, data.yaml, images/ and labels/) and DEFECTD_PEER_PYTHON (an interpreter
with defectd[export]); items that miss something say `skipped`.
"""

from __future__ import annotations

import sys

from acceptance.models_export import EXPORT
from acceptance.models_refusals import REFUSALS
from acceptance.models_serving import SERVING
from support.proving import main

PROOFS = (*EXPORT, *SERVING, *REFUSALS)

if __name__ == "__main__":
    sys.exit(main("prove-models", PROOFS))
