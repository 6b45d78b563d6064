"""`Choice`: the recommended method and layer, with its reason, and the rules that lead to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seewhy import storage
from seewhy.models.loaded_model import LoadedModel
from seewhy.storage.marks import StrPath
from seewhy.trust.candidates import Candidate
from seewhy.trust.comparison import Difference, compare_all, means_and_errors

Array = NDArray[np.float64]
Verdict = Literal["better", "no difference", "not enough images", "metrics disagree", "equal maps"]

MARGIN = 0.1  # of the best SRG, which is 0 by chance: a smaller difference does not matter
FLOOR = 0.01  # of a probability: a smaller difference never matters
MANY = 10_000  # images: more than anyone would use to decide between two candidates
CLEAR = 2  # standard errors


@dataclass(frozen=True, eq=False)
class Finalist:
    """A candidate that was compared on the fresh images.

    Attributes:
        candidate: The method and the layer.
        equal: All candidates with the same maps, including this one.
        values: SRG of each fresh image; 0 by chance.
        screened: Mean score of the screening.
    """

    candidate: Candidate
    equal: tuple[Candidate, ...]
    values: Array
    screened: float

    @property
    def mean(self) -> float:
        """Mean SRG."""
        return float(self.values.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(means_and_errors(self.values[None])[1][0])

    def to_dict(self) -> dict[str, Any]:
        """Return the finalist for JSON."""
        return {
            "method": self.candidate.method, "layer": self.candidate.layer, "srg": self.mean, "error": self.error,
            "screened": self.screened, "equal": [str(one) for one in self.equal[1:]],
            "images_with_constant_map": int((self.values == 0).sum()),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Choice:
    """Which method and layer to use for a model.

    Attributes:
        method, layer: The recommendation.
        verdict: "better": than all other finalists. "no difference": that matters, so the cheaper one is recommended. "not
            enough images": to decide. "metrics disagree": another metric or filler prefers the runner-up. "equal maps": all
            candidates are the same.
        reason: One sentence.
        notes: What else to know, such as equal methods.
        finalists: Best first, measured on images that were not used to select them.
        differences: Between all pairs of finalists, by their position in `finalists`.
        screened: Mean score of all candidates in the screening.
        record: Model, images, cost.
    """

    method: str
    layer: str
    verdict: Verdict
    reason: str
    notes: tuple[str, ...]
    finalists: tuple[Finalist, ...]
    differences: tuple[Difference, ...]
    screened: Mapping[Candidate, float]
    record: Mapping[str, Any]

    @property
    def runner_up(self) -> Candidate | None:
        """The second finalist, or None."""
        others = [one.candidate for one in self.finalists if one.candidate != Candidate(self.method, self.layer)]
        return others[0] if others else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        runner_up = self.runner_up
        return {
            "kind": "choice", **self.record, "method": self.method, "layer": self.layer, "verdict": self.verdict,
            "reason": self.reason, "notes": list(self.notes), "runner_up": None if runner_up is None else str(runner_up),
            "finalists": [one.to_dict() for one in self.finalists],
            "screened": [
                {"method": one.method, "layer": one.layer, "score": score}
                for one, score in sorted(self.screened.items(), key=lambda item: -item[1])
            ],
        }  # fmt: skip

    def save(self, path: StrPath) -> None:
        """Write choice.json, which `seewhy photo.jpg --use choice.json` applies."""
        from pathlib import Path

        storage.check_own(Path(path))
        storage.write_file(Path(path), storage.encode_marked_json(self.to_dict()))


def decide(
    finalists: Sequence[Finalist],
    witnesses: Mapping[str, Array],
    costs: Mapping[Candidate, tuple[int, ...]],
    activations: Array,
    *,
    is_probability: bool,
    screened: Mapping[Candidate, float],
    model: LoadedModel,
    images: int,
    failures: Mapping[int, str],
    passes: int,
    full_passes: int,
    seconds: float,
    candidates: int,
) -> Choice:
    """Return the choice from the measured values.

    Args:
        finalists: Best first.
        witnesses: By name, the values `(2, images)` of another metric for the best two.
        costs: What decides between equally good candidates, lower is better.
        activations: SRG `(images,)` of the activations alone, at the layer of the best finalist.
        is_probability: True if the measured score is a probability.
        screened: Mean score of all candidates.
        model: The model.
        images: Number of images that were passed.
        failures: Why some could not be used.
        passes: Forward passes that were used.
        full_passes: Those of the SRG of all candidates on all images.
        seconds: Duration.
        candidates: Number of candidates.
    """
    best = finalists[0]
    margin = max(MARGIN * best.mean, FLOOR if is_probability else 0.0)
    differences = compare_all(np.stack([one.values for one in finalists]), margin) if len(finalists) > 1 else []
    ahead = [one for one in differences if one.first == 0]
    recommended, verdict, reason = judge(finalists, ahead, margin, costs)
    notes = list(witness_notes(witnesses, finalists)) if len(finalists) > 1 else []
    if verdict == "better" and any(not agrees for _, agrees in notes):
        verdict = "metrics disagree"
        reason = f"{reason} Another metric or filler prefers {finalists[1].candidate}, so this is not settled."
    texts = [text for text, _ in notes]
    if best.mean < CLEAR * best.error:
        texts.append(
            f"The SRG of {best.candidate}, {best.mean:.3f} with standard error {best.error:.3f}, may be chance."
        )
    elif len(activations) > 1:
        (gain,), (error,) = means_and_errors((best.values - activations)[None])
        if gain < CLEAR * error:
            texts.append(
                f"{best.candidate} is not clearly better than the activations alone, which depend on no class (difference "
                f"{gain:.3f}, standard error {error:.3f})."
            )
    equal = next(one.equal for one in finalists if one.candidate == recommended)
    if len(equal) > 1:
        texts.append(f"Equal maps up to a factor, counted once: {', '.join(map(str, equal))}.")
    if failures:
        position, text = next(iter(failures.items()))
        texts.append(f"{len(failures)} images were not used; image {position + 1}: {text}")
    record = {
        "model": model.uri, "weights": model.weights_hash, "candidates": candidates, "images": images,
        "images_used": images - len(failures), "images_confirming": len(best.values), "passes": passes,
        "full_passes": full_passes, "seconds": round(seconds, 1), "margin": margin,
    }  # fmt: skip
    return Choice(
        recommended.method, recommended.layer, verdict, reason, tuple(texts), tuple(finalists), tuple(differences),
        screened, record,
    )  # fmt: skip


def judge(
    finalists: Sequence[Finalist],
    ahead: Sequence[Difference],
    margin: float,
    costs: Mapping[Candidate, tuple[int, ...]],
) -> tuple[Candidate, Verdict, str]:
    """Return the recommended candidate, the verdict and a sentence. `ahead` are the differences of the first to the others."""
    best = finalists[0].candidate
    if not ahead:
        return (
            best,
            "equal maps",
            "All candidates that have maps give the same ones up to a factor, so any of them will do.",
        )
    close = [one for one in ahead if -margin < one.low and one.high < margin]
    undecided = [one for one in ahead if one not in close and not one.low > 0]
    nearest = (undecided or close or ahead)[0]
    other = finalists[nearest.second].candidate
    numbers = f"{nearest.mean:.3f} ({nearest.low:.3f} to {nearest.high:.3f})"
    images = len(finalists[0].values)
    if undecided:
        needed = 2 * max(one.needed for one in undecided)
        more = (
            f"About {needed:,} images are needed to decide."
            if 0 < needed <= MANY
            else "More images will hardly decide it."
        )
        return best, "not enough images", f"It is ahead of {other} by {numbers} SRG on {images} images. {more}"
    if close:
        cheapest = min([best, *(finalists[one.second].candidate for one in close)], key=lambda one: costs[one])
        return cheapest, "no difference", (
            f"No difference that matters from {other if cheapest == best else best}: {numbers} SRG, less than {margin:.3f}. "
            "The cheaper one is recommended."
        )  # fmt: skip
    return (
        best,
        "better",
        f"Its SRG is higher than that of {other} by {numbers}, on {images} images that did not select it.",
    )


def witness_notes(witnesses: Mapping[str, Array], finalists: Sequence[Finalist]) -> list[tuple[str, bool]]:
    """Return for each other metric a sentence, and False if it clearly prefers the runner-up."""
    notes = []
    for name, values in witnesses.items():
        if values.ndim < 2 or values.shape[1] < 2:
            continue
        (mean,), (error,) = means_and_errors((values[0] - values[1])[None])
        verb = "agrees" if mean > CLEAR * error else "disagrees" if mean < -CLEAR * error else "does not decide"
        pair = f"{finalists[0].candidate} minus {finalists[1].candidate}"
        text = f"{name} {verb}: {pair} is {mean:.3f}, standard error {error:.3f}."
        notes.append((text, verb != "disagrees"))
    return notes
