"""Weights, configs and labels that are damaged or hostile: one line, in bounded time and memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import seewhy
from seewhy.errors import ModelError, TargetError, UsageError
from seewhy.images.loading import load_image
from seewhy.images.preprocess import Preprocess
from seewhy.models.labels import read_labels
from seewhy.models.local_files import UnreadableFile, read_json
from seewhy.models.pickles import check_pickles
from seewhy.models.sources.timm import labels_from_config
from seewhy.models.sources.transformers import read_config_labels
from seewhy.models.weights import read_weights
from seewhy.storage import records
from seewhy.targets import Similarity
from support.untrusted_files import make_network

ARCHITECTURE = "timm/test_resnet"
HEAD = "fc.weight"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return timm.create_model(ARCHITECTURE.removeprefix("timm/")).state_dict()


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return f"{path}?arch={ARCHITECTURE}"


def test_a_state_dict_that_contains_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    with pytest.raises(ModelError, match="has values that are not tensors: state_dict"):
        seewhy.load_model(save(tmp_path / "weights.pth", content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: torch.tensor(1.0), r"do not fit .* wrong shape fc\.weight \(\[\], not"),
        (lambda: torch.zeros(3_000_000, 1), "its classifier has 3,000,000 classes; if that is correct, add"),
        (lambda: torch.zeros(1, 1).expand(10**9, 512), r"its shape \[1000000000, 512\] repeats a few values"),
        (lambda: torch.zeros(5, 5, dtype=torch.complex64), r"it is torch\.complex64"),
        (lambda: torch.eye(5).to_sparse(), "it is sparse"),
        (lambda: torch.zeros(5, 5, device="meta"), "has no values"),
    ],
)  # fmt: skip
def test_a_head_that_is_no_matrix_of_numbers_is_refused(
    weights: dict[str, Tensor], tmp_path: Path, change: Callable[[], Tensor], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        seewhy.load_model(save(tmp_path / "weights.pth", {**weights, HEAD: change()}))


def test_integers_are_not_converted_to_weights(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """PyTorch converts quantized values without their scale, and the maps would be of another network."""
    uri = save(tmp_path / "weights.pth", {name: value.to(torch.int8) for name, value in weights.items()})
    with pytest.raises(ModelError, match=r"is torch\.int8, not torch\.float32; save the weights unquantized"):
        seewhy.load_model(uri)
    assert seewhy.load_model(save(tmp_path / "half.pth", {name: value.half() for name, value in weights.items()}))


def test_names_in_messages_are_short(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """A key of megabytes, thousands of keys, and control characters."""
    names: list[Any] = ["module." * 100_000, "\x1b[2J\n", ("a", 1)]
    for name in names:
        with pytest.raises(ModelError) as error:
            seewhy.load_model(save(tmp_path / "weights.pth", {**weights, name: torch.zeros(1)}))
        assert len(str(error.value)) < 1000 and str(error.value).isprintable()
    with pytest.raises(ModelError, match="not tensors: 0, 1, 2 and 997 more"):
        read_weights(save(tmp_path / "weights.pth", {str(number): number for number in range(1000)}).partition("?")[0])


def archive(path: Path, content: bytes, method: int = zipfile.ZIP_STORED, data: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a/data.pkl", content)
        file.writestr("a/version", "3\n")
        file.writestr("a/data/0", data)
    return path


def test_a_pickle_of_exponential_size_is_refused(tmp_path: Path) -> None:
    """A tuple of two times the same tuple, 60 levels deep, as the key of a dict: its hash takes centuries."""
    levels = b"".join(bytes([ord("h"), at, ord("h"), at, 0x86, ord("q"), at + 1]) for at in range(60))
    content = b"\x80\x02}K\x01K\x01\x86q\x00" + levels + b"K\x01s."
    with pytest.raises(ModelError, match="its pickle contains itself too often"):
        read_weights(archive(tmp_path / "new.pth", content))
    start = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (tmp_path / "old.pth").write_bytes(start + content + pickle.dumps([], 2))
    with pytest.raises(ModelError, match="its pickle contains itself too often"):
        read_weights(tmp_path / "old.pth")


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "bomb.pth", pickle.dumps({}, 2), zipfile.ZIP_DEFLATED, bytes(10_000_000))
    with pytest.raises(ModelError, match="is a compressed archive, which PyTorch does not write"):
        read_weights(path)


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x05\x06" + b"\xff" * 18)
    with pytest.raises(ModelError, match="is corrupt or not a PyTorch weights file"):
        read_weights(path)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"weight_map": {}}', '{"weight_map": {"a": "x.index.json"}}', '{"weight_map": {"a": "x\\u0000"}}'],
)
def test_a_hostile_index_of_shards_is_one_line(tmp_path: Path, text: str) -> None:
    """An index that lists none made timm download other weights; one that lists itself was read until the stack ended."""
    (tmp_path / "x.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"index of sharded weights|lists the shard"):
        read_weights(tmp_path / "x.index.json")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".index.json"])
def test_weights_that_are_no_regular_file_are_refused(tmp_path: Path, suffix: str) -> None:
    """A pipe that nothing writes to, a device, a link to itself, and a sparse file of 10 GB."""
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    (tmp_path / f"sparse{suffix}").touch()
    os.truncate(tmp_path / f"sparse{suffix}", 10 * 2**30)
    for name in ("pipe", "zero", "loop", "sparse"):
        with pytest.raises(ModelError, match=r"regular file|no such file|corrupt"):
            seewhy.load_model(f"{tmp_path / name}{suffix}?arch={ARCHITECTURE}")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "~nobody-has-this-name/x", "\udcff"])
def test_impossible_names_are_usage_errors(name: str) -> None:
    """Over 255 bytes, with a null byte, of a home folder that does not exist, not UTF-8."""
    for uri in (name, f"{name}.pth?arch={ARCHITECTURE}", f"local-dir:{name}", f"embedded?labels={name}.txt"):
        with pytest.raises(UsageError):
            seewhy.load_model(uri)
    with pytest.raises(UsageError, match="labels"):
        read_labels(name)


def test_a_long_list_of_labels_is_no_file_name() -> None:
    assert read_labels(",".join("a" * 300)) == ("a",) * 300


def test_labels_from_pipes_and_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell passes <(command) as a pipe, which is read. A pipe that nothing writes to, or a device, ends in one line."""
    monkeypatch.setattr(records, "PATIENCE", 0.05)
    reading, writing = os.pipe()
    os.write(writing, "cat\n狗\n".encode())
    os.close(writing)
    assert read_labels(f"/dev/fd/{reading}") == ("cat", "狗")
    os.close(reading)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 10 * 2**30)
    (tmp_path / "loop").symlink_to("loop")
    for path, reason in {
        tmp_path / "pipe": "no data for 0.05 seconds from this pipe or device",
        Path("/dev/zero"): "more than 64 MB",
        tmp_path / "sparse": "more than 64 MB",
        tmp_path / "loop": "[Ss]ymbolic links",
        tmp_path: "is a folder",
    }.items():
        with pytest.raises(UsageError, match=reason):
            read_labels(path)


