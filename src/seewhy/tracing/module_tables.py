"""Compare the dictionaries of modules with an earlier state: thousands of values in a few C loops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import is_
from typing import Any


class TableState:
    """The keys and values of some dictionaries at one time.

    >>> tables = [{"a": 1}, {}]
    >>> state = TableState(tables)
    >>> before, tables[1]["b"] = state.is_current(), 2
    >>> before, state.is_current()
    (True, False)
    """

    def __init__(self, tables: Sequence[dict[Any, Any]]) -> None:
        self.tables = tables
        self.lengths = list(map(len, tables))
        self.filled = [table for table in tables if table]  # most hook tables are empty
        self.keys = list(chain.from_iterable(self.filled))
        self.values = list(chain.from_iterable(map(dict.values, self.filled)))

    def is_current(self) -> bool:
        """Return True if the dictionaries hold the same keys in the same order, and identical values."""
        return (
            self.lengths == list(map(len, self.tables))
            and self.keys == list(chain.from_iterable(self.filled))
            and all(map(is_, self.values, chain.from_iterable(map(dict.values, self.filled))))
        )
