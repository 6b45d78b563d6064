"""Send random and malformed HTTP to the local app over sockets: clean responses or closed connections,
and no traceback."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.local_app import LocalApp, make_image, make_small_model

CLIENTS, READ_SECONDS = 8, 0.15
METHODS = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"OPTIONS",
    b"CONNECT",
    b"TRACE",
    b"PRI",
    b"get",
    b"\x16\x03\x01",
    b"G" * 300,
    b"",
]
PATHS = [b"/", b"/choices", b"/explain", b"//", b"/../x", b"/%2e%2e/", b"/%", b"/%ff%fe", b"/%00", b"*",
         b"http://localhost/choices",
         b"http://[::1", b"/a b", b"/\xff", b"/explain?", b"/explain?&&==&%", b"", b"/;x", b"/choices/",
         b"/" + b"x" * 40000]  # fmt: skip
QUERIES = [b"", b"model=0", b"model=%00", b"top=1e9", b"classes=%0a%0d%00", b"name=%ff%1b[2J",
         b"a=" + b"x" * 1_000_000, b"%" * 99,
           b"&" * 20000, b"methods=gradcam,gradcam", b"methods=rise(", b"sample=coffee%00", b"fit=\x00",
         b"layers=every&layers=x",
           b"name=" + b"%F0%9F%9A%A2" * 500, b"#" * 9]  # fmt: skip
VERSIONS = [
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/9.9",
    b"HTTP/1.1x",
    b"",
    b"http/1.1",
    b"HTTP/1.1\0",
]
HEADERS = [b"Content-Length: -1", b"Content-Length: 5", b"Content-Length: 5\r\nContent-Length: 6",
         b"Content-Length: " + b"9" * 400,
           b"Content-Length: 1e3", b"Content-Length: 5, 5", b"Content-Length: +5", b"Transfer-Encoding: chunked",
           b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked",
           b"Transfer-Encoding: xchunked", b"Expect: 100-continue", b"Expect: x",
         b"Upgrade: websocket\r\nConnection: upgrade",
           b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings", b"Connection: close", b"Connection: keep-alive",
         b" folded",
           b"Host: evil.example", b"X: " + b"y" * 70000, b": empty", b"a\0b: c", b"X: \x1b[2J", b"\r", b"X:\n y",
         b"X: 1\r\n" * 3000,
           b"Origin: null", b"Authorization: Bearer x", b"Cookie: " + b"a=b;" * 3000]  # fmt: skip
BODIES = [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"f" * 30 + b"\r\n", b"-5\r\nhello\r\n",
         b"5;" + b"e" * 30000 + b"\r\nhello\r\n0\r\n\r\n",
          b"0\r\nX: " + b"y" * 30000 + b"\r\n\r\n", b"5\r\nhelloXX", b"zz\r\n",
         b"\0" * 100_000, b"GET / HTTP/1.1\r\n\r\n"]  # fmt: skip
STARTS = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n",
         b"\0" * 500, b"\r\n" * 500,
          b"\n", b"\xff" * 99999, b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9000]  # fmt: skip


def make_request(choose: random.Random, app: LocalApp) -> bytes:
    """Return the bytes of one or more requests, some of which are valid."""
    if choose.random() < 0.08:
        return choose.choice(STARTS)
    query = choose.choice(QUERIES) if choose.random() < 0.5 else b""
    target = choose.choice(PATHS[:3] if choose.random() < 0.6 else PATHS) + (b"?" + query if query else b"")
    method = choose.choice(METHODS[:2] if choose.random() < 0.7 else METHODS)
    version = choose.choice(VERSIONS) if choose.random() < 0.15 else VERSIONS[0]
    lines = [b" ".join([method, target, version])]
    if choose.random() < 0.9:
        lines.append(b"Host: " + app.host.encode())
    if choose.random() < 0.8:
        lines.append(b"Authorization: Bearer " + app.token.encode())
    lines += choose.sample(HEADERS, choose.choice([0, 1, 1, 2, 3]))
    image = make_image(form=choose.choice(["PNG", "JPEG", "GIF"]))
    body = choose.choice([*BODIES, image, image[: choose.randrange(len(image))]])
    if choose.random() < 0.5:
        lines.append(b"Content-Length: %d" % len(body))
    request = (b"\n" if choose.random() < 0.05 else b"\r\n").join([*lines, b"", b""]) + body
    if choose.random() < 0.2:
        request *= choose.randrange(2, 5)
    if choose.random() < 0.3:
        request = mutate(choose, request)
    return request


def mutate(choose: random.Random, data: bytes) -> bytes:
    """Delete, repeat or replace some bytes, or cut the end off."""
    changed = bytearray(data)
    for _ in range(choose.randrange(1, 5)):
        start = choose.randrange(len(changed) + 1)
        end = start + choose.randrange(8)
        changed[start:end] = choose.choice([b"", changed[start:end] * 2, choose.randbytes(4), b"\0", b"\r\n", b"%"])
    return bytes(changed[: choose.randrange(len(changed) + 1)] if choose.random() < 0.2 else changed)


def send_case(app: LocalApp, seed: int) -> str:
    """Send the case of a seed and return the status, "closed", or "no response" within READ_SECONDS."""
    choose = random.Random(seed)
    data = make_request(choose, app)
    with socket.create_connection(("127.0.0.1", app.port), timeout=5) as connection, contextlib.suppress(OSError):
        step = choose.choice([len(data), 1000, 17]) if len(data) < 4000 else len(data)
        for start in range(0, len(data), step or 1):
            connection.sendall(data[start : start + step])
        if choose.random() < 0.2:
            connection.shutdown(socket.SHUT_WR)
        if choose.random() < 0.1:
            return "not read"
        connection.settimeout(READ_SECONDS)
        try:
            response = connection.recv(4096)
        except TimeoutError:
            return "no response"
        if not response:
            return "closed"
        return (
            response.split()[1].decode("ascii") if response.startswith(b"HTTP/1.1 ") else f"not HTTP: {response[:40]!r}"
        )
    return "closed"


def is_expected(outcome: str) -> bool:
    return not outcome.startswith("not HTTP") and not (outcome.startswith("5") and outcome != "503")


class Recorder(logging.Handler):
    """Keeps what the server logs."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


