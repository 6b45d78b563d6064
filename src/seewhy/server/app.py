"""The local app: a page, its choices, and pictures explained. Nothing of a picture is written anywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from seewhy import storage
from seewhy.cli.explain_images import explained
from seewhy.engine.options import Settings
from seewhy.errors import ImageError, MethodError, UsageError
from seewhy.explanation.report import display_model_name
from seewhy.images.loading import check_picture, load_image
from seewhy.images.samples import SAMPLES, sample
from seewhy.methods.cards import cards
from seewhy.methods.parsing import as_methods, is_fast
from seewhy.models.loaded import LoadedModel
from seewhy.server.guard import Guard
from seewhy.server.requests import MOST_CLASSES, MOST_METHODS, Question, read_question
from seewhy.server.work_queue import Full, Job, Progress, WorkQueue
from seewhy.viewer import build_app, picture_address

FAMILIES = {
    "gradient": "by gradients", "wrappers": "around a method", "variants": "around a method", "scales": "around a method",
    "activation": "by activations", "masking": "by masks", "ablation": "by masks", "pixels": "by pixels",
    "network": "of the whole network", "transformer": "of transformers",
}  # fmt: skip
CLOSE = {"Connection": "close"}  # or the server would go on reading what it throws away
HEARTBEAT = 1.0  # seconds without news until the client is told that there is none


@dataclass(frozen=True)
class Limits:
    """What one client may cost. `body` is in bytes, `pixels` are of a picture, `patience` is in seconds for a whole body to
    arrive, `places` are questions that wait or are being answered."""

    body: int = 20 * 2**20
    pixels: int = 50_000_000
    patience: float = 30.0
    places: int = 32


def make_app(
    models: Sequence[LoadedModel], token: str, limits: Limits | None = None, settings: Settings | None = None
) -> Starlette:
    """The ASGI application. `settings` are those of every run; what the browser chooses comes on top."""
    limits = limits or Limits()
    desk = WorkQueue(models, limits.places)
    explainer = Explainer(desk, limits, settings or Settings())
    page, policy = build_app()

    async def start(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    offered = JSONResponse(choices(models, limits)).body

    async def offer(_: Request) -> Response:
        return Response(offered, media_type="application/json")

    routes = [Route("/", start), Route("/choices", offer), Route("/explain", explainer.explain, methods=["POST"])]
    guard = Middleware(Guard, token=token)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: in_json})
    app.state.desk = desk
    return app


async def in_json(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@dataclass(frozen=True)
class Explainer:
    """From requests to explanations."""

    desk: WorkQueue
    limits: Limits
    settings: Settings

    async def explain(self, request: Request) -> Response:
        """The picture in the body, explained: a line of JSON for each piece of news, the last with "page" or "error".

        Statuses: 408 the body took too long, 413 too many bytes, 415 no picture, or one with too many pixels, 422 a question
        that is not on the lists, 503 no place. What turns out later, such as a damaged picture, is the last line.
        """
        try:
            question = read_question(request.query_params, self.desk.models)
            self.desk.take_place()
        except UsageError as error:
            raise HTTPException(422, str(error)) from None
        except Full:
            raise HTTPException(
                503, "too many questions at once; ask again in a moment", {"Retry-After": "2"}
            ) from None
        try:
            picture = await self.body(request)
            if not question.sample:
                await asyncio.to_thread(check_picture, picture, self.limits.pixels, question.name)
        except BaseException as error:
            self.desk.give_place()
            if isinstance(error, ImageError):
                raise HTTPException(415, str(error)) from None
            if isinstance(error, ClientDisconnect):
                return Response(status_code=400)  # which nobody reads
            raise
        job = self.desk.ask(question.model, partial(self.page, question, picture))
        return EventStream(job)

    async def body(self, request: Request) -> bytes:
        """The whole body, counted as it comes, whatever its Content-Length says."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.patience):
                async for part in request.stream():
                    size += len(part)
                    if size > self.limits.body:
                        most = self.limits.body / 2**20
                        raise HTTPException(413, f"more than {most:g} MB; give a smaller file", CLOSE)
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, f"the picture did not arrive in {self.limits.patience:g} s", CLOSE) from None
        return b"".join(parts)

    def page(self, question: Question, picture: bytes, model: LoadedModel, progress: Progress) -> str:
        """The page of one picture. In the model's thread, so that no two pictures are decoded for it at a time."""
        given: Any = sample(question.name) if question.sample else picture
        try:
            image = load_image(given, max_pixels=self.limits.pixels)
        except ImageError as error:
            raise ImageError(question.name, error.reason) from None
        settings = replace(self.settings, targets=question.targets, layers=(question.layers,), fit=question.fit)
        methods, unfit = question.methods, list[str]()
        while True:
            try:
                e = explained(model, image, question.name, replace(settings, methods=methods), progress)
                return replace(e, notes=(*e.notes, *unfit)).report()
            except MethodError as error:  # one that does not fit this model takes the others not along
                others = tuple(name for name in methods if name != error.method)
                if others in ((), methods):
                    raise
                methods, unfit = others, [*unfit, f"left out: {error}"]


class EventStream(StreamingResponse):
    """What a job tells, line by line; the job is stopped when the client leaves."""

    def __init__(self, job: Job) -> None:
        super().__init__(self.lines(job), media_type="application/x-ndjson")
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.leave()

    @staticmethod
    async def lines(job: Job) -> AsyncIterator[str]:
        last = False
        while not last:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    event = await job.events.get()
            except TimeoutError:
                event = {}
            last = "page" in event or "error" in event
            yield json.dumps(event, separators=(",", ":")) + "\n"


def choices(models: Sequence[LoadedModel], limits: Limits) -> dict[str, Any]:
    """What the page offers: models with their classes, methods (`slow`: they ask the network again), samples, limits."""
    methods = []
    for card in cards():
        name = card.entry.name
        about, family = card.doc.partition("\n")[0], FAMILIES[card.entry.module.rpartition(".")[2]]
        methods.append({"name": name, "slow": not is_fast(as_methods(name)[name]), "about": about, "family": family})
    return {
        "models": [{"name": display_model_name(model.uri), "classes": model.labels or ()} for model in models],
        "methods": methods,
        "samples": thumbnails(),
        "most": {"classes": MOST_CLASSES, "methods": MOST_METHODS, "bytes": limits.body},
    }


def thumbnails() -> list[dict[str, str]]:
    found = []
    for name in SAMPLES:
        with Image.open(sample(name)) as picture:
            picture.thumbnail((240, 240))
            found.append({"name": name, "picture": picture_address(storage.jpeg(picture.convert("RGB"), quality=80))})
    return found
