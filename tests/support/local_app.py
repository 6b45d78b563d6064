"""The local app in a thread, and a plain HTTP client for it."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from typing import Any
from urllib.parse import urlencode

import torch
from PIL import Image

import seewhy
from seewhy.server import Limits, make_server

LIMITS = Limits(body_bytes=2 * 2**20, image_pixels=4_000_000, upload_seconds=1.0, slots=24)


def make_small_model() -> seewhy.LoadedModel:
    """A small random network. Some of its class names look like markup or like a target that reads a file."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5),
    )  # fmt: skip
    labels = ["cat", "</script><script>alert(1)</script>", "dog", "like:/etc/passwd", "bus"]
    return seewhy.load_model(net, preprocess=seewhy.Preprocess.imagenet(64), labels=labels)


class Segmentation(torch.nn.Module):
    """Class scores at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.convolution(x)}


def make_dense_model() -> seewhy.LoadedModel:
    """A random network without class scores of the image."""
    torch.manual_seed(0)
    return seewhy.load_model(Segmentation(), preprocess=seewhy.Preprocess.imagenet(32))


class LocalApp:
    """A running server and an HTTP client that sends its token."""

    def __init__(self, models: list[seewhy.LoadedModel], limits: Limits = LIMITS, **settings: Any) -> None:
        self.models = models
        self.server, self.listener, self.address = make_server(models, port=0, limits=limits, **settings)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        wait_until(lambda: self.server.started)
        origin, _, self.token = self.address.partition("/#")
        self.host = origin.removeprefix("http://")
        self.port = int(self.host.partition(":")[2])

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def request(
        self, path: str, body: bytes | None = None, *, method: str = "", headers: dict[str, str | None] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of the response. A request header of None is not sent."""
        sent = {"Host": self.host, "Authorization": f"Bearer {self.token}", **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
            if body is not None and "Transfer-Encoding" not in sent and "Content-Length" not in sent:
                sent["Content-Length"] = str(len(body))
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders()
            try:
                if body is not None:
                    connection.send(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server has responded and closed the connection before it read the body
            response = connection.getresponse()
            return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()

    def request_head(self, path: str, *lines: str) -> bytes:
        """Return the head of a POST request, for tests that write to a socket."""
        head = [f"POST {path} HTTP/1.1", f"Host: {self.host}", f"Authorization: Bearer {self.token}", *lines]
        return ("\r\n".join(head) + "\r\n\r\n").encode()

    def explain(self, image: bytes, **query: Any) -> tuple[int, list[dict[str, Any]]]:
        """Return the status and the events of a request to explain an image."""
        status, body, _ = self.request(f"/explain?{urlencode(query)}", image)
        return status, [json.loads(line) for line in body.decode().splitlines()]

    def cover(self, image: bytes, shapes: object = (), **query: Any) -> tuple[int, list[dict[str, Any]]]:
        """Return the status and the events of a request to cover parts of an image. `shapes` are JSON, or a line of bytes."""
        line = shapes if isinstance(shapes, bytes) else json.dumps(shapes).encode()
        status, body, _ = self.request(f"/cover?{urlencode(query)}", line + b"\n" + image)
        return status, [json.loads(line) for line in body.decode().splitlines()]

    def check_works(self) -> None:
        """Check that the server still explains an image."""
        status, events = self.explain(make_image(), name="after.png", top=1)
        assert (status, list(events[-1])) == (200, ["page"])


def wait_until(condition: Any, timeout: float = 20.0) -> None:
    """Poll a condition of another thread."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def make_image(color: str = "red", size: tuple[int, int] = (90, 70), form: str = "PNG") -> bytes:
    """An image file with a yellow rectangle on a colored background."""
    file = io.BytesIO()
    image = Image.new("RGB", size, color)
    image.paste("yellow", (10, 10, 40, 50))
    image.save(file, form)
    return file.getvalue()
