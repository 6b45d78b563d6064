"""The local app over HTTP: access control, limits, valid requests, and that no file is written."""

from __future__ import annotations

import http.client
import io
import json
import os
import queue
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

import seewhy
from seewhy.cli import main as cli
from seewhy.engine.inputs import NamedImage
from seewhy.engine.options import Options
from seewhy.errors import UsageError
from seewhy.images.loading import load_image
from seewhy.server import Limits, app, make_server, requests
from seewhy.server.requests import clean_file_name
from support.awkward_images import make_scans
from support.local_app import LIMITS, LocalApp, make_image, make_small_model, wait_until

UPLOADS = ("/explain", "/cover")  # paths of POST requests
writes: list[str] | None = None  # paths opened for writing, while it is a list


def record_write(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: Python calls it for every file that is opened, created or moved, in any thread."""
    if writes is None:
        return
    mode, flags = (arguments[1], arguments[2]) if event == "open" else (None, 0)  # os.open has no mode
    if event == "open" and (set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        writes.append(f"open {arguments[0]}")
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "shutil.copyfile", "tempfile.mkstemp"):
        writes.append(f"{event} {arguments}")


sys.addaudithook(record_write)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalApp]:
    server = LocalApp([make_small_model(), seewhy.load_model()])
    yield server
    server.close()


@pytest.fixture(autouse=True)
def forbid_writes(request: pytest.FixtureRequest) -> Iterator[None]:
    """In every test of this file, no thread opens a file for writing."""
    global writes
    if "server" in request.fixturenames:
        request.getfixturevalue("server")
    writes = []
    yield
    recorded, writes = writes, None
    assert recorded == []


def test_audit_hook_records_writes(tmp_path: Any) -> None:
    assert writes is not None
    writes.clear()  # of tmp_path itself
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").mkdir()
    os.close(os.open(tmp_path / "c", os.O_CREAT | os.O_WRONLY))
    assert len(writes) == 3
    writes.clear()


# Access control


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:8642", "", None, "[::1]:1",
             "127.0.0.1:80@evil.example", "2130706433"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/choices", *UPLOADS])
def test_other_host_is_rejected(server: LocalApp, path: str, host: str | None) -> None:
    status, _, _ = server.request(path, b"" if path in UPLOADS else None, headers={"Host": host})
    assert status in (400, 421)
    server.check_works()


def test_two_host_headers_are_rejected(server: LocalApp) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = f"GET /choices HTTP/1.1\r\nHost: {server.host}\r\nHost: {server.host}\r\nAuthorization: Bearer {server.token}"
        connection.sendall(f"{head}\r\n\r\n".encode())
        assert connection.recv(100).split()[1] in (b"400", b"421")


def test_localhost_and_any_port_are_accepted(server: LocalApp) -> None:
    for host in (server.host, f"localhost:{server.port}", "localhost", "127.0.0.1:9"):  # the last two: SSH tunnels
        assert server.request("/choices", headers={"Host": host, "Origin": f"http://{host}"})[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "https://{host}", "http://localhost:1", "http://{host}.evil.example",
               "http://{host}/", "file://"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/choices", *UPLOADS])
def test_other_origin_is_rejected(server: LocalApp, path: str, origin: str) -> None:
    headers: dict[str, str | None] = {"Origin": origin.replace("{host}", server.host)}
    status, body, received = server.request(path, make_image() if path in UPLOADS else None, headers=headers)
    assert status == 403 and b"origin" in body
    assert not any(name.startswith("access-control") for name in received)
    server.check_works()


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {token}", "{token}", "Bearer {token}x",
                      "Bearer {short}~", "Bearer \xff"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/choices", *UPLOADS, "/nowhere", "//", "/../etc/passwd"])
def test_request_without_token_is_rejected(server: LocalApp, path: str, authorization: str | None) -> None:
    header = authorization and authorization.replace("{token}", server.token).replace("{short}", server.token[:-1])
    image = make_image() if path in UPLOADS else None
    status, body, _ = server.request(path, image, headers={"Authorization": header})
    assert status == 401 and b"terminal" in body
    assert server.request(f"{path}?token={server.token}", headers={"Authorization": None})[0] == 401


@pytest.mark.parametrize("path", UPLOADS)
def test_cors_preflight_is_rejected(server: LocalApp, path: str) -> None:
    headers: dict[str, str | None] = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    status, _, received = server.request(path, method="OPTIONS", headers={**headers, "Authorization": None})
    assert status == 403 and not any(name.startswith("access-control") for name in received)


def test_start_page_has_no_token_and_a_strict_policy(server: LocalApp) -> None:
    status, body, headers = server.request("/", headers={"Authorization": None})
    assert status == 200 and server.token.encode() not in body
    policy = headers["content-security-policy"]
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert "unsafe-eval" not in policy and "script-src 'sha256-" in policy
    for name in ("cache-control", "x-content-type-options", "referrer-policy", "x-frame-options"):
        assert name in headers
    assert "server" not in headers


def test_server_listens_on_loopback_only(server: LocalApp) -> None:
    assert server.listener.getsockname()[0] == "127.0.0.1"


# Uploads


def test_too_large_body_is_rejected(server: LocalApp) -> None:
    large = make_image() + b"\0" * LIMITS.body_bytes
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large)
    status, body, _ = server.request("/explain", chunked, headers={"Transfer-Encoding": "chunked"})
    assert status == 413 and b"2 MB" in body
    assert server.request("/explain", large)[0] == 413
    server.check_works()


@pytest.mark.parametrize("query", ["", "?sample=coffee"])
def test_endless_body_is_cut_off(server: LocalApp, query: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(server.request_head(f"/explain{query}", "Transfer-Encoding: chunked"))
        sent = 0
        with pytest.raises(OSError):  # the limit is 2 MB; without it, 64 MB take about a second
            while sent < 64 * 2**20:
                connection.sendall(b"10000\r\n" + b"\0" * 65536 + b"\r\n")
                sent += 65536
            raise AssertionError("the server read the full body")
    server.check_works()


def test_wrong_content_length_is_harmless(server: LocalApp) -> None:
    large = make_image() + b"\0" * (3 * LIMITS.body_bytes)
    short = {"Content-Length": "100"}
    with suppress(http.client.IncompleteRead, ConnectionResetError):  # the bytes after the body are not a valid request
        assert server.request("/explain", large, headers=short)[0] in (200, 400, 415)
    status, body, _ = server.request("/explain", make_image(), headers={"Content-Length": "1000000"})
    assert status == 408 and b"took longer" in body
    both = {"Content-Length": "10", "Transfer-Encoding": "chunked"}
    assert server.request("/explain", b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large), headers=both)[0] in (400, 413)
    for length in ("-1", "1e3", "99999999999999999999"):
        with suppress(ConnectionResetError):  # the server may close the connection early
            assert server.request("/explain", make_image(), headers={"Content-Length": length})[0] in (400, 408)
    assert server.request("/choices")[0] == 200
    server.check_works()


def test_disconnect_during_upload_frees_the_slot() -> None:
    server = LocalApp([make_small_model()], Limits(body_bytes=2**20, slots=2, upload_seconds=20))
    slots = server.server.work_queue
    try:
        for _ in range(6):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(server.request_head("/explain", "Content-Length: 100000") + b"abc")
                wait_until(lambda: slots.free_slots < 2)
            wait_until(lambda: slots.free_slots == 2)
        server.check_works()
    finally:
        server.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"\x89PNG\r\n\x1a\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n",
     b"%PDF-1.4", b"\0" * 5000, b"PK\x03\x04" + b"\0" * 100, b"<html><script>alert(1)</script>"],
)  # fmt: skip
def test_file_that_is_not_an_image_is_rejected(server: LocalApp, data: bytes) -> None:
    status, events = server.explain(data, name="x.png")
    assert status == 415 and events[0]["error"].startswith("x.png: ")
    server.check_works()


def make_png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG file with any size in its header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_decompression_bomb_is_rejected_before_decoding(server: LocalApp) -> None:
    rows = zlib.compress(b"\0" * 50_000_000, 9)  # 50 kB that expand to 50 MB
    for width, height in ((60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (4000, 4000)):
        status, events = server.explain(make_png(width, height, rows), name="bomb.png")
        assert status == 415 and "over the limit" in events[0]["error"], events
    frames = [Image.new("L", (1500, 1500), level) for level in range(0, 200, 4)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])  # only the first frame is decoded
    assert "page" in server.explain(file.getvalue(), model=0)[1][-1]
    server.check_works()


def make_tiff(tags: dict[int, int]) -> bytes:
    """A TIFF file with one empty tile."""
    entries = {**tags, 324: 8, 325: 0}
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items())) + b"\0" * 4


def test_file_that_is_slow_to_decode_is_rejected(server: LocalApp) -> None:
    assert "scans" in server.explain(make_scans(300))[1][0]["error"]
    status, events = server.explain(
        make_tiff({256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16384, 323: 16384})
    )
    assert status == 415 and "tiles of 16384" in events[0]["error"]
    server.check_works()


def test_truncated_image_is_an_error_event(server: LocalApp) -> None:
    for form in ("JPEG", "PNG", "WEBP"):
        data = make_image(size=(300, 300), form=form)
        status, events = server.explain(data[: len(data) - len(data) // 3], name="cut")
        assert (status, "cut: " in events[-1]["error"]) in ((200, True), (415, True))
    server.check_works()


# Queries


@pytest.mark.parametrize(
    "query",
    [
        {"model": "2"}, {"model": "-1"}, {"model": "/etc/passwd"}, {"model": "timm/resnet18"}, {"model": "os:system"},
        {"model": "http://127.0.0.1:1/"}, {"model": ""}, {"model": "٣"}, {"model": "9" * 5000},
        {"methods": "rise(samples=1000000000)"}, {"methods": ""}, {"methods": "os.system"}, {"methods": "all"},
        {"methods": ",".join(["gradcam", "hirescam", "layercam", "cam", "fem", "lafam", "xgradcam", "gradcam++", "eigencam"])},
        {"top": "11"}, {"top": "-1"}, {"top": "1e9"}, {"top": "0"}, {"top": "9" * 5000}, {"top": "²"},
        {"top": "1", "classes": "like:/etc/hostname"}, {"classes": "like:http://127.0.0.1/x.png"}, {"classes": "text:bus"},
        {"classes": "7", "model": "0"}, {"classes": "box:1,2,3,4"}, {"classes": "\n".join(["0", "1", "2"] * 5)},
        {"layers": "all"}, {"layers": "../.."}, {"fit": "none"}, {"sample": "../../etc/passwd"}, {"sample": "coffee.png"},
        {"sample": "file:///etc/passwd"},
    ],
    ids=lambda query: str(query)[:60],
)  # fmt: skip
def test_value_that_is_not_on_the_lists_is_rejected(server: LocalApp, query: dict[str, str]) -> None:
    status, events = server.explain(make_image(), **query)
    assert status == 422 and len(events) == 1 and len(events[0]["error"]) < 400
    server.check_works()


def test_too_long_lists_are_rejected_before_the_lookup(server: LocalApp, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups: list[object] = []
    for name in ("find_class", "find_method"):
        monkeypatch.setattr(requests, name, lambda *arguments: lookups.append(arguments))
    assert server.explain(make_image(), model=1, methods=",".join(["gradcam"] * 500))[0] == 422
    assert lookups == []
    monkeypatch.undo()
    monkeypatch.setattr(requests, "find_class", lambda *arguments: lookups.append(arguments))
    assert server.explain(make_image(), model=1, classes="\n".join(["minibus"] * 500))[0] == 422
    assert lookups == []


def test_class_name_is_never_parsed_as_a_target(server: LocalApp) -> None:
    """Class 3 is named "like:/etc/passwd": it is resolved to its index, and no file is read."""
    status, events = server.explain(make_image(), top=0, classes="like:/etc/passwd\nBUS", model=0)
    assert status == 200
    assert [target["key"] for target in page_data(events[-1]["page"])["targets"]] == ["3", "4"]


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/explain/../choices", "/static/x", "/choices/", "/explain",
     "/\\..\\x", "/choices%00"],
)  # fmt: skip
def test_other_paths_do_not_exist(server: LocalApp, path: str) -> None:
    assert server.request(path)[0] in (307, 400, 404, 405)
    assert server.request(path, b"")[0] in (307, 400, 404, 405, 415)
    server.check_works()


def test_file_names_are_cleaned_for_display() -> None:
    assert clean_file_name("C:\\photos\\..\\bus.jpg") == "bus.jpg"
    assert clean_file_name("a\u202egpj.exe\x00") == "agpj.exe"
    assert clean_file_name("x" * 999) == "x" * 120
    assert clean_file_name("Straßenbahn 🚋 حافلة.png") == "Straßenbahn 🚋 حافلة.png"


def page_data(page: str) -> Any:
    text = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return json.loads(text)


MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>.png"


def test_markup_in_names_is_escaped(server: LocalApp) -> None:
    status, events = server.explain(make_image(), name=MARKUP, top=5, model=0)
    page = events[-1]["page"]
    assert status == 200 and page.isascii()
    assert "<script>alert" not in page and "<img" not in page
    assert page_data(page)["title"] == "script><img src=x onerror=alert(2)>.png"  # the part after the last slash
    assert "</script><script>alert(1)</script>" in [target["name"] for target in page_data(page)["targets"]]


# Reports


def build_expected_page(model: seewhy.LoadedModel, image: bytes, name: str, **choices: Any) -> str:
    options = Options(**{"methods": ("gradcam",), "layers": ("every",), "include_suggested": True, **choices})
    return app.explain_image(seewhy.prepare(model), NamedImage(name, load_image(image)), options, None).report()


def test_page_equals_the_page_of_the_command_line(server: LocalApp) -> None:
    image = seewhy.sample("coffee").read_bytes()
    query = {
        "name": "coffee.png", "model": 1, "top": 2, "classes": "minibus", "methods": "Grad-CAM,hirescam", "layers": "blocks",
        "fit": "pad",
    }  # fmt: skip
    status, events = server.explain(image, **query)
    choices = {"methods": ("gradcam", "hirescam"), "targets": ("top2", "654"), "layers": ("blocks",), "fit": "pad"}
    page = events[-1]["page"]
    assert status == 200 and page == build_expected_page(server.models[1], image, "coffee.png", **choices)
    flags = "--layers blocks --methods gradcam --methods hirescam --targets top2 --targets 654 --fit pad"
    assert f"seewhy coffee.png {flags}" in page


def test_twenty_concurrent_clients_get_their_own_pages(server: LocalApp) -> None:
    inputs = []
    for number in range(20):
        color, top = ["red", "green", "blue", "white"][number % 4], 1 + number % 3
        query = {"name": f"{number}.png", "top": top, "model": number % 2}
        inputs.append((make_image(color, (60 + number, 50)), query))
    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(lambda one: server.explain(one[0], **one[1]), inputs))
    for (image, query), (status, events) in zip(inputs, responses, strict=True):
        name, targets = str(query["name"]), (f"top{query['top']}",)
        page = build_expected_page(server.models[int(query["model"])], image, name, targets=targets)
        assert status == 200 and events[-1]["page"] == page


def test_requests_beyond_the_slots_get_status_503(monkeypatch: pytest.MonkeyPatch) -> None:
    server = LocalApp([make_small_model()], Limits(slots=5))
    explain_image = app.explain_image

    def explain_slowly(*arguments: Any) -> Any:
        time.sleep(0.05)
        return explain_image(*arguments)

    monkeypatch.setattr(app, "explain_image", explain_slowly)
    try:
        with ThreadPoolExecutor(30) as pool:
            responses = list(pool.map(lambda number: server.explain(make_image(), name=f"{number}"), range(30)))
        statuses = [status for status, _ in responses]
        assert set(statuses) == {200, 503} and statuses.count(200) >= 5
        assert all("page" in events[-1] for status, events in responses if status == 200)
        assert any("waiting" in events[0] and 0 < events[0]["waiting"] < 5 for _, events in responses)
        assert server.request("/choices")[0] == 200
        assert all("try again" in events[-1]["error"] for status, events in responses if status == 503)
        server.check_works()
    finally:
        server.close()


def test_disconnect_while_waiting_frees_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    server, may_run = LocalApp([make_small_model()], Limits(slots=4)), threading.Event()
    started: list[str] = []
    explain_image = app.explain_image

    def wait_and_explain(model: Any, image: NamedImage, *rest: Any) -> Any:
        started.append(image.source)
        may_run.wait(20)
        return explain_image(model, image, *rest)

    monkeypatch.setattr(app, "explain_image", wait_and_explain)
    try:
        image = make_image()
        with ExitStack() as stack:
            for number in range(4):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
                head = server.request_head(f"/explain?name={number}", f"Content-Length: {len(image)}")
                connection.sendall(head + image)
                assert b"200 OK" in connection.recv(200)
            status, body, headers = server.request("/explain", image)
            assert status == 503 and b"again" in body and headers["retry-after"] == "2"
        wait_until(lambda: server.server.work_queue.free_slots == 3)  # one job is still running
        may_run.set()
        server.check_works()
        assert started == ["0", "after.png"]
    finally:
        may_run.set()
        server.close()


def test_waiting_clients_get_an_error_when_the_server_stops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = LocalApp([make_small_model()])
    may_end = threading.Event()

    def wait_and_exit(*_: Any) -> Any:
        may_end.wait(20)
        raise SystemExit  # as model code might

    monkeypatch.setattr(app, "explain_image", wait_and_exit)
    with ThreadPoolExecutor(2) as pool:
        responses = [pool.submit(server.explain, make_image()) for _ in range(2)]
        wait_until(lambda: len(server.server.work_queue.open_jobs[0]) == 2)
        server.server.should_exit = True
        for response in responses:
            assert response.result(20)[1][-1]["error"] == "the server is shutting down"
    may_end.set()
    server.close()
    assert "CancelledError" not in capsys.readouterr().err


def test_slow_method_reports_progress_and_stops_on_disconnect(server: LocalApp) -> None:
    query = urlencode({"methods": "rise", "layers": "suggested", "model": 1, "top": 1})
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
        connection.makefile("rb") as response,
    ):
        image = make_image()
        connection.sendall(server.request_head(f"/explain?{query}", f"Content-Length: {len(image)}") + image)
        events: list[dict[str, Any]] = []
        while not any(event.get("done", 0) > 0 for event in events):
            line = response.readline()
            assert line, events
            if line.startswith(b"{"):  # other lines are headers or chunk sizes
                events.append(json.loads(line))
                assert "page" not in events[-1]
    start = time.monotonic()
    status, later = server.explain(make_image(), model=1)
    assert status == 200 and "page" in later[-1]
    assert time.monotonic() - start < 20  # the 4,000 forward passes of RISE would take minutes


def test_unsupported_methods_are_skipped_and_internal_errors_are_reported(
    server: LocalApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, events = server.explain(make_image(), methods="attentionrollout", model=1)
    assert status == 200 and "attentionrollout" in events[-1]["error"]

    status, events = server.explain(make_image(), methods="attentionrollout,gradcam,legrad", model=1)
    assert [one["key"] for one in page_data(events[-1]["page"])["methods"]] == ["gradcam"]
    assert events[-1]["page"].count("<li>skipped: ") == 2

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(app, "explain_image", fail)
    assert "internal server error" in server.explain(make_image())[1][-1]["error"]
    assert "a bug" in capsys.readouterr().err
    monkeypatch.undo()
    server.check_works()


def test_sample_images_can_be_explained(server: LocalApp) -> None:
    choices = json.loads(server.request("/choices")[1])
    assert [one["name"] for one in choices["samples"]] == ["cat_espresso", "coffee", "chelsea"]
    assert choices["models"][1]["name"] == "EfficientNet-Lite0 (embedded)"
    assert len(choices["models"][1]["classes"]) == 1000
    status, events = server.explain(b"", sample="coffee", model=1)
    assert status == 200 and page_data(events[-1]["page"])["targets"][0]["name"] == "espresso"


# The command


def test_port_in_use_is_a_one_line_error(server: LocalApp, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="in use"):
        make_server(server.models, port=server.port)
    with pytest.raises(UsageError, match="port=70000"):
        make_server(server.models, port=70000)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["serve", "--port", str(server.port)])
    assert exit_info.value.code == 2 and "in use" in capsys.readouterr().err


def test_missing_extra_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("seewhy.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["serve"])
    assert exit_info.value.code == 2 and "pip install 'seewhy[serve]'" in capsys.readouterr().err


def test_command_prints_its_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import uvicorn

    printed: queue.Queue[str] = queue.Queue()

    def interrupt(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        printed.put(capsys.readouterr().out)
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", interrupt)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["serve", "--port", "0", "--model", "embedded"])
    assert exit_info.value.code == 130
    assert printed.get().startswith("Open http://127.0.0.1:") and "stopped" in capsys.readouterr().err
