"""Weights on this machine: read a file of tensors without running code from it, and fetch such a file into a cache."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import pickle
import re
import threading
import urllib.error
import urllib.request
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from seewhy.errors import ModelError, OfflineError

Log = Callable[[str], None]
Weights = dict[str, Tensor]

SECONDS = 4.0  # how long a server may take to answer before it counts as not reachable
CHUNK = 1 << 20

NESTS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")

SAVE = "torch.save(model.state_dict(), 'weights.pth')"
OTHER_FORMATS = {
    ".onnx": "an ONNX file has no PyTorch layers to watch",
    ".pt2": "an exported program (.pt2) has no PyTorch layers to watch",
    ".torchscript": "a TorchScript file's layers cannot be watched, for it refuses hooks",
}
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".pth.tar")
SUFFIXES = (*WEIGHTS_SUFFIXES, *OTHER_FORMATS)


def read_weights(path: str | Path, hint: str = "check the file") -> tuple[Weights, list[str]]:
    """The tensors of a `.safetensors` file or a PyTorch checkpoint by name, and what was unwrapped, in words.

    Nothing in the file is ever run: pickles are read with `weights_only=True`. Raises `ModelError` for a file that is
    missing, damaged (`hint` then says what to do), of another format, or that needs code to be read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
    >>> torch.save({"state_dict": {"module.fc.bias": torch.zeros(2)}, "epoch": 3}, path)
    >>> read_weights(path)[0]
    {'fc.bias': tensor([0., 0.])}
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(str(path), "no such file")
    if path.is_dir():
        raise ModelError(
            str(path), f"a folder, not a file of weights; name the file in it: {path / 'NAME.safetensors'}"
        )
    if path.name.endswith(".index.json"):
        return read_pieces(path, hint)
    refuse_other_formats(path)
    with reading(path, hint):
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return unwrap(load_file(path), str(path))
        return unwrap(torch.load(path, map_location="cpu", weights_only=True), str(path))


def read_pieces(index: Path, hint: str) -> tuple[Weights, list[str]]:
    """`read_weights` of all files that an index names, which lie beside it."""
    weights: Weights = {}
    notes: list[str] = []
    for piece in read_index(index):
        found, said = read_weights(index.with_name(piece), hint)
        weights.update(found)
        notes += [note for note in said if note not in notes]
    return weights, notes


def read_index(path: Path) -> list[str]:
    """The files that hold the weights in pieces, by name. Raises `ModelError` where a name leads to another folder."""
    try:
        pieces = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
        outside = [piece for piece in pieces if re.search(r"[/\\:]|^\.*$", piece)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            str(path), f"is damaged, or no list of weights in pieces ({shorten_error(error)}); download or save it again"
        ) from None
    if outside:
        raise ModelError(
            str(path),
            f"names the piece {outside[0]!r}, and a piece must be a file in the same folder; check where the model is from",
        )
    return pieces


def refuse_other_formats(path: Path) -> None:
    """Raise `ModelError` where the name or the inside of the file says that it is a whole program, not weights."""
    suffix = path.suffix.lower()
    if suffix != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in inside:
            suffix = ".torchscript"
        elif "archive_format" in inside:
            suffix = ".pt2"
    if suffix in OTHER_FORMATS:
        raise ModelError(
            str(path),
            f"{OTHER_FORMATS[suffix]}; load the PyTorch model it was made from, or save that model's weights ({SAVE}) "
            "and give them with their architecture: 'weights.pth?arch=timm/resnet18'",
        )


@contextmanager
def reading(path: Path, hint: str) -> Iterator[None]:
    """Whatever goes wrong while a file of weights is read, as one line; `hint` says what to do about a damaged one."""
    try:
        with warnings.catch_warnings():
            # about files that weights_only cannot read; the errors below say it
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            yield
    except ModelError:
        raise
    except Exception as error:
        refused = isinstance(error, pickle.UnpicklingError)
        if refused and (wanted := re.findall(r"GLOBAL ([\w.]+)", str(error))):
            raise ModelError(
                str(path),
                f"holds Python objects ({wanted[0]}), not only tensors, and seewhy runs no code from files; where you "
                f"trust it and have that code, save the weights alone: {SAVE}",
            ) from None
        reason = "" if refused or " " not in shorten_error(error) else f" ({shorten_error(error)})"
        raise ModelError(str(path), f"is damaged, or not a file of PyTorch weights{reason}; {hint}") from None


def unwrap(content: Any, name: str) -> tuple[Weights, list[str]]:
    """The state dict inside what was saved: out of `{"state_dict": ...}` and without `module.` before every name."""
    notes = []
    while isinstance(content, Mapping) and (nest := next((key for key in NESTS if is_mapping(content, key)), None)):
        others = ", ".join(str(key) for key in content if key != nest)
        notes.append(f"weights taken from {nest!r} in the file" + (f"; not used: {others}" if others else ""))
        content = content[nest]
    if not isinstance(content, Mapping):
        raise ModelError(name, f"holds a {type(content).__name__}, not weights by name; save them with {SAVE}")
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        found = ", ".join(str(key) for key, value in content.items() if not isinstance(value, Tensor))
        raise ModelError(name, f"is no state dict: not tensors: {found or 'empty'}; save the weights with {SAVE}")
    weights = {str(key): value for key, value in content.items()}
    while prefix := next((start for start in PREFIXES if all(key.startswith(start) for key in weights)), None):
        notes.append(f"{prefix!r} taken off every name in the file")
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights, notes


