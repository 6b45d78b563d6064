"""Commands beside the main job: what there is to choose from, and pages made again."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from seewhy.cli.exits import print_status
from seewhy.errors import UnknownName, UsageError


def layers(
    model: str | None = None,
    /,
    *,
    all: bool = False,
    size: str | None = None,
    num_classes: int | None = None,
    json: bool = False,
    allow_code: bool = False,
) -> int:
    """List the layers of a model as a tree, with grids and the suggested one.

    Parameters
    ----------
    model
        As for --model; without it the network in the package.
    all
        Every module that gives a grid, not only those of "every".
    size
        The input's side ("224"; of a signal its length) or axes ("224x320"), where the model does not tell.
    num_classes
        As for the main command.
    json
        As one JSON object.
    allow_code
        As for the main command.
    """
    from seewhy.cli.layer_table import print_layer_table
    from seewhy.engine.options import with_classes
    from seewhy.models.loading import load_model

    loaded = load_model(with_classes(model, num_classes), log=print_status, allow_code=allow_code)
    return print_layer_table(loaded, everything=all, size=size, as_json=json, log=print_status)


def methods(name: str | None = None, /, *, markdown: bool = False, json: bool = False) -> int:
    """List the methods: name, formula, paper, what to expect, and cost.

    Parameters
    ----------
    name
        One method, with everything on its card.
    markdown
        As the tables and sections of docs/methods.md.
    json
        As one JSON list.
    """
    import json as writer

    from seewhy.methods import cards as reference
    from seewhy.terminal import make_console, print_methods

    found = reference.cards(name)
    if json:
        print(writer.dumps([card.to_dict() for card in found], ensure_ascii=False))
    elif markdown:
        print(reference.markdown(found))
    else:
        print_methods(make_console(), [card.to_dict() for card in found], full=name is not None)
    return 0


def models(pattern: str = "*", /) -> int:
    """List the models that can be loaded by name.

    Parameters
    ----------
    pattern
        A glob ("timm/*vit*") or a part of the name ("resnet").
    """
    from seewhy.models.loading import list_models

    names = list_models(pattern)
    if not names:
        raise UnknownName("model", pattern, list_models(), hint="List them all: seewhy models")
    print("\n".join(names))
    return 0


def report(*runs: str) -> int:
    """Make the page of saved runs again: report.html in each folder.

    Parameters
    ----------
    runs
        Folders that seewhy wrote: cam/bus.
    """
    from pathlib import Path

    from seewhy.explanation.result import Explanation
    from seewhy.storage import REPORT

    if not runs:
        raise UsageError("no run. Give a folder that seewhy wrote: seewhy report cam/bus")
    for run in runs:
        path = Path(run) / REPORT
        Explanation.load(run).report(path)
        print(path)
    return 0


def serve(
    *,
    model: Annotated[list[str] | None, Parameter(name=["--model", "-m"])] = None,
    port: int = 8642,
    open: bool = False,
    labels: str | None = None,
    allow_code: bool = False,
    device: str = "auto",
    max_pixels: int = 50_000_000,
    max_megabytes: int = 20,
    memory: int = 256,
) -> int:
    """The page as a local app: drop a picture in the browser and look.

    It answers at 127.0.0.1 only, to the address with the token that it prints, and writes nothing. From another machine:
    ssh -L 8642:127.0.0.1:8642 HOST

    Parameters
    ----------
    model
        A network to choose from, as for the main command; give it again for more. Without it the one in the package.
    port
        Where to answer; 0 takes a free one.
    open
        Open the page in the browser. Other users of this machine can then see the address with its token among the processes.
    labels
        As for the main command; of all models.
    allow_code
        As for the main command.
    device
        auto, cpu, cuda, cuda:1 or mps.
    max_pixels
        Refuse pictures larger than this before decoding them.
    max_megabytes
        Refuse files larger than this.
    memory
        Megabytes for a batch of changed pictures, for methods that ask the network again.
    """
    if max_megabytes < 1 or max_pixels < 1:
        raise UsageError("--max-megabytes and --max-pixels: give at least 1.")
    try:
        from seewhy.server import Limits, serve
    except ModuleNotFoundError as error:
        raise UsageError(f"seewhy serve needs {error.name}: pip install 'seewhy[serve]'") from None
    import threading
    import webbrowser

    from seewhy.engine.options import Settings
    from seewhy.models.loading import load_model

    names: list[str | None] = [*model] if model else [None]
    loaded = [load_model(name, labels=labels, device=device, log=print_status, allow_code=allow_code) for name in names]
    for note in dict.fromkeys(note for one in loaded for note in one.notes):
        print_status(note)

    def ready(address: str) -> None:
        print(f"Open {address}", flush=True)
        print_status("Pictures stay in memory on this machine. Ctrl-C ends it.")
        if open:
            threading.Thread(
                target=webbrowser.open, args=[address], daemon=True
            ).start()  # some wait until they are closed

    settings = Settings(labels=labels, allow_code=allow_code, memory=memory)
    try:
        serve(loaded, port=port, limits=Limits(max_megabytes * 2**20, max_pixels), settings=settings, ready=ready)
    except KeyboardInterrupt:
        print_status("ended")
    return 0
