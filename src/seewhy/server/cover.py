"""The endpoint that covers parts of an image and returns how the probabilities of the classes change."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from PIL import Image

from seewhy import storage
from seewhy.images.types import ImageArray
from seewhy.models.loaded_model import LoadedModel
from seewhy.server.endpoint import Endpoint
from seewhy.server.requests import CoverRequest, parse_cover_request
from seewhy.server.shapes import MAX_BYTES, split_shapes
from seewhy.server.work_queue import Event, Progress
from seewhy.trust.covering.class_changes import ClassChange, CoverTest
from seewhy.viewer import jpeg_data_url

LONGEST = 800  # pixels of the longer side of the photo in the app, as on the page


class LastPhoto:
    """The last photo that was covered, decoded, with its probabilities: so that a further shape needs only one forward pass."""

    def __init__(self) -> None:
        self.entry: tuple[object, CoverTest] | None = None  # one reference, which threads replace at once

    def get(self, key: object) -> CoverTest | None:
        entry = self.entry
        return entry[1] if entry is not None and entry[0] == key else None

    def keep(self, key: object, test: CoverTest) -> None:
        self.entry = (key, test)

    def clear(self) -> None:
        self.entry = None


@dataclass(frozen=True)
class CoverEndpoint(Endpoint[CoverRequest]):
    """The body is one line of JSON with the covered shapes, and the image."""

    last_photo: LastPhoto = field(default_factory=LastPhoto)

    extra_bytes = MAX_BYTES + 1

    def parse_query(self, query: Mapping[str, str]) -> CoverRequest:
        return parse_cover_request(query, self.work_queue.models)

    def split_body(self, request: CoverRequest, body: bytes) -> tuple[CoverRequest, bytes]:
        shapes, data = split_shapes(body)
        return replace(request, shapes=shapes), data

    def run(self, request: CoverRequest, data: bytes, model: LoadedModel, progress: Progress) -> Event:
        key = (request.model, request.fit, request.name if request.is_sample else hashlib.sha256(data).digest())
        test = self.last_photo.get(key)
        if test is None:
            photo, options = self.load_image(request, data), self.options
            test = CoverTest(model, photo, fit=request.fit, scores=options.scores, multilabel=options.multilabel)
            self.last_photo.keep(key, test)
        result = test.run(request.shapes, request.filler)
        return {
            "cover": {
                "photo": encode_photo(result.photo),
                "visible": visible_part(test),
                "changes": [encode_change(change) for change in result.changes],
            }
        }


def encode_photo(photo: ImageArray) -> str:
    """Return the photo as the data URL of a JPEG image at the size of the page."""
    image = Image.fromarray(photo)
    image.thumbnail((LONGEST, LONGEST))
    return jpeg_data_url(storage.encode_jpeg(image))


def visible_part(test: CoverTest) -> list[float]:
    """Return left, top, right and bottom of the part of the photo that the model receives, as fractions."""
    if test.view is None:
        return [0.0, 0.0, 1.0, 1.0]
    height, width = test.view.photo_size
    left, top, right, bottom = test.view.visible_box
    return [left / width, top / height, right / width, bottom / height]


def encode_change(change: ClassChange) -> dict[str, object]:
    fields = dataclasses.asdict(change)
    return {**fields, **{name: storage.finite_or_none(fields[name]) for name in ("before", "after")}}
