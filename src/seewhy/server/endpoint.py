"""The part of an endpoint that does not depend on what is computed: receive an image, queue a job, send its events."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from seewhy.engine.options import Options
from seewhy.errors import ImageError, UsageError
from seewhy.images.loading import check_image_header, load_image
from seewhy.images.samples import sample
from seewhy.images.types import ImageArray
from seewhy.models.loaded_model import LoadedModel
from seewhy.server.requests import ImageRequest
from seewhy.server.work_queue import LAST_EVENTS, Event, Job, Progress, QueueFull, WorkQueue

CLOSE = {"Connection": "close"}  # otherwise the server reads and discards the rest of the body
HEARTBEAT = 1.0  # seconds without an event until an empty one is sent

AnyRequest = TypeVar("AnyRequest", bound=ImageRequest)


@dataclass(frozen=True)
class Limits:
    """Limits per request: bytes of the image, its pixels, and seconds for the upload. `slots` limits open jobs."""

    body_bytes: int = 20 * 2**20
    image_pixels: int = 50_000_000
    upload_seconds: float = 30.0
    slots: int = 32


@dataclass(frozen=True)
class Endpoint(ABC, Generic[AnyRequest]):
    """An endpoint that receives one image and computes one result."""

    work_queue: WorkQueue
    limits: Limits
    options: Options

    extra_bytes = 0  # of the body in addition to the image

    @abstractmethod
    def parse_query(self, query: Mapping[str, str]) -> AnyRequest:
        """Return the valid request, or raise UsageError."""

    def split_body(self, request: AnyRequest, body: bytes) -> tuple[AnyRequest, bytes]:
        """Return the request with the settings in its body, and the image. Raises UsageError for invalid settings."""
        return request, body

    @abstractmethod
    def run(self, request: AnyRequest, data: bytes, model: LoadedModel, progress: Progress) -> Event:
        """Return the last event. Runs in the thread of the model, so only one image per model is decoded at a time."""

    async def handle(self, request: Request) -> Response:
        """Process the image in the body. The response is one JSON object per event; the last has the result or "error".

        Status codes: 408 upload too slow, 413 body too large, 415 not an image or too many pixels, 422 invalid settings, 503
        queue full. Errors found after that, such as a corrupt image, are in the last event.
        """
        try:
            parsed = self.parse_query(request.query_params)
            self.work_queue.reserve_slot()
        except UsageError as error:
            raise HTTPException(422, str(error)) from None
        except QueueFull:
            raise HTTPException(503, "too many requests; try again in a moment", {"Retry-After": "2"}) from None
        try:
            parsed, data = self.split_body(parsed, await self.read_body(request))
            if not parsed.is_sample:
                await asyncio.to_thread(check_image_header, data, self.limits.image_pixels, parsed.name)
        except BaseException as error:
            self.work_queue.release_slot()
            if isinstance(error, ImageError):
                raise HTTPException(415, str(error)) from None
            if isinstance(error, UsageError):
                raise HTTPException(422, str(error)) from None
            if isinstance(error, ClientDisconnect):
                return Response(status_code=400)  # never received
            raise
        return EventStream(self.work_queue.submit(parsed.model, partial(self.run, parsed, data)))

    async def read_body(self, request: Request) -> bytes:
        """Read the full body. The limits apply to the received bytes, regardless of Content-Length."""
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.limits.body_bytes + self.extra_bytes:
                        megabytes = self.limits.body_bytes / 2**20
                        raise HTTPException(413, f"larger than {megabytes:g} MB; choose a smaller file", CLOSE)
                    chunks.append(chunk)
        except TimeoutError:
            raise HTTPException(408, f"the upload took longer than {self.limits.upload_seconds:g} s", CLOSE) from None
        return b"".join(chunks)

    def load_image(self, request: ImageRequest, data: bytes) -> ImageArray:
        """Decode the image. Raises ImageError with the name that the user knows."""
        try:
            return load_image(sample(request.name) if request.is_sample else data, max_pixels=self.limits.image_pixels)
        except ImageError as error:
            raise ImageError(request.name, error.reason) from None


class EventStream(StreamingResponse):
    """The events of a job, one JSON object per line. The job is cancelled if the client disconnects."""

    def __init__(self, job: Job) -> None:
        super().__init__(self.encode_events(job), media_type="application/x-ndjson")
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.cancel()

    @staticmethod
    async def encode_events(job: Job) -> AsyncIterator[str]:
        is_last = False
        while not is_last:
            event: Event
            try:
                async with asyncio.timeout(HEARTBEAT):
                    event = await job.events.get()
            except TimeoutError:
                event = {}
            is_last = not LAST_EVENTS.isdisjoint(event)
            yield json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n"
