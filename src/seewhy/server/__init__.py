"""`seewhy serve`: the report page as a local app. Requires `pip install 'seewhy[serve]'`."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence

import uvicorn

from seewhy.engine.options import Options
from seewhy.errors import UsageError
from seewhy.models.loaded_model import LoadedModel
from seewhy.server.app import Limits as Limits
from seewhy.server.app import make_app
from seewhy.server.work_queue import WorkQueue

PORT = 8642
MAX_CONNECTIONS = 128


class Server(uvicorn.Server):
    """A server that ends all open jobs before it stops, so that every client receives a last event."""

    def __init__(self, config: uvicorn.Config, work_queue: WorkQueue) -> None:
        super().__init__(config)
        self.work_queue = work_queue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.work_queue.close()
        await super().shutdown(sockets)


def make_server(
    models: Sequence[LoadedModel], *, port: int = PORT, limits: Limits | None = None, options: Options | None = None
) -> tuple[Server, socket.socket, str]:
    """Return a server, a listening socket on 127.0.0.1, and the address with its token. `port` 0 selects a free port.

    Raises UsageError if the port is in use or does not exist.
    """
    if not 0 <= port < 2**16:
        raise UsageError(f"--port {port}: choose a port from 1 to 65535, or 0 for any free port.")
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else error
        raise UsageError(f"--port {port}: {reason}. Choose another port, or 0 for any free port.") from None
    token = secrets.token_urlsafe(24)
    app = make_app(models, token, limits, options)
    config = uvicorn.Config(
        app,
        http="h11", ws="none", loop="asyncio", lifespan="off", log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=1,
    )  # fmt: skip
    # The token is in the URL fragment, which browsers never send: it appears in no log and no Referer header.
    return Server(config, app.state.work_queue), listener, f"http://127.0.0.1:{listener.getsockname()[1]}/#{token}"


def serve(
    models: Sequence[LoadedModel],
    *,
    port: int = PORT,
    limits: Limits | None = None,
    options: Options | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the local app on 127.0.0.1 until interrupted. `announce` is called with the address, including the token."""
    server, listener, address = make_server(models, port=port, limits=limits, options=options)
    with listener:
        announce(address)
        server.run(sockets=[listener])
