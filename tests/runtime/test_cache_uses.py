"""Who uses what takes the disk: running processes, profiles, and the runs of the past."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from checkpoint_folders import adapter_files, model_files, write
from fixtures.cache_things import own_places
from hub_cache import cached
from recorded_runs import PLAN, record_run

from quantui.domain.caches.items import Kind
from quantui.domain.caches.made_from import Ingredient, MadeFrom
from quantui.domain.plan import ArtifactKey
from quantui.runtime.artifacts import ArtifactStore, Origin
from quantui.runtime.browsed_folders import add_folder
from quantui.runtime.caches.inventory import collect, scan
from quantui.runtime.caches.processes import process_uses
from quantui.runtime.engine_store import EngineRecord, write_record
from quantui.runtime.known_profiles import note_profile
from quantui.runtime.paths import cache_dir, engines_dir

NEW, OLD = "a" * 40, "b" * 40
REPOSITORY = f"owner/llama-{os.getpid()}"
"""No other process is started with this name."""
SLEEP = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


@pytest.fixture
def running():
    """Starts processes that stay until the test's end."""
    started = []

    def start(program=SLEEP, *words):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "up\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def items():
    return {item.name: item for item in collect().items.values()}


def pids(item):
    return [use.pid for use in item.users]


def made(key, told, origin=None):
    store = ArtifactStore()
    store.root.mkdir(parents=True, exist_ok=True)
    return store.commit(key, write(store.stage(key, 0), model_files()), told, origin).path


def merged(*, base="owner/llama", adapter="me/lora", revision=NEW):
    key = ArtifactKey("lora", "merged", {"base": base, "adapter": adapter})
    sources = MadeFrom(Ingredient(base, revision), (Ingredient(adapter, revision),))
    return made(key, {}, Origin(sources)).name


def quantized(method="awq"):
    key = ArtifactKey(
        "lora", method, {"base": "owner/llama", "adapter": "me/lora", "recipe": method}
    )
    sources = MadeFrom(Ingredient("owner/llama", NEW), (Ingredient("me/lora", NEW),))
    return made(key, {"recipe": {"method": method}}, Origin(sources)).name


def profile(folder, name="prod.toml", **sections):
    lines = ["schema = 1"]
    for section, values in sections.items():
        lines += [
            f"[{section}]",
            *(f"{key} = {json.dumps(value)}" for key, value in values.items()),
        ]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    note_profile(path, "x")
    return str(path)


# Processes -----------------------------------------------------------------------------------


def test_a_process_that_has_a_file_open_uses_the_thing(running):
    name = merged()
    weights = ArtifactStore().root / name / "model.safetensors"
    pid = running(
        f"import sys; f = open({str(weights)!r}); print('up', flush=True); sys.stdin.read()"
    )
    assert pids(items()[name]) == [pid]


def test_a_process_that_was_started_with_a_repository_uses_its_named_revision(hub, running):
    cached(hub, REPOSITORY, model_files(hidden=32), OLD, branch=False)
    cached(hub, REPOSITORY, model_files(), NEW)
    pid = running(SLEEP, "--model", REPOSITORY)
    found = items()
    assert pids(found[REPOSITORY]) == [pid]
    assert pids(found[f"{REPOSITORY} @ {NEW[:8]}"]) == [pid]
    assert pids(found[f"{REPOSITORY} @ {OLD[:8]}"]) == []


def test_a_process_that_has_a_blob_open_uses_every_revision_with_that_blob(hub, running):
    cached(hub, REPOSITORY, model_files(), OLD, branch=False)
    snapshot = cached(hub, REPOSITORY, {**model_files(), "config.json": b"{}"}, NEW)
    weights, config = snapshot / "model.safetensors", snapshot / "config.json"
    first = running(
        f"import sys; f = open({str(weights)!r}); print('up', flush=True); sys.stdin.read()"
    )
    second = running(
        f"import sys; f = open({str(config)!r}); print('up', flush=True); sys.stdin.read()"
    )
    found = items()
    assert pids(found[REPOSITORY]) == sorted([first, second])
    assert pids(found[f"{REPOSITORY} @ {NEW[:8]}"]) == sorted([first, second])
    assert pids(found[f"{REPOSITORY} @ {OLD[:8]}"]) == [first]


