"""CLIP models of open_clip: by name with a tag of published weights, or from a folder with a config."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import ModelError, UnknownName, shorten_error
from seewhy.images.preprocess import Preprocess
from seewhy.images.resizing import Rule
from seewhy.models.downloads import Log, download_from_hub, download_from_url
from seewhy.models.loaded_model import EmbedText, LoadedModel
from seewhy.models.local_files import read_json
from seewhy.models.sources.architecture import CORRUPT_HINT, RANDOM_NOTE, describe_mismatch, fixed_seed, join_first
from seewhy.models.sources.repository import TOKENIZERS, Repository
from seewhy.models.sources.zeroshot import SIGMOID_NOTE, ZeroShot, normalize_rows
from seewhy.models.weights import check_weights_format, convert_read_errors

PREFIX = "open_clip/"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")


def load_openclip(uri: str, log: Log, *, pretrained: bool) -> LoadedModel:
    """Load `open_clip/NAME@TAG`. The tag is optional if there is only one, or with `pretrained=False`."""
    library = import_open_clip(uri)
    name, _, tag = uri.removeprefix(PREFIX).partition("@")
    if name not in (names := library.list_models()):
        raise UnknownName("open_clip model", name, names, "A CLIP model is open_clip/NAME@WEIGHTS.")
    tags = library.list_pretrained_tags_by_model(name)
    if pretrained and not tag:
        if len(tags) != 1:
            hint = (
                f"choose one of {join_first(tags, 6)}, as in '{PREFIX}{name}@{tags[-1]}'"
                if tags
                else "add pretrained=false for random weights"
            )
            raise ModelError(uri, f"open_clip has {len(tags)} sets of weights for it; {hint}")
        tag = tags[0]
    if tag and tag not in tags:
        raise UnknownName("weights", tag, tags, f"{PREFIX}{name} has {', '.join(tags) or 'none'}.")
    config = library.get_pretrained_cfg(name, tag) if tag else {}
    uri = f"{PREFIX}{name}@{tag}" if tag else f"{PREFIX}{name}"
    path = get_weights_file(config, uri, log) if pretrained else None
    settings = {f"image_{key}": config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in config}
    model = build(library, name, uri, path, settings, quick_gelu=bool(config.get("quick_gelu")))

    def load_tokenizer() -> Any:
        if repo := find_tokenizer_repository(library, name):
            check_transformers(uri)
            # Downloaded here, because this fails fast and with a reason if there is no network.
            remedy = f"on another machine run 'hf download {repo}' and copy that cache to this machine"
            download_from_hub(repo, TOKENIZERS, uri, log, remedy=remedy)
        return read_tokenizer(library, name, uri)

    return build_zero_shot(library, model, uri, load_tokenizer, is_random=path is None)


def load_openclip_folder(repository: Repository, config: Path, *, pretrained: bool) -> LoadedModel:
    """Load the CLIP model that `open_clip_config.json` describes."""
    library, uri = import_open_clip(repository.uri), repository.uri
    if trusts_remote_code(read_json(config)):
        raise ModelError(
            uri,
            f"{config} sets trust_remote_code, and seewhy does not execute code from repositories; remove that setting, "
            "or load the model yourself and pass the module",
        )
    path = repository.get_file(WEIGHTS) if pretrained else None  # open_clip does not support sharded weights
    name = f"local-dir:{config.parent}"
    model = build(library, name, uri, path, {})

    def load_tokenizer() -> Any:
        if find_tokenizer_repository(library, name):
            check_transformers(uri)
            repository.get_tokenizer_folder()  # open_clip searches only this folder
        return read_tokenizer(library, name, uri)

    return build_zero_shot(library, model, uri, load_tokenizer, is_random=path is None)


def trusts_remote_code(config: Any) -> bool:
    """Return True if a config enables `trust_remote_code` at any depth.

    >>> trusts_remote_code({"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}}})
    True
    """
    if isinstance(config, dict):
        return any((key == "trust_remote_code" and value) or trusts_remote_code(value) for key, value in config.items())
    return isinstance(config, list) and any(map(trusts_remote_code, config))


def get_weights_file(config: dict[str, Any], uri: str, log: Log) -> Path:
    """Return the published weights of open_clip's pretrained config, from a cache or downloaded."""
    if hub := config.get("hf_hub"):
        repo, _, file = hub.rpartition("/")
        remedy = f"on another machine run 'hf download {repo}' and pass the folder ('local-dir:FOLDER')"
        return download_from_hub(repo, [file] if file else WEIGHTS[:2], uri, log, remedy=remedy)
    return download_from_url(config["url"], uri, log)


def build(
    library: Any, name: str, uri: str, path: Path | None, settings: dict[str, Any], *, quick_gelu: bool = False
) -> Any:
    """Build the CLIP model in eval mode with the weights in `path`, or random ones."""
    if path is not None:
        check_weights_format(path)
    with fixed_seed(), suppress_warnings():
        try:
            # load_weights=False: open_clip's loader contacts the hub first, and its errors fill pages.
            model = library.create_model_and_transforms(
                name, load_weights=False, pretrained_text=False, force_quick_gelu=quick_gelu, **settings
            )[0]
        except Exception as error:  # parts of the network may come from timm or transformers
            raise ModelError(uri, f"open_clip cannot build it ({shorten_error(error)}); check its config") from None
        if path is not None:
            with convert_read_errors(path, CORRUPT_HINT):
                try:
                    library.load_checkpoint(model, str(path))
                except RuntimeError as error:
                    if "state_dict" in str(error):
                        mismatch = describe_mismatch(error)
                        raise ModelError(uri, f"the weights {path} do not fit: {mismatch}; choose others") from None
                    raise
    return model.eval()


def build_zero_shot(
    library: Any, model: Any, uri: str, load_tokenizer: Callable[[], Any], *, is_random: bool
) -> LoadedModel:
    scale = float(model.logit_scale.detach().exp())
    bias = 0.0 if model.logit_bias is None else float(model.logit_bias.detach())
    module = ZeroShot(model.visual, scale, bias).eval()
    try:
        preprocess, notes = convert_preprocess(library.get_model_preprocess_cfg(model))
    except (ValueError, TypeError, LookupError) as error:
        raise ModelError(
            uri, f"its preprocessing config is not valid ({shorten_error(error)}); check the file"
        ) from None
    notes += [RANDOM_NOTE] if is_random else []
    notes += [SIGMOID_NOTE] if model.logit_bias is not None else []
    return LoadedModel(module, preprocess, None, uri, tuple(notes), text_encoder(model, load_tokenizer))


def convert_preprocess(config: dict[str, Any]) -> tuple[Preprocess, list[str]]:
    """Convert open_clip's preprocessing config, and note differences.

    >>> config = dict(size=224, mode="RGB", mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic", resize_mode="squash")
    >>> convert_preprocess(config)[0].resize
    (224, 224)
    """
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    mean, std = tuple(map(float, config["mean"])), tuple(map(float, config["std"]))
    name = config["interpolation"]
    interpolation = name if name in ("bilinear", "bicubic") else "bicubic"  # "random" is for training
    mode = config["resize_mode"]
    if mode == "shortest":
        resize = height if height == width else (height, width)
        rule: Rule = "exact" if height == width else "cover"
        return Preprocess((height, width), mean, std, interpolation, resize, rule), []
    if mode == "squash":
        return Preprocess((height, width), mean, std, interpolation, (height, width)), []
    return Preprocess((height, width), mean, std, interpolation, (height, width), "contain"), [
        "preprocessing: padding has the mean color; open_clip pads with black"
    ]


def text_encoder(model: Any, load_tokenizer: Callable[[], Any]) -> EmbedText:
    """Return a function that embeds texts; it loads the tokenizer on first use."""
    tokenizers: list[Any] = []

    def embed_text(texts: Sequence[str]) -> Tensor:
        if not tokenizers:
            tokenizers.append(load_tokenizer())
        with torch.no_grad():
            return normalize_rows(model.encode_text(tokenizers[0](list(texts))))

    return embed_text


def find_tokenizer_repository(library: Any, name: str) -> str | None:
    """Return the hub repository of the tokenizer, or None for open_clip's own tokenizer."""
    repo: str | None = (library.get_model_config(name) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
    return repo


def check_transformers(uri: str) -> None:
    """Raise ModelError if a tokenizer of the hub cannot be used, before it is downloaded."""
    if find_spec("transformers") is None:
        raise ModelError(uri, "its tokenizer needs transformers, which is not installed; pip install 'seewhy[hf]'")


def read_tokenizer(library: Any, name: str, uri: str) -> Any:
    try:
        with suppress_warnings():
            return library.get_tokenizer(name)
    except ImportError as error:
        reason = shorten_error(error)
        raise ModelError(uri, f"its tokenizer needs a missing package ({reason}); pip install 'seewhy[hf]'") from None
    except Exception as error:
        raise ModelError(uri, f"its tokenizer cannot be loaded ({shorten_error(error)}); check its files") from None


def import_open_clip(uri: str) -> Any:
    try:
        import open_clip  # type: ignore[import-untyped]
    except ImportError:
        raise ModelError(uri, "open_clip is not installed; pip install 'seewhy[clip]'") from None
    return open_clip


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress open_clip's log warning that the model has no weights yet."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(level)
