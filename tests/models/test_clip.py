"""CLIP models of open_clip and transformers: classifiers whose classes are texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import tokenizers
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

import seewhy
from seewhy.errors import ModelError, OfflineError, UnknownName
from seewhy.models.loading import load_model
from support.model_files import COMMIT, Server, as_hub, closed_port, one_line, photo, use_hub

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a small CLIP model in the format of open_clip on the hub."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"size": [32, 32]}})
    )
    model = open_clip.CLIP(**CONFIG)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def load_original(folder: Path) -> tuple[Any, Any, Any]:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


def test_open_clip_equals_the_original(folder: Path) -> None:
    loaded = load_model(f"local-dir:{folder}?labels=cat,dog")
    model, transform, tokenizer = load_original(folder)
    assert loaded.labels == ("cat", "dog") and any("a photo of a LABEL" in note for note in loaded.notes)
    inputs, _ = loaded.preprocess(photo())
    assert torch.allclose(inputs[0], transform(Image.fromarray(photo())), atol=1e-6)
    with torch.no_grad():
        texts = model.encode_text(tokenizer(["a photo of a cat", "a photo of a dog"]), normalize=True)
        embedding = model.encode_image(inputs, normalize=True)
        output = loaded.module(inputs)
    assert torch.allclose(output["embedding"], embedding, atol=1e-6)
    assert torch.allclose(output["logits"], model.logit_scale.exp() * embedding @ texts.T, atol=1e-4)
    assert torch.allclose(loaded.embed_text(["a photo of a cat", "a photo of a dog"]), texts, atol=1e-6)
    assert load_model(loaded.uri).weights_hash == loaded.weights_hash


def test_open_clip_can_be_explained(folder: Path) -> None:
    e = seewhy.explain(load_model(f"local-dir:{folder}"), photo(), labels=["cat", "dog"], targets=["dog"])
    assert e.labels == ("cat", "dog") and torch.isfinite(e.heatmap()).all()
    plain = load_model(f"local-dir:{folder}")
    assert plain.labels is None and set(plain.module(plain.preprocess(photo())[0])) == {"embedding"}
    labelled = load_model(plain, labels=["cat", "dog"])
    assert plain.module.text is None and labelled.module.visual is plain.module.visual  # not modified
    assert load_model(labelled, labels=["cat", "dog"]) is labelled
    assert len(load_model(labelled, labels=["bus"]).module(plain.preprocess(photo())[0])["logits"][0]) == 1


def test_open_clip_from_the_hub_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(closed_port(), monkeypatch)
    as_hub(folder, tmp_path, "me/clip")
    assert load_model("hf/me/clip").weights_hash == load_model(f"local-dir:{folder}").weights_hash
    random = load_model(f"local-dir:{folder}?pretrained=false")
    assert any("RANDOM" in note for note in random.notes)
    assert load_model(random.uri).weights_hash == random.weights_hash


def save_word_tokenizer(folder: Path) -> None:
    """Save a fast tokenizer with one token per word."""
    vocabulary = {"[UNK]": 0, "[PAD]": 1, **{word: i for i, word in enumerate(("a", "photo", "of", "cat", "dog"), 2)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)


def use_hub_tokenizer(folder: Path) -> None:
    """Configure the small CLIP for a tokenizer in its own folder, like many repositories of the hub."""
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "hf_tokenizer_name": "elsewhere/words"}}
    config = {"model_cfg": config, "preprocess_cfg": {"size": [32, 32]}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def test_open_clip_downloads_the_tokenizer_of_a_repository(
    folder: Path,
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_hub(server.url, monkeypatch)
    use_hub_tokenizer(folder)
    save_word_tokenizer(folder)
    texts = ["a photo of a cat", "a photo of a dog"]
    here = load_model(f"local-dir:{folder}").embed_text(texts)
    assert not torch.allclose(here[0], here[1])
    for file in folder.iterdir():
        for commit in ("main", COMMIT):
            server.files[f"/me/clip/resolve/{commit}/{file.name}"] = file.read_bytes()
    assert torch.equal(load_model("hf-hub:me/clip").embed_text(texts), here)
    use_hub(closed_port(), monkeypatch)
    assert torch.equal(load_model("hf-hub:me/clip", log=pytest.fail).embed_text(texts), here)
    as_hub(folder, tmp_path, "me/complete")  # 'hf download' does not record which files are missing
    assert torch.equal(load_model("hf-hub:me/complete", log=pytest.fail).embed_text(texts), here)


def test_open_clip_without_its_tokenizer(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(closed_port(), monkeypatch)
    use_hub_tokenizer(folder)
    as_hub(folder, tmp_path, "me/clip")

    def check_error(kind: type[ModelError], uri: str, match: str) -> str:
        with pytest.raises(kind, match=match) as error:
            load_model(uri, labels=["cat"])
        return one_line(error)

    assert "pip" not in check_error(
        OfflineError, "hf-hub:me/clip", "tokenizer.json of me/clip .*is not on this machine"
    )
    assert "pip" not in check_error(ModelError, f"local-dir:{folder}", "has none of tokenizer.json")
    (folder / "tokenizer.json").write_text("{")
    assert "pip" not in check_error(
        ModelError, f"local-dir:{folder}", "its tokenizer cannot be loaded .*check its files"
    )
    monkeypatch.setitem(sys.modules, "transformers", None)
    for uri in (f"local-dir:{folder}", "hf-hub:me/clip"):  # before the tokenizer is downloaded
        check_error(ModelError, uri, r"needs transformers, which is not installed; pip install 'seewhy\[hf\]'")


def test_open_clip_with_sharded_weights_is_rejected(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"logit_scale": "model-1.safetensors"}}')
    with pytest.raises(ModelError, match=r"has none of open_clip_model\.safetensors") as error:
        load_model(f"local-dir:{folder}")
    one_line(error)


@pytest.fixture
def named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Register the small CLIP in open_clip, with its weights in the hub cache."""
    from open_clip import factory, pretrained

    use_hub(closed_port(), monkeypatch)
    as_hub(folder, tmp_path, "me/clip")
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", CONFIG)
    tag = {"hf_hub": "me/clip/", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"}
    tag["resize_mode"] = "squash"
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", {"mine": tag, "gone": {"hf_hub": "me/gone/"}})
    return "open_clip/tiny@mine"


def test_open_clip_by_name(named: str, folder: Path) -> None:
    loaded = load_model(f"{named}?labels=cat")
    assert loaded.uri == "open_clip/tiny@mine?labels=cat" and loaded.labels == ("cat",)
    assert (loaded.preprocess.mean, loaded.preprocess.interpolation) == ((0.1, 0.2, 0.3), "bilinear")
    assert loaded.preprocess.resize == (32, 32)
    assert load_model(named).weights_hash == load_model(f"local-dir:{folder}").weights_hash
    assert "RANDOM" in load_model("open_clip/tiny?pretrained=false").notes[-1]


def test_invalid_open_clip_models_are_rejected(named: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name, reason in (
        (UnknownName, "open_clip/ViT-B-23@openai", "did you mean 'ViT-B-32'"),
        (UnknownName, "open_clip/tiny@mien", "did you mean 'mine'"),
        (ModelError, "open_clip/tiny", "2 sets of weights.*choose one of mine, gone"),
        (OfflineError, "open_clip/tiny@gone", r"me/gone .*cannot be reached.*local-dir:FOLDER"),
        (UnknownName, "open_clip/tiny@mine?num_classes=3", "takes pretrained, labels"),
    ):
        with pytest.raises(kind, match=reason) as error:
            load_model(name)
        one_line(error)
    save_file({"logit_scale": torch.zeros(())}, folder / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match="do not fit: missing") as error:
        load_model(f"local-dir:{folder}")
    one_line(error)
    (folder / "open_clip_model.safetensors").write_bytes(b"hello")
    with pytest.raises(ModelError, match="corrupt") as error:
        load_model(f"local-dir:{folder}")
    one_line(error)
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}')
    with pytest.raises(ModelError, match="open_clip cannot build it") as error:
        load_model(f"local-dir:{folder}?pretrained=false")
    one_line(error)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ModelError, match=r"pip install 'seewhy\[clip\]'") as error:
        load_model("open_clip/tiny@mine")
    one_line(error)


