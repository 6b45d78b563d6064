"""Situations in which commands are tried: images, saved explanations and bulk runs, and files that are damaged or hostile."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from reliability.processes import run_started
from support.slow_images import many_scans

Prepare = Callable[[Path], object]
BULK = ("images", "--part-size", "2", "--workers", "0", "--layers", "suggested", "--targets", "top2")
FAST = ("--layers", "suggested")
FOREIGN = {"notes.txt": b"mine", "index.html": b"<p>mine", "overlay.jpg": b"mine", "maps.npz": b"mine"}


def save_image(path: Path | bytes, seed: int = 0, size: tuple[int, int] = (64, 48)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    with open(path, "wb") as file:
        Image.fromarray(pixels).save(file, "PNG")


def save_foreign_files(folder: Path) -> None:
    """Write files that have the names of outputs, and were not written by seewhy."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FOREIGN.items():
        (folder / name).write_bytes(content)


@cache
def pristine(kind: str) -> Path:
    """Return a folder with a saved explanation ("saved") or a finished bulk run ("bulk"), and the images."""
    folder = Path(tempfile.mkdtemp(prefix=f"pristine-{kind}-"))
    (folder / "images").mkdir()
    for number in range(6):
        save_image(folder / "images" / f"{number}.png", number)
    arguments = {
        "saved": [
            "images/0.png",
            "--layers",
            "blocks",
            "--methods",
            "gradcam,layercam",
            "--targets",
            "top2",
            "-o",
            ".",
        ],
        "bulk": ["bulk", *BULK, "--out", "run"],
    }[kind]
    observed = run_started(arguments, folder)
    if observed.code:
        raise RuntimeError(observed.err)
    return folder


def starts_with(prefixes: tuple[str, ...], path: str) -> bool:
    return path.startswith(prefixes)


def text_file(name: str, *lines: str) -> Prepare:
    return lambda folder: (folder / name).write_text("\n".join(lines), "utf-8")


def labels(name: str, label: str) -> Prepare:
    """Write a file of 1,000 class names."""
    return text_file(name, *(f"{label} {number}" for number in range(1000)))


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def link_loop(folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")


def unix_socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket has at most 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind("socket")
    finally:
        os.chdir(here)


def saved(folder: Path) -> None:
    shutil.copytree(pristine("saved") / "0", folder / "run")


def saved_with_link(folder: Path) -> None:
    """A saved folder whose record lists a file that a link reaches outside."""
    saved(folder)
    save_foreign_files(folder / "elsewhere")
    (folder / "run/linked").symlink_to("../../elsewhere")
    record = json.loads((folder / "run/explanation.json").read_text("utf-8"))
    record["files"] += ["linked/notes.txt", "linked/overlay.jpg"]
    (folder / "run/explanation.json").write_text(json.dumps(record), "utf-8")
    shutil.move(folder / "run", folder / "cam/a")


def foreign_index(folder: Path) -> None:
    save_image(folder / "b.png", 1)
    save_foreign_files(folder / "cam")


def finished_run(folder: Path) -> None:
    """A finished bulk run and its images."""
    shutil.copytree(pristine("bulk"), folder, dirs_exist_ok=True)


def damaged_run(folder: Path) -> None:
    """A finished run with a part whose data are damaged and whose footer is intact."""
    finished_run(folder)
    part = sorted((folder / "run").glob("part-*.parquet"))[1]
    content = bytearray(part.read_bytes())
    content[40:400] = bytes(360)
    part.write_bytes(content)


def slow_jpeg(folder: Path) -> None:
    (folder / "scans.jpg").write_bytes(many_scans(700))


def weights(kind: str) -> Prepare:
    """Write a checkpoint that loads badly: a dict that contains itself, 0-d tensors, an expanded head."""

    def write(folder: Path) -> None:
        import torch
        from torchvision.models import resnet18

        state: dict[str, object] = dict(resnet18().state_dict())
        if kind == "loop":
            state["state_dict"] = state
        elif kind == "0-d":
            state = {name: torch.tensor(1.0) for name in state}
        elif kind == "expanded":
            state["fc.weight"] = torch.zeros(1).expand(2**40, 512)
            state["fc.bias"] = torch.zeros(1).expand(2**40)
        torch.save(state, folder / "weights.pth")

    return write


def deep_json(name: str) -> Prepare:
    return lambda folder: (folder / name).write_text("[" * 200_000)
