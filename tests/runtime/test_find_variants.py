"""Quantized copies of a model are found on a real (loopback) Hub, in a real Hub cache, and among artifacts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import hub_server
from fixtures.checkpoint_folders import model_files, write

from quantui.domain.plan import ArtifactKey

BASE = "owner/Base-1B"
COPY = f"base_model:quantized:{BASE}"
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
W8A8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {
        "group_0": {
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
            "input_activations": {"num_bits": 8, "type": "int", "dynamic": True},
        }
    },
}
SEARCH = """
import json, sys
from dataclasses import asdict
from quantui.domain.models import ModelSpec
from quantui.runtime.models import resolve_model
from quantui.runtime.variants import search_variants
ref, options = sys.argv[1], json.loads(sys.argv[2])
model = resolve_model(ref)
print("resolved", flush=True)
found = search_variants(model, **options)
print(json.dumps({"variants": [asdict(each) for each in found.variants], "notes": found.notes}))
"""


@pytest.fixture
def hub():
    running, stop = hub_server.start()
    running.repositories[BASE] = hub_server.Repository(model_files())
    yield running
    stop()


@pytest.fixture
def search(hub, tmp_path):
    def call(ref=BASE, *, env=None, **options):
        done = subprocess.run(
            [sys.executable, "-c", SEARCH, ref, json.dumps(options)],
            env=hub_server.environment(hub, tmp_path, **(env or {})),
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return call


def copy(stored=AWQ, tags=(COPY,), **listed):
    files = model_files(quantization_config=stored)
    return hub_server.Repository(files, tags=tags, listed=listed)


def cache(home, ref, files, revision="a" * 40, *, branch=True):
    """A snapshot as huggingface_hub lays it out: blobs, links to them, and the branch's commit."""
    repository = Path(home) / "hf" / "hub" / f"models--{ref.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for name, content in files.items():
        blob = repository / "blobs" / hub_server.Repository({name: content}).object_id(name)
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / blob.name)
    if branch:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(revision)
    return snapshot


def refs(found):
    return [each["ref"] for each in found["variants"]]


# On the Hub


def test_copies_are_found_by_their_base_model_tag(hub, search):
    hub.repositories["someone/any-name"] = copy(downloads=7, likes=2, gated="auto")
    (found,) = search()["variants"]
    assert found["ref"] == "someone/any-name"
    assert (found["publisher"], found["source"], found["base_ref"]) == ("someone", "hub", BASE)
    assert (found["method"], found["bits"], found["group_size"]) == ("awq", 4, 128)
    assert (found["downloads"], found["likes"], found["gated"]) == (7, 2, "auto")
    assert found["revision"] == hub.repositories["someone/any-name"].commit
    assert found["last_modified"].startswith("2026-11-01")
    assert found["evidence"] == [f"tag {COPY}", "method: quantization_config"]


def test_the_size_is_that_of_the_weights_the_repository_lists(hub, search):
    repo = copy()
    repo.files["pytorch_model.bin"] = b"x" * 70_000
    hub.repositories["someone/any-name"] = repo
    (found,) = search()["variants"]
    assert found["size_bytes"] == len(repo.files["model.safetensors"])


def test_no_weights_and_nothing_into_the_cache_are_fetched(hub, search, tmp_path):
    hub.repositories["someone/any-name"] = copy()
    assert refs(search()) == ["someone/any-name"]
    assert list((tmp_path / "hf").rglob("models--someone*")) == []
    assert not any(path.startswith("/cdn/") for path in hub.paths("GET")[-3:])


def test_what_the_hub_leaves_out_of_a_config_is_read_from_its_file(hub, search):
    hub.repositories["someone/plain"] = copy(W8A8)
    (found,) = search()["variants"]
    assert (found["method"], found["bits"]) == ("int8_w8a8", 8)


def test_the_files_of_a_gated_copy_are_not_needed(hub, search):
    repo = copy(W8A8, gated="manual")
    repo.failure = "gated-files"
    hub.repositories["someone/Base-1B-quantized.w8a8"] = repo
    (found,) = search()["variants"]
    assert (found["method"], found["gated"]) == ("int8_w8a8", "manual")
    assert found["size_bytes"] > 0


def test_a_copy_that_the_hub_took_for_a_finetune_is_found_by_its_config(hub, search):
    tags = (f"base_model:{BASE}", f"base_model:finetune:{BASE}")
    hub.repositories["someone/quantized"] = copy(tags=tags)
    hub.repositories["someone/tuned"] = hub_server.Repository(model_files(), tags=tags)
    assert refs(search()) == ["someone/quantized"]


