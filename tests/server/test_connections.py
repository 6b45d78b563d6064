"""Hostile connections to the local app: they end soon, and the browser of the user is never locked out."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from fuzz import fuzz_server
from seewhy.server import app, connections
from seewhy.server.guard import MAX_HEADERS
from support.local_app import LocalApp, make_image, make_small_model, wait_until

Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalApp]:
    server = LocalApp([make_small_model()])
    yield server
    server.close()


@pytest.fixture
def connect(server: LocalApp) -> Iterator[Connect]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of at most 0.2 s. They are checked once per second."""
    for name in ("UNTRUSTED_SECONDS", "HEADER_SECONDS", "STALL_SECONDS"):
        monkeypatch.setattr(connections, name, 0.2)


@pytest.fixture(autouse=True)
def clean_terminal(server: LocalApp, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No test of this file makes the server print anything, and it works afterwards."""
    yield
    server.check_works()
    assert capfd.readouterr().err == ""


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server closes a connection; the rest of its response is ignored."""
    try:
        while connection.recv(2**20):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def valid_head(server: LocalApp, path: str = "/choices") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nAuthorization: Bearer {server.token}\r\n\r\n".encode()


def read_response(connection: socket.socket) -> bytes:
    """Read a response with Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1000)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(length - len(body))
    return head


def test_1000_silent_connections_do_not_lock_out_the_browser(server: LocalApp, connect: Connect) -> None:
    """128 silent connections made the server respond with 503 to everything."""
    browser = connect()
    browser.sendall(valid_head(server))
    assert b" 200 " in read_response(browser)
    hostile = [connect() for _ in range(1000)]
    for number, connection in enumerate(hostile[-100:]):
        connection.send(
            [b"", b"G", b"GET / HTTP/1.1\r\n", b"POST /explain HTTP/1.1\r\nContent-Length: 9\r\n"][number % 4]
        )
    for _ in range(3):
        server.check_works()
        browser.sendall(valid_head(server))  # a connection that had the token is never replaced
        assert b" 200 " in read_response(browser)
    table = server.server.table
    assert len(table.connections) <= table.max_connections < 1000


def test_silent_connection_is_closed(server: LocalApp, connect: Connect, short_limits: None) -> None:
    assert is_closed(connect())


def test_header_that_trickles_is_closed(server: LocalApp, connect: Connect, short_limits: None) -> None:
    """One byte at a time resets the time limit of uvicorn for idle connections."""
    connection, start = connect(), time.monotonic()
    with pytest.raises(OSError):
        for byte in valid_head(server, "/" + "x" * 2000):
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
            assert time.monotonic() - start < 10


def test_idle_connection_with_the_token_is_closed(server: LocalApp, connect: Connect, short_limits: None) -> None:
    connection = connect()
    connection.sendall(valid_head(server))
    read_response(connection)
    connection.sendall(b"G")  # the next header never ends
    assert is_closed(connection)


def test_request_in_progress_is_not_idle(
    server: LocalApp, connect: Connect, short_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain_image = app.explain_image

    def explain_slowly(*arguments: Any) -> Any:
        time.sleep(2.5)
        return explain_image(*arguments)

    monkeypatch.setattr(app, "explain_image", explain_slowly)
    server.check_works()


def test_client_that_never_reads_is_closed(
    server: LocalApp, connect: Connect, short_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response of 20 MB that nobody reads stayed in memory forever, together with its connection."""
    monkeypatch.setattr(app.ExplainEndpoint, "run", lambda *_: {"page": "x" * 20_000_000})
    connection, image = connect(), make_image()
    connection.sendall(server.request_head("/explain", f"Content-Length: {len(image)}") + image)
    wait_until(lambda: any(one.is_trusted for one in server.server.table.connections))
    wait_until(lambda: not any(one.is_trusted for one in server.server.table.connections))
    monkeypatch.undo()


def test_client_that_reads_slowly_gets_its_response(
    server: LocalApp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 1.5)
    monkeypatch.setattr(app.ExplainEndpoint, "run", lambda *_: {"page": "x" * 20_000_000})
    connection, image, received = connect(), make_image(), 0
    connection.sendall(server.request_head("/explain", f"Content-Length: {len(image)}") + image)
    while data := connection.recv(2_000_000):
        received += len(data)
        time.sleep(0.2)
        if data.endswith(b"0\r\n\r\n"):
            break
    assert received > 20_000_000
    monkeypatch.undo()


def test_pipelined_requests_get_one_response(server: LocalApp, connect: Connect) -> None:
    connection = connect()
    connection.sendall(valid_head(server, "/") * 500)
    assert b" 200 " in read_response(connection)
    assert is_closed(connection)


def test_invalid_bytes_after_a_response_print_no_traceback(server: LocalApp, connect: Connect) -> None:
    """uvicorn tried to send a second response, which is an error of the protocol."""
    for path in ("/choices", "/explain?model=9"):
        for pause in (0.0, 0.1):
            connection = connect()
            connection.sendall(server.request_head(path, "Transfer-Encoding: chunked"))
            time.sleep(pause)
            connection.sendall(b"not a chunk\r\n")
            assert is_closed(connection)


def test_invalid_bytes_after_a_head_request_print_no_traceback(
    server: LocalApp, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Found by the fuzzer: the response to HEAD has no body, in which uvicorn sent its message."""
    head = server.request_head("/explain", "Transfer-Encoding: chunked").replace(b"POST", b"HEAD", 1)
    assert head.startswith(b"HEAD")
    connection = connect()
    connection.sendall(head + b"HEAD /explain HTTP/2.0\r\n")
    assert is_closed(connection) and not caplog.records


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"GET /?" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n", b"400 431"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000, b"400 431"),
        (b"GET / HTTP/1.1\r\nHost: {host}\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n", b"431"),
        (b"GET /\r\n\r\n", b"400"), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 421 505"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", b"400"),
        (b"POST /explain HTTP/1.1\r\nHost: {host}\r\n{token}Content-Length: -1\r\n\r\n", b"400"),
        (b"POST /explain HTTP/1.1\r\nHost: {host}\r\n{token}Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST /explain HTTP/1.1\r\nHost: {host}\r\n{token}Content-Length: " + b"9" * 25 + b"\r\n\r\n", b"400"),
        (b"POST /explain HTTP/1.1\r\nHost: {host}\r\n{token}Transfer-Encoding: gzip\r\n\r\n", b"400 501"),
        (b"POST /explain HTTP/1.1\r\nHost: {host}\r\n{token}Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n", b"400"),
        (b"GET http://{host}/choices HTTP/1.1\r\nHost: {host}\r\n{token}\r\n", b"400 404"),
        (b"GET /choices%00%ff?%00=%zz&a=\0 HTTP/1.1\r\nHost: {host}\r\n{token}\r\n", b"400 404"),
    ],
    ids=["query", "headers", "header count", "0.9", "2.0", "TLS", "negative", "two lengths", "large",
          "gzip", "chunk", "absolute", "NUL"],
)  # fmt: skip
def test_malformed_request_is_rejected(
    server: LocalApp, connect: Connect, request_bytes: bytes, statuses: bytes
) -> None:
    connection = connect()
    token = f"Authorization: Bearer {server.token}\r\n".encode()
    try:
        connection.sendall(request_bytes.replace(b"{host}", server.host.encode()).replace(b"{token}", token))
        assert connection.recv(1000).split()[1] in statuses.split()
    except ConnectionResetError:
        pass  # closed before everything was read


def test_missing_file_descriptors_free_untrusted_connections(server: LocalApp, connect: Connect) -> None:
    connection = connect()
    table, port = server.server.table, connection.getsockname()[1]
    wait_until(lambda: any(one.client and one.client[1] == port for one in list(table.connections)))
    context = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, "Too many files"),
    }
    loop = next(iter(table.connections)).loop
    loop.call_soon_threadsafe(server.server.handle_loop_error, loop, context)
    assert is_closed(connection)


def test_the_table_fits_into_the_limit_on_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    for limit, expected in ((20000, 128), (256, 32), (64, 8), (resource.RLIM_INFINITY, 128)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert connections.find_max_connections() == expected
    monkeypatch.undo()


DRILL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from support.local_app import LocalApp, make_small_model
server = LocalApp([make_small_model()])
print(server.port, server.token, flush=True)
sys.stdin.read()
server.close()
"""


@pytest.mark.full
def test_256_file_descriptors_are_enough(capfd: pytest.CaptureFixture[str]) -> None:
    """`ulimit -n 256`, and 1,000 connections that are opened again when the server closes them."""
    with subprocess.Popen([sys.executable, "-c", DRILL], stdin=-1, stdout=-1, stderr=-1, text=True,
                          env={"PYTHONPATH": ":".join(sys.path)}) as process, ExitStack() as stack:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        port, token = process.stdout.readline().split()
        client = LocalApp.__new__(LocalApp)
        client.port, client.host, client.token = int(port), f"127.0.0.1:{port}", token
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=20))
        for _ in range(3):
            client.check_works()
        process.stdin.close()
        assert process.wait(20) == 0 and process.stderr.read() == ""


def test_traceback_in_the_terminal_has_no_control_characters(
    server: LocalApp, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("a bug\x1b[2J\x07")

    monkeypatch.setattr(app, "explain_image", fail)
    assert "internal server error" in server.explain(make_image())[1][-1]["error"]
    printed = capfd.readouterr().err
    assert "Traceback" in printed and r"a bug\x1b[2J\x07" in printed
    assert printed.replace("\n", "").isprintable()
    monkeypatch.undo()


def test_fuzzed_requests_get_clean_responses(server: LocalApp) -> None:
    result = fuzz_server.main(seconds=3.0, seed=0)
    assert result["failures"] == [] and result["cases"] >= 64, result
    assert {"200", "400"} <= set(result["responses"])
