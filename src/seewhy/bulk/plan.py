"""What a job is: everything that its rows depend on, written down at its first start and compared at each later one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seewhy import storage
from seewhy.bulk.dataset import Dataset
from seewhy.errors import UnknownName, UsageError
from seewhy.images.loading import MAX_PIXELS
from seewhy.methods.catalog import GROUPS, read_method
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.provenance import collect_provenance

FORMAT = 2  # of job.json and of the columns of part files
JOB = "job.json"
STORES = ("uint8", "float16")
PREDICTED, LABEL = "predicted", "label"


@dataclass(frozen=True)
class BulkSettings:
    """What is asked of every picture, and how its answers are kept. `store` is how a map's cells are: uint8 or float16."""

    methods: tuple[str, ...] = ()  # none: the one that fits the question
    layers: tuple[str, ...] = ("suggested",)
    targets: tuple[str, ...] = (PREDICTED,)
    versus: tuple[str, ...] = ()
    read_at: str = "convolution"
    grid: str | None = None
    multilabel: bool = False
    fit: str | None = None
    seed: int = 0
    store: str = "uint8"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.store not in STORES:
            raise UnknownName("store", self.store, STORES, hint="Maps are kept as uint8 or float16.")
        for method in self.methods:
            if method.lower() in GROUPS:
                raise UsageError(
                    f"--methods {method}: name the methods, as a job keeps rows of the same ones for every picture."
                )
            read_method(method)
        if not self.targets:
            raise UsageError("no target; leave --targets out for the predicted class.")
        for target in self.targets:
            if re.match(r"\s*(point|box)\S*:", target) and "@" in target:
                raise UsageError(f"--targets {target}: a place in one photo is none in another; ask for classes.")

    @property
    def asked(self) -> tuple[str, ...]:
        """The questions, each by the name that its rows carry: top3 is three."""
        found: list[str] = []
        for target in self.targets:
            text = target.strip()
            top = re.fullmatch(r"top-?(\d{1,6})", text.lower())
            if text.lower() in (PREDICTED, "top1"):
                found.append("top1")
            elif top:
                found += [f"top{rank}" for rank in range(1, int(top[1]) + 1)]
            else:
                found.append(LABEL if text.lower() == LABEL else text)
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Plan:
    """A job: the questions, the model, the pictures and their parts. `batch` pictures are explained at a time."""

    questions: BulkSettings
    model: Mapping[str, Any]  # provenance
    parts: int
    pictures: int | None
    pictures_hash: str
    part_size: int
    batch: int = 0  # not yet known
    layers: tuple[str, ...] = ()  # what "suggested" is, once it is known
    methods: tuple[str, ...] = ()  # and the method that fits the questions

    @property
    def concrete(self) -> BulkSettings:
        """The questions with the layer and the method that were found out at the first start."""
        asked = self.questions
        return replace(asked, layers=self.layers or asked.layers, methods=self.methods or asked.methods)

    @property
    def settings(self) -> dict[str, Any]:
        """What every row depends on. Not the size of a batch, which changes no more than the last digits, and not versions."""
        model = {key: self.model[key] for key in ("class", "weights", "preprocess", "labels")}
        chosen = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.questions).items()
        }
        return {**chosen, **model, "pictures": self.pictures_hash, "part_size": self.part_size, "parts": self.parts}

    @property
    def fingerprint(self) -> str:
        text = json.dumps(self.settings, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def part_name(self, part: int) -> str:
        return f"part-{part:06d}-of-{self.parts:06d}.{self.fingerprint}.parquet"

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "batch": self.batch,
            "layers": list(self.layers),
            "methods": list(self.methods),
            "count": self.pictures,
            "model": dict(self.model),
        }


def make_plan(loaded: LoadedModel, items: Dataset, questions: BulkSettings, part_size: int) -> Plan:
    about = json.loads(json.dumps(collect_provenance(loaded, hash_weights=True), default=str))  # as it will be read back
    about["labels"] = hashlib.sha256(repr(loaded.labels).encode()).hexdigest()[:16] if loaded.labels else None
    if about["preprocess"] is None:  # a user's own
        kind = loaded.preprocess if hasattr(loaded.preprocess, "__qualname__") else type(loaded.preprocess)
        about["preprocess"] = f"{kind.__module__}.{kind.__qualname__}"  # type: ignore[union-attr]
    return Plan(questions, about, items.parts, items.count, items.digest(), part_size)


def begin(plan: Plan, out: Path) -> Plan:
    """The plan as it was written down at the first start, which is now if there was none.

    Raises UsageError where the folder holds a job with other settings, and says which.
    """
    old = read_job(out)
    if old is None:
        return plan
    if old["fingerprint"] != plan.fingerprint:
        differ = [name for name, value in plan.settings.items() if old["settings"].get(name) != value]
        said = "; ".join(difference(name, old["settings"].get(name), plan.settings[name], old, plan) for name in differ)
        raise UsageError(f"{out} was begun with other settings: {said}. Take another --out, or the same settings.")
    return replace(plan, batch=old["batch"], layers=tuple(old["layers"]), methods=tuple(old["methods"]))


def changed_versions(plan: Plan, out: Path) -> str:
    """What is installed in another version than at the first start, in words; empty where nothing is."""
    old = read_job(out)
    before, now = old["model"]["versions"] if old else {}, plan.model["versions"]
    return ", ".join(f"{name} {before[name]}, now {now.get(name)}" for name in before if before[name] != now.get(name))


def difference(name: str, there: Any, here: Any, old: Mapping[str, Any], plan: Plan) -> str:
    if name == "pictures":
        return f"other pictures, or others' labels ({old['count']} there, {plan.pictures} here)"
    if name in ("weights", "labels"):
        return {"weights": "other weights", "labels": "other names of classes"}[name]

    def shown(value: Any) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return f"{name.replace('_', ' ')} {shown(there)} there, {shown(here)} here"


def write_job(plan: Plan, out: Path) -> Plan:
    """Write the plan down; where another process was faster, its plan is the one. Raises UsageError as `begin` does."""
    if (old := read_job(out)) is not None and not old["batch"] and old["fingerprint"] == plan.fingerprint:
        (out / JOB).unlink(missing_ok=True)  # it knew no more than what was asked
    text = json.dumps(plan.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    own = storage.write_file(out / f".{JOB}.{os.getpid()}-{secrets.token_hex(4)}", text.encode(), durable=True)
    try:
        os.link(own, out / JOB)
    except FileExistsError:
        return begin(plan, out)
    except OSError:  # a file system without links
        os.replace(own, out / JOB)
    finally:
        own.unlink(missing_ok=True)
    return plan


def read_job(out: Path) -> dict[str, Any] | None:
    """What was written down at the first start; None where nothing was."""
    try:
        found = json.loads((out / JOB).read_text("utf-8"))
        if found["format"] != FORMAT:
            raise UsageError(
                f"{out}: written by another version of seewhy (format {found['format']}); take another --out."
            )
        return dict(found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out / JOB} cannot be read ({error}); take another --out.") from None
