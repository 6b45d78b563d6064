"""The local app in a thread, and how to ask it with plain HTTP."""

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

LIMITS = Limits(body=2 * 2**20, pixels=4_000_000, patience=1.0, places=24)


def small_net() -> seewhy.LoadedModel:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5),
    )  # fmt: skip
    labels = ["cat", "</script><script>alert(1)</script>", "dog", "like:/etc/passwd", "bus"]
    return seewhy.load_model(net, preprocess=seewhy.Preprocess.imagenet(64), labels=labels)


class Served:
    """A server in a thread, asked with plain HTTP."""

    def __init__(self, models: list[seewhy.LoadedModel], limits: Limits = LIMITS) -> None:
        self.models = models
        self.server, self.listening, self.address = make_server(models, port=0, limits=limits)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        origin, _, self.token = self.address.partition("/#")
        self.host = origin.removeprefix("http://")
        self.port = int(self.host.partition(":")[2])

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def ask(
        self, path: str, body: bytes | None = None, *, method: str = "", headers: dict[str, str | None] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers; a header of None is left out."""
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
                pass  # it has heard enough, and answered
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def explain(self, picture: bytes, **words: Any) -> tuple[int, list[dict[str, Any]]]:
        """The status and the news of one question."""
        status, body, _ = self.ask(f"/explain?{urlencode(words)}", picture)
        return status, [json.loads(line) for line in body.decode().splitlines()]

    def lives(self) -> None:
        status, news = self.explain(picture_bytes(), name="after.png", top=1)
        assert (status, list(news[-1])) == (200, ["page"])


def picture_bytes(color: str = "red", size: tuple[int, int] = (90, 70), form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", size, color)
    image.paste("yellow", (10, 10, 40, 50))
    image.save(file, form)
    return file.getvalue()
