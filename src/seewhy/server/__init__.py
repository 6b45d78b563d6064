"""`seewhy serve`: the page as a local app. Needs `pip install 'seewhy[serve]'`."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence

import uvicorn

from seewhy.errors import UsageError
from seewhy.loaded import LoadedModel
from seewhy.options import Settings
from seewhy.server.app import Limits, make_app

PORT = 8642
CONNECTIONS = 128


def serve(
    models: Sequence[LoadedModel],
    *,
    port: int = PORT,
    limits: Limits | None = None,
    settings: Settings | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Answer at 127.0.0.1 until interrupted; `ready` is given the address with its token. `port` 0 takes a free one.

    Raises UsageError where the port is taken or does not exist.
    """
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"--port {port}: {reason}; give another, or 0 for any that is free.") from None
    token = secrets.token_urlsafe(24)
    # The token stands behind the "#": browsers keep that part to themselves, so it is in no log and no Referer.
    with listening:
        config = uvicorn.Config(
            make_app(models, token, limits, settings),
            http="h11", ws="none", loop="asyncio", lifespan="on", log_level="warning", access_log=False,
            server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=1,
        )  # fmt: skip
        ready(f"http://127.0.0.1:{listening.getsockname()[1]}/#{token}")
        uvicorn.Server(config).run(sockets=[listening])