def is_mapping(content: Mapping[Any, Any], key: str) -> bool:
    return isinstance(content.get(key), Mapping)


def fetch(url: str, model: str, log: Log) -> Path:
    """The file behind `url` in PyTorch's own cache; downloaded when it is not there, whole and with the right hash.

    Raises `OfflineError` where it would have to be downloaded and cannot be, `ModelError` for a wrong hash.
    """
    name = os.path.basename(urlsplit(url).path)
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.exists():
        return path
    remedy = (
        f"download {url} on another machine and put it into {path.parent}, or give a file of your own "
        f"('weights.safetensors?arch={model}'), or leave the model out for the embedded network"
    )
    if trouble := unreachable(url):
        raise OfflineError(model, f"its weights {name} are not on this machine, and {trouble}; {remedy}")
    log(f"downloading {name} from {urlsplit(url).hostname} to {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # a hash in the name, as PyTorch writes it; 8 digits and more, for '-300e.pth' means 300 epochs
    digest = re.search(r"-([0-9a-f]{8,})\.", name)
    part = path.with_name(f"{name}.{uuid.uuid4().hex}.partial")
    try:
        found = download(url, part)
        if digest and not found.startswith(digest[1]):
            raise ModelError(model, f"{url} gave another file than its name says (SHA-256 {found}); nothing was kept")
        os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        raise OfflineError(model, f"{url} could not be downloaded ({shorten_error(error)}); {remedy}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def download(url: str, path: Path) -> str:
    """Write what `url` gives to `path`, with a bar where stderr is a terminal, and return its SHA-256."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    digest = hashlib.sha256()
    with urllib.request.urlopen(request(url), timeout=SECONDS * 5) as reply, path.open("wb") as file:
        size = int(reply.headers["Content-Length"]) if reply.headers["Content-Length"] else None
        with tqdm(total=size, disable=None, unit="B", unit_scale=True, leave=False) as bar:
            while chunk := reply.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
        # http.client ends a broken transfer like a complete one
        if size is not None and file.tell() != size:
            raise OSError(f"the connection ended after {file.tell()} of {size} bytes")
    return digest.hexdigest()


def fetch_from_hub(
    repo: str, names: Sequence[str], model: str, log: Log, revision: str | None = None, remedy: str = ""
) -> Path:
    """The first of the files `names` that the Hugging Face repository has, from its local cache or downloaded there.

    The hub's own client tries five times (8 s and more) before it says that there is no network: here the cache is
    looked at first, then one short question decides. Raises `OfflineError` as `fetch` does; `remedy` says what to do.
    """
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cached = [try_to_load_from_cache(repo, name, revision=revision) for name in names]
    if found := next((path for path in cached if isinstance(path, str)), None):
        return Path(found)
    remedy = remedy or (
        f"on another machine run 'hf download {repo} {names[0]}', and give that file here ('{names[0]}?arch={model}'), "
        "or leave the model out for the embedded network"
    )
    # the cache remembers which files a commit does not have, and it never gets them
    absent = None not in cached and re.fullmatch("[0-9a-f]{40}", revision or "")
    url = hf_hub_url(repo, names[0], revision=revision)
    if not absent:
        trouble = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else unreachable(url)
        if trouble:
            raise OfflineError(
                model, f"{names[0]} of {repo} (Hugging Face) is not on this machine, and {trouble}; {remedy}"
            )
        log(f"downloading {repo} from {urlsplit(constants.ENDPOINT).hostname} to {constants.HF_HUB_CACHE}")
    for name in () if absent else names:
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except Exception as error:  # the client raises errors of its own, of httpx and of the system
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # the server was asked, and has no such file
            if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
                what = "revision" if isinstance(error, RevisionNotFoundError) else "repository, or not for everyone"
                raise ModelError(model, f"{urlsplit(url).hostname} has no such {what}; check the name") from None
            raise OfflineError(model, f"{repo} could not be downloaded ({shorten_error(error)}); {remedy}") from None
    raise ModelError(model, f"the Hugging Face repository {repo} has none of {', '.join(names)}; {remedy}")


def unreachable(url: str, seconds: float = SECONDS) -> str | None:
    """Why the server of `url` gives no answer within `seconds`, in words; None where it gives any answer."""
    trouble: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(request(url, "HEAD"), timeout=seconds).close()
            trouble.append(None)
        except urllib.error.HTTPError as error:
            error.close()
            trouble.append(None)
        except Exception as error:
            trouble.append(shorten_error(error))

    # a thread, because looking up a host name knows no time limit
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    reason = trouble[0] if trouble else f"no answer in {seconds:.0f} s"
    return reason and f"{urlsplit(url).hostname} cannot be reached ({reason})"


def request(url: str, method: str = "GET") -> urllib.request.Request:
    return urllib.request.Request(url, headers={"User-Agent": "seewhy"}, method=method)


def shorten_error(error: BaseException) -> str:
    """The first sentence of what an error says, at most 200 characters."""
    wrapper = isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError)
    cause = getattr(error, "reason", error) if wrapper else error
    text = (str(cause).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0].rstrip(" .:")
    return text if len(text) <= 200 else text[:199] + "…"
