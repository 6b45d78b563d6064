"""load_model: by name, from files, from a local server and from modules. No test uses the network."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import shutil
import socket
import time
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save as to_safetensors
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights

import seewhy.models.sources.embedded
from seewhy.errors import ModelError, OfflineError, UnknownName, UsageError
from seewhy.models.device import resolve_device
from seewhy.models.downloads import find_connection_problem
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import list_models, load_model
from seewhy.models.weights import read_weights
from support.model_files import COMMIT, Server, checkpoints, closed_port, one_line, same_weights, saved, use_hub

SQUEEZENET = SqueezeNet1_1_Weights.IMAGENET1K_V1
VIT = "test_vit.r160_in1k"  # timm's own network for tests: 0.4 million weights


def squeezenet(classes: int = 1000) -> nn.Module:
    return torchvision.models.get_model("squeezenet1_1", num_classes=classes)


# the embedded network


def test_embedded_model_has_labels_and_preprocessing() -> None:
    loaded = load_model()
    assert loaded.uri == "embedded" == load_model("seewhy/efficientnet-lite0").uri
    assert len(loaded.labels) == 1000
    assert loaded.labels[654] == "minibus" and loaded.labels[285].startswith("Egyptian cat")
    assert not loaded.module.training
    assert all(parameter.requires_grad for parameter in loaded.module.parameters())
    assert {tensor.device.type for tensor in [*loaded.module.parameters(), *loaded.module.buffers()]} == {"cpu"}
    assert all(tensor.is_contiguous() for tensor in loaded.module.state_dict().values())
    preprocess = loaded.preprocess
    assert (preprocess.size, preprocess.mean, preprocess.std) == ((224, 224), (0.5,) * 3, (0.5,) * 3)
    assert (preprocess.interpolation, preprocess.resize) == ("bicubic", 256)


def test_embedded_weights_have_the_expected_hash() -> None:
    assert load_model().weights_hash == "sha256:31798e29af8e086b942e584f38b628e54f2282d7872f265d7f1ad7853aec8f90"


def test_modified_embedded_file_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seewhy.models.sources.embedded, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"is not the expected file .*pip install --force-reinstall") as error:
        load_model()
    one_line(error)


# torchvision


def test_torchvision_weights_are_read_from_the_cache(tmp_path: Path) -> None:
    network = torchvision.models.resnet18()
    torch.save(network.state_dict(), checkpoints(tmp_path) / "resnet18-f37072fd.pth")
    loaded = load_model("torchvision/resnet18", log=pytest.fail)
    assert same_weights(loaded.module, network) and not loaded.module.training
    assert loaded.uri == "torchvision/resnet18@IMAGENET1K_V1" and loaded.notes == ()
    assert loaded.preprocess.resize == 256 and loaded.labels[0] == "tench"
    bare = load_model("resnet18@IMAGENET1K_V1")
    assert bare.uri == loaded.uri and "torchvision" in bare.notes[0]
    assert bare.weights_hash == loaded.weights_hash


def test_torchvision_weights_are_downloaded_and_cached(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = squeezenet()
    content = saved(network.state_dict())
    name = f"squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[f"/{name}"] = content
    monkeypatch.setattr(SQUEEZENET.value, "url", f"{server.url}/{name}")
    messages: list[str] = []
    assert same_weights(load_model("torchvision/squeezenet1_1", log=messages.append).module, network)
    assert len(messages) == 1 and name in messages[0] and "127.0.0.1" in messages[0]
    server.requests.clear()
    assert same_weights(load_model("torchvision/squeezenet1_1", log=pytest.fail).module, network)
    assert server.requests == []
    # torch.hub prints to stdout, which is reserved for results
    assert capsys.readouterr().out == ""


def test_download_with_a_wrong_hash_is_deleted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/squeezenet1_1-00000000.pth"] = saved(squeezenet().state_dict())
    monkeypatch.setattr(SQUEEZENET.value, "url", f"{server.url}/squeezenet1_1-00000000.pth")
    with pytest.raises(ModelError, match="does not match its name") as error:
        load_model("torchvision/squeezenet1_1")
    assert not isinstance(error.value, OfflineError) and one_line(error)
    assert list(checkpoints(tmp_path).iterdir()) == []


def test_truncated_download_is_deleted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # "300e" is not a hash, so only the length shows the truncation.
    server.files["/net-300e.pth"] = bytes(3_000_000)
    server.truncated.add("/net-300e.pth")
    monkeypatch.setattr(SQUEEZENET.value, "url", f"{server.url}/net-300e.pth")
    with pytest.raises(OfflineError, match=r"ended after 1500000 of 3000000 bytes"):
        load_model("torchvision/squeezenet1_1")
    assert list(checkpoints(tmp_path).iterdir()) == []


def test_missing_file_on_the_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SQUEEZENET.value, "url", f"{server.url}/gone.pth")
    with pytest.raises(OfflineError, match="404"):
        load_model("torchvision/squeezenet1_1")
    assert list(checkpoints(tmp_path).iterdir()) == []


def test_offline_torchvision_fails_within_seconds_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SQUEEZENET.value, "url", f"{closed_port()}/squeezenet1_1-b8a52dc0.pth")
    start = time.perf_counter()
    with pytest.raises(OfflineError) as error:
        load_model("torchvision/squeezenet1_1", log=pytest.fail)
    assert time.perf_counter() - start < 5
    message = one_line(error)
    for part in ("squeezenet1_1-b8a52dc0.pth", "cannot be reached", str(tmp_path / "torch"), "?arch=", "embedded"):
        assert part in message
    assert error.value.model == "torchvision/squeezenet1_1@IMAGENET1K_V1"


def test_server_that_never_answers_times_out() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.perf_counter()
        assert "cannot be reached" in find_connection_problem(
            f"http://127.0.0.1:{silent.getsockname()[1]}/x", seconds=0.3
        )
        assert time.perf_counter() - start < 3


def test_corrupt_cached_file_is_reported(tmp_path: Path) -> None:
    path = checkpoints(tmp_path) / "squeezenet1_1-b8a52dc0.pth"
    path.write_bytes(saved(squeezenet(1).state_dict())[:4000])
    with pytest.raises(ModelError, match=r"b8a52dc0.pth: is corrupt.* delete it") as error:
        load_model("torchvision/squeezenet1_1")
    one_line(error)


def test_code_in_a_cached_file_is_never_executed(tmp_path: Path) -> None:
    (checkpoints(tmp_path) / "squeezenet1_1-b8a52dc0.pth").write_bytes(
        saved({"a": MaliciousPickle(tmp_path / "created")})
    )
    with pytest.raises(ModelError, match="does not execute code"):
        load_model("torchvision/squeezenet1_1")
    assert not (tmp_path / "created").exists()


def test_weights_without_a_classifier() -> None:
    with pytest.raises(ModelError, match="no classifier"):
        load_model("torchvision/vgg16@IMAGENET1K_FEATURES")


# timm


def fill_hub(tmp_path: Path, content: bytes, name: str = "model.safetensors") -> None:
    """Write a file into the hub cache as its client does after a download."""
    repository = tmp_path / "hub" / f"models--timm--{VIT}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / name).write_bytes(content)


def vit(classes: int = 1000) -> nn.Module:
    return timm.create_model("test_vit", num_classes=classes)


@pytest.mark.parametrize("offline", [False, True])
def test_timm_weights_are_read_from_the_hub_cache_offline(
    offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(closed_port(), monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    network = vit()
    fill_hub(tmp_path, to_safetensors(network.state_dict()))
    loaded = load_model("timm/test_vit", log=pytest.fail)
    assert same_weights(loaded.module, network) and not loaded.module.training
    assert loaded.uri == f"timm/{VIT}" and loaded.labels[0] == "tench, Tinca tinca"
    assert loaded.preprocess.size == (160, 160)
    assert "state_dict" not in loaded.module.pretrained_cfg
    bare = load_model(VIT)
    assert bare.uri == loaded.uri and "timm" in bare.notes[0]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_timm_weights_are_downloaded_from_the_hub(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(server.url, monkeypatch)
    network = vit()
    content = to_safetensors(network.state_dict()) if name == "model.safetensors" else saved(network.state_dict())
    server.files[f"/timm/{VIT}/resolve/main/{name}"] = content
    messages: list[str] = []
    assert same_weights(load_model(f"timm/{VIT}", log=messages.append).module, network)
    assert len(messages) == 1 and f"timm/{VIT}" in messages[0]
    server.requests.clear()
    assert same_weights(load_model(f"timm/{VIT}", log=pytest.fail).module, network)
    assert server.requests == []


@pytest.mark.parametrize("offline", [False, True])
def test_offline_timm_fails_within_seconds_with_advice(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(closed_port(), monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    start = time.perf_counter()
    with pytest.raises(OfflineError) as error:
        load_model("timm/test_vit", log=pytest.fail)
    assert time.perf_counter() - start < 5  # the hub's client alone takes over 8 s
    message = one_line(error)
    for part in (f"timm/{VIT}", f"hf download timm/{VIT} model.safetensors", f"?arch=timm/{VIT}", "embedded"):
        assert part in message
    assert ("HF_HUB_OFFLINE is set" in message) == offline


def test_corrupt_file_in_the_hub_cache(tmp_path: Path) -> None:
    fill_hub(tmp_path, to_safetensors(vit().state_dict())[:10_000])
    with pytest.raises(ModelError, match=r"model.safetensors: is corrupt.* delete it") as error:
        load_model("timm/test_vit")
    one_line(error)


def test_code_in_the_hub_cache_is_never_executed(tmp_path: Path) -> None:
    fill_hub(tmp_path, saved({"a": MaliciousPickle(tmp_path / "created")}), "pytorch_model.bin")
    with pytest.raises(ModelError, match="does not execute code"):
        load_model("timm/test_vit")
    assert not (tmp_path / "created").exists()


def test_timm_architecture_without_published_weights() -> None:
    with pytest.raises(ModelError, match=r"no weights for it.*\?arch=timm/"):
        load_model("timm/" + next(name for name in timm.list_models() if not timm.list_pretrained(f"{name}.*")))


# files


class MaliciousPickle:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, created: Path) -> None:
        self.created = created

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.created,)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".pth.tar"])
def test_weights_files_of_all_formats(suffix: str, tmp_path: Path) -> None:
    network = squeezenet(7)
    state = network.state_dict()
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(to_safetensors(state) if suffix == ".safetensors" else saved(state))
    loaded = load_model(f"{path}?arch=torchvision/squeezenet1_1")
    assert same_weights(loaded.module, network) and not loaded.module.training
    assert loaded.labels is None and loaded.preprocess.size == (224, 224)
    assert "7 classes, inferred from the classifier's shape" in loaded.notes
    assert "preprocessing taken from torchvision/squeezenet1_1@IMAGENET1K_V1" in loaded.notes
    assert load_model(loaded.uri).weights_hash == loaded.weights_hash


def test_timm_file_with_num_classes_and_labels(tmp_path: Path) -> None:
    network = vit(3)
    (tmp_path / "weights.safetensors").write_bytes(to_safetensors(network.state_dict()))
    (tmp_path / "labels+.txt").write_text("ant\nbee, honey bee\nçat\n", "utf-8")
    path = f"{tmp_path}/weights.safetensors?arch=timm/test_vit&num_classes=3&labels=labels+.txt"
    loaded = load_model(path)
    assert same_weights(loaded.module, network)
    assert loaded.labels == ("ant", "bee, honey bee", "çat")
    assert loaded.preprocess.size == (160, 160)
    assert load_model(path, labels=["a", "b", "c"]).labels == ("a", "b", "c")
    with pytest.raises(UsageError, match="2 labels for a model with 3 classes"):
        load_model(path, labels=["a", "b"])


def test_published_labels_are_used_if_the_number_of_classes_is_equal(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(saved(vit().state_dict()))
    loaded = load_model(f"{tmp_path}/weights.pth?arch=timm/test_vit")
    assert loaded.labels[654] == "minibus"
    assert f"labels taken from timm/{VIT}, which also has 1000 classes" in loaded.notes


def test_nested_and_prefixed_weights_are_extracted_with_notes(tmp_path: Path) -> None:
    network = squeezenet(2)
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    (tmp_path / "run.pth").write_bytes(saved({"state_dict": state, "epoch": 3, "best": 0.5}))
    loaded = load_model(f"{tmp_path}/run.pth?arch=torchvision/squeezenet1_1")
    assert same_weights(loaded.module, network)
    assert "weights read from 'state_dict' in the file; ignored: epoch, best" in loaded.notes
    assert "prefix 'module.' removed from all names in the file" in loaded.notes
    (tmp_path / "run.pth").write_bytes(saved({"model": network.state_dict()}))
    assert "weights read from 'model' in the file" in load_model(f"{tmp_path}/run.pth?arch=squeezenet1_1").notes


@pytest.mark.parametrize("arch", ["googlenet"])
def test_weights_saved_without_auxiliary_heads(arch: str, tmp_path: Path) -> None:
    # as torchvision builds it with pretrained weights
    network = torchvision.models.get_model(arch, aux_logits=False, init_weights=False, num_classes=2)
    (tmp_path / "weights.pth").write_bytes(saved(network.state_dict()))
    loaded = load_model(f"{tmp_path}/weights.pth?arch=torchvision/{arch}")
    assert same_weights(loaded.module, network) and loaded.module.transform_input


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_never_executed(kind: str, tmp_path: Path) -> None:
    created, path = tmp_path / "created", tmp_path / "weights.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": MaliciousPickle(created)}))
    else:
        torch.save({"state_dict": MaliciousPickle(created)}, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ModelError, match=r"does not execute code|corrupt") as error:
        load_model(f"{path}?arch=torchvision/squeezenet1_1")
    one_line(error)
    assert not created.exists()


def test_pickled_module_is_rejected(tmp_path: Path) -> None:
    torch.save(squeezenet(2), tmp_path / "module.pth")
    with pytest.raises(ModelError, match=r"torchvision.models.squeezenet.SqueezeNet.*model.state_dict\(\)") as error:
        load_model(f"{tmp_path}/module.pth?arch=squeezenet1_1")
    one_line(error)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch.export's own
def test_unsupported_formats_are_rejected_with_advice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # the layout of torch.jit.save, which is deprecated
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl", "version"):
            archive.writestr(f"script/{name}", b"")
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "program.pt2")
    shutil.copy(tmp_path / "program.pt2", tmp_path / "program.pt")
    (tmp_path / "net.onnx").touch()
    for name, message in (
        ("script.pt", "TorchScript.*load the original PyTorch model"),
        ("program.pt", r"rename it to NAME\.pt2, pass it without arch"),
    ):
        with pytest.raises(ModelError, match=message) as error:
            load_model(f"{tmp_path / name}?arch=resnet18")
        one_line(error)
    for name in ("program.pt2", "net.onnx"):
        with pytest.raises(UnknownName, match="no option 'arch'"):
            load_model(f"{tmp_path / name}?arch=resnet18")
        with pytest.raises(ModelError, match="contains its architecture"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty; save or download it again"),
        (b"<!doctype html><html>", r"is a web page \(HTML\), not a weights file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.*git lfs pull"),
        (b"\xff\xd8\xff\xe0JFIF", "is an image, not a weights file"),
        (b"hello", "corrupt"),
        (saved({"a": torch.zeros(3)})[:500], "corrupt"),
        (saved([1, 2]), "contains a list"),
        (saved({"epoch": 3}), "not tensors: epoch"),
        (saved({}), "empty"),
    ],
)
def test_files_without_weights_are_rejected(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ModelError, match=reason) as error:
        read_weights(tmp_path / "weights.pth")
    one_line(error)
    assert "opcode" not in str(error.value) and len(error.value.reason) < 150
    (tmp_path / "weights.safetensors").write_bytes(content)
    is_pytorch = content.startswith(b"PK")
    with pytest.raises(
        ModelError, match="is a PyTorch file; rename it to weights.pth" if is_pytorch else reason
    ) as error:
        read_weights(tmp_path / "weights.safetensors")
    one_line(error)


def test_safetensors_with_the_suffix_of_pytorch(tmp_path: Path) -> None:
    content = to_safetensors({"a": torch.zeros(3)})
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"is a safetensors file; rename it to weights.safetensors"):
        read_weights(tmp_path / "weights.pth")
    (tmp_path / "weights.safetensors").write_bytes(content[:-4])
    with pytest.raises(ModelError, match="is corrupt or truncated; save or download it again"):
        read_weights(tmp_path / "weights.safetensors")


def test_mismatched_weights_name_a_few_keys(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(saved(squeezenet(7).state_dict()))
    with pytest.raises(ModelError, match=r"do not fit .*missing .* and \d+ more; unexpected .*check the arch") as error:
        load_model(f"{tmp_path}/weights.pth?arch=torchvision/mobilenet_v3_small")
    one_line(error)
    assert len(error.value.reason) < 300
    with pytest.raises(ModelError, match=r"its classifier classifier.1.weight has 7 classes, not 8; set the number"):
        load_model(f"{tmp_path}/weights.pth?arch=torchvision/squeezenet1_1&num_classes=8")
    with pytest.raises(ModelError, match="do not fit timm/test_vit"):
        load_model(f"{tmp_path}/weights.pth?arch=timm/test_vit")


def test_weights_that_timm_does_not_check_are_noted(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(saved(squeezenet(7).state_dict()))
    loaded = load_model(f"{tmp_path}/weights.pth?arch=timm/dla46_c")
    assert any("not loaded: base_layer.0.weight" in note for note in loaded.notes)


def test_invalid_file_uris_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(squeezenet(7).state_dict()))
    with pytest.raises(ModelError, match=r"\?arch=timm/resnet18"):
        load_model(path)
    with pytest.raises(UnknownName, match="did you mean 'labels'"):
        load_model(f"{path}?arch=squeezenet1_1&lables=x")
    with pytest.raises(ModelError, match="num_classes=many"):
        load_model(f"{path}?arch=squeezenet1_1&num_classes=many")
    with pytest.raises(UnknownName, match="squeezenet1_1"):
        load_model(f"{path}?arch=squeezenet1_2")
    with pytest.raises(ModelError, match="no such file"):
        load_model(f"{tmp_path}/missing.pth?arch=resnet18")
    with pytest.raises(ModelError, match="folder"):
        load_model(f"{tmp_path}?arch=resnet18")
    with pytest.raises(ModelError, match=r"is a folder; .*otherwise name the weights file in it"):
        load_model(str(tmp_path))


def test_files_that_are_no_models_are_rejected_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("def build():\n    pass\n")
    Path("bus.jpg").write_bytes(b"\xff\xd8\xff\xe0JFIF")
    for name in ("net", "net.py"):
        with pytest.raises(ModelError, match=r"is Python code; .*'net:build' with --allow-code"):
            load_model(name)
    with pytest.raises(ModelError, match="is an image, not a model"):
        load_model("bus.jpg")


# modules


def test_module_is_not_modified() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in network.state_dict().items()}
    loaded = load_model(network, device="cpu", labels=["a", "b", "c", "d"])
    assert loaded.module is network and network.training and network[1].training
    assert loaded.preprocess is None and loaded.labels == ("a", "b", "c", "d") and loaded.notes == ()
    for name, tensor in network.state_dict().items():
        assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])


def test_timm_module_has_preprocessing_and_labels() -> None:
    loaded = load_model(vit())
    assert loaded.preprocess.size == (160, 160) and loaded.labels[654] == "minibus"
    assert len(loaded.notes) == 2
    few = load_model(vit(5), labels=["a", "b", "c", "d", "e"], preprocess=(own := lambda image: image))
    assert few.preprocess is own and few.labels == ("a", "b", "c", "d", "e")
    assert load_model(vit(5)).labels is None
    with pytest.raises(UsageError, match="1 labels for a model with 5 classes"):
        load_model(vit(5), labels=["a"])


def test_loaded_model_is_returned_unchanged() -> None:
    loaded = load_model(nn.Linear(2, 2))
    assert load_model(loaded) is loaded
    assert load_model(loaded, labels=["a", "b"]) == dataclasses.replace(loaded, labels=("a", "b"))


def test_labels_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog \n\n", "utf-8-sig")
    assert load_model(nn.Linear(2, 2), labels=tmp_path / "labels.txt").labels == ("cat", "dog")
    assert load_model(nn.Linear(2, 2), labels=str(tmp_path / "labels.txt")).labels == ("cat", "dog")
    with pytest.raises(UsageError, match=r"missing.txt: no such file; .*one label per line") as error:
        load_model(nn.Linear(2, 2), labels=tmp_path / "missing.txt")
    one_line(error)


def test_errors_about_labels_name_their_file(tmp_path: Path) -> None:
    network = vit(3)
    (tmp_path / "weights.safetensors").write_bytes(to_safetensors(network.state_dict()))
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    (tmp_path / "blank.txt").write_text("\n \n")
    path = f"{tmp_path}/weights.safetensors?arch=timm/test_vit"
    message = r"two.txt: 2 labels for a model with 3 classes; give one label per line"
    for model, labels in ((network, "two.txt"), (path, "two.txt"), (f"{path}&labels=two.txt", None)):
        with pytest.raises(UsageError, match=message):
            load_model(model, labels=labels and str(tmp_path / labels))
    for text, reason in (
        ("blank.txt", "the file is empty"),
        ("two.text", "did you mean 'two.txt'"),
        ("", "is a folder"),
    ):
        with pytest.raises(UsageError, match=rf"{text}: .*{reason}.*give a text file") as error:
            load_model(network, labels=tmp_path / text)
        one_line(error)


def test_other_types_are_rejected() -> None:
    with pytest.raises(UsageError, match="model=3"):
        load_model(3)  # type: ignore[arg-type]


# the hash


def test_hash_depends_on_names_types_shapes_and_bytes() -> None:
    def hash_of(**tensors: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return LoadedModel(module).weights_hash

    values = torch.arange(6.0).reshape(2, 3)
    same = hash_of(a=values, b=torch.zeros(()))
    assert same == hash_of(b=torch.zeros(()), a=values.t().contiguous().t())
    others = [
        hash_of(a=values, c=torch.zeros(())),
        hash_of(a=values.reshape(3, 2), b=torch.zeros(())),
        hash_of(a=values.to(torch.bfloat16), b=torch.zeros(())),
        hash_of(a=values, b=torch.ones(())),
        hash_of(a=values, b=torch.zeros((), dtype=torch.int32)),
        hash_of(a=values),
    ]
    assert len({same, *others}) == 7


def test_weights_without_values_have_no_hash() -> None:
    with pytest.raises(ModelError, match="no values"):
        _ = load_model(nn.Linear(2, 2, device="meta")).weights_hash


# names


def test_list_models() -> None:
    everything = list_models()
    assert everything[0] == "embedded" and len(everything) == len(set(everything)) > 1000
    assert "torchvision/resnet18" in everything and "timm/resnet50.a1_in1k" in everything
    assert "torchvision/fcn_resnet50" in everything and "torchvision/fasterrcnn_resnet50_fpn" in everything
    assert not [uri for uri in everything if "raft" in uri or "quantized" in uri or "r3d_18" in uri]
    assert list_models("torchvision/*") == [uri for uri in everything if uri.startswith("torchvision/")]
    assert list_models("ResNet50.a1*") == ["timm/resnet50.a1_in1k", "timm/resnet50.a1h_in1k"]
    assert list_models("resnet1[08]")[0] == "torchvision/resnet18"
    assert list_models("no such model") == []


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("resnet81", "resnet18"),
        ("embeded", "embedded"),
        ("timm/resnet50.a1_in1kk", "timm/resnet50.a1_in1k"),
        ("torchvision/ResNet18", "torchvision/resnet18"),
    ],
)
def test_unknown_names_have_close_matches(name: str, close: str) -> None:
    with pytest.raises(UnknownName, match="seewhy models") as error:
        load_model(name)
    assert error.value.kind == "model" and close in error.value.close_matches
    one_line(error)


def test_names_of_the_wrong_library_or_task() -> None:
    with pytest.raises(UnknownName, match="There is 'timm/convnextv2_base'"):
        load_model("torchvision/convnextv2_base")
    with pytest.raises(UnknownName, match="IMAGENET1K_V1, IMAGENET1K_V2"):
        load_model("resnet50@IMAGENET1K_V3")
    with pytest.raises(UnknownName, match=r"did you mean 'open_clip'.*torchvision/NAME, timm/NAME"):
        load_model("openclip/ViT-B-32")
    for name in ("raft_small", "torchvision/r3d_18"):
        with pytest.raises(ModelError, match=r"does not take single images.*choose another"):
            load_model(name)
    with pytest.raises(ModelError, match="download it and pass the file"):
        load_model("https://example.org/net.pth")


# devices


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device() == resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="'cuda': none available; use auto or cpu"):
        load_model(device="cuda")
    with pytest.raises(UnknownName, match="auto, cuda, mps or cpu"):
        load_model(device="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda") and resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="2 available"):
        resolve_device("cuda:2")
    # seewhy never moves a user's module
    with pytest.raises(UsageError, match=r"model.to\('cuda'\)"):
        load_model(nn.Linear(2, 2), device="cuda")
