"""How the probability of each class changes when parts of a photo are covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.engine.input_groups import with_row_groups
from seewhy.engine.inputs import Inputs, NamedImage, read_inputs, with_fit
from seewhy.engine.options import Fit, Scores
from seewhy.engine.output_kind import LOGITS, OutputKind, find_output_kind
from seewhy.engine.row_checks import check_rows
from seewhy.errors import UsageError
from seewhy.fast.prepared import PreparedModel, as_prepared
from seewhy.images.types import ImageArray
from seewhy.images.view import View
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model
from seewhy.targets.class_scores import class_scores, probabilities
from seewhy.targets.names import class_name
from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.model_errors import explain_failures
from seewhy.tracing.record import record_forward
from seewhy.tracing.trace import RecordingRequest
from seewhy.tracing.twin import make_twin
from seewhy.trust.covering.photo_cover import Shape, check_filler, cover_photo

NO_SCORES = (
    "the model returns no class scores (B, K), as detectors, segmentation models and embeddings, so there are no probabilities "
    "to compare."
)


@dataclass(frozen=True)
class ClassChange:
    """The probability of one class for a photo, and for the same photo with covered parts.

    Attributes:
        index: Index of the class.
        name: Its short name, or "class 7" without labels.
        before, after: Its probability in [0, 1] for the photo, and with covered parts.
        is_new: True if it is one of the most likely classes only with covered parts.
    """

    index: int
    name: str
    before: float
    after: float
    is_new: bool = False

    @property
    def change(self) -> float:
        """`after` - `before`: -0.25 is a loss of 25 percentage points."""
        return self.after - self.before


@dataclass(frozen=True, eq=False)
class CoverResult:
    """The answer of a model to a photo with covered parts.

    Attributes:
        photo: The covered photo, uint8 `(H, W, 3)`.
        changes: The most likely classes of the photo in their order, then those that are among the most likely classes
            only with covered parts.
    """

    photo: ImageArray
    changes: tuple[ClassChange, ...]


class CoverTest:
    """Covers parts of one photo, and compares the probabilities of the classes with those of the photo itself.

    Args:
        model: An `nn.Module`, or a `LoadedModel` with preprocessing.
        photo: uint8 `(H, W, 3)`, as `load_image` returns it. Its pixels are covered before preprocessing.
        fit: How the photo is fitted to the input size, as for `explain`.
        scores, multilabel: What the class scores are, as for `explain`.

    Attributes:
        probabilities: Of the photo itself, float32 `(K,)`.
        view: The part of the photo that the model receives; None if its preprocessing does not report it.

    Raises:
        UsageError: The model has no preprocessing, or returns no class scores, as detectors and segmentation models.

    Example:
        >>> import seewhy
        >>> from seewhy.trust import CoverTest, Rectangle
        >>> photo = seewhy.load_image(seewhy.sample("coffee"))
        >>> test = CoverTest(seewhy.load_model(), photo)
        >>> changes = test.run([Rectangle(0.2, 0.1, 0.8, 0.9)]).changes
        >>> changes[0].name, changes[0].change < 0
        ('espresso', True)
    """

    def __init__(
        self,
        model: nn.Module | LoadedModel,
        photo: ImageArray,
        *,
        fit: Fit | None = None,
        scores: Scores | None = None,
        multilabel: bool = False,
    ) -> None:
        loaded = load_model(model)
        self.model = loaded if fit is None else with_fit(loaded, fit)
        self.photo = photo
        self.multilabel = multilabel
        given = read_inputs(NamedImage("photo", photo), self.model)
        self.view: View | None = given.images[0].view if given.images else None
        self.kind = {"logits": LOGITS, "probabilities": OutputKind("", True)}.get(scores or "")
        self.probabilities = self.predict(given)

    def run(self, shapes: Sequence[Shape], filler: str = "blur", *, top: int = 5) -> CoverResult:
        """Cover parts of the photo and run the model on it.

        Args:
            shapes: `Rectangle` and `Stroke` instances.
            filler: "blur", "mean", or a color such as "#808080", as for `cover_photo`.
            top: Number of most likely classes to compare, before and after; at least 1.

        Raises:
            UnknownName: `filler` is none of these.
        """
        check_filler(filler)
        covered = cover_photo(self.photo, shapes, filler)
        after = self.probabilities
        if not np.array_equal(covered, self.photo):
            after = self.predict(read_inputs(NamedImage("photo", covered), self.model))
        count = min(max(top, 1), len(after))
        first = self.probabilities.topk(count).indices.tolist()
        new = [index for index in after.topk(count).indices.tolist() if index not in first]
        changes = [
            ClassChange(
                index,
                class_name(index, self.model.labels),
                float(self.probabilities[index]),
                float(after[index]),
                is_new,
            )
            for indices, is_new in ((first, False), (new, True))
            for index in indices
        ]
        return CoverResult(covered, tuple(changes))

    def predict(self, given: Inputs) -> Tensor:
        """Return the probabilities `(K,)` of the classes for one image."""
        if isinstance(self.model, PreparedModel):
            try:
                return self.predict_with(self.model, given)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # another image may take another path through the model
                self.model = as_prepared(self.model, "off")
        return self.predict_with(self.model, given)

    def predict_with(self, model: LoadedModel, given: Inputs) -> Tensor:
        def run(given: Inputs) -> Tensor:
            module, tensor = given.module, given.tensor
            network = model.fast.module_for(module, tensor) if isinstance(model, PreparedModel) else None
            with torch.inference_mode(False), torch.no_grad(), preserve_rng(tensor.device):
                output = make_twin(module if network is None else network)(tensor.clone())
                check_rows(module, tensor, output)
                scores = class_scores(output)
            if scores is None or len(scores) != 1:
                raise UsageError(NO_SCORES)
            if self.kind is None:
                self.kind = find_kind(module, tensor, scores)
            return probabilities(scores.float(), self.multilabel, normalized=self.kind.is_probability)[0].cpu()

        with explain_failures(given.module, given.tensor):
            return with_row_groups(run, given)


def find_kind(module: nn.Module, inputs: Tensor, scores: Tensor) -> OutputKind:
    """Return whether class scores are probabilities, as `explain` observes it.

    Only scores that look like something else than logits are computed again with their graph, which shows the last function.
    """
    kind = find_output_kind(module, inputs, scores)
    if kind == LOGITS or kind.is_probability:
        return kind
    with record_forward(module, inputs, RecordingRequest(frozenset()), from_input=True, exact=False) as trace:
        return find_output_kind(module, inputs, class_scores(trace.output))
