"""load_model: segmentation, detection, random weights, the Hugging Face hub, folders and factories, without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file

import seewhy
from seewhy.errors import ModelError, OfflineError, UnknownName, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loading import load_model
from seewhy.models.local_files import UnreadableFile
from seewhy.models.sources.repository import check_layer_counts
from seewhy.models.sources.torchvision import ZERO_EPSILON, get_detector_size, list_names
from support.model_files import (
    COMMIT,
    Server,
    as_hub,
    checkpoints,
    closed_port,
    one_line,
    photo,
    same_weights,
    saved,
    tiny_vit,
    use_hub,
)

DETECTOR = "ssdlite320_mobilenet_v3_large"
SEGMENTER = "lraspp_mobilenet_v3_large"


# torchvision: segmentation and detection


def test_segmentation_by_name(tmp_path: Path) -> None:
    network = torchvision.models.get_model(SEGMENTER, weights=None, weights_backbone=None, num_classes=21)
    torch.save(network.state_dict(), checkpoints(tmp_path) / "lraspp_mobilenet_v3_large-d234d4ea.pth")
    loaded = load_model(f"torchvision/{SEGMENTER}")
    assert same_weights(loaded.module, network) and len(loaded.labels) == 21 and loaded.labels[15] == "person"
    assert loaded.preprocess.size == (520, 520) and any("squashed to 520x520" in note for note in loaded.notes)
    inputs, view = loaded.preprocess(photo())
    assert view.visible_box == (0, 0, 160, 96)
    assert loaded.module(inputs)["out"].shape == (1, 21, 520, 520)


def test_segmentation_weights_without_auxiliary_head(tmp_path: Path) -> None:
    arch = "deeplabv3_mobilenet_v3_large"
    network = torchvision.models.get_model(arch, weights=None, weights_backbone=None, num_classes=3, aux_loss=False)
    (tmp_path / "weights.pth").write_bytes(saved(network.state_dict()))
    loaded = load_model(f"{tmp_path}/weights.pth?arch=torchvision/{arch}&labels=a,b,c")
    assert same_weights(loaded.module, network) and loaded.labels == ("a", "b", "c")
    assert "3 classes, inferred from the classifier's shape" in loaded.notes


def test_detector_does_not_resize_its_input_again(tmp_path: Path) -> None:
    network = torchvision.models.get_model(DETECTOR, weights=None, weights_backbone=None, num_classes=91)
    torch.save(network.state_dict(), checkpoints(tmp_path) / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth")
    loaded = load_model(f"torchvision/{DETECTOR}")
    assert same_weights(loaded.module, network) and loaded.labels[1] == "person"
    assert (loaded.preprocess.mean, loaded.preprocess.std) == ((0.0,) * 3, (1.0,) * 3)
    assert any("size that the network resizes to internally" in note for note in loaded.notes)
    inputs, _ = loaded.preprocess(photo())
    transformed, _ = loaded.module.transform(list(inputs))
    mean = torch.tensor(loaded.module.transform.image_mean).view(-1, 1, 1)
    std = torch.tensor(loaded.module.transform.image_std).view(-1, 1, 1)
    assert torch.allclose(transformed.tensors[0], (inputs[0] - mean) / std, atol=1e-6)
    expected, output = network.eval()(list(inputs))[0], loaded.module(inputs)[0]
    assert all(torch.allclose(expected[key].float(), output[key].float(), atol=1e-4) for key in expected)


def test_no_detector_resizes_an_input_of_its_size() -> None:
    for name in list_names("detection"):
        fixed = {"ssd300_vgg16": 300, DETECTOR: 320, "fasterrcnn_mobilenet_v3_large_320_fpn": 320}
        assert get_detector_size(name) == (fixed.get(name, 800),) * 2
        with torch.device("meta"):
            network = torchvision.models.get_model(name, weights=None, weights_backbone=None).eval()
        image = torch.rand(3, *get_detector_size(name))
        assert torch.equal(network.transform.resize(image)[0], image)
    assert set(ZERO_EPSILON) <= set(list_names("detection"))


def test_offline_segmentation_and_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SEGMENTER, DETECTOR):
        entry = torchvision.models.get_model_weights(name).DEFAULT
        monkeypatch.setattr(entry.value, "url", f"{closed_port()}/net-00000000.pth")
        with pytest.raises(OfflineError, match="cannot be reached") as error:
            load_model(f"torchvision/{name}")
        one_line(error)


# random weights, other heads, other labels


@pytest.mark.parametrize("uri", ["timm/test_vit", "torchvision/squeezenet1_1", f"torchvision/{SEGMENTER}"])
def test_random_weights_are_reproducible_and_noted(uri: str) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    loaded = load_model(f"{uri}?pretrained=false")
    assert torch.equal(torch.rand(2), expected)  # the caller's random state is restored
    assert any("RANDOM WEIGHTS" in note for note in loaded.notes) and not loaded.module.training
    assert loaded.uri.endswith("?pretrained=false")
    assert load_model(loaded.uri).weights_hash == loaded.weights_hash
    few = load_model(f"{uri}?pretrained=false&num_classes=2&labels=cat,dog")
    assert few.labels == ("cat", "dog") and load_model(few.uri).labels == ("cat", "dog")


def test_untrained_head_on_published_weights_is_rejected() -> None:
    with pytest.raises(
        ModelError, match=r"1000 classes, and a head for 7 would be random; pass the weights.*\?arch="
    ) as e:
        load_model("timm/test_vit?num_classes=7")
    one_line(e)
    with pytest.raises(ModelError, match="num_classes=x"):
        load_model("timm/test_vit?num_classes=x")
    with pytest.raises(ModelError, match="use pretrained=true or pretrained=false"):
        load_model("timm/test_vit?pretrained=maybe")
    with pytest.raises(UnknownName, match="did you mean 'pretrained'"):
        load_model("timm/test_vit?pretraned=false")
    with pytest.raises(UsageError, match="2 labels for a model with 1000 classes"):
        load_model("timm/test_vit?pretrained=false&labels=cat,dog")


# transformers


def test_transformers_classifier_from_a_folder(tmp_path: Path) -> None:
    network = tiny_vit(tmp_path / "vit")
    loaded = load_model(f"local-dir:{tmp_path}/vit")
    assert same_weights(loaded.module, network) and loaded.labels == ("cat", "dog", "bus") and loaded.notes == ()
    inputs, _ = loaded.preprocess(photo())
    assert torch.equal(loaded.module(inputs).logits, network(inputs).logits)
    e = seewhy.explain(loaded, photo(), targets="dog")
    assert e.heatmap().shape == (32, 32)
    random = load_model(f"local-dir:{tmp_path}/vit?pretrained=false")
    assert "RANDOM" in random.notes[0] and not same_weights(random.module, network)
    assert load_model(random.uri).weights_hash == random.weights_hash


@pytest.mark.parametrize("uri", ["hf/me/vit", "hf-hub:me/vit", "hf/me/vit@v2"])
def test_transformers_model_is_read_from_the_hub_cache_offline(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(closed_port(), monkeypatch)
    network = tiny_vit(tmp_path / "vit")
    as_hub(tmp_path / "vit", tmp_path, "me/vit", ref="v2" if "@" in uri else "main")
    loaded = load_model(uri, log=pytest.fail)
    assert same_weights(loaded.module, network) and loaded.uri == uri and loaded.preprocess.size == (32, 32)


def test_transformers_model_is_downloaded_from_the_hub(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_hub(server.url, monkeypatch)
    network = tiny_vit(tmp_path / "vit")
    for file in (tmp_path / "vit").iterdir():
        server.files[f"/me/vit/resolve/main/{file.name}"] = file.read_bytes()
        server.files[f"/me/vit/resolve/0123456789abcdef0123456789abcdef01234567/{file.name}"] = file.read_bytes()
    messages: list[str] = []
    assert same_weights(load_model("hf/me/vit", log=messages.append).module, network)
    assert "downloading me/vit" in messages[0]
    server.requests.clear()
    load_model("hf/me/vit", log=pytest.fail)
    assert server.requests == []


@pytest.mark.parametrize("offline", [False, True])
def test_offline_hub_gives_advice(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(closed_port(), monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(OfflineError, match=r"hf download me/vit --revision v2.*local-dir:FOLDER") as error:
        load_model("hf/me/vit@v2")
    assert ("HF_HUB_OFFLINE is set" in one_line(error)) == offline


def test_segmentation_and_detection_of_transformers(tmp_path: Path) -> None:
    small = dict(hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8)
    config = transformers.SegformerConfig(**small, num_labels=2, id2label={0: "road", 1: "car"})
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "seg")
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "seg")
    loaded = load_model(f"local-dir:{tmp_path}/seg")
    assert loaded.labels == ("road", "car") and loaded.module(loaded.preprocess(photo())[0]).logits.shape[1] == 2
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16, image_size=[64, 64],
        num_detection_tokens=5,
    )  # fmt: skip
    transformers.YolosForObjectDetection(config).save_pretrained(tmp_path / "det")
    transformers.YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(tmp_path / "det")
    loaded = load_model(f"local-dir:{tmp_path}/det")
    assert loaded.preprocess.size == (64, 64) and "keeps the aspect ratio" in loaded.notes[0]
    assert loaded.module(loaded.preprocess(photo())[0]).pred_boxes.shape == (1, 5, 4)


def test_unusable_folders_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_error(match: str, uri: str = f"local-dir:{tmp_path}") -> None:
        with pytest.raises(ModelError, match=match) as error:
            load_model(uri)
        one_line(error)

    check_error("is not a folder", f"local-dir:{tmp_path}/missing")
    check_error("has none of config.json, open_clip_config.json.*save_pretrained")
    check_error("is a folder; if it contains a config.json, use 'local-dir:", str(tmp_path))
    check_error("not a valid name on the Hugging Face hub; use hf/ORG/NAME", "hf/a/b/c")
    config = tmp_path / "config.json"
    config.write_text("{")
    check_error("is corrupt")
    config.write_text("{}")
    check_error("has neither an architecture .*nor a model_type")
    config.write_text('{"model_type": "vitt"}')
    check_error("transformers cannot build it")
    config.write_text('{"architecture": "resnet81"}')
    check_error("has none of model.safetensors")
    check_error("timm cannot build it", f"local-dir:{tmp_path}?pretrained=false")
    check_error("num_classes is defined by its config", f"local-dir:{tmp_path}?num_classes=3")
    config.write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 1,
                                  "hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8}))  # fmt: skip
    check_error("takes input_ids, not images", f"local-dir:{tmp_path}?pretrained=false")
    tiny_vit(tmp_path)
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "architectures": ["Own"], "auto_map": {"AutoModel": "own.Own"}}))
    check_error("needs code from its repository|transformers cannot build it")
    config.write_text(json.dumps(content))
    (tmp_path / "model.safetensors").write_bytes(b"hello")
    check_error("its weights .* cannot be loaded")
    monkeypatch.setitem(sys.modules, "transformers", None)
    check_error(r"transformers is not installed; pip install 'seewhy\[hf\]'")


def test_folder_without_a_processor_and_without_some_weights(tmp_path: Path) -> None:
    network = tiny_vit(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)
    (tmp_path / "processor_config.json").unlink(missing_ok=True)
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("classifier")}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(f"local-dir:{tmp_path}")
    assert any("there is no preprocessor_config.json, so ImageNet's at 32x32 is assumed" in n for n in loaded.notes)
    assert any("missing in the weights, so random: classifier.bias, classifier.weight" in note for note in loaded.notes)
    loaded = load_model(f"local-dir:{tmp_path}", preprocess=Preprocess.imagenet(32))
    assert not any("preprocessing" in note for note in loaded.notes)


def test_missing_processor_differs_from_unreachable_processor(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_vit(tmp_path / "vit")
    for name in ("preprocessor_config.json", "processor_config.json"):
        (tmp_path / "vit" / name).unlink(missing_ok=True)
    use_hub(closed_port(), monkeypatch)
    as_hub(tmp_path / "vit", tmp_path, "me/cached")  # the cache does not show which other files the repository has
    (note,) = load_model("hf/me/cached").notes
    assert "preprocessor_config.json is not on this machine and could not be downloaded, so ImageNet's at 32x32" in note
    use_hub(server.url, monkeypatch)
    for file in (tmp_path / "vit").iterdir():
        for commit in ("main", COMMIT):
            server.files[f"/me/vit/resolve/{commit}/{file.name}"] = file.read_bytes()
    (note,) = load_model("hf/me/vit").notes
    assert "there is no preprocessor_config.json, so ImageNet's at 32x32" in note
    use_hub(closed_port(), monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_model("hf/me/vit", log=pytest.fail).notes == (note,)  # the cache records that the file does not exist


def test_sharded_weights_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_vit(tmp_path / "vit")
    (tmp_path / "vit" / "model.safetensors").unlink()
    network.save_pretrained(tmp_path / "vit", max_shard_size="8KB")
    shards = sorted(path.name for path in (tmp_path / "vit").glob("*.safetensors"))
    assert len(shards) > 1
    loaded = load_model(f"local-dir:{tmp_path}/vit")
    assert same_weights(loaded.module, network) and loaded.notes == ()
    use_hub(closed_port(), monkeypatch)
    as_hub(tmp_path / "vit", tmp_path, "me/vit")
    assert same_weights(load_model("hf/me/vit").module, network)
    (tmp_path / "vit" / shards[0]).unlink()
    with pytest.raises(ModelError, match=f"has none of {shards[0]}") as error:
        load_model(f"local-dir:{tmp_path}/vit")
    one_line(error)


def test_sharded_weights_of_timm(tmp_path: Path) -> None:
    network = timm.create_model("test_vit", num_classes=3)
    state = network.state_dict()
    shards = {name: f"model-0000{index % 2 + 1}-of-00002.safetensors" for index, name in enumerate(state)}
    for shard in set(shards.values()):
        save_file({name: state[name] for name in state if shards[name] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    settings = {"input_size": [3, 160, 160], "fixed_input_size": True, "num_classes": 3, "classifier": "head"}
    config = {"architecture": "test_vit", "num_classes": 3, "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert same_weights(load_model(f"local-dir:{tmp_path}").module, network)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        *(
            (json.dumps({"weight_map": {"a": name}}), "shards must be in the same folder")
            for name in ("../../x.safetensors", "/x.safetensors", "a\\x.safetensors", "..")
        ),
        ("{", "is corrupt or not an index of sharded weights"),
        ('{"weight_map": [1]}', "is corrupt or not an index of sharded weights"),
        ('{"weight_map": {"a": 1}}', "is corrupt or not an index of sharded weights"),
        ("{}", "is corrupt or not an index of sharded weights"),
    ],
)
def test_invalid_shard_index_is_rejected(index: str, reason: str, tmp_path: Path) -> None:
    tiny_vit(tmp_path / "a" / "vit")
    (tmp_path / "a" / "vit" / "model.safetensors").rename(tmp_path / "x.safetensors")
    (tmp_path / "a" / "vit" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=reason) as error:
        load_model(f"local-dir:{tmp_path}/a/vit")
    one_line(error)


# timm from a folder


def test_timm_from_a_folder_and_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(closed_port(), monkeypatch)
    network = timm.create_model("test_vit", num_classes=3)
    (tmp_path / "net").mkdir()
    config = {"architecture": "test_vit", "num_classes": 3, "label_names": ["n1", "n2", "n3"],
              "label_descriptions": {"n1": "cat", "n2": "dog", "n3": "bus"},
              "pretrained_cfg": {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 3,
                                 "fixed_input_size": True,
                                 "interpolation": "bicubic", "crop_pct": 0.95, "classifier": "head"}}  # fmt: skip
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), tmp_path / "net" / "model.safetensors")
    loaded = load_model(f"local-dir:{tmp_path}/net")
    assert same_weights(loaded.module, network) and loaded.labels == ("cat", "dog", "bus")
    assert loaded.preprocess.size == (160, 160) and loaded.preprocess.mean == (0.5,) * 3
    as_hub(tmp_path / "net", tmp_path, "me/net")
    assert load_model("hf-hub:me/net").weights_hash == loaded.weights_hash
    random = load_model("hf-hub:me/net?pretrained=false")
    assert "RANDOM" in random.notes[0] and load_model(random.uri).weights_hash == random.weights_hash


# the user's own code


def test_factory_runs_only_with_allow_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets_for_a_test.py").write_text(
        "from torch import nn\n"
        "def build(classes=2):\n    return nn.Sequential(nn.Conv2d(3, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "def number():\n    return 3\n"
        "def broken():\n    raise OSError('no luck')\n"
        "def imports():\n    import no_such_package\n"
        "def weights():\n    return {}\n"
    )
    uri = "my_nets_for_a_test:build?classes=3&labels=a,b,c"
    with pytest.raises(ModelError, match=r"runs code of that module.*--allow-code, or allow_code=True") as error:
        load_model(uri)
    one_line(error)
    assert "my_nets_for_a_test" not in sys.modules
    loaded = load_model(uri, allow_code=True)
    assert loaded.labels == ("a", "b", "c") and not loaded.module.training and loaded.uri == uri
    assert loaded.preprocess == Preprocess.imagenet(224) and "is assumed" in loaded.notes[0]
    assert load_model(uri, allow_code=True, preprocess=Preprocess.imagenet(64)).notes == ()
    for name, reason in (
        ("my_nets_for_a_test:biuld", "has no function 'biuld' - did you mean 'build'"),
        ("my_nets_for_a_test:number", "returned int; it must return an nn.Module"),
        ("my_nets_for_a_test:broken", "failed with OSError: no luck"),
        ("my_missing_nets:build", "there is no module my_missing_nets in this folder .*add that folder to PYTHONPATH"),
        ("my_nets_for_a_tset:build", "did you mean 'my_nets_for_a_test'?"),
        ("my_nets_for_a_test:imports", "needs the module no_such_package, which Python does not find; install it"),
        ("my_nets_for_a_test:weights", "returned dict; .*load_state_dict"),
        ("my_nets_for_a_test:zzz", "has no function 'zzz' - it has build"),
    ):
        with pytest.raises(ModelError, match=reason) as error:
            load_model(name, allow_code=True)
        one_line(error)
    assert str(tmp_path) not in sys.path
    sys.modules.pop("my_nets_for_a_test")


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from seewhy.cli.main import main

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        return end.value.code, *capsys.readouterr()

    code, out, err = run("layers", "timm/test_vit?pretrained=false")
    assert code == 0 and "blocks.5" in out and "RANDOM WEIGHTS" in err
    code, _, err = run("layers", "torchvision.models:squeezenet1_1")
    assert code == 2 and "--allow-code" in err
    code, out, err = run("layers", "torchvision.models:squeezenet1_1", "--allow-code")
    assert code == 0 and "features" in out and "26 layers" in out and "is assumed" in err


def test_names_of_classes_are_no_numbers_of_layers() -> None:
    """ "soccer player" of ImageNet-22k contains "layer", and its index is over the limit on layers."""
    check_layer_counts(
        {"num_hidden_layers": 12, "label2id": {"soccer player": 15_000}, "id2label": {"15000": "player"}}
    )
    for config in ({"num_hidden_layers": 10**6}, {"vision_config": {"depths": [2, 10**6]}}):
        with pytest.raises(UnreadableFile, match="is over 10,000"):
            check_layer_counts(config)
