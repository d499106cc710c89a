"""From a user's `best.pt` to a bundle that is proven against it, on the engineer's machine (`defectd[export]`).

Never imported by what runs on a station: it needs Ultralytics, and loading a checkpoint runs what is in it, so load
only your own. `chain.export` is the way in; it needs torch, and finds the other packages when it comes to them.
"""

from __future__ import annotations

import os

# Before torch loads: its threads would spin where they meet, and with other work on the machine each wait takes a
# scheduler's turn. A forward pass of 0.15 s took 2.5 s then (2 cores, other jobs on both).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