def test_things_are_given_first_without_and_then_with_their_users(running):
    name = merged()
    running(SLEEP, ArtifactStore().root / name)
    given = [item.busy for item in scan() if getattr(item, "name", "") == name]
    assert given[0] is False
    assert given[-1] is True


def test_who_uses_it_is_told_before_engines_are_measured(running):
    name = merged()
    engine("vllm-cpu")
    running(SLEEP, ArtifactStore().root / name)
    given = list(scan())
    busy = next(n for n, item in enumerate(given) if getattr(item, "busy", False))
    assert given[busy].name == name
    assert Kind.ENGINE in {item.kind for item in given[busy:]}


def test_what_a_run_is_measuring_is_in_use(running):
    folder = cache_dir() / "references"
    folder.mkdir(parents=True)
    lock = folder / "0123.lock"
    lock.touch()
    hold = f"import fcntl, sys; f = open({str(lock)!r}, 'a'); fcntl.flock(f, fcntl.LOCK_EX); "
    pid = running(hold + "print('up', flush=True); sys.stdin.read()")
    assert pids(items()["references"]) == [pid]


def test_a_descriptor_that_a_process_was_started_with_is_none_of_this_ones(running):
    folder = ArtifactStore().root / merged()
    descriptor = os.open(folder, os.O_RDONLY)
    running(SLEEP, f"/dev/fd/{descriptor}", f"/proc/self/fd/{descriptor}")
    assert not items()[folder.name].busy
    os.close(descriptor)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no /dev/shm here")
def test_a_file_in_shared_memory_is_in_use_as_any_other(running):
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        pid = running(f"file = open({file.name!r}); " + SLEEP)
        assert [use.pid for use in process_uses().of(file.name)] == [pid]


def test_a_run_that_lives_is_in_use():
    folder = record_run("20270101-000000-aaaaaa", outcome=None)
    (folder.path / "owner.pid").write_text(_mark())
    assert pids(items()["20270101-000000-aaaaaa"]) == [os.getpid()]


def _mark():
    from quantui.runtime.recorder import owner_mark

    return owner_mark(os.getpid())


# Profiles ------------------------------------------------------------------------------------


def test_a_profile_uses_its_model_and_adapter_in_the_hubs_cache(hub, tmp_path):
    cached(hub, "owner/llama", model_files(hidden=32), OLD, branch=False)
    cached(hub, "owner/llama", model_files(), NEW)
    cached(hub, "me/lora", adapter_files("owner/llama"), NEW)
    cached(hub, "other/model", model_files(), NEW)
    path = profile(tmp_path, model={"id": "owner/llama"}, adapter={"id": "me/lora"})
    used = {name for name, item in items().items() if item.profiles == (path,)}
    assert used == {
        "owner/llama", "me/lora", f"owner/llama @ {NEW[:8]}", f"me/lora @ {NEW[:8]}",
    }  # fmt: skip


@pytest.mark.parametrize("revision", [OLD, "v1"])
def test_a_profile_that_names_a_revision_uses_that_one(hub, tmp_path, revision):
    snapshot = cached(hub, "owner/llama", model_files(hidden=32), OLD, branch=False)
    (snapshot.parents[1] / "refs" / "v1").write_text(OLD)
    cached(hub, "owner/llama", model_files(), NEW)
    path = profile(tmp_path, model={"id": "owner/llama", "revision": revision})
    found = items()
    assert found[f"owner/llama @ {OLD[:8]}"].profiles == (path,)
    assert found[f"owner/llama @ {NEW[:8]}"].profiles == ()


def test_a_profile_uses_the_revision_that_it_was_recorded_with(hub, tmp_path):
    cached(hub, "owner/llama", model_files(), OLD, branch=False)
    path = profile(tmp_path, model={"id": "owner/llama"}, recorded={"base_revision": OLD})
    assert items()[f"owner/llama @ {OLD[:8]}"].profiles == (path,)


def test_a_profile_uses_what_was_merged_for_it(tmp_path):
    mine, other = merged(), merged(adapter="me/other")
    path = profile(tmp_path, model={"id": "owner/llama"}, adapter={"id": "me/lora"})
    found = items()
    assert (found[mine].profiles, found[other].profiles) == ((path,), ())


def test_of_a_quantizing_profile_the_merged_model_is_needed_until_the_quantized_one_is_there(tmp_path):  # fmt: skip
    step = merged()
    path = profile(
        tmp_path,
        model={"id": "owner/llama"},
        adapter={"id": "me/lora"},
        quantization={"method": "awq"},
    )
    assert items()[step].profiles == (path,)
    result, other = quantized(), quantized("gptq")
    found = items()
    assert (found[step].profiles, found[result].profiles) == ((), (path,))
    assert found[other].profiles == ()