def main(seconds: float, seed: int) -> dict[str, Any]:
    """Run cases for some seconds. Returns counts: `cases`, `responses` by status, and a list of `failures`.

    Every failure names its seed, so `send_case` repeats it.
    """
    app, recorder, responses = LocalApp([make_small_model()]), Recorder(), Counter[str]()
    failures: list[str] = []
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(recorder)
    end, terminal = time.monotonic() + seconds, io.StringIO()
    try:
        with contextlib.redirect_stderr(terminal), ThreadPoolExecutor(CLIENTS) as pool:
            cases = 0
            while time.monotonic() < end:
                seeds = range(seed * 10**9 + cases, seed * 10**9 + cases + 8 * CLIENTS)
                for case, outcome in zip(seeds, pool.map(lambda number: send_case(app, number), seeds), strict=True):
                    responses[outcome] += 1
                    if not is_expected(outcome):
                        failures.append(f"case {case}: {outcome}")
                cases += len(seeds)
                if recorder.messages or terminal.getvalue():
                    failures.append(f"before case {seeds[-1]}: {recorder.messages} {terminal.getvalue()}")
                    recorder.messages.clear()
                    terminal.truncate(0)
            app.check_works()
    finally:
        for logger in loggers:
            logger.removeHandler(recorder)
        app.close()
    return {"cases": cases, "responses": dict(sorted(responses.items())), "failures": failures}


if __name__ == "__main__":
    print(main(float(sys.argv[1]), int(sys.argv[2])))
