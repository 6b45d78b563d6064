"""The local app: who may ask, what may be asked, and that nothing else happens."""

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
from seewhy.cli.explain_images import explained
from seewhy.engine.options import Settings
from seewhy.errors import UsageError
from seewhy.images.loading import load_image
from seewhy.server import Limits, app, make_server
from seewhy.server import requests as questions
from seewhy.server.requests import shown_name
from support.local_app import LIMITS, Served, picture_bytes, small_net

WRITES: list[str] | None = None  # paths opened for writing while it is a list


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: Python tells it of every file that is opened, made or moved, in whatever thread."""
    if WRITES is None:
        return
    mode, flags = (arguments[1], arguments[2]) if event == "open" else (None, 0)  # os.open has no mode
    if event == "open" and (set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        WRITES.append(f"open {arguments[0]}")
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "shutil.copyfile", "tempfile.mkstemp"):
        WRITES.append(f"{event} {arguments}")


sys.addaudithook(watch)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    found = Served([small_net(), seewhy.load_model()])
    yield found
    found.close()


@pytest.fixture(autouse=True)
def nothing_is_written(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file: no thread opens a file for writing."""
    global WRITES
    if "served" in request.fixturenames:
        request.getfixturevalue("served")
    WRITES = []
    yield
    found, WRITES = WRITES, None
    assert found == []


def test_the_watch_sees_files_that_are_written(tmp_path: Any) -> None:
    assert WRITES is not None
    WRITES.clear()  # of the folder itself
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").mkdir()
    os.close(os.open(tmp_path / "c", os.O_CREAT | os.O_WRONLY))
    assert len(WRITES) == 3
    WRITES.clear()


# Who may ask


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:8642", "", None, "[::1]:1",
             "127.0.0.1:80@evil.example", "2130706433"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/choices", "/explain"])
def test_another_host_is_refused(served: Served, path: str, host: str | None) -> None:
    status, _, _ = served.ask(path, b"" if path == "/explain" else None, headers={"Host": host})
    assert status in (400, 421)
    served.lives()


def test_two_hosts_are_none(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        head = f"GET /choices HTTP/1.1\r\nHost: {served.host}\r\nHost: {served.host}\r\nAuthorization: Bearer {served.token}"
        connection.sendall(f"{head}\r\n\r\n".encode())
        assert connection.recv(100).split()[1] in (b"400", b"421")


def test_this_machine_by_either_name_and_any_port(served: Served) -> None:
    for host in (served.host, f"localhost:{served.port}", "localhost", "127.0.0.1:9"):  # the last two through a tunnel
        assert served.ask("/choices", headers={"Host": host, "Origin": f"http://{host}"})[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "https://{host}", "http://localhost:1", "http://{host}.evil.example",
               "http://{host}/", "file://"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/choices", "/explain"])
def test_another_origin_is_refused(served: Served, path: str, origin: str) -> None:
    headers: dict[str, str | None] = {"Origin": origin.replace("{host}", served.host)}
    status, body, answered = served.ask(path, picture_bytes() if path == "/explain" else None, headers=headers)
    assert status == 403 and b"origin" in body
    assert not any(name.startswith("access-control") for name in answered)
    served.lives()


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer {short}~",
        "Bearer \xff",
    ],
)
@pytest.mark.parametrize("path", ["/choices", "/explain", "/nowhere", "//", "/../etc/passwd"])
def test_without_the_token_nothing_is_told(served: Served, path: str, given: str | None) -> None:
    header = None if given is None else given.replace("{token}", served.token).replace("{short}", served.token[:-1])
    status, body, _ = served.ask(
        path, picture_bytes() if path == "/explain" else None, headers={"Authorization": header}
    )
    assert status == 401 and b"terminal" in body
    assert served.ask(f"{path}?token={served.token}", headers={"Authorization": None})[0] == 401


def test_a_preflight_is_answered_with_nothing(served: Served) -> None:
    headers: dict[str, str | None] = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    status, _, answered = served.ask("/explain", method="OPTIONS", headers={**headers, "Authorization": None})
    assert status == 403 and not any(name.startswith("access-control") for name in answered)


