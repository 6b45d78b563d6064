"""Read weight files without executing code from them."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import ModelError, shorten_error
from seewhy.images.other_formats import SAFETENSORS, describe_format, is_image_start, read_start
from seewhy.models.local_files import UnreadableFile, check_regular, read_json
from seewhy.models.pickles import ZIP_START, HugePickle, check_pickles

Weights = dict[str, Tensor]

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
MAX_NESTING = 8  # dicts in dicts, and prefixes of names
MAX_EXPANDED_BYTES = 2**28  # of a tensor that repeats its values, such as a mask
LONGEST_NAME = 80
PREFIXES = ("module.", "_orig_mod.", "model.")
PYTORCH_STARTS = (ZIP_START, b"\x80\x02")

SAVE_AGAIN = "save or download it again"
SAVE_EXAMPLE = "torch.save(model.state_dict(), 'weights.pth')"
OTHER_FORMATS = {
    ".onnx": "an ONNX file contains its architecture; pass it without options",
    ".pt2": "an exported program contains its architecture; rename it to NAME.pt2, pass it without arch and with --allow-code",
    ".torchscript": "TorchScript modules do not support hooks",
}
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".pth.tar")
SUFFIXES = (*WEIGHTS_SUFFIXES, *OTHER_FORMATS)


def read_weights(path: str | Path, hint: str = SAVE_AGAIN, *, is_verified: bool = False) -> tuple[Weights, list[str]]:
    """Return the tensors of a `.safetensors` file or PyTorch checkpoint by name, and notes on how they were unpacked.

    No code in the file is executed: pickles are read with `weights_only=True`. Raises `ModelError` if the file is
    missing, corrupt (the message then ends with `hint`), in another format, or needs code to be read. With `is_verified`, the
    caller has compared the hash of the file, so the structure of its pickles is not checked.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
    >>> torch.save({"state_dict": {"module.fc.bias": torch.zeros(2)}, "epoch": 3}, path)
    >>> read_weights(path)[0]
    {'fc.bias': tensor([0., 0.])}
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise ModelError(str(path), "no such file; check the path")
    if os.path.isdir(path):
        raise ModelError(str(path), f"is a folder, not a weights file; name the file: {path / 'NAME.safetensors'}")
    if path.name.endswith(".index.json"):
        return read_sharded_weights(path, hint)
    try:
        check_regular(path)
    except UnreadableFile as error:
        raise ModelError(str(path), f"{error}; check the path") from None
    with convert_read_errors(path, hint):
        check_weights_format(path)
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return extract_state_dict(load_file(path), str(path))
        if not is_verified:
            check_pickles(path)
        return extract_state_dict(torch.load(path, map_location="cpu", weights_only=True), str(path))


def read_sharded_weights(index: Path, hint: str) -> tuple[Weights, list[str]]:
    """Read all weight files that an index lists; they are in the same folder."""
    weights: Weights = {}
    notes: list[str] = []
    for shard in read_shard_index(index):
        shard_weights, shard_notes = read_weights(index.with_name(shard), hint)
        weights.update(shard_weights)
        notes += [note for note in shard_notes if note not in notes]
    return weights, notes


def read_shard_index(path: Path) -> list[str]:
    """Return the file names of sharded weights. Raises `ModelError` if a name refers to another folder."""
    try:
        shards = sorted(set(read_json(path)["weight_map"].values()))
        outside = [shard for shard in shards if re.search(r"[/\\:\0]|^\.*$|\.index\.json$", shard) or len(shard) > 255]
        if not shards:
            raise UnreadableFile("it lists none")
    except (UnreadableFile, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            str(path),
            f"is corrupt or not an index of sharded weights ({shorten_error(error)}); download or save it again",
        ) from None
    if outside:
        raise ModelError(
            str(path),
            f"lists the shard {show_names(outside[:1])!r}, but shards must be in the same folder; check where "
            "the model comes from",
        )
    return shards


def check_weights_format(path: Path) -> None:
    """Raise `ModelError` if the file's suffix or content shows that it is a program instead of weights."""
    suffix = path.suffix.lower()
    if suffix != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in infos):
            # 10 MB can contain 10 GB.
            raise ModelError(
                str(path), f"is a compressed archive, which PyTorch does not write; save it again: {SAVE_EXAMPLE}"
            )
        members = {info.filename.partition("/")[2] for info in infos}
        if "constants.pkl" in members:
            suffix = ".torchscript"
        elif "archive_format" in members:
            suffix = ".pt2"
    if suffix in (".onnx", ".pt2"):
        raise ModelError(str(path), OTHER_FORMATS[suffix])
    if suffix in OTHER_FORMATS:
        raise ModelError(
            str(path),
            f"{OTHER_FORMATS[suffix]}; load the original PyTorch model, or save its weights ({SAVE_EXAMPLE}) "
            "and pass them with their architecture: 'weights.pth?arch=timm/resnet18'",
        )