def test_the_publishers_own_copy_is_found_by_its_name(hub, search):
    hub.repositories["owner/Base-1B-AWQ"] = copy(tags=())
    hub.repositories["owner/Base-1B-Instruct-AWQ"] = copy(tags=())
    hub.repositories["thief/Base-1B-AWQ"] = copy(tags=())
    assert refs(search()) == ["owner/Base-1B-AWQ"]


def test_a_copy_of_another_model_is_not_taken_for_its_namesakes(hub, search):
    hub.repositories["owner/Base-1B-AWQ"] = copy(tags=("base_model:quantized:owner/Other",))
    assert refs(search()) == []


def test_what_is_for_another_program_or_architecture_is_left_out(hub, search):
    hub.repositories["a/Base-1B-MLX-4bit"] = copy({"bits": 4, "group_size": 64})
    hub.repositories["b/b-int4"] = copy({"bits": 4}, tags=(COPY, "openvino"))
    hub.repositories["c/c"] = copy()
    config = json.loads(hub.repositories["c/c"].files["config.json"])
    config["architectures"] = ["Eagle3Speculator"]
    hub.repositories["c/c"].files["config.json"] = json.dumps(config).encode()
    assert refs(search()) == []


def test_files_for_another_program_beside_vllms_do_no_harm(hub, search):
    hub.repositories["a/a"] = copy(tags=(COPY, "onnx"))
    assert refs(search()) == ["a/a"]


def test_gguf_is_told_by_its_files(hub, search):
    files = {"Base-1B-Q4_K_M.gguf": b"GGUF", "Base-1B-Q8_0.gguf": b"GGUF"}
    hub.repositories["someone/Base-1B-GGUF"] = hub_server.Repository(files, tags=(COPY,))
    (found,) = search()["variants"]
    assert (found["method"], found["size_bytes"]) == ("gguf", None)


def test_the_publishers_own_come_first_then_the_most_downloaded(hub, search):
    hub.repositories["a/few"] = copy(downloads=3)
    hub.repositories["a/many"] = copy(downloads=900)
    hub.repositories["owner/Base-1B-AWQ"] = copy(downloads=1)
    assert refs(search()) == ["owner/Base-1B-AWQ", "a/many", "a/few"]
    assert refs(search(limit=1)) == ["owner/Base-1B-AWQ"]


def test_of_a_quantized_model_the_other_copies_of_its_base_are_found(hub, search, tmp_path):
    hub.repositories["someone/fp8"] = copy({"quant_method": "fp8"})
    files = {
        **model_files(quantization_config=AWQ),
        "README.md": f"---\nbase_model: {BASE}\n---\n".encode(),
    }
    cache(tmp_path, "someone/awq", files)
    assert refs(search("someone/awq")) == ["someone/fp8"]


def test_names_that_no_repository_can_have_are_dropped(hub, search):
    hub.repositories["../../etc/x"] = copy()
    hub.repositories["evil/\x1b[31mred"] = copy()
    hub.repositories["no-owner"] = copy()
    assert refs(search()) == []


# As `quantui inspect --variants` shows them


