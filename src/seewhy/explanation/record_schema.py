"""The fields of explanation.json with their types and limits. Import it only to read a record: it imports msgspec."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from seewhy.explanation.checks import Verdict
from seewhy.explanation.windows import MASKS

LONGEST_TEXT = 2**21  # characters: a command may be as long as the system allows
LONGEST_SIDE = 2**27  # positions along one axis of an input, as of a long signal
LONGEST_PHOTO_SIDE = 2**17  # pixels
FARTHEST = 2.0**31  # of a position in a photo
MOST_POINTS = 100_000  # of a removal curve
MOST_FILLERS = 100

Text = Annotated[str, Meta(max_length=LONGEST_TEXT)]
Length = Annotated[int, Meta(ge=1, le=LONGEST_SIDE)]
Shape = Annotated[tuple[Length, ...], Meta(min_length=1, max_length=8)]
Position = Annotated[int, Meta(ge=-LONGEST_SIDE, le=2 * LONGEST_SIDE)]
Axes = Annotated[tuple[Annotated[int, Meta(ge=0, le=7)], ...], Meta(max_length=8)]
Box = Annotated[tuple[tuple[Position, Position], ...], Meta(min_length=1, max_length=8)]
ClassIndex = Annotated[int, Meta(ge=0, le=2**31)]
PhotoSide = Annotated[int, Meta(ge=1, le=LONGEST_PHOTO_SIDE)]
Correlation = Annotated[float, Meta(ge=-1, le=1)]
PhotoPosition = Annotated[float, Meta(ge=-FARTHEST, le=FARTHEST)]

Scalar = Text | int | float | bool | None
ScalarList = Annotated[list[Scalar], Meta(max_length=1000)]
Group = dict[Text, Scalar | ScalarList]  # such as the preprocessing, or the versions of packages


class PartRecord(Struct):
    """A part of the input, as `Part`."""

    box: Box
    mirrored: Axes = ()


class RegionRecord(Struct):
    """The region of the input that a layer sees, as `Region`."""

    box: Box
    order: Axes
    mirrored: Axes = ()


class LayerRecord(Struct):
    """A layer, as `LayerInfo`."""

    kind: Text
    grid: Shape
    channels: Annotated[int, Meta(ge=0, le=2**40)]
    note: Text = ""
    requested: bool = True
    parts: Annotated[list[PartRecord], Meta(max_length=1_000_000)] = field(default_factory=list)
    region: RegionRecord | None = None


class TargetRecord(Struct):
    """The value of one target, as `TargetResult`."""

    key: Text
    name: Text
    score: float | None
    probability: float | None
    class_index: ClassIndex | None = field(name="class")
    for_comparison: bool = False


class TopRecord(Struct):
    """One of the most likely classes."""

    name: Text
    probability: float | None
    class_index: ClassIndex = field(name="class")


class CheckRecord(Struct):
    """How far to trust a map, as `MapCheck`."""

    verdict: Verdict
    r: Correlation | None = None
    low: Correlation | None = None
    high: Correlation | None = None
    p: Annotated[float, Meta(ge=0, le=1)] | None = None
    reason: Text = ""


class DropsRecord(Struct):
    """By how much covering parts of the image lowers the score of a target, as `WindowDrops`."""

    values: Annotated[tuple[float, ...], Meta(max_length=MASKS)] = ()
    everything: float | None = None
    reason: Text = ""


class CurveRecord(Struct):
    """The score while more and more of the image is covered, as `RemovalCurve`. floats that are not finite are null."""

    fractions: Annotated[tuple[Annotated[float, Meta(ge=0, le=1)], ...], Meta(min_length=2, max_length=MOST_POINTS)]
    scores: Annotated[tuple[float | None, ...], Meta(max_length=MOST_POINTS)]
    mass: Annotated[tuple[float | None, ...], Meta(max_length=MOST_POINTS)]


class CurvesRecord(Struct):
    """The curves of a map for one filler, as `RemovalCurves`."""

    most_first: CurveRecord
    least_first: CurveRecord


class MapRecord(Struct):
    """One map, without its values. Its minimum and maximum are computed again after loading."""

    method: Text
    target: Text
    layer: Text
    shape: Shape
    flags: Annotated[list[Text], Meta(max_length=100)]
    check: CheckRecord | None = None
    curves: Annotated[dict[Text, CurvesRecord], Meta(max_length=MOST_FILLERS)] = field(default_factory=dict)


class ViewRecord(Struct):
    """The rectangle of the photo that the model received, as `View`."""

    photo_size: tuple[PhotoSide, PhotoSide]
    input_size: tuple[PhotoSide, PhotoSide]
    box: tuple[PhotoPosition, PhotoPosition, PhotoPosition, PhotoPosition]


class RequestedRecord(Struct):
    """How the user named targets and layers, by the key of the target and by the text of the layer."""

    targets: dict[Text, list[Text]] = field(default_factory=dict)
    layers: dict[Text, list[Text]] = field(default_factory=dict)


class ExplanationRecord(Struct):
    """All fields of explanation.json."""

    image: Text | None
    provenance: dict[Text, Scalar | ScalarList | Group]
    notes: list[Text]
    size: Shape
    view: ViewRecord | None
    top: Annotated[list[TopRecord], Meta(max_length=1000)]
    targets: Annotated[list[TargetRecord], Meta(min_length=1)]
    suggested: Text | None
    layers: dict[Text, LayerRecord]
    maps: Annotated[list[MapRecord], Meta(min_length=1)]
    files: list[Text]
    requested: RequestedRecord = field(default_factory=RequestedRecord)
    drops: dict[Text, DropsRecord] = field(default_factory=dict)
    random_curves: dict[Text, Annotated[dict[Text, CurveRecord], Meta(max_length=MOST_FILLERS)]] = field(
        default_factory=dict
    )
