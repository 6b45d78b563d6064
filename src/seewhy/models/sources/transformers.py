"""Networks of transformers: classifiers, segmentation, detection, and CLIP, from a `config.json` with a `model_type`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import ModelError, OfflineError
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import LoadedModel
from seewhy.models.sources.arch import RANDOM, a_few, seeded
from seewhy.models.sources.processor import from_processor
from seewhy.models.sources.repository import Repository
from seewhy.models.sources.zeroshot import SIGMOID, EmbedText, ZeroShot, normalized
from seewhy.models.weights import shorten_error, refuse_other_formats

PROCESSORS = ("preprocessor_config.json", "processor_config.json")


class VisionTower(nn.Module):
    """The picture side of CLIP or SigLIP: pixels to the features that are compared with texts."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", None) or nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.visual_projection(self.vision_model(pixel_values=pixels).pooler_output)
        return features


def load_transformers(place: Repository, config: Path, *, pretrained: bool) -> LoadedModel:
    """The network that the `config.json` describes, with its image processor and its labels."""
    library, uri = import_transformers(place.uri), place.uri
    with quiet(library), explained(uri, f"transformers cannot build it from {config}"):
        settings = library.AutoConfig.from_pretrained(config.parent, local_files_only=True, trust_remote_code=False)
        kind = find_class(library, settings, uri)
    notes = []
    with quiet(library), seeded():
        if pretrained:
            path = place.weights()
            if path.suffix == ".bin":
                refuse_other_formats(path)
            with explained(uri, f"its weights {path} cannot be used"):
                model, report = kind.from_pretrained(
                    path.parent, config=settings, local_files_only=True, output_loading_info=True
                )
            if missing := sorted(report["missing_keys"]):
                notes.append(f"not in the file, so random: {a_few(missing)}")
        else:
            with explained(uri, f"transformers cannot build it from {config}"):
                model = kind(settings)
            notes.append(RANDOM)
    model = model.float().eval()
    preprocess, said = read_preprocess(library, place, settings)
    notes += said
    if hasattr(model, "vision_model") and hasattr(model, "text_model"):
        return zero_shot(library, place, model, preprocess, notes)
    if getattr(model, "main_input_name", "pixel_values") != "pixel_values":
        raise ModelError(uri, f"{kind.__name__} takes {model.main_input_name}, not pictures; choose a vision model")
    return LoadedModel(model, preprocess, read_labels_of(settings, kind.__name__), uri, tuple(notes))


def find_class(library: Any, settings: Any, uri: str) -> Any:
    """The class that the config names; where it names none, the classifier for its type, else the bare network."""
    for name in settings.architectures or ():
        kind = getattr(library, name, None)
        if isinstance(kind, type) and issubclass(kind, library.PreTrainedModel):
            return kind
    if getattr(settings, "auto_map", None):
        raise ModelError(
            uri, "needs code from its repository, which seewhy does not run; load it yourself, give the module"
        )
    for auto in (library.AutoModelForImageClassification, library.AutoModel):
        if type(settings) in auto._model_mapping:
            return auto._model_mapping[type(settings)]
    raise ModelError(uri, f"transformers has no network for the type '{settings.model_type}'; install a newer one")


def read_preprocess(library: Any, place: Repository, settings: Any) -> tuple[Preprocess | None, list[str]]:
    path, why = None, f"there is no {PROCESSORS[0]}"
    try:
        path = place.optional(PROCESSORS)
    except OfflineError:
        why = f"{PROCESSORS[0]} is not on this machine and could not be asked for"
    if path is None:
        inner = getattr(settings, "vision_config", settings)
        size = getattr(inner, "image_size", None)
        size = size if isinstance(size, int) else 224
        return Preprocess.imagenet(size), [
            f"preprocessing: {why}, so ImageNet's at {size}x{size} is assumed, which may be wrong"
        ]
    with quiet(library), explained(place.uri, f"its image processor {path} cannot be used"):
        # Pillow's resize, as in training; the default resizes tensors
        choice = {"backend": "pil"} if int(library.__version__.split(".")[0]) >= 5 else {"use_fast": False}
        processor = library.AutoImageProcessor.from_pretrained(
            path.parent, local_files_only=True, trust_remote_code=False, **choice
        )
        return from_processor(processor)


def read_labels_of(settings: Any, kind: str) -> tuple[str, ...] | None:
    """The labels in the config, unless they are the library's own "LABEL_0" or there is no head to use them."""
    names = {int(index): str(name) for index, name in (getattr(settings, "id2label", None) or {}).items()}
    if "For" not in kind or not names or all(name == f"LABEL_{index}" for index, name in names.items()):
        return None
    return tuple(names.get(index, f"class {index}") for index in range(max(names) + 1))


def zero_shot(
    library: Any, place: Repository, model: Any, preprocess: Preprocess | None, notes: list[str]
) -> LoadedModel:
    bias = getattr(model, "logit_bias", None)
    module = ZeroShot(
        VisionTower(model), float(model.logit_scale.detach().exp()), float(bias.detach()) if bias is not None else 0.0
    )
    notes = notes if bias is None else [*notes, SIGMOID]
    embed = text_side(library, place, model)
    return LoadedModel(module.eval(), preprocess, None, place.uri, tuple(notes), embed)


def text_side(library: Any, place: Repository, model: Any) -> EmbedText:
    """Texts to their embeddings; the tokenizer is fetched at the first use."""
    tokenizers: list[Any] = []
    text, projection = model.text_model, getattr(model, "text_projection", None)

    def embed(texts: Sequence[str]) -> Tensor:
        if not tokenizers:
            tokenizers.append(read_tokenizer(library, place))
        siglip = "siglip" in model.config.model_type  # trained on texts filled up to full length
        tokens = tokenizers[0](
            list(texts), padding="max_length" if siglip else True, truncation=True, return_tensors="pt",
            max_length=model.config.text_config.max_position_embeddings,
        )  # fmt: skip
        with torch.no_grad():
            mask = None if siglip else tokens["attention_mask"]
            features = text(input_ids=tokens["input_ids"], attention_mask=mask).pooler_output
            return normalized(features if projection is None else projection(features))

    return embed


def read_tokenizer(library: Any, place: Repository) -> Any:
    folder = place.tokenizer()
    with quiet(library), explained(place.uri, f"its tokenizer in {folder} cannot be used"):
        return library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def import_transformers(uri: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise ModelError(uri, "transformers is not installed; pip install 'seewhy[hf]'") from None
    return transformers


@contextmanager
def explained(uri: str, what: str) -> Iterator[None]:
    """Whatever the library raises, as one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # of many kinds, some with pages of text
        raise ModelError(uri, f"{what} ({shorten_error(error)}); check the files") from None


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """No progress bars and no reports on stderr; the notes say what matters."""
    log = library.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
