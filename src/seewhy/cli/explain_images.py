"""The main job: every picture explained and written to its folder, the bad ones named, the rest still done."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from seewhy import storage, terminal
from seewhy.engine.options import CLASSIC, Settings
from seewhy.engine.passes import NETWORK
from seewhy.engine.pipeline import explain
from seewhy.errors import ImageError, TargetError
from seewhy.explanation.components import non_finite_notes
from seewhy.explanation.flags import FLAGS
from seewhy.explanation.report import make_failed_row, make_index_row, place, has_page
from seewhy.explanation.result import Explanation
from seewhy.images.discovery import find_images
from seewhy.images.loading import Bytes, load_image
from seewhy.models.loading import LoadedModel
from seewhy.paths import folders, safe_name
from seewhy.targets import as_number, as_targets, class_name, find_class
from seewhy.tracing.grid import format_grid
from seewhy.viewer import IndexRow, build_index

WORTH_SAYING = 100  # forwards
THREADS = 2  # encoding releases the interpreter lock; colouring does not


def run(model: LoadedModel, inputs: Sequence[str], settings: Settings) -> int:
    """Explain every picture; the exit code: 0, or 1 where some pictures failed (each is named with its reason).

    A question that a picture cannot answer is that picture's failure, if there are several; 2 where none could answer.
    What holds for every picture, such as a question that cannot be read or a name that does not exist, is raised at once.
    """
    out, err = terminal.make_console(), terminal.make_console(stderr=True)
    rows: list[IndexRow] = []  # of the index page

    def fail(source: str, reason: str) -> None:
        report(source, reason, settings, err)
        rows.append(make_failed_row(source, reason))

    pictures, missing = gather(inputs)
    for error in missing:
        fail(error.source, error.reason)
    found = [picture for picture in pictures if picture == "-" or Path(picture).exists()]
    where = dict(zip(found, folders(settings.out, found), strict=True))
    done = silent = 0
    if settings.label is not None:
        check_label(settings.label, model)
    as_targets(list(settings.targets) or None, list(settings.versus) or None)
    with progress(len(pictures), settings, err) as advance:
        for picture in pictures:
            try:
                folder = where.get(picture, settings.out)
                e = one(model, picture, folder, settings, out)
                if has_page(e):
                    rows.append(make_index_row(e, folder.relative_to(settings.out).as_posix(), settings.look))
                done += 1
            except ImageError as error:
                fail(picture, error.reason)
            except TargetError as error:
                if len(pictures) == 1:
                    raise
                silent += 1
                fail(picture, str(error))
            advance()
    if done and len(rows) > 1 and not settings.features:
        index = settings.out / storage.INDEX
        storage.write_file(index, build_index(rows, title=f"{len(rows)} pictures", model=model.uri).encode("ascii"))
        if not (settings.quiet or settings.as_json):
            out.print(f"\nAll of them in a browser: [bold]{escape(str(index))}[/]", soft_wrap=True)
    bad = sum(not row["page"] for row in rows)
    if bad and bad + done > 1:
        err.print(f"{bad} of {bad + done} failed", style="red")
    return 2 if silent and not done else 1 if bad else 0


def check_label(label: str, model: LoadedModel) -> None:
    """Find a misspelt label before any picture is explained, where the model brings names."""
    if model.labels is not None:
        find_class(as_number(label), model.labels, len(model.labels))


def gather(inputs: Sequence[str]) -> tuple[list[str], list[ImageError]]:
    pictures: list[str] = []
    failed: list[ImageError] = []
    for given in inputs:
        try:
            pictures += find_images([given])
        except ImageError as error:
            failed.append(error)
    return list(dict.fromkeys(pictures)), failed


def one(model: LoadedModel, picture: str, folder: Path, settings: Settings, out: Console) -> Explanation:
    """Explain one picture, write its folder, and print what came out."""
    image = load_image(sys.stdin.buffer if picture == "-" else picture, max_pixels=settings.max_pixels)
    with rows_bar(settings, terminal.make_console(stderr=True)) as rows:
        e = explained(model, image, picture, settings, rows)
    also = drawings(e, settings)
    if has_page(e) and not settings.features:
        also[storage.REPORT] = e.report(style=settings.look).encode("ascii")
    files = e.save(folder, also=also)
    label = compare_label(e, settings.label)
    if settings.as_json:
        record = {**e.to_dict(), "label": label, "folder": str(folder), "files": list(map(str, files))}
        print(json.dumps(record, ensure_ascii=False, allow_nan=False), flush=True)
    elif not settings.quiet:
        show(e, picture, folder, label, settings, out, said=model.notes)
    return e


def explained(
    model: LoadedModel, image: Bytes, picture: str, settings: Settings, progress: Callable[[int, int], None] | None
) -> Explanation:
    """Explain one picture (H, W, 3) as the settings say, with its name and the command that does it again."""
    e = explain(
        model,
        image,
        methods=list(settings.methods) or None,
        layers=list(settings.layers),
        read_at=settings.read_at,
        grid=settings.grid,
        targets=list(settings.targets) or None,
        versus=list(settings.versus) or None,
        multilabel=settings.multilabel,
        fit="squash" if settings.style == CLASSIC and settings.fit is None else settings.fit,
        suggested=not settings.features,
        features=settings.features,
        seed=settings.seed,
        memory=settings.memory * 2**20,
        progress=progress,
    )
    if e.images:
        source = "stdin" if picture == "-" else picture
        e = dataclasses.replace(e, images=(dataclasses.replace(e.images[0], source=source),))
    return dataclasses.replace(e, provenance={**e.provenance, "command": settings.command(picture, model.uri)})


# Pictures


def drawings(e: Explanation, settings: Settings) -> dict[str, storage.Content]:
    """Overlays and sheets by file name: `overlays/NN_layer.jpg`, or a folder for each method and target."""
    if settings.features:
        return {"features.jpg": storage.jpeg(e.features_sheet(e.methods[0], e.targets[0], style=settings.look))}
    layers = [name for name in e.layers if e.layer_info[name].requested]
    main = e.suggested or next((layer for layer in reversed(layers) if layer != NETWORK), layers[-1])
    combinations = [(method, target) for method in e.methods for target in e.targets]
    jobs: dict[str, Callable[[], Image.Image]] = {}
    for method, target in combinations:
        folder = "overlays/" + (f"{safe_name(method)}/{target_folder(e, target)}/" if len(combinations) > 1 else "")
        own = [layer for layer in e.layers_of(method) if layer in layers]
        for number, layer in enumerate(own, 1):
            name = file_name(method, number, layer, len(own), settings)
            jobs[folder + name] = partial(draw, e, method, target, layer, settings)
        sheet = "sheet.jpg" if len(combinations) == 1 else f"sheets/{safe_name(method)}_{target_folder(e, target)}.jpg"
        jobs[sheet] = partial(e.contact_sheet, method, target, layers=own, style=settings.look)
    if len(combinations) > 1:
        jobs["sheet.jpg"] = partial(e.comparison, main, style=settings.look)
    first = (*combinations[0], place(e, combinations[0][0], main))
    jobs["overlay.jpg"] = partial(draw, e, *first, settings)
    draw(e, *first, settings)  # makes the scaled photo once, before the threads want it
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        return dict(zip(jobs, pool.map(lambda make: storage.jpeg(make()), jobs.values()), strict=True))


def draw(e: Explanation, method: str, target: str, layer: str, settings: Settings) -> Image.Image:
    if settings.style == CLASSIC:
        return e.classic_overlay(method, target, layer)
    return e.overlay(method, target, layer, style=settings.look, longest=settings.longest)


def file_name(method: str, number: int, layer: str, count: int, settings: Settings) -> str:
    if settings.style == CLASSIC:  # the tutorial's names
        return f"{'grad_cam' if method == 'gradcam' else safe_name(method)}_conv{number}.jpg"
    return f"{number:0{max(2, len(str(count)))}}_{safe_name(layer)}.jpg"


def target_folder(e: Explanation, target: str) -> str:
    name = e.target_results[e.targets.index(target)].name
    return safe_name(target if name == target else f"{target}_{name}")


# Words


def compare_label(e: Explanation, label: str | None) -> dict[str, Any] | None:
    """What the user said the picture shows, beside what the network predicts; None where nothing was said."""
    if label is None or e.logits is None:
        return None
    index = find_class(as_number(label), e.labels, e.logits.shape[1])
    chances = e.probabilities[0]
    rank = int((chances > chances[index]).sum()) + 1
    predicted, name, _ = e.top(1)[0]
    said = class_name(index, e.labels)
    return {
        "class": index, "name": said, "probability": storage.number(chances[index]), "rank": rank,
        "right": index == predicted, "predicted": name,
    }  # fmt: skip


def show(
    e: Explanation,
    picture: str,
    folder: Path,
    label: dict[str, Any] | None,
    settings: Settings,
    out: Console,
    said: Sequence[str],
) -> None:
    """Print what came out; notes that were `said` when the model was loaded are not repeated for every picture."""
    out.rule(f"[bold]{escape('stdin' if picture == '-' else picture)}[/]", align="left", style=terminal.FAINT)
    top = [] if e.logits is None else e.top(settings.top)
    if top and all(math.isfinite(chance) for _, _, chance in top):
        asked = [int(answer.classes[0]) for answer in e.target_results if answer.classes is not None]
        terminal.print_top(out, top, asked)
    if label is not None:
        chance = "no finite number" if label["probability"] is None else f"{label['probability']:.1%}"
        verdict = "which is right" if label["right"] else f"you said {label['name']} (rank {label['rank']}, {chance})"
        out.print(f"\npredicted {escape(label['predicted'])}, {escape(verdict)}")
    method, target = e.methods[0], e.targets[0]
    if terminal.can_preview(out):
        out.print()
        terminal.print_preview(
            out, e.overlay(method, target, place(e, method, e.suggested or ""), style=settings.look, longest=256)
        )
    out.print()
    terminal.print_layers(
        out, [layer_row(e, method, target, layer) for layer in e.layers_of(method)], e.target_results[0].name, method
    )
    for note in [*e.notes, *non_finite_notes(e.target_results)]:
        if note in said:
            continue
        out.print(f"note: {escape(note)}", style=terminal.FAINT)
    drawn = "features.jpg" if settings.features else "overlays, sheet.jpg, overlay.jpg"
    kinds = f"{drawn}, maps.npz, explanation.json"
    out.print(f"\n{kinds} in [bold]{escape(str(folder))}[/]", soft_wrap=True)
    if not settings.features and has_page(e):
        out.print(f"Explore it in a browser: [bold]{escape(str(folder / storage.REPORT))}[/]", soft_wrap=True)


def layer_row(e: Explanation, method: str, target: str, layer: str) -> terminal.LayerRow:
    info = e.layer_info[layer]
    share = e.positive_evidence(method, target, layer)
    flags = tuple(FLAGS[flag].split(":")[0] for flag in e.flags(method, target, layer))
    return terminal.LayerRow(
        layer, format_grid(info.grid), share if math.isfinite(share) else None, flags, layer == e.suggested
    )


def report(picture: str, reason: str, settings: Settings, err: Console) -> None:
    if settings.as_json:
        print(json.dumps({"picture": picture, "error": reason}, ensure_ascii=False), flush=True)
    err.print(f"[red]{escape(picture)}[/]: {escape(reason)}", soft_wrap=True)


@contextmanager
def rows_bar(settings: Settings, err: Console) -> Iterator[Callable[[int, int], None] | None]:
    """What methods that ask the network again report to: the cost in words, then a bar where stderr is a terminal."""
    if settings.quiet or settings.as_json:
        yield None
        return
    columns = (TextColumn("forwards"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=err, transient=True)
    task = bar.add_task("", total=None)

    def report(done: int, total: int) -> None:
        if done == 0 and total >= WORTH_SAYING:
            err.print(f"the methods ask the network again: about {total:,} forwards", style=terminal.FAINT)
            if err.is_terminal:
                bar.start()
        if bar.live.is_started:
            bar.update(task, completed=min(done, total), total=total)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def progress(count: int, settings: Settings, err: Console) -> Iterator[Callable[[], None]]:
    """A bar on stderr for more than one picture; nothing where stderr is no terminal."""
    if count < 2 or settings.quiet or not err.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=count)
        yield lambda: bar.advance(task)
