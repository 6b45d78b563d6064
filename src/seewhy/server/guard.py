"""Who may speak to the server: pages that it made itself, on this machine, with its token."""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost")  # with any port: a tunnel may lead here from another one
OPEN = ("/",)  # the empty page, which holds no secret: it reads the token from behind the "#" of its address
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Answers what must not come through, and adds `HEADERS` to every answer.

    A wrong `Host` means that another site's name leads here (DNS rebinding): 421. A wrong `Origin` is another site's page,
    "null" one without any: 403. No token, or a wrong one, in `Authorization: Bearer`: 401. A page of another site can neither
    guess the token nor send that header without asking first, which nobody answers.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self.app
        if (objection := self.objection(scope)) is not None:
            status, reason = objection
            app = JSONResponse({"error": reason}, status)
        await app(scope, receive, with_headers)

    def objection(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason of a refusal; None for what may pass."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or host_name(host) not in NAMES:
            return 421, f"this server is {NAMES[0]} or {NAMES[1]}, and was asked for another host"
        origins = headers.getlist("origin")  # browsers send it with all that changes or reads across sites
        if origins and origins != [f"{scope['scheme']}://{host}"]:
            return 403, "a page of another origin asks"
        if scope["path"] not in OPEN and not self.knows(headers):
            return 401, "no token, or a wrong one: take the address that seewhy printed in the terminal"
        return None

    def knows(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and secrets.compare_digest(given.encode(), self.token)


def host_name(host: str) -> str:
    """A host without its port.

    >>> host_name("localhost:8642"), host_name("127.0.0.1.evil.example:80")
    ('localhost', '127.0.0.1.evil.example')
    """
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
