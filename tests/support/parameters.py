"""Names of parametrized tests."""

from __future__ import annotations

import re


def stable_id(value: object) -> str:
    """Return `str(value)` without memory addresses: processes that share the tests must give them the same names."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