@contextmanager
def convert_read_errors(path: Path, hint: str) -> Iterator[None]:
    """Convert any exception while a weights file is read into a one-line `ModelError`."""
    try:
        with warnings.catch_warnings():
            # On deprecated storages, and for files that weights_only cannot read; the errors below cover them.
            warnings.simplefilter("ignore")
            yield
    except ModelError:
        raise
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and (types := re.findall(r"GLOBAL ([\w.]+)", str(error))):
            raise ModelError(
                str(path),
                f"contains a pickled {types[0]}, and seewhy does not execute code from files; if you trust it, load it in "
                f"Python and save only the weights: {SAVE_EXAMPLE}",
            ) from None
        raise ModelError(str(path), describe_unreadable(path, error, hint)) from None


def describe_unreadable(path: Path, error: Exception, hint: str) -> str:
    """Return why a weights file cannot be read, and what to do.

    Judged by the content of the file: the errors of its readers describe bytes ("opcode b'<' unknown").
    """
    start = read_start(path)
    is_safetensors = path.suffix.lower() == ".safetensors"
    if isinstance(error, OSError) and error.errno and error.strerror:
        return f"cannot be read ({error.strerror.lower()}); {hint}"
    if isinstance(error, HugePickle):
        return f"is corrupt or not a PyTorch weights file ({error}); {hint}"
    if not start:
        return f"the file is empty; {hint}"
    if is_safetensors and start.startswith(PYTORCH_STARTS):
        return f"is a PyTorch file; rename it to {path.stem}.pth"
    if not is_safetensors and SAFETENSORS.match(start):
        return f"is a safetensors file; rename it to {path.stem}.safetensors"
    if is_image_start(start):
        return "is an image, not a weights file; pass it as an image, and a weights file as the model"
    if not start.startswith(ZIP_START) and not SAFETENSORS.match(start) and (found := describe_format(start)):
        return f"is {found[0]}, not a weights file; {found[1] if 'Git' in found[0] else hint}"
    if start.startswith(ZIP_START) or (is_safetensors and SAFETENSORS.match(start)):
        return f"is corrupt or truncated; {hint}"
    return f"is corrupt or not a {'safetensors' if is_safetensors else 'PyTorch weights'} file; {hint}"


def extract_state_dict(content: Any, name: str) -> tuple[Weights, list[str]]:
    """Return the state dict in a checkpoint, unpacked from keys like "state_dict" and without prefixes like "module."."""
    notes = []
    for _ in range(MAX_NESTING):  # a dict in a file can contain itself
        keys = STATE_DICT_KEYS if isinstance(content, Mapping) else ()
        key = next((key for key in keys if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        others = [other for other in content if other != key]
        notes.append(f"weights read from {key!r} in the file" + (f"; ignored: {show_names(others)}" if others else ""))
        content = content[key]
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ModelError(name, f"contains a {kind}, not a state dict; save the weights with {SAVE_EXAMPLE}")
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        others = [key for key, value in content.items() if not isinstance(value, Tensor)]
        reason = f"has values that are not tensors: {show_names(others)}" if others else "is empty"
        raise ModelError(name, f"is not a state dict: it {reason}; save the weights with {SAVE_EXAMPLE}")
    weights = {str(key): value for key, value in content.items()}
    check_tensors(weights, name)
    for _ in range(MAX_NESTING):
        prefix = next((start for start in PREFIXES if all(key.startswith(start) for key in weights)), None)
        if prefix is None:
            break
        notes.append(f"prefix {prefix!r} removed from all names in the file")
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights, notes


def check_tensors(weights: Weights, name: str) -> None:
    """Raise ModelError for tensors that no network has as weights, or that are much larger than their data in the file."""
    for key, tensor in weights.items():
        problem = None
        if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            problem = "it is sparse, nested, quantized or has no values"
        elif tensor.is_complex():
            problem = f"it is {tensor.dtype}"
        elif tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), MAX_EXPANDED_BYTES):
            problem = f"its shape {list(tensor.shape)} repeats a few values"
        if problem:
            raise ModelError(name, f"the tensor {show_names([key])} cannot be used as weights: {problem}")


def show_names(names: Sequence[object]) -> str:
    """Return the first names for a message, shortened.

    >>> show_names(["epoch", "optimizer", 3, "a\\nb", "c"])
    'epoch, optimizer, 3 and 2 more'
    """
    texts = [text if text.isprintable() else ascii(text) for text in map(str, names[:3])]
    listed = ", ".join(text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…" for text in texts)
    return listed + (f" and {len(names) - 3} more" if len(names) > 3 else "")
