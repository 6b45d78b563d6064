"""`seewhy serve`: the report page as a local app. Requires `pip install 'seewhy[serve]'`."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import uvicorn

from seewhy.engine.options import Options
from seewhy.errors import OptionError
from seewhy.fast.prepared import as_prepared
from seewhy.models.loaded_model import LoadedModel
from seewhy.server.app import make_app
from seewhy.server.connections import ACCEPTED_AT_ONCE, BACKLOG, BoundedProtocol, ConnectionTable
from seewhy.server.endpoint import Limits as Limits
from seewhy.server.guard import has_token
from seewhy.server.work_queue import WorkQueue

PORT = 8642
# Only errors: a warning for each invalid request would let any client fill the terminal.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"printable": {"()": "seewhy.server.printable_log.PrintableFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "printable"}},
    "loggers": {
        "uvicorn": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
        "asyncio": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
    },
}


class Server(uvicorn.Server):
    """A server that limits connections, and ends all open jobs before it stops, so that every client gets a last event."""

    def __init__(self, config: uvicorn.Config, work_queue: WorkQueue, table: ConnectionTable) -> None:
        super().__init__(config)
        self.work_queue = work_queue
        self.table = table

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self.handle_loop_error)
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)  # asyncio uses one number for both limits

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once per second
            self.table.sweep()
        return await super().on_tick(counter)

    def handle_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Free file descriptors if `accept` found none; asyncio accepts again after a second."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.table.free_descriptors()
        else:
            loop.default_exception_handler(context)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.work_queue.close()
        await super().shutdown(sockets)


def make_server(
    models: Sequence[LoadedModel],
    *,
    port: int = PORT,
    limits: Limits | None = None,
    options: Options | None = None,
    checks: bool = True,
) -> tuple[Server, socket.socket, str]:
    """Return a server, a listening socket on 127.0.0.1, and the address with its token. `port` 0 selects a free port.

    Raises UsageError if the port is in use or does not exist.
    """
    if not 0 <= port < 2**16:
        raise OptionError("port", port, "choose a port from 1 to 65535, or 0 for any free port.")
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else error
        raise OptionError("port", port, f"{reason}. Choose another port, or 0 for any free port.") from None
    token = secrets.token_urlsafe(24)
    prepared = [as_prepared(model, (options.fast if options else None) or "exact") for model in models]
    app = make_app(prepared, token, limits, options, checks=checks)
    table = ConnectionTable(partial(has_token, token=token))
    config = uvicorn.Config(
        app,
        http=partial(BoundedProtocol, table),  # type: ignore[arg-type]
        ws="none", loop="asyncio", lifespan="off", log_config=LOGGING, log_level="error", access_log=False,
        backlog=ACCEPTED_AT_ONCE, server_header=False, proxy_headers=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    # The token is in the URL fragment, which browsers never send: it appears in no log and no Referer header.
    return (
        Server(config, app.state.work_queue, table),
        listener,
        f"http://127.0.0.1:{listener.getsockname()[1]}/#{token}",
    )


def serve(
    models: Sequence[LoadedModel],
    *,
    port: int = PORT,
    limits: Limits | None = None,
    options: Options | None = None,
    checks: bool = True,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the local app on 127.0.0.1 until interrupted. `announce` is called with the address, including the token."""
    server, listener, address = make_server(models, port=port, limits=limits, options=options, checks=checks)
    with listener:
        announce(address)
        server.run(sockets=[listener])