def test_images_to_compare_with_do_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """like:pipe, and an image that is a pipe."""
    monkeypatch.setattr(records, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "pipe.png")
    pixels = load_image(seewhy.sample("coffee"))
    with pytest.raises(TargetError, match=r"no data for 0\.05 seconds"):
        seewhy.explain(
            make_network(),
            pixels,
            preprocess=Preprocess.imagenet(16),
            layers="0",
            targets=Similarity(tmp_path / "pipe.png"),
        )


def test_a_folder_with_pipes_or_endless_configs_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    """The libraries read other files than config.json too."""
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": ARCHITECTURE.removeprefix("timm/")}))
    assert seewhy.load_model(f"local-dir:{tmp_path}").module
    os.mkfifo(tmp_path / "generation_config.json")
    with pytest.raises(ModelError, match=r"generation_config\.json is not a regular file"):
        seewhy.load_model(f"local-dir:{tmp_path}")
    (tmp_path / "generation_config.json").unlink()
    for text, message in {
        "[" * 100_000: "nested too deeply",
        '{"architecture": ' + "[" * 100 + "]" * 100 + "}": "nested too deeply",
        '{"model_type": "vit", "num_hidden_layers": 100000000}': "num_hidden_layers is over 10,000",
    }.items():
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=message):
            seewhy.load_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").touch()
    os.truncate(tmp_path / "config.json", 10 * 2**30)
    with pytest.raises(ModelError, match=r"config\.json is larger than 64 MB"):
        seewhy.load_model(f"local-dir:{tmp_path}")


def test_labels_in_a_config_can_be_anything(tmp_path: Path) -> None:
    """A label with a number of a million millions needed as many names."""
    assert labels_from_config({"label_names": 5}, 7) is None
    assert labels_from_config({"label_names": ["a", "b"], "label_descriptions": 7}, 2) == ("a", "b")
    config = type("Config", (), {"id2label": {"0": "a", "1000000000000": "b"}})
    assert read_config_labels(config, "ViTForImageClassification") is None
    (tmp_path / "x.json").write_text("NaN]")
    with pytest.raises(UnreadableFile):
        read_json(tmp_path / "x.json")


def test_an_input_size_in_a_config_has_a_limit() -> None:
    with pytest.raises(UsageError, match="the limit is 100,000,000 pixels"):
        Preprocess.imagenet(10**6)


def test_a_number_of_classes_with_thousands_of_digits(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="must be an integer of at least 1, with at most 9 digits"):
        seewhy.load_model(f"{ARCHITECTURE}?pretrained=false&num_classes={'9' * 5000}")


def test_a_file_that_was_read_is_not_changed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    (tmp_path / "w.pth").write_bytes(buffer.getvalue())
    read_weights(tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == buffer.getvalue()


def test_a_zip_file_behind_a_pickle_does_not_hide_it(tmp_path: Path) -> None:
    """PyTorch decides by the first bytes of a file, so the check does as well."""
    path = tmp_path / "weights.pth"
    value: object = ("a", "b")
    for _ in range(40):
        value = (value, value)
    path.write_bytes(pickle.dumps([value], protocol=2))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", b"")
    with open(path, "ab") as file:
        file.write(buffer.getvalue())
    with pytest.raises(ValueError, match="contains itself too often"):
        check_pickles(path)


def test_long_flat_lists_in_a_checkpoint_are_no_bombs(tmp_path: Path) -> None:
    """A checkpoint may contain millions of logged numbers."""
    path = tmp_path / "weights.pth"
    path.write_bytes(
        b"".join(pickle.dumps(values, protocol=2) for values in ([0.5] * 300_000, [[1, 2]] * 1000, 0, 0, 0))
    )
    check_pickles(path)
