"""Real adapters and prompts that may lie beside the checkout; tests that use them skip where they do not."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(os.environ.get("HUBRANK_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
