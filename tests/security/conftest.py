"""Fixtures of the tests of security and data loss."""

from __future__ import annotations

import pytest

import seewhy

# These bind `load_model` when they are imported, which must happen before a test replaces it.
import seewhy.bulk.api
import seewhy.engine.pipeline
from support.untrusted_files import make_network

LABELS = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture
def one_load(embedded: seewhy.LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the embedded network once for all commands that run in this process."""
    monkeypatch.setattr("seewhy.models.loading.load_model", lambda model, **_: embedded)


@pytest.fixture
def tiny_load(monkeypatch: pytest.MonkeyPatch) -> seewhy.LoadedModel:
    """Replace the network of all commands that run in this process by one convolution and five classes."""
    model = seewhy.LoadedModel(make_network(), seewhy.Preprocess.imagenet(32), labels=LABELS, uri="tiny")
    monkeypatch.setattr("seewhy.models.loading.load_model", lambda *_, **__: model)
    return model
