"""The Hub is searched by a part of a name; what comes back is for vLLM, and a Hub that fails is told of once."""

from __future__ import annotations

import pytest
from fixtures import hub_cache, hub_server
from fixtures.checkpoint_folders import adapter_files, model_files

from quantui.domain.errors import QuantuiError
from quantui.runtime.hub_search import search_hub

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    running, stop = hub_server.start()
    hub_cache.use(monkeypatch, tmp_path / "hub", running.endpoint)
    yield running
    stop()


def model(config=None, tags=(), **listed):
    return hub_server.Repository(model_files(**(config or {})), tags=tags, listed=listed)


def adapter(base, **listed):
    tags = ("peft", f"base_model:adapter:{base}")
    listed = {"library_name": "peft", "pipeline_tag": None, **listed}
    return hub_server.Repository(adapter_files(base=base), tags=tags, listed=listed)


def test_the_most_downloaded_come_first(hub):
    hub.repositories["a/qwen-small"] = model(downloads=5)
    hub.repositories["b/qwen-big"] = model(downloads=5_000_000, safetensors={"total": 8 * 10**9})
    hub.repositories["c/other"] = model(downloads=10**9)
    found = list(search_hub("Qwen"))
    assert [one.ref for one in found] == ["b/qwen-big", "a/qwen-small"]
    assert (found[0].place, found[0].downloads, found[0].parameters) == (
        "hub",
        5_000_000,
        8 * 10**9,
    )
    assert not found[0].complete


def test_adapters_come_with_their_base(hub):
    hub.repositories["me/qwen-lora"] = adapter("Qwen/Qwen3-8B")
    (found,) = search_hub("qwen")
    assert (found.kind, found.base) == ("adapter", "Qwen/Qwen3-8B")


def test_models_that_read_images_too_are_found(hub):
    hub.repositories["Qwen/Qwen3-VL"] = model(pipeline_tag="image-text-to-text")
    assert [one.ref for one in search_hub("qwen")] == ["Qwen/Qwen3-VL"]


def test_what_is_quantized_says_with_what_and_claims_no_parameters(hub):
    stored = {"quantization_config": AWQ}
    hub.repositories["Qwen/Qwen3-8B-AWQ"] = model(stored, safetensors={"total": 2 * 10**9})
    (found,) = search_hub("qwen")
    assert found.stored.startswith("AWQ 4 bit")
    assert found.parameters is None


def test_what_is_for_another_program_says_so(hub):
    hub.repositories["mlx-community/Qwen3-8B"] = model(tags=("mlx",), library_name="mlx")
    (found,) = search_hub("qwen")
    assert "another program" in found.problem


def test_gated_ones_are_marked(hub):
    hub.repositories["meta-llama/Llama"] = model(gated="manual")
    (found,) = search_hub("llama")
    assert found.gated


def test_a_listing_that_lies_harms_nothing(hub):
    lies = {"downloads": "many", "safetensors": ["x"], "library_name": 3, "config": "no"}
    hub.repositories["a/one"] = hub_server.Repository(model_files(), listed=lies)
    hub.repositories["../../evil"] = model()
    (found,) = search_hub("")
    assert (found.ref, found.downloads, found.parameters) == ("a/one", None, None)


def test_nothing_more_is_asked_once_nobody_waits(hub):
    hub.repositories["a/one"] = model()
    seen = []
    for found in search_hub("one", lambda: bool(seen)):
        seen.append(found)
    assert len(hub.listings) == 1


def test_a_hub_that_cannot_be_reached_is_one_clear_error(tmp_path, monkeypatch):
    hub_cache.use(monkeypatch, tmp_path / "hub")
    with pytest.raises(QuantuiError) as caught:
        list(search_hub("qwen"))
    assert caught.value.code == "hub.unreachable"
    assert "127.0.0.1:9" in caught.value.what


def test_a_hub_that_refuses_is_told_of(hub):
    hub.listing_failure = (429, "", "slow down")
    with pytest.raises(QuantuiError) as caught:
        list(search_hub("qwen"))
    assert caught.value.code == "hub.rate-limited"


def test_offline_nothing_is_asked(hub):
    with pytest.raises(QuantuiError) as caught:
        list(search_hub("qwen", offline=True))
    assert caught.value.code == "hub.offline"
    assert hub.listings == []
