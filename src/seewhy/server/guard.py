"""Access control: only pages of this server, on this machine, with its token."""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")  # with any port, because an SSH tunnel may use another one
MAX_HEADERS = 100
OPEN_PATHS = ("/",)  # the start page contains no secret: its script reads the token from the URL fragment
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Middleware that rejects requests from other sites or without the token, and adds `HEADERS` to every response.

    * 421: wrong `Host`, which indicates DNS rebinding.
    * 403: wrong `Origin`; "null" is a page without an origin.
    * 431: more than MAX_HEADERS headers.
    * 401: missing or wrong token in `Authorization: Bearer`. A page of another site cannot guess the token, and cannot send
      this header without a CORS preflight, which the server never grants.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self.app
        if (rejection := self.find_rejection(scope)) is not None:
            status, reason = rejection
            app = JSONResponse({"error": reason}, status)
        await app(scope, receive, send_with_headers)

    def find_rejection(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and reason if the request must be rejected, else None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or strip_port(host) not in HOSTS:
            return 421, f"wrong host: this server only responds to {HOSTS[0]} and {HOSTS[1]}"
        origins = headers.getlist("origin")  # browsers send it with every cross-site request that writes or reads data
        if origins and origins != [f"{scope['scheme']}://{host}"]:
            return 403, "the request is from a page of another origin"
        if len(headers) > MAX_HEADERS:
            return 431, f"more than {MAX_HEADERS} headers"
        if scope["path"] not in OPEN_PATHS and not has_token(headers, self.token):
            return 401, "missing or wrong token: open the address that seewhy printed in the terminal"
        return None


def has_token(headers: Headers, token: str) -> bool:
    """Return True if a request has the token of this server."""
    scheme, _, sent = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and secrets.compare_digest(sent.encode(), token.encode())


def strip_port(host: str) -> str:
    """Return a host without its port.

    >>> strip_port("localhost:8642"), strip_port("127.0.0.1.evil.example:80")
    ('localhost', '127.0.0.1.evil.example')
    """
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
