"""The ASGI application of the local app. It keeps images in memory and writes nothing to disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from seewhy import storage
from seewhy.engine.inputs import NamedImage
from seewhy.engine.options import Options, as_flags, command_for
from seewhy.engine.pipeline import Explainer
from seewhy.errors import ImageError, MethodError, UsageError
from seewhy.explanation.report import display_model_name
from seewhy.explanation.result import Explanation
from seewhy.images.loading import check_image_header, load_image
from seewhy.images.samples import SAMPLES, sample
from seewhy.methods.cards import cards
from seewhy.methods.catalog import file_of
from seewhy.methods.parsing import as_methods, is_fast
from seewhy.models.loaded_model import LoadedModel
from seewhy.server.guard import Guard
from seewhy.server.requests import MAX_CLASSES, MAX_METHODS, ExplainRequest, parse_request
from seewhy.server.work_queue import Event, Job, Progress, QueueFull, WorkQueue
from seewhy.viewer import build_app, jpeg_data_url

CLOSE = {"Connection": "close"}  # otherwise the server reads and discards the rest of the body
HEARTBEAT = 1.0  # seconds without an event until an empty one is sent


@dataclass(frozen=True)
class Limits:
    """Limits per request: bytes of the body, pixels of the image, and seconds for the upload. `slots` limits open jobs."""

    body_bytes: int = 20 * 2**20
    image_pixels: int = 50_000_000
    upload_seconds: float = 30.0
    slots: int = 32


def make_app(
    models: Sequence[LoadedModel], token: str, limits: Limits | None = None, options: Options | None = None
) -> Starlette:
    """Return the ASGI application. A request overrides the methods, targets, layers and fit of `options`."""
    limits = limits or Limits()
    work_queue = WorkQueue(models, limits.slots)
    endpoint = ExplainEndpoint(work_queue, limits, options or Options())
    page, policy = build_app()
    choices = JSONResponse(list_choices(models, limits)).body

    async def get_page(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def get_choices(_: Request) -> Response:
        return Response(choices, media_type="application/json")

    routes = [
        Route("/", get_page),
        Route("/choices", get_choices),
        Route("/explain", endpoint.handle, methods=["POST"]),
    ]
    guard = Middleware(Guard, token=token)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: error_response})
    app.state.work_queue = work_queue
    return app


async def error_response(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@dataclass(frozen=True)
class ExplainEndpoint:
    """The endpoint that turns an uploaded image into a report page."""

    work_queue: WorkQueue
    limits: Limits
    options: Options

    async def handle(self, request: Request) -> Response:
        """Explain the image in the body. The response is one JSON object per event; the last has "page" or "error".

        Status codes: 408 upload too slow, 413 body too large, 415 not an image or too many pixels, 422 invalid query, 503
        queue full. Errors found after that, such as a corrupt image, are in the last event.
        """
        try:
            parsed = parse_request(request.query_params, self.work_queue.models)
            self.work_queue.reserve_slot()
        except UsageError as error:
            raise HTTPException(422, str(error)) from None
        except QueueFull:
            raise HTTPException(503, "too many requests; try again in a moment", {"Retry-After": "2"}) from None
        try:
            data = await self.read_body(request)
            if not parsed.is_sample:
                await asyncio.to_thread(check_image_header, data, self.limits.image_pixels, parsed.name)
        except BaseException as error:
            self.work_queue.release_slot()
            if isinstance(error, ImageError):
                raise HTTPException(415, str(error)) from None
            if isinstance(error, ClientDisconnect):
                return Response(status_code=400)  # never received
            raise
        return EventStream(self.work_queue.submit(parsed.model, partial(self.build_page, parsed, data)))

    async def read_body(self, request: Request) -> bytes:
        """Read the full body. The limits apply to the received bytes, regardless of Content-Length."""
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.limits.body_bytes:
                        megabytes = self.limits.body_bytes / 2**20
                        raise HTTPException(413, f"larger than {megabytes:g} MB; choose a smaller file", CLOSE)
                    chunks.append(chunk)
        except TimeoutError:
            raise HTTPException(408, f"the upload took longer than {self.limits.upload_seconds:g} s", CLOSE) from None
        return b"".join(chunks)

    def build_page(self, request: ExplainRequest, data: bytes, model: LoadedModel, progress: Progress) -> str:
        """Build the report page. Runs in the thread of the model, so only one image per model is decoded at a time."""
        try:
            pixels = load_image(
                sample(request.name) if request.is_sample else data, max_pixels=self.limits.image_pixels
            )
        except ImageError as error:
            raise ImageError(request.name, error.reason) from None
        image = NamedImage(request.name, pixels)
        options = replace(
            self.options, methods=request.methods, targets=request.targets, layers=(request.layers,), fit=request.fit,
            include_suggested=True,
        )  # fmt: skip
        methods, notes = request.methods, list[str]()
        while True:
            try:
                e = explain_image(model, image, replace(options, methods=methods), progress)
                return replace(e, notes=(*e.notes, *notes)).report()
            except MethodError as error:  # skip a method that does not support this model, and run the others
                others = tuple(name for name in methods if name != error.method)
                if others in ((), methods):
                    raise
                methods, notes = others, [*notes, f"skipped: {error}"]


def explain_image(model: LoadedModel, image: NamedImage, options: Options, progress: Progress | None) -> Explanation:
    """Explain one image and record the command that reproduces the result."""
    command = command_for(image.source, model.uri, as_flags(options))
    return Explainer(model, options).explain(image, progress=progress, command=command)


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
            is_last = "page" in event or "error" in event
            yield json.dumps(event, separators=(",", ":")) + "\n"


def list_choices(models: Sequence[LoadedModel], limits: Limits) -> dict[str, object]:
    """Return what the start page offers. A method is `slow` if it runs additional forward passes."""
    methods = []
    for card in cards():
        name = card.entry.name
        description, family = card.doc.partition("\n")[0], file_of(card.entry).group
        slow = not is_fast(as_methods(name)[name])
        methods.append({"name": name, "slow": slow, "description": description, "family": family})
    return {
        "models": [{"name": display_model_name(model.uri), "classes": model.labels or ()} for model in models],
        "methods": methods,
        "samples": make_sample_thumbnails(),
        "limits": {"classes": MAX_CLASSES, "methods": MAX_METHODS, "bytes": limits.body_bytes},
    }


def make_sample_thumbnails() -> list[dict[str, str]]:
    thumbnails = []
    for name in SAMPLES:
        with Image.open(sample(name), formats=("PNG",)) as image:
            image.thumbnail((240, 240))
            url = jpeg_data_url(storage.encode_jpeg(image.convert("RGB"), quality=80))
            thumbnails.append({"name": name, "thumbnail": url})
    return thumbnails