def test_the_first_page_holds_no_secret_and_may_do_little(served: Served) -> None:
    status, body, headers = served.ask("/", headers={"Authorization": None})
    assert status == 200 and served.token.encode() not in body
    policy = headers["content-security-policy"]
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert "unsafe-eval" not in policy and "script-src 'sha256-" in policy
    for name in ("cache-control", "x-content-type-options", "referrer-policy", "x-frame-options"):
        assert name in headers
    assert "server" not in headers


def test_it_listens_on_this_machine_only(served: Served) -> None:
    assert served.listening.getsockname()[0] == "127.0.0.1"


# What may be sent


def test_a_body_that_is_too_large_is_refused(served: Served) -> None:
    large = picture_bytes() + b"\0" * LIMITS.body
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large)
    status, body, _ = served.ask("/explain", chunked, headers={"Transfer-Encoding": "chunked"})
    assert status == 413 and b"2 MB" in body
    assert served.ask("/explain", large)[0] == 413
    served.lives()


@pytest.mark.parametrize("words", ["", "?sample=coffee"])
def test_a_body_without_end_is_cut_off(served: Served, words: str) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        head = f"POST /explain{words} HTTP/1.1\r\nHost: {served.host}\r\nAuthorization: Bearer {served.token}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        with pytest.raises(OSError):  # 64 MB of a limit of 2 would be taken in a second
            while sent < 64 * 2**20:
                connection.sendall(b"10000\r\n" + b"\0" * 65536 + b"\r\n")
                sent += 65536
            raise AssertionError("all of it was taken")
    served.lives()


def test_a_length_that_lies_helps_nobody(served: Served) -> None:
    large = picture_bytes() + b"\0" * (3 * LIMITS.body)
    short = {"Content-Length": "100"}  # what lies behind is no request and no part of this one
    with suppress(
        http.client.IncompleteRead, ConnectionResetError
    ):  # the rest, which is no request, ends the connection
        assert served.ask("/explain", large, headers=short)[0] in (200, 400, 415)
    status, body, _ = served.ask("/explain", picture_bytes(), headers={"Content-Length": "1000000"})
    assert status == 408 and b"did not arrive" in body
    both = {"Content-Length": "10", "Transfer-Encoding": "chunked"}
    assert served.ask("/explain", b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large), headers=both)[0] in (400, 413)
    for length in ("-1", "1e3", "99999999999999999999"):
        assert served.ask("/explain", picture_bytes(), headers={"Content-Length": length})[0] in (400, 408)
    served.lives()


def test_who_leaves_in_the_middle_takes_no_place_along() -> None:
    few = Served([small_net()], Limits(body=2**20, places=2, patience=20))
    try:
        for _ in range(6):
            with socket.create_connection(("127.0.0.1", few.port)) as connection:
                head = f"POST /explain HTTP/1.1\r\nHost: {few.host}\r\nAuthorization: Bearer {few.token}\r\n"
                connection.sendall(head.encode() + b"Content-Length: 100000\r\n\r\nabc")
                time.sleep(0.05)
        time.sleep(0.2)
        few.lives()
    finally:
        few.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"\x89PNG\r\n\x1a\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n",
     b"%PDF-1.4", b"\0" * 5000, b"PK\x03\x04" + b"\0" * 100, b"<html><script>alert(1)</script>"],
)  # fmt: skip
def test_what_is_no_picture_is_refused(served: Served, data: bytes) -> None:
    status, news = served.explain(data, name="x.png")
    assert status == 415 and news[0]["error"].startswith("x.png: ")
    served.lives()


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG file whose header says any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(served: Served) -> None:
    rows = zlib.compress(b"\0" * 50_000_000, 9)  # 50 kB for 50 MB
    for width, height in ((60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (4000, 4000)):
        status, news = served.explain(png(width, height, rows), name="bomb.png")
        assert status == 415 and "over the limit" in news[0]["error"], news
    frames = [Image.new("L", (1500, 1500), level) for level in range(0, 200, 4)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])  # of an animation only the first is read
    assert "page" in served.explain(file.getvalue(), model=0)[1][-1]
    served.lives()


