"""`Repository`: a model in a local folder or in a repository of the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.errors import ModelError, OfflineError
from seewhy.models.downloads import Log, download_from_hub
from seewhy.models.local_files import UnreadableFile, check_folder, local_path, read_json
from seewhy.models.weights import read_shard_index

HUB, SHORT, LOCAL = "hf-hub:", "hf/", "local-dir:"
PREFIXES = (HUB, SHORT, LOCAL)
CONFIGS = ("config.json", "open_clip_config.json")
MAX_LAYERS = 10_000
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "spiece.model",
    "tokenizer.model", "vocab.txt", "sentencepiece.bpe.model",
)  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """The location of a model's files: `folder`, or the hub's repository `name` at `revision`."""

    uri: str
    log: Log = dataclasses.field(repr=False)
    folder: Path | None = None
    name: str = ""
    revision: str | None = None

    def get_file(self, names: Sequence[str]) -> Path:
        """Return the first of `names` that exists, downloaded if needed.

        Raises `ModelError` if none exists, `OfflineError` like `download_from_hub`.
        """
        if self.folder is None:
            option = f" --revision {self.revision}" if self.revision else ""
            remedy = (
                f"on another machine run 'hf download {self.name}{option}' and pass the folder ('local-dir:FOLDER')"
            )
            return download_from_hub(self.name, names, self.uri, self.log, self.revision, remedy)
        for name in names:
            if os.path.isfile(self.folder / name):
                return self.folder / name
        problem = "has none of" if os.path.isdir(self.folder) else "is not a folder; it should have one of"
        raise ModelError(
            self.uri, f"{self.folder} {problem} {', '.join(names)}; save the model with save_pretrained(FOLDER)"
        )

    def find_file(self, names: Sequence[str]) -> Path | None:
        """Like `get_file`, but return None if none exists. Raises `OfflineError` if that is unknown."""
        try:
            return self.get_file(names)
        except OfflineError:
            raise
        except ModelError:
            return None

    def get_tokenizer_folder(self) -> Path:
        """Return the folder with the tokenizer's files, downloaded if needed. Raises like `get_file`."""
        folder = self.get_file(TOKENIZERS).parent
        for name in TOKENIZERS:
            try:
                self.find_file([name])
            except OfflineError:
                break  # cached files are in the folder already
        return folder

    def read_config(self) -> tuple[Repository, Path, dict[str, Any]]:
        """Return this repository pinned to the commit of its config, the config's path and its content."""
        path = self.get_file(CONFIGS)
        try:
            check_folder(path.parent)
            config = read_json(path)
            if not isinstance(config, dict):
                raise UnreadableFile("not a JSON object")
            check_layer_counts(config)
        except UnreadableFile as error:
            raise ModelError(self.uri, f"{path} is corrupt ({error}); download or save it again") from None
        if self.folder is None:  # take all files from one commit, even if a new one is published meanwhile
            return dataclasses.replace(self, revision=path.parent.name), path, config
        return self, path, config

    def get_weights_file(self, names: Sequence[str] = WEIGHTS) -> Path:
        """Return the weights file, or the index of sharded weights, whose shards are downloaded too."""
        path = self.get_file([file for name in names for file in (name, f"{name}.index.json")])
        if path.name.endswith(".index.json"):
            for shard in read_shard_index(path):
                self.get_file([shard])
        return path


def check_layer_counts(config: object) -> None:
    """Raise UnreadableFile if a config has a number of layers that would take hours to build."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if key in ("id2label", "label2id"):  # names of classes, such as "soccer player"
            continue
        counts = value if isinstance(value, list) else [value]
        if re.search("layer|depth", key) and any(isinstance(one, int) and one > MAX_LAYERS for one in counts):
            raise UnreadableFile(f"{key} is over {MAX_LAYERS:,}")
        for one in counts:
            check_layer_counts(one)


def is_repository(text: str) -> bool:
    return text.startswith(PREFIXES)


def parse_repository(text: str, log: Log) -> Repository:
    """Parse `hf-hub:ORG/NAME[@REVISION]`, `hf/ORG/NAME[@REVISION]` or `local-dir:FOLDER`.

    >>> parse_repository("hf/google/vit-base-patch16-224@main", print).name
    'google/vit-base-patch16-224'
    """
    if text.startswith(LOCAL):
        return Repository(text, log, local_path(text.removeprefix(LOCAL)))
    name = text.removeprefix(HUB) if text.startswith(HUB) else text.removeprefix(SHORT)
    match = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)(?:@(\S+))?", name)
    if not match:
        raise ModelError(text, "is not a valid name on the Hugging Face hub; use hf/ORG/NAME[@REVISION]")
    return Repository(text, log, None, match[1], match[2])