def test_a_profile_knows_what_was_made_for_it_by_its_content_too(tmp_path):
    key = ArtifactKey("x", "merged", {"base": "1" * 64, "adapter": "2" * 64})
    name = made(key, {}).name
    path = profile(
        tmp_path,
        model={"id": "renamed/llama"},
        adapter={"id": "renamed/lora"},
        recorded={"base_fingerprint": "1" * 64, "adapter_fingerprint": "2" * 64},
    )
    assert items()[name].profiles == (path,)


def test_of_an_older_record_the_name_has_to_do(tmp_path):
    key = ArtifactKey("lora", "merged", {"base": "1" * 64, "adapter": "2" * 64})
    folder = made(key, {})
    record = json.loads((folder / "quantui.json").read_text())
    record.pop("made_from")
    (folder / "quantui.json").write_text(json.dumps(record))
    path = profile(tmp_path, model={"id": "owner/llama"}, adapter={"id": "me/lora"})
    assert items()[folder.name].profiles == (path,)


def test_a_profile_uses_folders_of_the_users_that_it_names(tmp_path):
    write(tmp_path / "mine" / "llama", model_files())
    write(tmp_path / "mine" / "other", model_files())
    add_folder(str(tmp_path / "mine"))
    path = profile(tmp_path, model={"id": "./mine/llama"})
    found = items()
    assert (found["llama"].profiles, found["other"].profiles) == ((path,), ())


def engine(name):
    folder = engines_dir() / name
    folder.mkdir(parents=True)
    write_record(folder, EngineRecord(name, "h", {"vllm": "1"}, [], 1, 0, 5.0, 1.0, "1"))


@pytest.mark.parametrize(
    ("sections", "used"),
    [
        ({"engine": {"name": "vllm-cuda"}}, {"vllm-cuda"}),
        ({"recorded": {"engine": "vllm-cpu"}}, {"vllm-cpu"}),
        ({"engine": {"python": "/usr/bin/python3"}}, set()),
        ({}, set()),
    ],
)
def test_a_profile_uses_the_engine_that_it_names_or_was_recorded_on(tmp_path, sections, used):
    for name in ("vllm-cpu", "vllm-cuda", "onnx"):
        engine(name)
    path = profile(tmp_path, model={"id": "owner/llama"}, **sections)
    assert {name for name, item in items().items() if item.profiles == (path,)} == used


def test_a_profile_that_names_no_engine_uses_the_only_one(tmp_path):
    engine("vllm-cpu")
    engine("onnx")
    path = profile(tmp_path, model={"id": "owner/llama"})
    assert {name for name, item in items().items() if item.profiles == (path,)} == {"vllm-cpu"}


def test_a_profile_that_cannot_be_read_uses_nothing(hub, tmp_path):
    cached(hub, "owner/llama", model_files(), NEW)
    path = tmp_path / "bad.toml"
    path.write_text("schema = [")
    note_profile(path, "x")
    assert items()["owner/llama"].profiles == ()


# Runs of the past ----------------------------------------------------------------------------


def test_a_thing_was_used_when_the_last_run_of_it_was(hub):
    cached(hub, "owner/llama-8b", model_files(), NEW)
    at = 1_900_000_000.0
    record_run("20270101-000000-aaaaaa", at=at, plan={**PLAN, "revision": NEW})
    record_run("20270101-000000-bbbbbb", at=at - 99, plan={**PLAN, "revision": NEW})
    found = items()
    assert found["owner/llama-8b"].used_at >= at
    assert found[f"owner/llama-8b @ {NEW[:8]}"].used_at >= at


def test_of_another_revision_it_tells_nothing(hub):
    cached(hub, "owner/llama-8b", model_files(), OLD)
    record_run("20270101-000000-aaaaaa", at=1_900_000_000.0, plan={**PLAN, "revision": NEW})
    assert items()[f"owner/llama-8b @ {OLD[:8]}"].used_at < 1_900_000_000.0


def test_only_what_was_asked_for_is_given_again():
    merged()
    record_run("20270101-000000-aaaaaa")
    assert {item.kind for item in scan(kinds=[Kind.RUN])} == {Kind.RUN}
