"""The entry point of `seewhy` and `python -m seewhy`: handles signals first, then imports the commands."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until `termination` is imported, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run() -> None:
    """Run the command of the command line and exit with its code."""
    from seewhy.cli import termination

    termination.install()
    termination.open_standard_streams()
    from seewhy.cli.main import main

    main()


if __name__ == "__main__":
    run()
