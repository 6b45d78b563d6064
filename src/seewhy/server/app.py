"""The ASGI application of the local app. It keeps images in memory and writes nothing to disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from seewhy import storage
from seewhy.engine.inputs import NamedImage
from seewhy.engine.options import Options, as_flags, command_for
from seewhy.engine.pipeline import Explainer
from seewhy.errors import MethodError, one_line
from seewhy.explanation.report import display_model_name
from seewhy.explanation.result import Explanation
from seewhy.images.samples import SAMPLES, sample
from seewhy.methods.cards import cards
from seewhy.methods.catalog import file_of
from seewhy.methods.parsing import as_methods, is_fast
from seewhy.models.loaded_model import LoadedModel
from seewhy.server.cover import CoverEndpoint, LastPhoto
from seewhy.server.endpoint import Endpoint, Limits
from seewhy.server.guard import Guard
from seewhy.server.requests import MAX_CLASSES, MAX_METHODS, ExplainRequest, parse_request
from seewhy.server.shapes import MAX_POINTS, MAX_SHAPES
from seewhy.server.work_queue import Event, Progress, WorkQueue
from seewhy.trust import check
from seewhy.viewer import build_app, jpeg_data_url


def make_app(
    models: Sequence[LoadedModel],
    token: str,
    limits: Limits | None = None,
    options: Options | None = None,
    *,
    checks: bool = True,
) -> Starlette:
    """Return the ASGI application. A request overrides the methods, targets, layers and fit of `options`.

    `checks`: check the maps of each image, as the main command does.
    """
    limits = limits or Limits()
    work_queue = WorkQueue(models, limits.slots)
    options = options or Options()
    cover = CoverEndpoint(work_queue, limits, options)
    explain = ExplainEndpoint(work_queue, limits, options, cover.last_photo, checks)
    page, policy = build_app()
    choices = JSONResponse(list_choices(models, limits)).body

    async def get_page(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def get_choices(_: Request) -> Response:
        return Response(choices, media_type="application/json")

    routes = [
        Route("/", get_page),
        Route("/choices", get_choices),
        Route("/explain", explain.handle, methods=["POST"]),
        Route("/cover", cover.handle, methods=["POST"]),
    ]
    guard = Middleware(Guard, token=token)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: error_response})
    app.state.work_queue = work_queue
    return app


async def error_response(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@dataclass(frozen=True)
class ExplainEndpoint(Endpoint[ExplainRequest]):
    """The endpoint that turns an uploaded image into a report page. The body is the image."""

    last_photo: LastPhoto
    checks: bool

    def parse_query(self, query: Mapping[str, str]) -> ExplainRequest:
        return parse_request(query, self.work_queue.models)

    def run(self, request: ExplainRequest, data: bytes, model: LoadedModel, progress: Progress) -> Event:
        self.last_photo.clear()
        image = NamedImage(request.name, self.load_image(request, data))
        options = replace(
            self.options, methods=request.methods, targets=request.targets, layers=(request.layers,), fit=request.fit,
            include_suggested=True,
        )  # fmt: skip
        methods, notes = request.methods, list[str]()
        while True:
            try:
                e = explain_image(model, image, replace(options, methods=methods), progress, self.checks)
                return {"page": replace(e, notes=(*e.notes, *notes)).report()}
            except MethodError as error:  # skip a method that does not support this model, and run the others
                others = tuple(name for name in methods if name != error.method)
                if others in ((), methods):
                    raise
                methods, notes = others, [*notes, f"skipped: {error}"]


def explain_image(
    model: LoadedModel, image: NamedImage, options: Options, progress: Progress | None, checks: bool = True
) -> Explanation:
    """Explain one image, check its maps, and record the command that reproduces the result."""
    flags = as_flags(options) if checks else [*as_flags(options), "--no-check"]
    e = Explainer(model, options).explain(image, progress=progress, command=command_for(image.source, model.uri, flags))
    if not checks:
        return e
    try:
        return check(model, e, memory=options.memory, progress=progress)
    except Exception as error:  # model code may raise anything, and the maps are complete
        return replace(e, notes=(*e.notes, f"the maps were not checked: {one_line(error)}"))


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
        "limits": {
            "classes": MAX_CLASSES,
            "methods": MAX_METHODS,
            "bytes": limits.body_bytes,
            "shapes": MAX_SHAPES,
            "points": MAX_POINTS,
        },
    }


def make_sample_thumbnails() -> list[dict[str, str]]:
    thumbnails = []
    for name in SAMPLES:
        with Image.open(sample(name), formats=("PNG",)) as image:
            image.thumbnail((240, 240))
            url = jpeg_data_url(storage.encode_jpeg(image.convert("RGB"), quality=80))
            thumbnails.append({"name": name, "thumbnail": url})
    return thumbnails
