"""What is on this machine is found without reading more than names and small JSON files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fixtures import hub_cache
from fixtures.checkpoint_folders import adapter_files, model_files, write

from quantui.domain.errors import QuantuiError
from quantui.domain.plan import ArtifactKey
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.browse import browse, browse_folders, browse_hub_cache
from quantui.runtime.browsed_folders import add_folder, added_folders, remove_folder
from quantui.runtime.demo import demo_folder

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    root = tmp_path / "hub"
    hub_cache.use(monkeypatch, root, offline=True)
    return root


def never():
    return False


def refs(found):
    return [one.ref for one in found]


def test_a_repository_is_found_with_its_size_and_dtype(hub):
    files = model_files()
    hub_cache.cached(hub, "owner/base", files)
    (found,) = browse_hub_cache(never)
    assert (found.kind, found.place, found.ref, found.revision) == (
        "model",
        "hub-cache",
        "owner/base",
        None,
    )
    assert found.complete
    assert found.dtype == "bfloat16"
    assert found.size_bytes == sum(map(len, files.values()))
    assert found.last_used is not None


def test_what_a_checkpoint_is_quantized_with_is_said_in_words(hub):
    hub_cache.cached(hub, "owner/base-AWQ", model_files(quantization_config=AWQ))
    (found,) = browse_hub_cache(never)
    assert found.stored.startswith("AWQ 4 bit")


def test_an_adapter_is_told_from_a_model_and_names_its_base(hub):
    hub_cache.cached(hub, "someone/lora", adapter_files(base="owner/base", rank=8))
    (found,) = browse_hub_cache(never)
    assert (found.kind, found.base, found.rank) == ("adapter", "owner/base", 8)


def test_a_download_that_lacks_a_shard_is_not_complete(hub):
    hub_cache.cached(
        hub, "owner/half", model_files(shards=3), lacks=("model-00002-of-00003.safetensors",)
    )
    (found,) = browse_hub_cache(never)
    assert not found.complete
    assert not found.problem


def test_what_was_only_looked_at_is_no_model_of_this_machine(hub):
    hub_cache.cached(hub, "owner/seen", model_files(), lacks=("model.safetensors",))
    assert list(browse_hub_cache(never)) == []


def test_a_download_that_has_only_begun_is_shown(hub):
    hub_cache.cached(hub, "owner/begun", model_files(), lacks=("model.safetensors",))
    (hub / "models--owner--begun" / "blobs" / "abc.incomplete").write_bytes(b"x")
    (found,) = browse_hub_cache(never)
    assert not found.complete


def test_a_snapshot_that_main_does_not_lead_to_is_named_by_its_commit(hub):
    hub_cache.cached(hub, "owner/base", model_files(), revision="b" * 40, branch=False)
    (found,) = browse_hub_cache(never)
    assert found.revision == "b" * 40


def test_a_branch_that_leads_out_of_the_cache_is_not_followed(hub, tmp_path):
    write(tmp_path / "secret", model_files())
    snapshot = hub_cache.cached(hub, "owner/base", model_files())
    (snapshot.parents[1] / "refs" / "main").write_text("../../../../secret")
    (found,) = browse_hub_cache(never)
    assert found.revision == "a" * 40


def test_a_broken_config_is_shown_with_what_is_wrong(hub):
    hub_cache.cached(hub, "owner/broken", {**model_files(), "config.json": b"{nonsense"})
    (found,) = browse_hub_cache(never)
    assert "config.json is not the JSON it should be" in found.problem


def test_the_newest_download_comes_first(hub):
    for number, name in enumerate(("old", "new", "middle")):
        hub_cache.cached(hub, f"owner/{name}", model_files())
        at = {"old": 1, "middle": 2, "new": 3}[name] * 1000.0
        os.utime(hub / f"models--owner--{name}" / "snapshots", (at, at))
        del number
    assert refs(browse_hub_cache(never)) == ["owner/new", "owner/middle", "owner/old"]


def test_data_sets_and_strange_names_are_passed_over(hub):
    (hub / "datasets--owner--texts").mkdir(parents=True)
    (hub / "models--").mkdir()
    (hub / "version.txt").write_text("1")
    assert list(browse_hub_cache(never)) == []


def test_a_folder_is_looked_through_two_levels_deep(tmp_path):
    root = tmp_path / "models"
    write(root, model_files())
    write(root / "one", model_files())
    write(root / "owner" / "two", model_files())
    write(root / "owner" / "group" / "three", model_files())
    found = refs(browse_folders([root], never))
    assert found == [str(root), str(root / "one"), str(root / "owner" / "two")]


def test_a_trainers_adapter_and_its_checkpoints_are_found(tmp_path):
    write(tmp_path / "run", adapter_files())
    write(tmp_path / "run" / "checkpoint-100", adapter_files())
    found = list(browse_folders([tmp_path], never))
    assert [(one.kind, Path(one.ref).name) for one in found] == [
        ("adapter", "run"),
        ("adapter", "checkpoint-100"),
    ]


def test_a_folder_that_lacks_a_shard_says_which(tmp_path):
    files = model_files(shards=2)
    del files["model-00002-of-00002.safetensors"]
    write(tmp_path, files)
    (found,) = browse_folders([tmp_path], never)
    assert found.problem == "lacks model-00002-of-00002.safetensors"


def test_a_config_without_weights_is_nothing_to_offer(tmp_path):
    write(tmp_path / "app", {"config.json": b'{"port": 80}'})
    assert list(browse_folders([tmp_path], never)) == []


def test_links_make_no_loop(tmp_path):
    root = write(tmp_path / "models", model_files())
    (root / "again").symlink_to(root)
    (root / "below").mkdir()
    (root / "below" / "up").symlink_to(tmp_path)
    assert refs(browse_folders([root], never)) == [str(root)]


def test_a_link_to_a_checkpoint_is_found_and_what_lies_below_it_is_not_walked_through(tmp_path):
    far = write(tmp_path / "far", model_files())
    write(far / "below", model_files())
    root = tmp_path / "models"
    root.mkdir()
    (root / "link").symlink_to(far)
    assert refs(browse_folders([root], never)) == [str(root / "link")]


def test_the_same_folder_named_twice_is_found_once(tmp_path):
    root = write(tmp_path / "models", model_files())
    assert refs(browse_folders([root, root, tmp_path], never)) == [str(root)]


def test_hidden_folders_and_packages_are_passed_over(tmp_path):
    for name in (".cache", "node_modules", "models--owner--base"):
        write(tmp_path / name, model_files())
    assert list(browse_folders([tmp_path], never)) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path):
    shut = tmp_path / "shut"
    shut.mkdir(mode=0)
    write(tmp_path / "open", model_files())
    assert refs(browse_folders([tmp_path], never)) == [str(tmp_path / "open")]


def test_what_quantui_made_comes_first_and_says_so(tmp_path, hub):
    hub_cache.cached(hub, "owner/base", model_files())
    write(tmp_path / "here", model_files())
    key = ArtifactKey(kind="merged", base="owner/base", inputs={"base": "x"})
    store = ArtifactStore()
    store.root.mkdir(parents=True)
    store.commit(key, write(store.staged_of(key), model_files()), {})
    write(store.root / "half.staged", model_files())
    found = list(browse(never, current=tmp_path / "here"))
    assert [one.place for one in found] == ["made", "folder", "hub-cache"]


def test_the_demo_is_found_once_it_is_made():
    folder = demo_folder()
    write(folder / "base", model_files())
    write(folder / "adapter", adapter_files(base=str(folder / "base")))
    assert list(browse(never)) == []
    (folder / "demo.json").write_text("{}")
    assert [(one.kind, one.place) for one in browse(never)] == [
        ("model", "demo"),
        ("adapter", "demo"),
    ]


def test_it_stops_when_nobody_waits_any_more(hub):
    for number in range(5):
        hub_cache.cached(hub, f"owner/m{number}", model_files())
    seen = []
    for found in browse(lambda: len(seen) >= 2):
        seen.append(found)
    assert len(seen) == 2


def test_an_added_folder_is_kept_and_looked_through(tmp_path):
    root = write(tmp_path / "shelf", model_files())
    assert add_folder(f" {root} ") == root
    add_folder(str(root))
    assert added_folders() == (root,)
    assert refs(browse(never)) == [str(root)]
    remove_folder(root)
    assert added_folders() == ()


def test_a_folder_that_is_not_there_is_refused_with_names_like_it(tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(QuantuiError) as caught:
        add_folder(str(tmp_path / "model"))
    assert caught.value.code == "model.folder-not-found"
    assert str(tmp_path / "models") in caught.value.fix
    assert added_folders() == ()


@pytest.mark.parametrize("text", ["", "  ", "nul\0l", "~nobody-here/x"])
def test_what_is_no_path_is_refused(text):
    with pytest.raises(QuantuiError):
        add_folder(text)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"x")
    with pytest.raises(QuantuiError) as caught:
        add_folder(str(tmp_path / "a.safetensors"))
    assert caught.value.code == "folders.not-a-folder"


@pytest.mark.parametrize("content", ["", "[1]", '{"folders": "x"}', '{"folders": [1, null]}'])
def test_a_damaged_list_of_folders_counts_as_empty(own_home, content):
    own_home.mkdir(parents=True)
    (own_home / "folders.json").write_text(content)
    assert added_folders() == ()


def test_a_folder_that_has_gone_is_passed_over(own_home, tmp_path):
    own_home.mkdir(parents=True)
    kept = {"folders": [str(tmp_path / "gone")]}
    (own_home / "folders.json").write_text(json.dumps(kept))
    assert list(browse(never)) == []