def tiff(tags: dict[int, int]) -> bytes:
    """A TIFF file of one tile with nothing in it."""
    entries = {**tags, 324: 8, 325: 0}
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items())) + b"\0" * 4


def test_files_that_take_long_for_their_size_are_refused(served: Served) -> None:
    scans = picture_bytes(form="JPEG") + b"\xff\xda" * 300
    assert "scans" in served.explain(scans)[1][0]["error"]
    profiles = picture_bytes()[:33] + b"\0\0\0\0iCCP\0\0\0\0" * 20 + picture_bytes()[33:]
    assert "profiles" in served.explain(profiles)[1][0]["error"]
    status, news = served.explain(tiff({256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16384, 323: 16384}))
    assert status == 415 and "tiles of 16384" in news[0]["error"]
    served.lives()


def test_a_picture_that_is_cut_off_is_one_line_of_news(served: Served) -> None:
    for form in ("JPEG", "PNG", "WEBP"):
        whole = picture_bytes(size=(300, 300), form=form)
        status, news = served.explain(whole[: len(whole) - len(whole) // 3], name="cut")
        assert (status, "cut: " in news[-1]["error"]) in ((200, True), (415, True))
    served.lives()


# What may be asked


@pytest.mark.parametrize(
    "words",
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
    ids=lambda words: str(words)[:60],
)  # fmt: skip
def test_only_what_is_on_the_lists_may_be_asked(served: Served, words: dict[str, str]) -> None:
    status, news = served.explain(picture_bytes(), **words)
    assert status == 422 and len(news) == 1 and len(news[0]["error"]) < 400
    served.lives()


def test_long_lists_are_refused_before_they_are_looked_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[object] = []
    for name in ("find_class", "find_method"):
        monkeypatch.setattr(questions, name, lambda *given: looked_up.append(given))
    assert served.explain(picture_bytes(), model=1, methods=",".join(["gradcam"] * 5000))[0] == 422
    assert looked_up == []
    monkeypatch.undo()
    monkeypatch.setattr(questions, "find_class", lambda *given: looked_up.append(given))
    assert served.explain(picture_bytes(), model=1, classes="\n".join(["minibus"] * 5000))[0] == 422
    assert looked_up == []


def test_a_class_by_name_is_an_index_whatever_its_name(served: Served) -> None:
    """Class 3 is called "like:/etc/passwd": it is that class, and never a file."""
    status, news = served.explain(picture_bytes(), top=0, classes="like:/etc/passwd\nBUS", model=0)
    assert status == 200
    assert [target["key"] for target in data_of(news[-1]["page"])["targets"]] == ["3", "4"]


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/explain/../choices", "/static/x", "/choices/", "/explain",
     "/\\..\\x", "/choices%00"],
)  # fmt: skip
def test_there_are_no_other_places(served: Served, path: str) -> None:
    assert served.ask(path)[0] in (307, 400, 404, 405)
    assert served.ask(path, b"")[0] in (307, 400, 404, 405, 415)
    served.lives()


def test_names_are_for_people_only() -> None:
    assert shown_name("C:\\photos\\..\\bus.jpg") == "bus.jpg"
    assert shown_name("a\u202egpj.exe\x00") == "agpj.exe"
    assert shown_name("x" * 999) == "x" * 120
    assert shown_name("Straßenbahn 🚋 حافلة.png") == "Straßenbahn 🚋 حافلة.png"


def data_of(page: str) -> Any:
    text = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return json.loads(text)


NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>.png"


