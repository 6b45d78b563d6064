"""Where the repository and the optional test data are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SEEWHY_DATA", ROOT.parent / "shared" / "data"))
