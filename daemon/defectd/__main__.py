"""`python -m defectd`."""

from __future__ import annotations

import sys

from defectd.cli import main

if __name__ == "__main__":
    sys.exit(main())
