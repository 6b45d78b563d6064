"""The plan of a job: everything that its rows depend on. Stored at the first start, and compared at every later start."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seewhy import storage
from seewhy.bulk.dataset import Dataset
from seewhy.bulk.job_record import FORMAT, JOB, job_fingerprint, read_job_record
from seewhy.bulk.settings import BulkSettings
from seewhy.errors import UsageError
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.provenance import collect_provenance
from seewhy.storage.paths import path_text


@dataclass(frozen=True)
class Plan:
    """A bulk job: its settings, model, dataset and parts. `layers` and `methods` replace defaults once they are calibrated."""

    settings: BulkSettings
    model: Mapping[str, Any]  # provenance
    parts: int
    images: int | None  # unknown for tar files
    dataset_digest: str
    part_size: int
    batch_size: int = 0  # 0: not yet calibrated
    layers: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    @property
    def is_calibrated(self) -> bool:
        return self.batch_size > 0

    @property
    def resolved_settings(self) -> BulkSettings:
        """The settings with the calibrated layers and methods."""
        settings = self.settings
        return replace(settings, layers=self.layers or settings.layers, methods=self.methods or settings.methods)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that identifies the job. Batch size and versions are not part of it: they change only the last digits.

        `check` is omitted if it is off, as in runs of versions that did not have it.
        """
        model = {key: self.model[key] for key in ("class", "weights", "preprocess", "labels")}
        settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.settings).items()
            if name != "check" or value
        }
        return {**settings, **model, "dataset": self.dataset_digest, "part_size": self.part_size, "parts": self.parts}

    @property
    def fingerprint(self) -> str:
        return job_fingerprint(self.identity)

    def part_name(self, part: int) -> str:
        return f"part-{part:06d}-of-{self.parts:06d}.{self.fingerprint}.parquet"

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "settings": self.identity,
            "batch_size": self.batch_size,
            "layers": list(self.layers),
            "methods": list(self.methods),
            "images": self.images,
            "model": dict(self.model),
        }


def make_plan(loaded: LoadedModel, dataset: Dataset, settings: BulkSettings, part_size: int) -> Plan:
    """Return the plan of a job before calibration."""
    model = json.loads(json.dumps(collect_provenance(loaded, hash_weights=True), default=str))  # as read from job.json
    model["labels"] = hashlib.sha256(repr(loaded.labels).encode()).hexdigest()[:16] if loaded.labels else None
    if model["preprocess"] is None:  # the user's own preprocessing
        kind = loaded.preprocess if hasattr(loaded.preprocess, "__qualname__") else type(loaded.preprocess)
        model["preprocess"] = f"{kind.__module__}.{kind.__qualname__}"  # type: ignore[union-attr]
    return Plan(settings, model, dataset.parts, dataset.count, dataset.digest(), part_size)


def resume_plan(plan: Plan, out: Path) -> Plan:
    """Return the plan with the values calibrated at the first start, or `plan` if this is the first start.

    Raises UsageError if the folder contains a job with other settings.
    """
    stored = read_job(out)
    if stored is None:
        return plan
    if stored["fingerprint"] != plan.fingerprint:
        old, new = stored["settings"], plan.identity
        names = dict.fromkeys([*new, *old])
        changes = [describe_change(name, stored, plan) for name in names if old.get(name) != new.get(name)]
        raise UsageError(
            f"{out} contains a run with other settings: {'; '.join(changes)}. Choose another folder, or the same settings."
        )
    return replace(
        plan, batch_size=stored["batch_size"], layers=tuple(stored["layers"]), methods=tuple(stored["methods"])
    )


def changed_versions(plan: Plan, out: Path) -> str:
    """Return the packages whose version changed since the first start, as text; "" if there are none."""
    stored = read_job(out)
    old, new = stored["model"]["versions"] if stored else {}, plan.model["versions"]
    return ", ".join(f"{name} {old[name]} (now {new.get(name)})" for name in old if old[name] != new.get(name))


def describe_change(name: str, stored: Mapping[str, Any], plan: Plan) -> str:
    """Return one changed setting as text: "targets: predicted in the run, top2 now"."""
    if name == "dataset":
        return f"other images or labels ({stored['images']} images in the run, {plan.images} now)"
    if name in ("weights", "labels"):
        return {"weights": "other weights", "labels": "other class names"}[name]

    if name == "check":
        return f"check: {stored['settings'].get(name, False)} in the run, {plan.settings.check} now"

    def as_text(value: Any) -> str:
        return (", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)) or "(default)"

    old, new = stored["settings"].get(name), plan.identity.get(name)
    return f"{name.replace('_', ' ')}: {as_text(old)} in the run, {as_text(new)} now"


def store_plan(plan: Plan, out: Path) -> Plan:
    """Write the plan to job.json and return it. If another process wrote one first, return that one.

    Raises UsageError like `resume_plan`.
    """
    stored = read_job(out)
    if stored is not None and not stored["batch_size"] and stored["fingerprint"] == plan.fingerprint:
        (out / JOB).unlink(missing_ok=True)  # written before calibration
    text = json.dumps(plan.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    content = text.encode("utf-8", storage.UNENCODABLE)
    path = storage.write_file(out / f".{JOB}.{os.getpid()}-{secrets.token_hex(4)}", content, durable=True)
    try:
        os.link(path, out / JOB)
    except FileExistsError:
        return resume_plan(plan, out)
    except OSError:  # a file system without hard links
        os.replace(path, out / JOB)
    finally:
        path.unlink(missing_ok=True)
    return plan


def check_folder_name(out: Path) -> None:
    """Raise UsageError if the path of a run is not UTF-8, because pyarrow could not read it."""
    try:
        str(out).encode()
    except UnicodeEncodeError:
        name = path_text(str(out))
        raise UsageError(f"{name}: the name of this run folder is not UTF-8. Choose another folder.") from None


def read_job(out: Path) -> dict[str, Any] | None:
    """Return the content of job.json, or None if there is none. Raises UsageError if it cannot be read."""
    check_folder_name(out)
    return read_job_record(out)
