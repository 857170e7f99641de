"""The Model step for the tests that look at it: a folder, a Hub cache and a Hub of the test's own."""

from __future__ import annotations

import json

import pytest
from fixtures import hub_cache, hub_server
from fixtures.model_step import ModelStep


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the person is in: empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def hub_root(tmp_path, monkeypatch, here):
    """An empty Hub cache, offline."""
    del here
    root = tmp_path / "hub"
    hub_cache.use(monkeypatch, root, offline=True)
    return root


@pytest.fixture
def hub(hub_root, monkeypatch):
    """A Hub on the loopback."""
    running, stop = hub_server.start()
    hub_cache.use(monkeypatch, hub_root, running.endpoint)
    yield running
    stop()


@pytest.fixture
def model_step(tmp_path, hub_root):
    """Makes a wizard that stands at the Model step, on a machine with one card."""
    del hub_root
    path = tmp_path / "4090.json"
    card = {"name": "NVIDIA GeForce RTX 4090", "total_bytes": 25 * 10**9}
    card |= {"free_bytes": 25 * 10**9, "compute_capability": "8.9"}
    path.write_text(json.dumps({"gpus": [card], "ram_bytes": 64 * 10**9}))

    def make(**answers):
        return ModelStep("model", path, **answers)

    return make
