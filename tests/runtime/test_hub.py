"""The Hub as huggingface_hub sees it, over real HTTP on the loopback: every answer it can give."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures import hub_server
from fixtures.checkpoint_folders import (
    adapter_files,
    model_files,
    model_tensors,
    safetensors_bytes,
)

import quantui

WORKER = Path(quantui.__file__).parent / "engines" / "workers" / "download_snapshot.py"
TOKEN = "hf_secretsecretsecret"
SHOW = """
import json, sys
from quantui.domain.errors import QuantuiError
from quantui.runtime import models
kind, ref, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
try:
    spec = getattr(models, "resolve_" + kind)(ref, **options)
except QuantuiError as error:
    print(json.dumps({**error.to_dict(), "text": str(error)}))
else:
    facts = {key: value for key, value in vars(spec).items() if key not in ("tensors", "config")}
    facts["tensors"] = spec.tensors and len(spec.tensors)
    facts["job"] = models.download_job(spec) if spec.revision else None
    if kind == "adapter":
        facts["four_bit"] = spec.four_bit.answer
    print(json.dumps(facts, default=str))
"""


@pytest.fixture
def hub():
    running, stop = hub_server.start()
    yield running
    stop()


@pytest.fixture
def resolve(hub, tmp_path):
    def call(ref, kind="model", *, env=None, server=hub, **options):
        full = hub_server.environment(server, tmp_path, **(env or {}))
        done = subprocess.run(
            [sys.executable, "-c", SHOW, kind, ref, json.dumps(options)],
            env=full,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.stdout, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    return call


@pytest.fixture
def worker(hub, tmp_path):
    def start(job, **env):
        path = tmp_path / "job.json"
        path.write_text(json.dumps(job))
        return subprocess.Popen(
            [sys.executable, str(WORKER), str(path)],
            env=hub_server.environment(hub, tmp_path, **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def events(process, timeout=90):
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err, err
    return [json.loads(line) for line in out.splitlines()]


def snapshot_parts(tmp_path):
    return list((tmp_path / "hf").rglob("*.incomplete"))


# Resolving


def test_a_plan_is_complete_before_anything_large_is_fetched(hub, resolve):
    files = model_files(shards=3)
    big = safetensors_bytes({"big.weight": ("BF16", (2048, 2048))})
    files["model-00003-of-00003.safetensors"] = big
    index = json.loads(files["model.safetensors.index.json"])
    kept = {k: v for k, v in index["weight_map"].items() if "00003-of" not in v}
    index["weight_map"] = {**kept, "big.weight": "model-00003-of-00003.safetensors"}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    files["pytorch_model.bin"] = b"x" * 50_000
    hub.repositories["owner/base"] = repo = hub_server.Repository(files)
    spec = resolve("owner/base")
    assert spec["source"] == "hub"
    assert spec["path"] is None
    assert spec["revision"] == repo.commit
    assert spec["tensors"] == len(index["weight_map"])
    assert not spec["complete"]
    assert spec["license"] == "apache-2.0"
    assert "pytorch_model.bin" not in spec["missing_files"]
    assert spec["download_bytes"] == sum(len(files[name]) for name in spec["missing_files"])
    assert hub.sent_bytes < 1_000_000 < len(big)


def test_a_server_that_ignores_ranges_is_not_read_to_the_end(hub, resolve):
    tensors = {"a.weight": ("BF16", (4096, 4096))}
    files = {**model_files(), "model.safetensors": safetensors_bytes(tensors)}
    hub.repositories["owner/base"] = hub_server.Repository(files)
    hub.ignore_ranges = True
    hub.bytes_per_second = 4_000_000
    assert resolve("owner/base")["tensors"] == 1
    assert hub.sent_bytes < 8_000_000


def test_a_name_is_found_again_in_the_cache_when_offline(hub, resolve, worker):
    hub.repositories["owner/base"] = hub_server.Repository(model_files(shards=2))
    before = resolve("owner/base")
    result = events(worker(before["job"]))[-1]
    assert result["type"] == "result"
    after = resolve("owner/base", env={"HF_HUB_OFFLINE": "1"})
    assert after["source"] == "hub-cache"
    assert after["complete"]
    assert after["path"] == result["path"]
    assert after["fingerprint"] == before["fingerprint"]
    assert resolve("owner/base", server=None)["path"] == result["path"]
    here = resolve(result["path"])
    assert here["source"] == "folder"
    assert here["tensors"] == after["tensors"]


def test_a_snapshot_without_its_tokenizer_is_completed(hub, resolve, worker):
    files = model_files()
    hub.repositories["owner/base"] = repo = hub_server.Repository(files)
    names = ["config.json", "model.safetensors"]
    resolve("owner/base")
    path = events(
        worker({"repo_id": "owner/base", "revision": repo.commit, "allow_patterns": names})
    )[-1]["path"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (Path(path) / name).unlink(missing_ok=True)
    for listing in Path(path).parent.parent.glob("trees/*"):
        listing.unlink()
    assert resolve("owner/base")["missing_files"] == ["tokenizer.json"]
    offline = resolve("owner/base", env={"HF_HUB_OFFLINE": "1"})
    assert offline["complete"]
    assert not offline["has_tokenizer"]
    assert resolve("owner/base", server=None)["path"] == path


def test_a_cache_without_links_is_read_too(hub, resolve, worker):
    hub.repositories["owner/base"] = hub_server.Repository(model_files())
    before = resolve("owner/base", env={"HF_HUB_DISABLE_SYMLINKS": "1"})
    result = events(worker(before["job"], HF_HUB_DISABLE_SYMLINKS="1"))[-1]
    assert result["type"] == "result"
    after = resolve("owner/base", env={"HF_HUB_OFFLINE": "1"})
    assert after["fingerprint"] == before["fingerprint"]


def test_a_readme_commit_changes_the_revision_and_not_the_fingerprint(hub, resolve):
    files = model_files()
    hub.repositories["owner/base"] = hub_server.Repository(files)
    before = resolve("owner/base")
    hub.repositories["owner/base"] = hub_server.Repository({**files, "README.md": b"new"})
    after = resolve("owner/base")
    assert before["revision"] != after["revision"]
    assert before["fingerprint"] == after["fingerprint"]
    changed = {**files, "config.json": files["config.json"] + b" "}
    hub.repositories["owner/base"] = hub_server.Repository(changed)
    assert resolve("owner/base")["fingerprint"] != before["fingerprint"]


def test_an_adapter_is_judged_by_its_card_its_tags_and_its_base(hub, resolve):
    hub.repositories["owner/plain"] = hub_server.Repository(adapter_files())
    assert resolve("owner/plain", "adapter")["four_bit"] is None
    hub.repositories["owner/tagged"] = hub_server.Repository(adapter_files(), tags=("qlora",))
    assert resolve("owner/tagged", "adapter")["four_bit"] is True
    card = b"---\nbase_model: x/y\n---\n- load_in_4bit: True\n"
    with_card = {**adapter_files(), "README.md": card}
    hub.repositories["owner/card"] = hub_server.Repository(with_card)
    assert resolve("owner/card", "adapter")["four_bit"] is True
    stored = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    hub.repositories["owner/base4"] = hub_server.Repository(model_files(quantization_config=stored))
    hub.repositories["owner/on4"] = hub_server.Repository(adapter_files(base="owner/base4"))
    assert resolve("owner/on4", "adapter")["four_bit"] is True
    assert resolve("owner/on4", "adapter", four_bit=False)["four_bit"] is False


def test_an_adapter_given_as_a_model_is_named(hub, resolve):
    hub.repositories["owner/a"] = hub_server.Repository(adapter_files())
    hub.repositories["owner/m"] = hub_server.Repository(model_files())
    assert resolve("owner/a")["code"] == "model.is-an-adapter"
    assert resolve("owner/m", "adapter")["code"] == "adapter.is-a-model"


@pytest.mark.parametrize(
    ("failure", "token", "code"),
    [
        ("gated", False, "model.gated"),
        ("gated", True, "model.gated"),
        ("gated-files", False, "model.gated"),
        ("private", False, "model.private-or-missing"),
        ("absent", False, "model.private-or-missing"),
        ("absent", True, "model.not-found"),
        ("disabled", False, "model.disabled"),
        ("bad-token", True, "hub.bad-token"),
        ("forbidden", True, "hub.forbidden"),
        ("busy", False, "hub.rate-limited"),
        ("down", False, "hub.unavailable"),
        ("portal", False, "hub.bad-answer"),
    ],
)
def test_each_refusal_is_explained_and_no_token_is_shown(hub, resolve, failure, token, code):
    if failure != "absent":
        hub.repositories["owner/x"] = hub_server.Repository(model_files(), failure=failure)
    error = resolve("owner/x", env={"HF_TOKEN": TOKEN} if token else {})
    assert error["code"] == code
    assert error["exit_code"] == 5
    assert error["fix"]
    assert "owner/x" in error["what"]


def test_the_token_goes_to_the_hub_and_not_to_its_content_store(hub, resolve):
    hub.repositories["owner/base"] = hub_server.Repository(model_files())
    assert resolve("owner/base", env={"HF_TOKEN": TOKEN})["tensors"]
    assert any(TOKEN in token for token in hub.tokens)
    asked = [path for path in hub.paths("GET") if not path.startswith("/cdn/")]
    assert len(hub.tokens) <= len(asked) + len(hub.paths("HEAD"))


def test_a_revision_that_is_not_there(hub, resolve):
    hub.repositories["owner/base"] = hub_server.Repository(model_files())
    assert resolve("owner/base", revision="v9")["code"] == "model.revision-not-found"
    assert resolve("owner/base", revision="../x")["code"] == "model.bad-revision"
    assert resolve("owner/base", revision="\x1b[2J")["code"] == "model.bad-revision"


def test_offline_and_unreachable_are_different_things(hub, resolve):
    hub.repositories["owner/base"] = hub_server.Repository(model_files())
    assert resolve("owner/base", env={"HF_HUB_OFFLINE": "1"})["code"] == "hub.offline"
    assert resolve("owner/base", offline=True)["code"] == "hub.offline"
    assert hub.requests == []
    assert resolve("owner/base", server=None)["code"] == "hub.unreachable"
    assert resolve("owner/base", env={"HF_ENDPOINT": "nonsense"})["code"] == "hub.bad-endpoint"


def test_what_is_half_downloaded_says_what_is_missing_when_offline(hub, resolve):
    hub.repositories["owner/base"] = hub_server.Repository(model_files(shards=2))
    resolve("owner/base")
    error = resolve("owner/base", env={"HF_HUB_OFFLINE": "1"})
    assert error["code"] == "hub.offline"
    assert "model-00001-of-00002.safetensors" in error["why"]


def test_a_misspelt_name_is_compared_with_what_is_cached(hub, resolve):
    hub.repositories["owner/my-model"] = hub_server.Repository(model_files())
    resolve("owner/my-model")
    assert resolve("owner/my-modle")["detail"] == ["In the Hub cache: owner/my-model"]


def test_listed_names_that_lead_out_are_ignored(hub, resolve):
    files = {**model_files(), "../../evil.json": b"{}", "a\x1b[31m.json": b"{}"}
    hub.repositories["owner/base"] = hub_server.Repository(files)
    missing = resolve("owner/base")["missing_files"]
    assert not any("evil" in name or "\x1b" in name for name in missing)


def test_damaged_weights_are_found_before_the_download(hub, resolve):
    broken = {**model_files(), "model.safetensors": b"\xff" * 500}
    hub.repositories["owner/base"] = hub_server.Repository(broken)
    assert resolve("owner/base")["code"] == "safetensors.header-too-large"


# Downloading


def job_for(hub, files, name="owner/big"):
    hub.repositories[name] = repo = hub_server.Repository(files)
    return {"repo_id": name, "revision": repo.commit, "allow_patterns": sorted(files)}


def large(count=3, megabytes=2):
    data = {f"model-{i}.safetensors": bytes([i]) * (megabytes << 20) for i in range(1, count + 1)}
    return {"config.json": b"{}", **data}


def test_progress_rises_to_the_total_about_four_times_a_second(hub, worker):
    hub.bytes_per_second = 2 << 20
    files = large()
    begun = time.monotonic()
    seen = events(worker(job_for(hub, files)))
    took = time.monotonic() - begun
    done = [event["done"] for event in seen if event["type"] == "progress"]
    assert done == sorted(done)
    assert done[-1] == sum(map(len, files.values()))
    assert 2 <= len(done) <= 4 * took + 3
    assert seen[-1]["type"] == "result"
    folder = Path(seen[-1]["path"])
    assert all((folder / name).read_bytes() == content for name, content in files.items())


def test_a_cut_transfer_goes_on_where_it_was_cut(hub, worker, tmp_path):
    files = large(count=1, megabytes=24)
    hub.cut_after, hub.cuts_left = 11 << 20, 1
    assert events(worker(job_for(hub, files)))[-1]["type"] == "result"
    ranges = [wanted for _, path, wanted in hub.requests if path.startswith("/cdn/") and wanted]
    assert ranges
    assert snapshot_parts(tmp_path) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_leaves_no_part_and_goes_on_later(hub, worker, tmp_path, signum):
    files = large(count=6, megabytes=2)
    job = job_for(hub, files)
    hub.bytes_per_second = 2 << 20
    process = worker(job)
    wait_for(lambda: len(list((tmp_path / "hf").rglob("snapshots/*/*.safetensors"))) >= 2)
    process.send_signal(signum)
    begun = time.monotonic()
    process.wait(timeout=10)
    process.communicate()
    assert time.monotonic() - begun < 2
    assert process.returncode == 128 + signum
    assert snapshot_parts(tmp_path) == []
    finished = len(list((tmp_path / "hf").rglob("snapshots/*/*.safetensors")))
    hub.bytes_per_second = None
    hub.requests.clear()
    assert events(worker(job))[-1]["type"] == "result"
    assert sum(path.startswith("/cdn/") for path in hub.paths("GET")) == 6 - finished


def test_nothing_is_fetched_twice(hub, worker):
    job = job_for(hub, large(count=1))
    events(worker(job))
    hub.sent_bytes = 0
    seen = events(worker(job))
    assert seen[-1]["fetched_bytes"] == 0
    assert hub.sent_bytes == 0


def test_only_what_is_asked_for_is_fetched(hub, worker):
    job = job_for(hub, large(count=2))
    folder = Path(events(worker({**job, "ignore_patterns": ["model-2*"]}))[-1]["path"])
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model-1.safetensors"]


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(hub, worker):
    job = job_for(hub, large(count=1))
    hub.repositories["owner/big"].claimed_bytes = 1 << 60
    error = events(worker(job))[-1]
    assert error["code"] == "disk.too-small"
    assert error["exit_code"] == 3
    assert not any(path.startswith("/cdn/") for path in hub.paths())


def test_a_cache_that_cannot_be_written_is_explained(hub, worker, tmp_path):
    job = job_for(hub, large(count=1))
    (tmp_path / "blocked").write_text("a file, not a folder")
    error = events(worker(job, HF_HUB_CACHE=str(tmp_path / "blocked" / "hub")))[-1]
    assert error["type"] == "error"
    assert error["fix"]


@pytest.mark.parametrize(
    ("failure", "code"), [("gated-files", "model.gated"), ("down", "hub.unavailable")]
)
def test_refusals_are_explained_by_the_worker_too(hub, worker, failure, code):
    job = job_for(hub, large(count=1))
    hub.repositories["owner/big"].failure = failure
    error = events(worker(job, HF_TOKEN=TOKEN))[-1]
    assert error["code"] == code
    assert TOKEN not in json.dumps(error)


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_gated_repository_that_may_be_read_is_told_as_gated(hub, resolve):
    for name, gated in (("a/open", False), ("a/asks", "auto"), ("a/waits", "manual")):
        hub.repositories[name] = hub_server.Repository(model_files(), listed={"gated": gated})
        assert resolve(name)["gated"] == gated


def test_a_repository_with_a_config_alone_can_be_sketched(hub, resolve):
    files = {"config.json": model_files()["config.json"]}
    hub.repositories["a/sketch"] = hub_server.Repository(files)
    assert resolve("a/sketch")["code"] == "checkpoint.no-weights"
    spec = resolve("a/sketch", sketch=True)
    assert (spec["complete"], spec["tensors"], spec["weight_bytes"]) == (False, None, None)


def test_a_sketch_of_a_repository_reads_headers_and_no_weights(hub, resolve):
    hub.repositories["a/whole"] = hub_server.Repository(model_files(shards=2))
    spec = resolve("a/whole", sketch=True)
    assert spec["tensors"] == len(model_tensors())
    assert spec["complete"] is False