@pytest.mark.parametrize("link", ["evil", "{}"], ids=["named", "its own folder"])
def test_code_of_a_repository_is_never_executed(folder: Path, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    """open_clip passes a config's `tokenizer_kwargs` to transformers, which would execute a tokenizer written in Python."""
    monkeypatch.chdir(folder.parent)
    evil = folder if link == "{}" else folder.parent / "evil"
    evil.mkdir(exist_ok=True)
    (evil / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    (evil / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": [null, "evil.Evil"]}}')
    text = {"hf_tokenizer_name": link.format(folder), "tokenizer_kwargs": {"trust_remote_code": True}}
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], **text}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    with pytest.raises(ModelError, match="trust_remote_code, and seewhy does not execute code") as error:
        load_model(f"local-dir:{folder}?pretrained=false&labels=cat,dog")
    one_line(error)
    assert not (folder / "ran").exists()


def tiny_clip(folder: Path) -> Any:
    text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=600,
                max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1)  # fmt: skip
    vision = dict(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    letters = [chr(code) for code in range(97, 123)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return model


def test_transformers_clip_equals_the_original(tmp_path: Path) -> None:
    model = tiny_clip(tmp_path)
    loaded = load_model(f"local-dir:{tmp_path}", labels=["cat", "dog"])
    inputs, _ = loaded.preprocess(photo())
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        ["a photo of a cat", "a photo of a dog"], padding=True, return_tensors="pt", truncation=True, max_length=16
    )
    with torch.no_grad():
        expected = model(pixel_values=inputs, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        output = loaded.module(inputs)
    assert torch.allclose(output["embedding"], expected.image_embeds, atol=1e-6)
    assert torch.allclose(output["logits"], expected.logits_per_image, atol=1e-4)
    assert torch.isfinite(seewhy.explain(loaded, photo()).heatmap()).all()


def test_clip_without_a_tokenizer(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    assert load_model(f"local-dir:{tmp_path}").embed_text is not None  # image embeddings do not need it
    with pytest.raises(ModelError, match=r"has none of tokenizer.json") as error:
        load_model(f"local-dir:{tmp_path}?labels=cat")
    one_line(error)


def tiny_siglip(folder: Path) -> Any:
    part = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    text, vision = dict(**part, vocab_size=20, max_position_embeddings=8), dict(**part, image_size=32, patch_size=8)
    torch.manual_seed(2)
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)).eval()
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-1.5)
    model.save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    save_word_tokenizer(folder)
    return model