def test_inspect_shows_them_when_asked(hub, tmp_path):
    hub.repositories["someone/any-name"] = copy(downloads=1234, gated="auto")
    environment = {**hub_server.environment(hub, tmp_path), "COLUMNS": "80"}

    def inspect(*options):
        command = [sys.executable, "-m", "quantui", "inspect", BASE, *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout

    line = next(line for line in inspect("--variants").splitlines() if line.startswith("copies"))
    assert "someone/any-name: AWQ 4 bit, group 128" in line
    assert "1,234 downloads; gated" in line
    (found,) = json.loads(inspect("--variants", "--json"))["variants"]
    assert (found["method"], found["downloads"]) == ("awq", 1234)
    assert "variants" not in json.loads(inspect("--json"))


# When the Hub cannot or may not be asked


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_nothing_is_asked(hub, search, tmp_path, how):
    cache(tmp_path, BASE, model_files())
    hub.repositories["someone/any-name"] = copy()
    options = {"offline": True} if how == "option" else {"env": {"HF_HUB_OFFLINE": "1"}}
    found = search(**options)
    assert found["variants"] == []
    assert "offline" in found["notes"][0]
    assert hub.requests == []


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_hub_that_refuses_is_a_note(hub, search, status):
    hub.listing_failure = (status, "", "no")
    found = search()
    assert found["variants"] == []
    assert found["notes"][0].startswith("The Hub was not searched")


def test_a_hub_that_answers_nonsense_is_a_note(hub, search):
    hub.listing_failure = (200, "", "<html>log in</html>")
    assert search()["notes"][0].startswith("The Hub was not searched")


def test_the_listings_are_asked_for_as_huggingface_hub_does(hub, search, tmp_path):
    code = (
        "from huggingface_hub import HfApi\n"
        f"list(HfApi().list_models(filter=['base_model:quantized:{BASE}', 'safetensors'], limit=100,"
        " sort='downloads', expand=['config', 'downloads', 'gated', 'lastModified', 'library_name',"
        " 'likes', 'sha', 'tags']))"
    )
    done = hub_server.python(code, hub_server.environment(hub, tmp_path))
    assert done.returncode == 0, done.stderr
    (theirs,) = hub.listings
    hub.listings.clear()
    search()
    assert theirs in hub.listings


def test_fields_of_wrong_types_are_unknown(hub, search):
    wrong = {
        "downloads": "9",
        "likes": -1,
        "gated": 3,
        "sha": "x/../y",
        "tags": [COPY, "safetensors", 7],
    }
    hub.repositories["someone/any-name"] = copy(**wrong)
    (found,) = search()["variants"]
    assert [found[name] for name in ("downloads", "likes", "gated", "revision")] == [None] * 4


# On this machine


def test_a_copy_in_the_cache_is_found_by_its_card(search, tmp_path):
    card = f"---\nbase_model:\n- {BASE}\n---\n".encode()
    files = {**model_files(quantization_config=AWQ), "README.md": card}
    snapshot = cache(tmp_path, "someone/any-name", files, branch=False)
    cache(tmp_path, BASE, model_files(), "b" * 40)
    (found,) = search(offline=True)["variants"]
    assert (found["ref"], found["source"]) == ("someone/any-name", "hub-cache")
    assert (found["path"], found["revision"]) == (str(snapshot), "a" * 40)
    assert found["size_bytes"] == len(files["model.safetensors"])


def test_without_a_card_by_name_and_dimensions(search, tmp_path):
    files = model_files(quantization_config=AWQ)
    cache(tmp_path, "someone/Base-1B-AWQ", files)
    cache(tmp_path, "someone/Other-1B-AWQ", files)
    cache(tmp_path, "else/Base-1B-AWQ", model_files(layers=3, quantization_config=AWQ))
    cache(tmp_path, BASE, model_files(), "b" * 40)
    assert refs(search(offline=True)) == ["someone/Base-1B-AWQ"]


def test_an_unfinished_download_is_no_copy(search, tmp_path):
    files = model_files(quantization_config=AWQ, shards=2)
    del files["model-00002-of-00002.safetensors"]
    cache(tmp_path, "someone/Base-1B-AWQ", files)
    cache(tmp_path, BASE, model_files(), "b" * 40)
    assert refs(search(offline=True)) == []


def test_what_is_here_keeps_its_place_and_gets_the_hubs_figures(hub, search, tmp_path):
    repo = copy(downloads=5)
    hub.repositories["someone/Base-1B-AWQ"] = repo
    hub.repositories["someone/other"] = copy(downloads=99)
    cache(tmp_path, "someone/Base-1B-AWQ", repo.files, repo.commit)
    first, second = search()["variants"]
    assert (first["ref"], first["source"], first["downloads"]) == (
        "someone/Base-1B-AWQ",
        "hub-cache",
        5,
    )
    assert second["ref"] == "someone/other"


def test_a_folder_of_the_users_has_no_hub_id(hub, search, tmp_path):
    folder = write(tmp_path / "mine", model_files())
    found = search(str(folder))
    assert found["variants"] == []
    assert "no Hub id" in found["notes"][0]
    assert hub.listings == []


def test_a_snapshot_given_as_a_folder_is_its_repository(hub, search, tmp_path):
    hub.repositories["someone/any-name"] = copy()
    assert refs(search(str(cache(tmp_path, BASE, model_files())))) == ["someone/any-name"]


def test_what_quantui_made_of_the_model_is_found(search, tmp_path, monkeypatch):
    from quantui.runtime.artifacts import ArtifactStore
    from quantui.runtime.models import resolve_model

    monkeypatch.setenv("QUANTUI_HOME", str(tmp_path / "quantui"))
    folder = write(tmp_path / "mine", model_files())
    store = ArtifactStore()
    store.root.mkdir(parents=True)
    for kind, files in (("w4a16", model_files(quantization_config=AWQ)), ("merged", model_files())):
        key = ArtifactKey("mine", kind, {"base": resolve_model(str(folder)).fingerprint})
        store.commit(key, write(store.stage(key, 1), files), {})
    other = ArtifactKey("other", "w4a16", {"base": "another"})
    store.commit(other, write(store.stage(other, 1), model_files(quantization_config=AWQ)), {})
    (found,) = search(str(folder))["variants"]
    assert (found["source"], found["publisher"], found["method"]) == ("folder", "quantui", "awq")
    assert "mine--w4a16" in found["path"]