def test_markup_in_names_stays_text(served: Served) -> None:
    status, news = served.explain(picture_bytes(), name=NASTY, top=5, model=0)
    page = news[-1]["page"]
    assert status == 200 and page.isascii()
    assert "<script>alert" not in page and "<img" not in page
    assert data_of(page)["title"] == "script><img src=x onerror=alert(2)>.png"  # what stands behind its last slash
    assert "</script><script>alert(1)</script>" in [target["name"] for target in data_of(page)["targets"]]


# Answers


def expected(model: seewhy.LoadedModel, picture: bytes, name: str, **chosen: Any) -> str:
    settings = Settings(**{"methods": ("gradcam",), "layers": ("every",), **chosen})
    return explained(model, load_image(picture), name, settings, None).report()


def test_the_page_is_the_one_that_a_run_writes(served: Served) -> None:
    picture = seewhy.sample("coffee").read_bytes()
    status, news = served.explain(
        picture,
        name="coffee.png",
        model=1,
        top=2,
        classes="minibus",
        methods="Grad-CAM,hirescam",
        layers="blocks",
        fit="pad",
    )
    asked = {"methods": ("gradcam", "hirescam"), "targets": ("top2", "654"), "layers": ("blocks",), "fit": "pad"}
    assert status == 200 and news[-1]["page"] == expected(served.models[1], picture, "coffee.png", **asked)
    command = data_of(news[-1]["page"]) and news[-1]["page"]
    assert (
        "seewhy coffee.png --layers blocks --methods gradcam --methods hirescam --targets top2 --targets 654" in command
    )


def test_twenty_clients_at_once_get_their_own_answers(served: Served) -> None:
    questions = []
    for number in range(20):
        color, top = ["red", "green", "blue", "white"][number % 4], 1 + number % 3
        questions.append(
            (picture_bytes(color, (60 + number, 50)), {"name": f"{number}.png", "top": top, "model": number % 2})
        )
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda one: served.explain(one[0], **one[1]), questions))
    for (picture, words), (status, news) in zip(questions, answers, strict=True):
        page = expected(served.models[words["model"]], picture, words["name"], targets=(f"top{words['top']}",))
        assert status == 200 and news[-1]["page"] == page


def test_thirty_at_once_are_answered_or_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Served([small_net()], Limits(places=5))
    plain = app.explained

    def slower(*given: Any) -> Any:
        time.sleep(0.05)
        return plain(*given)

    monkeypatch.setattr(app, "explained", slower)
    try:
        with ThreadPoolExecutor(30) as pool:
            answers = list(pool.map(lambda number: few.explain(picture_bytes(), name=f"{number}"), range(30)))
        statuses = [status for status, _ in answers]
        assert set(statuses) == {200, 503} and statuses.count(200) >= 5
        assert all("page" in news[-1] for status, news in answers if status == 200)
        assert any("waiting" in news[0] and 0 < news[0]["waiting"] < 5 for _, news in answers)
        assert few.ask("/choices")[0] == 200
        assert all("again" in news[-1]["error"] for status, news in answers if status == 503)
        few.lives()
    finally:
        few.close()


def test_who_leaves_the_queue_gives_the_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    few, going = Served([small_net()], Limits(places=4)), threading.Event()
    begun: list[str] = []
    plain = app.explained

    def held(model: Any, image: Any, name: str, *rest: Any) -> Any:
        begun.append(name)
        going.wait(20)
        return plain(model, image, name, *rest)

    monkeypatch.setattr(app, "explained", held)
    try:
        picture = picture_bytes()
        with ExitStack() as stack:
            for number in range(4):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", few.port), timeout=20))
                head = (
                    f"POST /explain?name={number} HTTP/1.1\r\nHost: {few.host}\r\nAuthorization: Bearer {few.token}\r\n"
                )
                connection.sendall(f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture)
                assert b"200 OK" in connection.recv(200)
            status, body, headers = few.ask("/explain", picture)
            assert status == 503 and b"again" in body and headers["retry-after"] == "2"
        while few.ask("/explain", b"junk")[0] == 503:  # three of the places are free again, and one is being answered
            time.sleep(0.05)
        assert few.server.desk.free == 3
        going.set()
        few.lives()
        assert begun == ["0", "after.png"]
    finally:
        going.set()
        few.close()


