"""Resolve a model name to an architecture of torchvision or timm."""

from __future__ import annotations

from seewhy.errors import ModelError, UnknownName
from seewhy.models.sources.architecture import HINT, Architecture
from seewhy.models.sources.timm import TimmArchitecture, list_timm_names
from seewhy.models.sources.torchvision import TorchvisionArchitecture, list_torchvision_names

EMBEDDED_NAMES = ("embedded", "seewhy/efficientnet-lite0")
SOURCES = ("torchvision", "timm", "open_clip", "hf")


def find_architecture(text: str) -> tuple[Architecture, list[str]]:
    """Resolve `torchvision/NAME[@WEIGHTS]`, `timm/NAME` or `NAME`; also return notes on what was inferred.

    Raises `UnknownName` with close matches from both libraries, `ModelError` for an unsupported kind of network.

    >>> find_architecture("torchvision/resnet18")[0].uri
    'torchvision/resnet18@IMAGENET1K_V1'
    """
    import timm
    import torchvision  # type: ignore[import-untyped]

    source, slash, name = text.partition("/")
    if not slash:
        source, name = "", text
    base, at, weights = name.partition("@")
    if source in ("", "torchvision"):
        if base in list_torchvision_names():
            return with_note(text, source, TorchvisionArchitecture(base, weights if at else "DEFAULT"), "torchvision")
        if base in torchvision.models.list_models():
            raise ModelError(
                f"torchvision/{base}",
                "is quantized or does not take single images (video, optical flow), so it cannot be explained; choose "
                "another model",
            )
    architectures = timm.list_models()
    if source in ("", "timm") and (name in architectures or name in list_timm_names()):
        return with_note(text, source, TimmArchitecture(name), "timm")
    if source not in ("", "torchvision", "timm"):
        hint = f"A model is torchvision/NAME, timm/NAME, open_clip/NAME, hf/ORG/NAME or a file. {HINT}"
        raise UnknownName("model source", source, SOURCES, hint)
    hint = HINT
    if source:
        choices = [f"torchvision/{name}" for name in list_torchvision_names()]
        choices += [f"timm/{name}" for name in [*architectures, *list_timm_names()]]
        if (other := f"{'timm' if source == 'torchvision' else 'torchvision'}/{name}") in choices:
            hint = f"There is '{other}'. {HINT}"
    else:
        choices = [*EMBEDDED_NAMES, *list_torchvision_names(), *architectures, *list_timm_names()]
    raise UnknownName("model", text, choices, hint)


def with_note(text: str, source: str, architecture: Architecture, library: str) -> tuple[Architecture, list[str]]:
    """Add a note on the chosen library if the user did not name it."""
    return architecture, [] if source else [f"'{text}' resolved to {library}: {architecture.uri}"]
