"""`seewhy serve`: the local app."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from seewhy.cli.argument_errors import Integer
from seewhy.cli.exits import print_status
from seewhy.cli.freed_memory import keep_freed_memory
from seewhy.cli.termination import exit_code, unwinding
from seewhy.engine.options import Options
from seewhy.errors import OptionError, UsageError


def serve(
    *,
    model: Annotated[list[str] | None, Parameter(name=["--model", "-m"])] = None,
    port: Integer = 8642,
    open: bool = False,
    labels: str | None = None,
    allow_code: bool = False,
    device: str = "auto",
    max_pixels: Integer = 50_000_000,
    max_megabytes: Integer = 20,
    memory: float = 256,
    no_check: bool = False,
) -> int:
    """Start a local web app: drop an image into the browser to explain it.

    The app listens on 127.0.0.1 only, requires the token in the printed address, and writes no files. To use it from
    another machine: ssh -L 8642:127.0.0.1:8642 HOST

    Parameters
    ----------
    model
        A model to offer, as for the main command; repeat the flag to offer several. Default: the embedded network.
    port
        Port to listen on; 0 selects a free one.
    open
        Open the page in the browser. Other users of this machine can then see the address and its token in the process list.
    labels
        Class names of all models, as for the main command.
    allow_code
        As for the main command.
    device
        auto, cpu, cuda, cuda:1 or mps.
    max_pixels
        Reject images with more pixels before decoding them.
    max_megabytes
        Reject larger files.
    memory
        Megabytes for one batch of changed images, in methods that run extra passes.
    no_check
        As for the main command.
    """
    if max_megabytes < 1 or max_pixels < 1:
        name, value = ("max_pixels", max_pixels) if max_pixels < 1 else ("max_megabytes", max_megabytes)
        raise OptionError(name, value, "give at least 1.")
    options = Options(memory=memory)
    try:
        from seewhy.server import Limits, serve
    except ModuleNotFoundError as error:
        raise UsageError(f"seewhy serve needs {error.name}: pip install 'seewhy[serve]'") from None
    keep_freed_memory()
    import threading
    import webbrowser

    from seewhy.models.loading import load_model

    names: list[str | None] = [*model] if model else [None]
    loaded = [load_model(name, labels=labels, device=device, log=print_status, allow_code=allow_code) for name in names]
    for note in dict.fromkeys(note for item in loaded for note in item.notes):
        print_status(note)

    def announce(address: str) -> None:
        print(f"Open {address}", flush=True)
        print_status("Images stay in the memory of this machine. Press Ctrl-C to stop.")
        if open:
            # Some browsers block until they are closed.
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()

    try:
        with unwinding():
            serve(
                loaded,
                port=port,
                limits=Limits(max_megabytes * 2**20, max_pixels),
                options=options,
                checks=not no_check,
                announce=announce,
            )
    except KeyboardInterrupt:
        print_status("stopped")
        return exit_code()
    return 0
