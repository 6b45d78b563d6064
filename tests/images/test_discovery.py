"""find_images: which files of a folder are images, and in which order."""

from __future__ import annotations

import os

import pytest

from seewhy.errors import ImageError
from seewhy.images.discovery import find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/deep/d.tif", ".git/e.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "images"


def test_folders_are_searched_recursively_in_sorted_order(folder):
    assert find_images([str(folder)]) == [
        str(folder / name) for name in ("a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tif")
    ]


def test_files_are_returned_in_the_given_order(folder):
    paths = ["z.png", "-", str(folder / "notes.txt"), "gone/x.jpg"]
    assert find_images(paths) == paths
    assert find_images(["z.png", str(folder / "sub")])[0] == "z.png"
    assert find_images([]) == []


def test_hidden_folder_is_searched_if_named(folder):
    assert find_images([str(folder / ".git")]) == [str(folder / ".git" / "e.png")]


def test_links_to_folders_are_not_followed(folder):
    (folder / "sub" / "loop").symlink_to(folder)
    assert len(find_images([str(folder)])) == 4


def test_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="no images in this folder") as caught:
        find_images([str(tmp_path)])
    assert caught.value.source == str(tmp_path)


def test_folder_that_cannot_be_listed_is_an_error(folder, monkeypatch):
    scandir = os.scandir

    def deny(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(ImageError, match="deep: cannot list this folder: permission denied"):
        find_images([str(folder)])
