"""The schema of job.json. Later starts and all readers of a run read it back, so it is checked before use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from seewhy.errors import RecordError, UsageError
from seewhy.storage.records import read_json_record

JOB = "job.json"
FORMAT = 2  # of job.json, and of the columns of part files
MAX_BYTES = 2**25
MAX_TEXT = 2**16  # of a text in a run

Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Texts = Annotated[list[Text], Meta(max_length=100_000)]
Scalar = None | bool | int | float | Text
Scalars = Annotated[list[Scalar], Meta(max_length=100_000)]
Fields = Annotated[dict[Text, Scalar | Scalars], Meta(max_length=1000)]
Settings = Annotated[dict[Text, Scalar | Scalars | Fields], Meta(max_length=1000)]


class JobFormat(Struct):
    """The format of a job.json, which is checked first: other formats have other fields."""

    format: int


class ModelRecord(Struct, kw_only=True):
    """The provenance of the model."""

    model: Text | None
    class_name: Text = msgspec.field(name="class")
    weights: Text | None
    preprocess: Fields | Text | None
    labels: Text | None
    versions: Annotated[dict[Text, Text], Meta(max_length=1000)]


class JobRecord(Struct):
    """The content of job.json."""

    format: int
    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    settings: Settings
    batch_size: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    layers: Texts
    methods: Texts
    images: Annotated[int, Meta(ge=0, le=2**53)] | None
    model: ModelRecord


class RunSettings(Struct):
    """The settings that readers of a run use."""

    store: Literal["uint8", "float16"]
    parts: Annotated[int, Meta(ge=0, le=999_999_999)]
    check: bool = False  # not in runs of versions that did not have it


def has_checks(settings: Mapping[str, Any]) -> bool:
    """Return True if the rows of a job have the columns of the check. `settings` are those of job.json."""
    return bool(settings.get("check", False))


def job_fingerprint(settings: Mapping[str, Any]) -> str:
    """Return the fingerprint of a job from its settings, as in job.json."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_job_record(folder: Path) -> dict[str, Any] | None:
    """Return the content of job.json, or None if there is none.

    Raises UsageError if it was written by another version, is damaged, or was edited (the fingerprint hashes the settings).
    """
    path = folder / JOB
    try:
        if (number := read_json_record(path, JobFormat, MAX_BYTES).format) != FORMAT:
            raise UsageError(
                f"{folder} was written by another version of seewhy (format {number}, this version reads {FORMAT}). "
                "Choose another folder."
            )
        job: dict[str, Any] = msgspec.to_builtins(read_json_record(path, JobRecord, MAX_BYTES))
        check_settings(path, job)
    except FileNotFoundError:
        return None
    except RecordError as error:
        place = f"{error.field}: " if error.field else ""
        raise UsageError(
            f"{path} cannot be read ({place}{error.reason}). Restore it, or start the job in another folder."
        ) from None
    return job


def check_settings(path: Path, job: Mapping[str, Any]) -> None:
    """Raise RecordError if the settings are not valid, or do not belong to the fingerprint."""
    try:
        msgspec.convert(job["settings"], RunSettings)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # UnicodeEncodeError: a lone surrogate
        raise RecordError(path, "settings", str(error).replace("`", "").replace("$.", "")) from None
    if job_fingerprint(job["settings"]) != job["fingerprint"]:
        raise RecordError(path, "fingerprint", "it does not match the settings, so one of them was changed")
