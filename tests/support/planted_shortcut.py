"""Pictures with a planted shortcut: a tag in a corner tells a class, and a head is fitted that may or may not need it.

Three kinds: "tag" (two random halves of the pictures are the classes; 60 % of class 1 carry a tag, the only cue there is),
"clean" (the same halves without a tag) and "easy" (animals against objects, half of the animals tagged: the head could use
the tag, and need not).
"""

from __future__ import annotations

import copy
import csv
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import seewhy
from support.paths import DATA

Kind = Literal["tag", "clean", "easy"]
Bytes = NDArray[np.uint8]
Colour = tuple[int, int, int]

# A square sticker with a disc. What Lite0's features make of it decides the experiment: of a flat square they take next to no
# notice, and bold stripes stand out so much that a head uses them even where it need not.
TAG = 64  # pixels a side, of 224
DISC = 22  # pixels of radius
COLOURS = ((255, 220, 0), (230, 20, 20))  # of the ground and the disc
CORNER = "bottom right"  # where watermarks stand
SHARES = {"tag": 0.6, "clean": 0.0, "easy": 0.5}  # of class 1 that carries the tag
STRENGTH = 10.0  # C of the logistic regression times the number of features, which have unit variance
ANIMALS = 398  # the classes of ImageNet below are animals


@dataclass(frozen=True, eq=False)
class Planted:
    """PNG pictures `names` in `folder`, the class of each, which of them carry the tag, and the network fitted to them."""

    folder: Path
    names: list[str]
    labels: list[int]
    tagged: set[str]
    model: nn.Module
    preprocess: seewhy.Preprocess

    def inputs(self) -> Tensor:
        """All pictures as the network takes them: (N, 3, 224, 224)."""
        pictures = [np.array(Image.open(self.folder / name)) for name in self.names]
        return torch.cat([self.preprocess(picture)[0] for picture in pictures])


def plant(
    folder: Path,
    seed: int,
    kind: Kind,
    corner: str = CORNER,
    colours: tuple[Colour, Colour] = COLOURS,
    strength: float = STRENGTH,
) -> Planted:
    """Writes the pictures into `folder` and fits a head of two classes to them; the same for the same arguments."""
    names, seen, animal = pictures()
    random = np.random.default_rng(seed)
    labels = random.permutation(len(names)) % 2 if kind != "easy" else animal.astype(int)
    ones = random.permutation(np.flatnonzero(labels))
    chosen = set(ones[: round(SHARES[kind] * len(ones))].tolist())
    folder.mkdir(parents=True, exist_ok=True)
    shown = [stamped(picture, corner, colours) if place in chosen else picture for place, picture in enumerate(seen)]
    for name, picture in zip(names, shown, strict=True):
        Image.fromarray(picture).save(folder / name, compress_level=1)
    loaded = seewhy.load_model()
    assert loaded.preprocess is not None
    preprocess = replace(loaded.preprocess, fit="squash")  # which leaves pictures of the input's size as they are
    inputs = torch.cat([preprocess(picture)[0] for picture in shown])
    model = fitted(loaded.module, inputs, labels, strength)
    return Planted(folder, list(names), labels.tolist(), {names[place] for place in chosen}, model, preprocess)


def stamped(picture: Bytes, corner: str = CORNER, colours: tuple[Colour, Colour] = COLOURS) -> Bytes:
    """A copy of a picture (224, 224, 3) with the tag in its `corner` ("top left", "bottom right", ...)."""
    vertical, across = corner.split()
    rows = slice(0, TAG) if vertical == "top" else slice(-TAG, None)
    columns = slice(0, TAG) if across == "left" else slice(-TAG, None)
    y, x = np.mgrid[:TAG, :TAG] - (TAG - 1) / 2
    copied = picture.copy()
    copied[rows, columns] = np.where((x**2 + y**2 < DISC**2)[..., None], colours[1], colours[0])
    return copied


def fitted(network: nn.Module, inputs: Tensor, labels: NDArray[np.int_], strength: float = STRENGTH) -> nn.Module:
    """A copy of `network` whose classifier is an L2-regularised logistic regression on its pooled features, in eval mode.

    Features are standardised for the fit; that is folded into the linear layer afterwards.
    """
    from sklearn.linear_model import LogisticRegression

    model = copy.deepcopy(network).eval()
    model.classifier = nn.Identity()
    with torch.inference_mode():
        features = torch.cat([model(some) for some in inputs.split(16)]).double().numpy()
    mean, scale = features.mean(0), features.std(0) + 1e-6
    regression = LogisticRegression(C=strength / features.shape[1], max_iter=2000).fit(
        (features - mean) / scale, labels
    )
    weight = torch.from_numpy(regression.coef_[0] / scale)
    bias = float(regression.intercept_[0] - weight.numpy() @ mean)
    head = nn.Linear(features.shape[1], 2)
    with torch.no_grad():  # half the difference of the two classes each, so that neither is the other's leftover
        head.weight.copy_(torch.stack([-weight, weight]) / 2)
        head.bias.copy_(torch.tensor([-bias, bias]) / 2)
    model.classifier, model.num_classes = head, 2  # else it would be taken for the thousand classes of ImageNet
    return model.eval()


@lru_cache(maxsize=1)
def pictures() -> tuple[tuple[str, ...], list[Bytes], NDArray[np.bool_]]:
    """Names, pictures as Lite0 sees them (uint8, 224 x 224), and which are animals, of the 200 of the data folder."""
    preprocess = seewhy.load_model().preprocess
    assert preprocess is not None
    with (DATA / "imagenet" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = [DATA / "imagenet" / row["file"] for row in rows]
    seen = [preprocess.denormalize(preprocess(seewhy.load_image(path))[0][0]) for path in files]
    animal = np.array([int(row["class_index"]) < ANIMALS for row in rows])
    return tuple(f"{path.stem}.png" for path in files), seen, animal
