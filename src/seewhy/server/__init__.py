"""`seewhy serve`: the page as a local app. Needs `pip install 'seewhy[serve]'`."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence

import uvicorn

from seewhy.engine.options import Settings
from seewhy.errors import UsageError
from seewhy.models.loaded import LoadedModel
from seewhy.server.app import Limits as Limits
from seewhy.server.app import make_app
from seewhy.server.work_queue import WorkQueue

PORT = 8642
CONNECTIONS = 128


class Server(uvicorn.Server):
    """Ends all answers before it ends, so that none is cut off."""

    def __init__(self, config: uvicorn.Config, desk: WorkQueue) -> None:
        super().__init__(config)
        self.desk = desk

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.desk.close()
        await super().shutdown(sockets)


def make_server(
    models: Sequence[LoadedModel], *, port: int = PORT, limits: Limits | None = None, settings: Settings | None = None
) -> tuple[uvicorn.Server, socket.socket, str]:
    """A server, the socket at 127.0.0.1 that it is to listen on, and its address with the token. `port` 0 takes a free one.

    Raises UsageError where the port is taken or does not exist.
    """
    if not 0 <= port < 2**16:
        raise UsageError(f"--port {port}: ports go from 1 to 65535; 0 takes one that is free.")
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else error
        raise UsageError(f"--port {port}: {reason}; give another, or 0 for any that is free.") from None
    token = secrets.token_urlsafe(24)
    app = make_app(models, token, limits, settings)
    config = uvicorn.Config(
        app,
        http="h11", ws="none", loop="asyncio", lifespan="off", log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=1,
    )  # fmt: skip
    # The token stands behind the "#": browsers keep that part to themselves, so it is in no log and no Referer.
    return Server(config, app.state.desk), listening, f"http://127.0.0.1:{listening.getsockname()[1]}/#{token}"


def serve(
    models: Sequence[LoadedModel],
    *,
    port: int = PORT,
    limits: Limits | None = None,
    settings: Settings | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Answer at 127.0.0.1 until interrupted; `ready` is given the address with its token."""
    server, listening, address = make_server(models, port=port, limits=limits, settings=settings)
    with listening:
        ready(address)
        server.run(sockets=[listening])
