"""From a name to the architecture that it means, over torchvision and timm."""

from __future__ import annotations

from seewhy.errors import ModelError, UnknownName
from seewhy.models.sources.arch import HINT, Architecture
from seewhy.models.sources.timm import TimmArch, timm_names
from seewhy.models.sources.torchvision import TorchvisionArch, torchvision_names

EMBEDDED_NAMES = ("embedded", "seewhy/efficientnet-lite0")
SOURCES = ("torchvision", "timm", "open_clip", "hf")


def find_architecture(text: str) -> tuple[Architecture, list[str]]:
    """`torchvision/NAME[@WEIGHTS]`, `timm/NAME` or a bare `NAME`, and what was decided about it, in words.

    Raises `UnknownName` with close matches over both libraries, `ModelError` for a network of another kind.

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
        if base in torchvision_names():
            arch = TorchvisionArch(base, weights if at else "DEFAULT")
            return arch, [] if source else [f"'{text}' taken from torchvision: {arch.uri}"]
        if base in torchvision.models.list_models():
            raise ModelError(
                f"torchvision/{base}",
                "takes no single picture (video, optical flow) or is quantized, so it cannot be explained; choose another",
            )
    architectures = timm.list_models()
    if source in ("", "timm") and (name in architectures or name in timm_names()):
        found = TimmArch(name)
        return found, [] if source else [f"'{text}' taken from timm: {found.uri}"]
    if source not in ("", "torchvision", "timm"):
        hint = f"A model is torchvision/NAME, timm/NAME, open_clip/NAME, hf/ORG/NAME or a file. {HINT}"
        raise UnknownName("model source", source, SOURCES, hint)
    hint = HINT
    if source:
        choices = [f"torchvision/{name}" for name in torchvision_names()]
        choices += [f"timm/{name}" for name in [*architectures, *timm_names()]]
        if (other := f"{'timm' if source == 'torchvision' else 'torchvision'}/{name}") in choices:
            hint = f"There is '{other}'. {HINT}"
    else:
        choices = [*EMBEDDED_NAMES, *torchvision_names(), *architectures, *timm_names()]
    raise UnknownName("model", text, choices, hint)
