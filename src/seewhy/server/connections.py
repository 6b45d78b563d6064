"""Limits on connections, so that clients without the token cannot lock out the browser of the user.

All clients connect from 127.0.0.1, so the token distinguishes them. A connection is *trusted* once it has sent a request
with the token. Others are closed after `UNTRUSTED_SECONDS`, and the oldest of them is closed when there are too many
connections. A browser sends its first request right after connecting, so it is never the oldest for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import h11
from starlette.datastructures import Headers
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 128
ACCEPTED_AT_ONCE = 64  # connections that the event loop accepts before it closes any
BACKLOG = 1024  # connections that wait in the operating system; it delays others by 1 s or more
OTHER_FILES = 96  # file descriptors that the rest of the process may need
# From the connection to a request with the token; speculative connections of browsers are idle.
UNTRUSTED_SECONDS = 10.0
HEADER_SECONDS = 10.0  # from the end of a response to the end of the next header; 5 s without any byte (uvicorn)
STALL_SECONDS, STALL_BYTES = 20.0, 16384  # a client must read this many bytes of a response in this time
BLOCK = 16384  # h11 checks its limit of 16 kB per header only between two blocks


class ConnectionTable:
    """The open connections of a server, oldest first, with one pass per second that closes those over their limits."""

    def __init__(self, is_trusted: Callable[[Headers], bool], max_connections: int | None = None) -> None:
        self.is_trusted = is_trusted
        self.max_connections = max_connections or find_max_connections()
        self.connections: dict[BoundedProtocol, None] = {}

    def add(self, connection: BoundedProtocol) -> None:
        """Add a new connection. If there are too many, close the least valuable one."""
        self.connections[connection] = None
        if len(self.connections) > self.max_connections:
            next(self.by_value()).abort()

    def by_value(self) -> Iterator[BoundedProtocol]:
        """Yield the oldest untrusted connections, then the oldest idle ones, then the newest."""
        yield from (one for one in self.connections if not one.is_trusted)
        yield from (one for one in self.connections if not one.is_busy)
        yield from reversed(self.connections)

    def sweep(self) -> None:
        """Close all connections that are over one of their limits."""
        now = time.monotonic()
        for connection in list(self.connections):
            if connection.is_overdue(now):
                connection.abort()

    def free_descriptors(self) -> None:
        """Close all untrusted connections, because the process has no more file descriptors."""
        for connection in [one for one in self.connections if not one.is_trusted]:
            connection.abort()


class BoundedProtocol(H11Protocol):
    """An HTTP connection with limits on time and size. Its limits are checked by the `ConnectionTable`."""

    def __init__(self, table: ConnectionTable, **settings: Any) -> None:
        super().__init__(**settings)
        self.table = table
        self.is_trusted = False
        self.opened = self.waiting_since = self.stalled_since = time.monotonic()
        self.unsent = 0
        self.last_cycle: object = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being processed."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.table.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.table.connections.pop(self, None)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection without sending what is left. It makes room in the table at once."""
        self.table.connections.pop(self, None)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), BLOCK):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + BLOCK])
            if not self.is_trusted and self.scope is not None:
                self.is_trusted = self.table.is_trusted(Headers(scope=self.scope))  # type: ignore[arg-type]
            # No browser sends a request before it has received the response to the previous one.
            if self.is_busy and self.conn.their_state is h11.DONE and self.conn.trailing_data[0]:
                self.cycle.keep_alive = False
                return

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:  # the error is in the body of a request, which may not be answered twice
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        is_head = self.scope is not None and self.scope["method"] == "HEAD"  # its response has no body, so no message
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not is_head:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def shutdown(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def is_overdue(self, now: float) -> bool:
        """Return True if this connection is over one of its limits. Called once per second."""
        if self.is_busy or self.cycle is not self.last_cycle:
            self.last_cycle, self.waiting_since = self.cycle, now
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent <= self.unsent - STALL_BYTES:
            self.unsent, self.stalled_since = unsent, now
        self.unsent = max(self.unsent, unsent)
        return (
            (not self.is_trusted and now - self.opened > UNTRUSTED_SECONDS)
            or now - self.waiting_since > HEADER_SECONDS
            or now - self.stalled_since > STALL_SECONDS
        )


def find_max_connections() -> int:
    """Return how many connections fit into the limit on file descriptors, at most MAX_CONNECTIONS."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return MAX_CONNECTIONS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, limit - OTHER_FILES - 2 * ACCEPTED_AT_ONCE))
