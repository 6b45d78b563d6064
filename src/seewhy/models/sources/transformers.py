"""Networks of transformers: classification, segmentation, detection and CLIP, from a `config.json` with a `model_type`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import ModelError, OfflineError, shorten_error
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded_model import EmbedText, LoadedModel
from seewhy.models.sources.architecture import RANDOM_NOTE, fixed_seed, join_first
from seewhy.models.sources.processor import preprocess_from_processor
from seewhy.models.sources.repository import Repository
from seewhy.models.sources.zeroshot import SIGMOID_NOTE, ZeroShot, normalize_rows
from seewhy.models.weights import check_weights_format

MAX_LABELS = 1_000_000  # an index in a config can be any number
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


class VisionTower(nn.Module):
    """The image encoder of CLIP or SigLIP: pixels to the features that are compared with texts."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", None) or nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.visual_projection(self.vision_model(pixel_values=pixels).pooler_output)
        return features


def load_transformers(repository: Repository, config_file: Path, *, pretrained: bool) -> LoadedModel:
    """Load the network of a `config.json` with its image processor and labels."""
    library, uri = import_transformers(repository.uri), repository.uri
    with suppress_output(library), convert_errors(uri, f"transformers cannot build it from {config_file}"):
        config = library.AutoConfig.from_pretrained(config_file.parent, local_files_only=True, trust_remote_code=False)
        model_class = find_model_class(library, config, uri)
    notes = []
    with suppress_output(library), fixed_seed():
        if pretrained:
            path = repository.get_weights_file()
            if path.suffix == ".bin":
                check_weights_format(path)
            with convert_errors(uri, f"its weights {path} cannot be loaded"):
                model, report = model_class.from_pretrained(
                    path.parent, config=config, local_files_only=True, output_loading_info=True
                )
            if missing := sorted(report["missing_keys"]):
                notes.append(f"missing in the weights, so random: {join_first(missing)}")
        else:
            with convert_errors(uri, f"transformers cannot build it from {config_file}"):
                model = model_class(config)
            notes.append(RANDOM_NOTE)
    model = model.float().eval()
    preprocess, preprocess_notes = read_preprocess(library, repository, config)
    notes += preprocess_notes
    if hasattr(model, "vision_model") and hasattr(model, "text_model"):
        return build_zero_shot(library, repository, model, preprocess, notes)
    if getattr(model, "main_input_name", "pixel_values") != "pixel_values":
        raise ModelError(
            uri, f"{model_class.__name__} takes {model.main_input_name}, not images; choose a vision model"
        )
    return LoadedModel(model, preprocess, read_config_labels(config, model_class.__name__), uri, tuple(notes))


def find_model_class(library: Any, config: Any, uri: str) -> Any:
    """Return the class that the config names; otherwise the classifier of its type, otherwise the bare network."""
    for name in config.architectures or ():
        model_class = getattr(library, name, None)
        if isinstance(model_class, type) and issubclass(model_class, library.PreTrainedModel):
            return model_class
    if getattr(config, "auto_map", None):
        raise ModelError(
            uri,
            "needs code from its repository, which seewhy does not execute; load the model yourself and pass the module",
        )
    for auto in (library.AutoModelForImageClassification, library.AutoModel):
        if type(config) in auto._model_mapping:
            return auto._model_mapping[type(config)]
    raise ModelError(
        uri, f"this version of transformers does not support the type '{config.model_type}'; install a newer version"
    )


def read_preprocess(library: Any, repository: Repository, config: Any) -> tuple[Preprocess | None, list[str]]:
    path, reason = None, f"there is no {PROCESSORS[0]}"
    try:
        path = repository.find_file(PROCESSORS)
    except OfflineError:
        reason = f"{PROCESSORS[0]} is not on this machine and could not be downloaded"
    if path is None:
        size = getattr(getattr(config, "vision_config", config), "image_size", None)
        size = size if isinstance(size, int) else 224
        return Preprocess.imagenet(size), [
            f"preprocessing: {reason}, so ImageNet's at {size}x{size} is assumed, which may be wrong"
        ]
    with suppress_output(library), convert_errors(repository.uri, f"its image processor {path} cannot be loaded"):
        # Resize with Pillow, as in training; the default backend resizes tensors.
        backend = {"backend": "pil"} if int(library.__version__.split(".")[0]) >= 5 else {"use_fast": False}
        processor = library.AutoImageProcessor.from_pretrained(
            path.parent, local_files_only=True, trust_remote_code=False, **backend
        )
        return preprocess_from_processor(processor)


def read_config_labels(config: Any, class_name: str) -> tuple[str, ...] | None:
    """Return the labels in the config; None for placeholders ("LABEL_0") and for networks without a head."""
    names = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    if "For" not in class_name or not names or not 0 <= max(names) < MAX_LABELS:
        return None
    if all(name == f"LABEL_{index}" for index, name in names.items()):
        return None
    return tuple(names.get(index, f"class {index}") for index in range(max(names) + 1))


def build_zero_shot(
    library: Any, repository: Repository, model: Any, preprocess: Preprocess | None, notes: list[str]
) -> LoadedModel:
    bias = getattr(model, "logit_bias", None)
    module = ZeroShot(
        VisionTower(model), float(model.logit_scale.detach().exp()), float(bias.detach()) if bias is not None else 0.0
    )
    notes = notes if bias is None else [*notes, SIGMOID_NOTE]
    encoder = text_encoder(library, repository, model)
    return LoadedModel(module.eval(), preprocess, None, repository.uri, tuple(notes), encoder)


def text_encoder(library: Any, repository: Repository, model: Any) -> EmbedText:
    """Return a function that embeds texts; it loads the tokenizer on first use."""
    tokenizers: list[Any] = []
    text_model, projection = model.text_model, getattr(model, "text_projection", None)

    def embed_text(texts: Sequence[str]) -> Tensor:
        if not tokenizers:
            tokenizers.append(read_tokenizer(library, repository))
        is_siglip = "siglip" in model.config.model_type  # trained on texts padded to full length
        tokens = tokenizers[0](
            list(texts), padding="max_length" if is_siglip else True, truncation=True, return_tensors="pt",
            max_length=model.config.text_config.max_position_embeddings,
        )  # fmt: skip
        with torch.no_grad():
            mask = None if is_siglip else tokens["attention_mask"]
            features = text_model(input_ids=tokens["input_ids"], attention_mask=mask).pooler_output
            return normalize_rows(features if projection is None else projection(features))

    return embed_text


def read_tokenizer(library: Any, repository: Repository) -> Any:
    folder = repository.get_tokenizer_folder()
    with suppress_output(library), convert_errors(repository.uri, f"its tokenizer in {folder} cannot be loaded"):
        return library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def import_transformers(uri: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise ModelError(uri, "transformers is not installed; pip install 'seewhy[hf]'") from None
    return transformers


@contextmanager
def convert_errors(uri: str, problem: str) -> Iterator[None]:
    """Convert any exception of the library into a one-line `ModelError`."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # of many types, some with pages of text
        raise ModelError(uri, f"{problem} ({shorten_error(error)}); check the files") from None


@contextmanager
def suppress_output(library: Any) -> Iterator[None]:
    """Disable the library's progress bars and its load reports on stderr; the notes contain the relevant facts."""
    log = library.utils.logging
    level, has_progress_bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if has_progress_bar:
            log.enable_progress_bar()