def test_siglip_equals_the_original(tmp_path: Path) -> None:
    model = tiny_siglip(tmp_path)
    texts = ["a photo of a cat", "a photo of a dog"]
    loaded = load_model(f"local-dir:{tmp_path}", labels=["cat", "dog"])
    inputs, _ = loaded.preprocess(photo())
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        texts, padding="max_length", return_tensors="pt", max_length=8
    )
    with torch.no_grad():
        expected = model(pixel_values=inputs, input_ids=tokens["input_ids"])
        output = loaded.module(inputs)
    assert torch.allclose(output["embedding"], expected.image_embeds, atol=1e-6)
    assert torch.allclose(loaded.embed_text(texts), expected.text_embeds, atol=1e-6)
    assert torch.allclose(output["logits"], expected.logits_per_image, atol=1e-5)
    assert any("multilabel=True (--multilabel)" in note for note in loaded.notes)
    e = seewhy.explain(loaded, photo(), multilabel=True)
    torch.testing.assert_close(e.probabilities, expected.logits_per_image.sigmoid())


def test_open_clip_siglip_notes_independent_scores(folder: Path) -> None:
    plain = load_model(f"local-dir:{folder}?pretrained=false")
    assert not any("multilabel" in note for note in plain.notes)
    config = {**CONFIG, "init_logit_bias": -10}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    loaded = load_model(f"local-dir:{folder}?pretrained=false")
    assert any("multilabel=True (--multilabel)" in note for note in loaded.notes)
    assert float(loaded.module.bias) == -10
