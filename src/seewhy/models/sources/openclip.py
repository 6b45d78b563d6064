"""CLIP models of open_clip: by name with a tag of published weights, or from a folder with its config."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import ModelError, UnknownName
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import LoadedModel
from seewhy.models.sources.arch import DAMAGED, RANDOM, a_few, misfit, seeded
from seewhy.models.sources.repository import TOKENIZERS, Repository
from seewhy.models.sources.zeroshot import SIGMOID, EmbedText, ZeroShot, normalized
from seewhy.models.weights import Log, fetch, fetch_from_hub, shorten_error, reading, refuse_other_formats

PREFIX = "open_clip/"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")


def load_openclip(text: str, log: Log, *, pretrained: bool) -> LoadedModel:
    """`open_clip/NAME@TAG`; without weights (`pretrained=False`) the tag may be left out."""
    library = import_open_clip(text)
    name, _, tag = text.removeprefix(PREFIX).partition("@")
    if name not in (names := library.list_models()):
        raise UnknownName("open_clip model", name, names, "A CLIP model is open_clip/NAME@WEIGHTS.")
    tags = library.list_pretrained_tags_by_model(name)
    if pretrained and not tag:
        if len(tags) != 1:
            hint = (
                f"choose one of {a_few(tags, 6)}, as in '{PREFIX}{name}@{tags[-1]}'"
                if tags
                else "pretrained=false builds it"
            )
            raise ModelError(text, f"open_clip has {len(tags)} sets of weights for it; {hint}")
        tag = tags[0]
    if tag and tag not in tags:
        raise UnknownName("weights", tag, tags, f"{PREFIX}{name} has {', '.join(tags) or 'none'}.")
    config = library.get_pretrained_cfg(name, tag) if tag else {}
    uri = f"{PREFIX}{name}@{tag}" if tag else f"{PREFIX}{name}"
    path = fetch_tag(config, uri, log) if pretrained else None
    choices = {f"image_{key}": config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in config}
    model = build(library, name, uri, path, choices, quick_gelu=bool(config.get("quick_gelu")))

    def tokenizer() -> Any:
        if repo := tokenizer_of(library, name):
            remedy = f"on another machine run 'hf download {repo}' and copy that cache here"
            fetch_from_hub(repo, TOKENIZERS, uri, log, remedy=remedy)  # quickly, or the reason why not
        return read_tokenizer(library, name, uri)

    return zero_shot(library, model, uri, tokenizer, random=path is None)


def load_openclip_folder(place: Repository, config: Path, *, pretrained: bool) -> LoadedModel:
    """The CLIP model that `open_clip_config.json` describes."""
    library = import_open_clip(place.uri)
    if wants_code(json.loads(config.read_text("utf-8"))):
        raise ModelError(
            place.uri,
            f"{config} says trust_remote_code, and seewhy does not run code from a repository; take that out, or load the "
            "model yourself and give the module",
        )
    path = place.file(WEIGHTS) if pretrained else None  # open_clip has no weights in pieces
    name = f"local-dir:{config.parent}"
    model = build(library, name, place.uri, path, {})

    def tokenizer() -> Any:
        if tokenizer_of(library, name):
            place.tokenizer()  # open_clip looks for it in that folder alone
        return read_tokenizer(library, name, place.uri)

    return zero_shot(library, model, place.uri, tokenizer, random=path is None)


def wants_code(config: Any) -> bool:
    """Whether a config asks, anywhere in it, to run code that lies beside it.

    >>> wants_code({"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}}})
    True
    """
    if isinstance(config, dict):
        return any((key == "trust_remote_code" and value) or wants_code(value) for key, value in config.items())
    return isinstance(config, list) and any(map(wants_code, config))


def fetch_tag(config: dict[str, Any], uri: str, log: Log) -> Path:
    if hub := config.get("hf_hub"):
        repo, _, file = hub.rpartition("/")
        remedy = f"on another machine run 'hf download {repo}', and give the folder here ('local-dir:FOLDER')"
        return fetch_from_hub(repo, [file] if file else WEIGHTS[:2], uri, log, remedy=remedy)
    return fetch(config["url"], uri, log)


def build(
    library: Any, name: str, uri: str, path: Path | None, choices: dict[str, Any], *, quick_gelu: bool = False
) -> Any:
    """The CLIP model in eval mode, with the weights of `path`, or random ones."""
    if path is not None:
        refuse_other_formats(path)
    with seeded(), quiet():
        try:
            # not its own loading: that goes to the hub first, and says what is wrong in pages
            model = library.create_model_and_transforms(
                name, load_weights=False, pretrained_text=False, force_quick_gelu=quick_gelu, **choices
            )[0]
        except Exception as error:  # a part of the network may come from timm or transformers
            raise ModelError(uri, f"open_clip cannot build it ({shorten_error(error)}); check its config") from None
        if path is not None:
            with reading(path, DAMAGED):
                try:
                    library.load_checkpoint(model, str(path))
                except RuntimeError as error:
                    if "state_dict" in str(error):
                        raise ModelError(
                            uri, f"the weights {path} do not fit: {misfit(error)}; choose others"
                        ) from None
                    raise
    return model.eval()


def zero_shot(library: Any, model: Any, uri: str, tokenizer: Callable[[], Any], *, random: bool) -> LoadedModel:
    scale = float(model.logit_scale.detach().exp())
    bias = 0.0 if model.logit_bias is None else float(model.logit_bias.detach())
    module = ZeroShot(model.visual, scale, bias).eval()
    preprocess, notes = read_preprocess(library.get_model_preprocess_cfg(model))
    notes += [RANDOM] if random else []
    notes += [SIGMOID] if model.logit_bias is not None else []
    return LoadedModel(module, preprocess, None, uri, tuple(notes), text_side(model, tokenizer))


def read_preprocess(config: dict[str, Any]) -> tuple[Preprocess, list[str]]:
    """
    >>> config = dict(size=224, mode="RGB", mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic", resize_mode="squash")
    >>> read_preprocess(config)[0].resize
    (224, 224)
    """
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    mean, std = tuple(map(float, config["mean"])), tuple(map(float, config["std"]))
    how = config["interpolation"]
    way = how if how in ("bilinear", "bicubic") else "bicubic"  # "random" is for training
    mode = config["resize_mode"]
    if mode == "shortest":
        resize = height if height == width else (height, width)
        return Preprocess((height, width), mean, std, way, resize, "exact" if height == width else "cover"), []
    if mode == "squash":
        return Preprocess((height, width), mean, std, way, (height, width)), []
    return Preprocess((height, width), mean, std, way, (height, width), "contain"), [
        "preprocessing: what a photo does not fill has the mean colour; open_clip fills it with black"
    ]


def text_side(model: Any, tokenizer: Callable[[], Any]) -> EmbedText:
    """Texts to their embeddings; the tokenizer is fetched and made at the first use."""
    tokenizers: list[Any] = []

    def embed(texts: Sequence[str]) -> Tensor:
        if not tokenizers:
            tokenizers.append(tokenizer())
        with torch.no_grad():
            return normalized(model.encode_text(tokenizers[0](list(texts))))

    return embed


def tokenizer_of(library: Any, name: str) -> str | None:
    """The repository of the tokenizer, where it is not open_clip's own."""
    found: str | None = (library.get_model_config(name) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
    return found


def read_tokenizer(library: Any, name: str, uri: str) -> Any:
    try:
        with quiet():
            return library.get_tokenizer(name)
    except ImportError as error:
        raise ModelError(
            uri, f"its tokenizer needs a package that is not here ({shorten_error(error)}); pip install 'seewhy[hf]'"
        ) from None
    except Exception as error:
        raise ModelError(uri, f"its tokenizer cannot be used ({shorten_error(error)}); check its files") from None


def import_open_clip(uri: str) -> Any:
    try:
        import open_clip  # type: ignore[import-untyped]
    except ImportError:
        raise ModelError(uri, "open_clip is not installed; pip install 'seewhy[clip]'") from None
    return open_clip


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warning that there are no weights yet."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
