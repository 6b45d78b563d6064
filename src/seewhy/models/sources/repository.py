"""A folder with a model in it: on this machine, or as a repository of the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.errors import ModelError, OfflineError
from seewhy.models.weights import Log, fetch_from_hub, read_index

HUB, SHORT, LOCAL = "hf-hub:", "hf/", "local-dir:"
PREFIXES = (HUB, SHORT, LOCAL)
CONFIGS = ("config.json", "open_clip_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "spiece.model",
    "tokenizer.model", "vocab.txt", "sentencepiece.bpe.model",
)  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """Where the files of a model are: in `folder`, or in the hub's `name` at `revision`."""

    uri: str
    log: Log = dataclasses.field(repr=False)
    folder: Path | None = None
    name: str = ""
    revision: str | None = None

    def file(self, names: Sequence[str]) -> Path:
        """The first of `names` that is there. Raises `ModelError` where none is, `OfflineError` as `fetch_from_hub`."""
        if self.folder is None:
            at = f" --revision {self.revision}" if self.revision else ""
            remedy = (
                f"on another machine run 'hf download {self.name}{at}', and give the folder here ('local-dir:FOLDER')"
            )
            return fetch_from_hub(self.name, names, self.uri, self.log, self.revision, remedy)
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        what = "has none of" if self.folder.is_dir() else "is no folder; it should have one of"
        raise ModelError(
            self.uri, f"{self.folder} {what} {', '.join(names)}; save the model with save_pretrained(FOLDER)"
        )

    def optional(self, names: Sequence[str]) -> Path | None:
        """The first of `names` that is there, or None. Raises `OfflineError` where nobody can be asked."""
        try:
            return self.file(names)
        except OfflineError:
            raise
        except ModelError:
            return None

    def tokenizer(self) -> Path:
        """The folder with the files of the tokenizer, which are fetched. Raises as `file` where there are none."""
        folder = self.file(TOKENIZERS).parent
        for name in TOKENIZERS:
            try:
                self.optional([name])
            except OfflineError:
                break  # what the cache has lies in the folder already
        return folder

    def read_config(self) -> tuple[Repository, Path, dict[str, Any]]:
        """This repository at the commit that its config is from, the config's path and its content."""
        path = self.file(CONFIGS)
        try:
            config = json.loads(path.read_text("utf-8"))
            if not isinstance(config, dict):
                raise ValueError("no JSON object")
        except (ValueError, OSError) as error:
            raise ModelError(self.uri, f"{path} is damaged ({error}); download or save it again") from None
        if self.folder is None:  # the other files from the same commit, even when another one is published meanwhile
            return dataclasses.replace(self, revision=path.parent.name), path, config
        return self, path, config

    def weights(self, names: Sequence[str] = WEIGHTS) -> Path:
        """The file of weights; where they are in pieces, the list of the pieces, which are fetched too."""
        names = [found for name in names for found in (name, f"{name}.index.json")]
        path = self.file(names)
        if path.name.endswith(".index.json"):
            for piece in read_index(path):
                self.file([piece])
        return path


def is_repository(text: str) -> bool:
    return text.startswith(PREFIXES)


def find_repository(text: str, log: Log) -> Repository:
    """`hf-hub:ORG/NAME[@REVISION]`, `hf/ORG/NAME[@REVISION]` or `local-dir:FOLDER`.

    >>> find_repository("hf/google/vit-base-patch16-224@main", print).name
    'google/vit-base-patch16-224'
    """
    if text.startswith(LOCAL):
        return Repository(text, log, Path(text.removeprefix(LOCAL)).expanduser())
    given = text.removeprefix(HUB) if text.startswith(HUB) else text.removeprefix(SHORT)
    match = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)(?:@(\S+))?", given)
    if not match:
        raise ModelError(text, "not a name on the Hugging Face hub; a model there is hf/ORG/NAME[@REVISION]")
    return Repository(text, log, None, match[1], match[2])