def test_who_waits_is_told_when_the_server_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = Served([small_net()])
    begun, ended = threading.Event(), threading.Event()

    def held(*_: Any) -> Any:
        begun.set()
        ended.wait(20)
        raise SystemExit  # as a model's own code might

    monkeypatch.setattr(app, "explained", held)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(few.explain, picture_bytes()) for _ in range(2)]
        assert begun.wait(20)
        time.sleep(0.2)
        few.server.should_exit = True
        for answer in answers:
            assert answer.result(20)[1][-1]["error"] == "the server ends"
    ended.set()
    few.close()
    assert "CancelledError" not in capsys.readouterr().err


def test_a_slow_method_says_how_far_it_is_and_stops_when_nobody_waits(served: Served) -> None:
    words = urlencode({"methods": "rise", "layers": "suggested", "model": 1, "top": 1})
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection,
        connection.makefile("rb") as heard,
    ):
        picture = picture_bytes()
        head = f"POST /explain?{words} HTTP/1.1\r\nHost: {served.host}\r\nAuthorization: Bearer {served.token}\r\n"
        connection.sendall(f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture)
        news: list[dict[str, Any]] = []
        while not any(one.get("done", 0) > 0 for one in news):
            line = heard.readline()
            assert line, news
            if line.startswith(b"{"):  # not the head or the length of a chunk
                news.append(json.loads(line))
                assert "page" not in news[-1]
    begun = time.monotonic()
    status, later = served.explain(picture_bytes(), model=1)
    assert status == 200 and "page" in later[-1]
    assert time.monotonic() - begun < 20  # RISE asks 4,000 times: minutes


def test_what_a_model_refuses_is_news_and_an_error_inside_too(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, news = served.explain(picture_bytes(), methods="attentionrollout", model=1)
    assert status == 200 and "attentionrollout" in news[-1]["error"]

    status, news = served.explain(picture_bytes(), methods="attentionrollout,gradcam,legrad", model=1)
    assert [one["key"] for one in data_of(news[-1]["page"])["methods"]] == ["gradcam"]
    assert news[-1]["page"].count("left out: method ") == 2

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("a slip of ours")

    monkeypatch.setattr(app, "explained", fail)
    assert "inside the server" in served.explain(picture_bytes())[1][-1]["error"]
    assert "a slip of ours" in capsys.readouterr().err
    monkeypatch.undo()
    served.lives()


def test_the_pictures_of_the_package_can_be_asked_for(served: Served) -> None:
    offered = json.loads(served.ask("/choices")[1])
    assert [one["name"] for one in offered["samples"]] == ["cat_espresso", "coffee", "chelsea"]
    assert (
        offered["models"][1]["name"] == "EfficientNet-Lite0 (embedded)" and len(offered["models"][1]["classes"]) == 1000
    )
    status, news = served.explain(b"", sample="coffee", model=1)
    assert status == 200 and data_of(news[-1]["page"])["targets"][0]["name"] == "espresso"


# The command


def test_a_port_in_use_is_one_line(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="in use"):
        make_server(served.models, port=served.port)
    with pytest.raises(UsageError, match="--port 70000"):
        make_server(served.models, port=70000)
    with pytest.raises(SystemExit) as left:
        cli.main(["serve", "--port", str(served.port)])
    assert left.value.code == 2 and "in use" in capsys.readouterr().err


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("seewhy.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit) as left:
        cli.main(["serve"])
    assert left.value.code == 2 and "pip install 'seewhy[serve]'" in capsys.readouterr().err


def test_the_command_prints_its_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import uvicorn

    printed: queue.Queue[str] = queue.Queue()

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        printed.put(capsys.readouterr().out)
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    with pytest.raises(SystemExit) as left:
        cli.main(["serve", "--port", "0", "--model", "embedded"])
    assert left.value.code == 0
    assert printed.get().startswith("Open http://127.0.0.1:") and "ended" in capsys.readouterr().err
