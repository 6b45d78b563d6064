"""Images with a planted shortcut: a tag in a corner marks a class, and a classifier is fitted that may or may not rely on it.

There are three kinds. "tag": two random halves of the images are the classes, and 60% of class 1 have a tag, the only cue.
"clean": the same halves without a tag. "easy": animals against objects, and half of the animals have the tag, so the classifier
can use the tag but does not need it.
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
ImageArray = NDArray[np.uint8]
Color = tuple[int, int, int]

# The tag is a square with a disc. Its appearance determines the experiment: the features of Lite0 hardly respond to a plain
# square, and they respond to bold stripes so strongly that a classifier uses them even where it does not need them.
TAG = 64  # pixels per side, of 224
DISC = 22  # radius in pixels
COLORS = ((255, 220, 0), (230, 20, 20))  # of the square and the disc
CORNER = "bottom right"  # the usual place of watermarks
TAGGED = {"tag": 0.6, "clean": 0.0, "easy": 0.5}  # fraction of class 1 with the tag
STRENGTH = 10.0  # C of the logistic regression times the number of features, which have unit variance
ANIMALS = 398  # the ImageNet classes below this index are animals


@dataclass(frozen=True, eq=False)
class Experiment:
    """PNG images `names` in `folder`, their classes, the names of the images with the tag, and the model fitted to them."""

    folder: Path
    names: list[str]
    labels: list[int]
    tagged: set[str]
    model: nn.Module
    preprocess: seewhy.Preprocess

    def inputs(self) -> Tensor:
        """Return all images as inputs of the model: (N, 3, 224, 224)."""
        images = [np.array(Image.open(self.folder / name)) for name in self.names]
        return torch.cat([self.preprocess(image)[0] for image in images])

    def tagged_fraction(self, ids: list[str]) -> float:
        """Return the fraction of these images that have the tag."""
        return sum(Path(name).name in self.tagged for name in ids) / len(ids)

    def changed_fraction(self) -> float:
        """Return the fraction of tagged images whose prediction changes if the tag is removed."""
        untagged = dict(zip(*load_images()[:2], strict=True))
        names = sorted(self.tagged)
        with_tag = self.inputs()[[self.names.index(name) for name in names]]
        without = torch.cat([self.preprocess(untagged[name])[0] for name in names])
        with torch.inference_mode():
            return float((self.model(with_tag).argmax(1) != self.model(without).argmax(1)).float().mean())

    def write_table(self, path: Path) -> None:
        """Write the input table of a bulk run, with paths relative to the table."""
        rows = [(f"{self.folder.name}/{name}", label) for name, label in zip(self.names, self.labels, strict=True)]
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *rows])


def plant_shortcut(
    folder: Path,
    seed: int,
    kind: Kind,
    corner: str = CORNER,
    colors: tuple[Color, Color] = COLORS,
    strength: float = STRENGTH,
) -> Experiment:
    """Write the images to `folder` and fit a classifier with two classes. Deterministic for equal arguments."""
    names, images, is_animal = load_images()
    random = np.random.default_rng(seed)
    labels = random.permutation(len(names)) % 2 if kind != "easy" else is_animal.astype(int)
    class_1 = random.permutation(np.flatnonzero(labels))
    tagged = set(class_1[: round(TAGGED[kind] * len(class_1))].tolist())
    folder.mkdir(parents=True, exist_ok=True)
    written = [add_tag(image, corner, colors) if row in tagged else image for row, image in enumerate(images)]
    for name, image in zip(names, written, strict=True):
        Image.fromarray(image).save(folder / name, compress_level=1)
    loaded = seewhy.load_model()
    assert loaded.preprocess is not None
    preprocess = replace(loaded.preprocess, fit="squash")  # does not change images of the input's size
    inputs = torch.cat([preprocess(image)[0] for image in written])
    model = fit_classifier(loaded.module, inputs, labels, strength)
    return Experiment(folder, list(names), labels.tolist(), {names[row] for row in tagged}, model, preprocess)


def add_tag(image: ImageArray, corner: str = CORNER, colors: tuple[Color, Color] = COLORS) -> ImageArray:
    """Return a copy of an image (224, 224, 3) with the tag in a corner ("top left", "bottom right", ...)."""
    vertical, horizontal = corner.split()
    rows = slice(0, TAG) if vertical == "top" else slice(-TAG, None)
    columns = slice(0, TAG) if horizontal == "left" else slice(-TAG, None)
    y, x = np.mgrid[:TAG, :TAG] - (TAG - 1) / 2
    tagged = image.copy()
    tagged[rows, columns] = np.where((x**2 + y**2 < DISC**2)[..., None], colors[1], colors[0])
    return tagged


def fit_classifier(
    network: nn.Module, inputs: Tensor, labels: NDArray[np.int_], strength: float = STRENGTH
) -> nn.Module:
    """Return a copy of `network` whose classifier is an L2-regularized logistic regression on its pooled features.

    The features are standardized for the fit; the standardization is then folded into the linear layer.
    """
    from sklearn.linear_model import LogisticRegression

    model = copy.deepcopy(network).eval()
    model.classifier = nn.Identity()
    with torch.inference_mode():
        features = torch.cat([model(batch) for batch in inputs.split(16)]).double().numpy()
    mean, scale = features.mean(0), features.std(0) + 1e-6
    regression = LogisticRegression(C=strength / features.shape[1], max_iter=2000)
    regression.fit((features - mean) / scale, labels)
    weight = torch.from_numpy(regression.coef_[0] / scale)
    bias = float(regression.intercept_[0] - weight.numpy() @ mean)
    head = nn.Linear(features.shape[1], 2)
    with torch.no_grad():  # half of the difference for each class, so that the classes are symmetric
        head.weight.copy_(torch.stack([-weight, weight]) / 2)
        head.bias.copy_(torch.tensor([-bias, bias]) / 2)
    model.classifier, model.num_classes = head, 2  # with num_classes = 1000, the ImageNet names would be assigned
    return model.eval()


@lru_cache(maxsize=1)
def load_images() -> tuple[tuple[str, ...], list[ImageArray], NDArray[np.bool_]]:
    """Return the names, the pixels at Lite0's input size (224, 224, 3), and which are animals, of the 200 ImageNet samples."""
    preprocess = seewhy.load_model().preprocess
    assert preprocess is not None
    with (DATA / "imagenet" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [DATA / "imagenet" / row["file"] for row in rows]
    images = [preprocess.denormalize(preprocess(seewhy.load_image(path))[0][0]) for path in paths]
    is_animal = np.array([int(row["class_index"]) < ANIMALS for row in rows])
    return tuple(f"{path.stem}.png" for path in paths), images, is_animal
