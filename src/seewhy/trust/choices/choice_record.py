"""choice.json, the saved recommendation of `seewhy choose`. Imports no torch, so that a damaged file fails at once."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from seewhy.errors import UsageError
from seewhy.storage.records import read_json_record

MAX_BYTES = 2**24


class ChoiceRecord(TypedDict):
    """The fields that are applied; the file contains more."""

    kind: str
    model: str
    weights: str
    method: str
    layer: str
    verdict: str


def read_choice(path: Path) -> ChoiceRecord:
    """Read a saved choice.

    Raises:
        UsageError: The file does not exist or is not a choice (RecordError, if it is damaged).
    """
    try:
        record = read_json_record(path, ChoiceRecord, MAX_BYTES)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file. Make one: seewhy choose photos/ --out {path}") from None
    if record["kind"] != "choice":
        raise UsageError(f"{path} is not a choice. Make one: seewhy choose photos/ --out choice.json")
    return record
