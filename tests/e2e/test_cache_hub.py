"""A Hub cache that huggingface_hub itself filled: listed, verified, pruned, and read by huggingface_hub afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures import hub_server
from fixtures.cache_deleter import Deleters, Errand
from fixtures.checkpoint_folders import model_files
from fixtures.hub_server import Hub, Repository
from fixtures.live_processes import wait_for
from fixtures.month_of_use import aged, places
from fixtures.quantui_command import Ended, Home

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = f"owner-{os.getpid()}"
"""What a process was started with keeps a repository of that name: no other process of this machine names these."""
MODEL, OTHER, DATA = f"{OWNER}/model", f"{OWNER}/other", f"datasets/{OWNER}/words"
WEIGHTS = {**model_files(hidden=64), "model-big.safetensors": bytes(range(256)) * 2000}
OLD = Repository({**WEIGHTS, "config.json": b'{"model_type": "llama", "at": "old"}'})
NEW = Repository({**WEIGHTS, "config.json": b'{"model_type": "llama", "at": "new"}'})
NEWEST = Repository({**WEIGHTS, "model-big.safetensors": b"another" * 3_000_000})
"""Larger than what huggingface_hub holds in memory before it writes: 10 MiB."""

DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], revision=sys.argv[2], repo_type=sys.argv[3]))
"""
OFFLINE = """
import hashlib, json, sys
from pathlib import Path
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
try:
    folder = Path(snapshot_download(sys.argv[1], revision=sys.argv[2], repo_type=sys.argv[3], local_files_only=True))
except LocalEntryNotFoundError:
    print("null")
else:
    files = [path for path in folder.rglob("*") if path.is_file()]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    names = [str(path.relative_to(folder)) for path in files]
    print(json.dumps(dict(zip(names, hashes))))
"""
SCAN = """
import json
from huggingface_hub import scan_cache_dir
found = scan_cache_dir()
print(json.dumps({
    "warnings": [str(one) for one in found.warnings],
    "size": found.size_on_disk,
    "repos": {
        repo.repo_id: {
            "size": repo.size_on_disk,
            "path": str(repo.repo_path),
            "used": repo.last_accessed,
            "revisions": {one.commit_hash: one.size_on_disk for one in repo.revisions},
            "detached": [one.commit_hash for one in repo.revisions if not one.refs],
        }
        for repo in found.repos
    },
}))
"""


@dataclass
class Shelf:
    """A hub, a cache filled from it, and the command beside them."""

    hub: Hub
    root: Path
    variables: dict[str, str]
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def home(self) -> Home:
        """The command's."""
        return Home(Path(self.variables["QUANTUI_HOME"]), self.variables)

    @property
    def cache(self) -> Path:
        """huggingface_hub's."""
        return Path(self.variables["HF_HUB_CACHE"])

    def folder(self, name: str = MODEL) -> Path:
        """A repository's."""
        kind, _, rest = name.rpartition("datasets/")
        prefix = "datasets" if kind or name.startswith("datasets/") else "models"
        return self.cache / f"{prefix}--{rest.replace('/', '--')}"

    def start(self, name: str, repository: Repository, revision: str) -> subprocess.Popen[str]:
        """A process that downloads."""
        self.hub.repositories[name] = repository
        kind = "dataset" if name.startswith("datasets/") else "model"
        words = [sys.executable, "-c", DOWNLOAD, name.removeprefix("datasets/"), revision, kind]
        process = subprocess.Popen(
            words,
            env={**os.environ, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def download(self, name: str, repository: Repository, revision: str = "main") -> None:
        """Download it to the end."""
        ended(self.start(name, repository, revision))

    def offline(self, name: str, repository: Repository, revision: str = "") -> bool:
        """Whether huggingface_hub still has all of a revision, read to the last byte; False: nothing of it."""
        kind = "dataset" if name.startswith("datasets/") else "model"
        given = (name.removeprefix("datasets/"), revision or repository.commit, kind)
        found = json.loads(self.python(OFFLINE, *given))
        if found is None:
            return False
        files = repository.files.items()
        assert found == {path: hashlib.sha256(content).hexdigest() for path, content in files}
        return True

    def python(self, code: str, *words: str) -> str:
        """What a new interpreter prints."""
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def scan(self) -> dict[str, Any]:
        """What huggingface_hub finds."""
        return json.loads(self.python(SCAN))

    def run(self, *words: object) -> Ended:
        """``quantui cache WORDS``."""
        return self.home.run("cache", *words, timeout=120)

    def listed(self) -> list[dict[str, Any]]:
        """What quantui finds in the cache."""
        ended_ = self.run("ls", "--revisions", "--kind", "hub,revision,incomplete", "--json")
        assert ended_.exit_code == 0, ended_.text
        return json.loads(ended_.out)["items"]

    def close(self) -> None:
        """End what is under way."""
        if self.hub.hold is not None:
            self.hub.hold.set()
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    hub, stop = hub_server.start()
    variables = {
        **places(tmp_path),
        **{
            name: value
            for name, value in hub_server.environment(hub, tmp_path).items()
            if name.startswith("HF_") and name != "HF_HOME"
        },
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    made = Shelf(hub, tmp_path, variables)
    yield made
    made.close()
    stop()


@pytest.fixture(scope="module")
def deleters() -> Iterator[Deleters]:
    made = Deleters()
    yield made
    made.close()


def ended(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err


def two_revisions(shelf: Shelf) -> None:
    """The branch moved on: most files are the same ones."""
    shelf.download(MODEL, OLD)
    shelf.download(MODEL, NEW)


def interrupted(shelf: Shelf, name: str, repository: Repository) -> None:
    """A download that was killed in the middle of its largest file."""
    hold_weights(shelf)
    process = shelf.start(name, repository, "main")
    wait_for(lambda: unfinished(shelf, name))
    process.kill()
    process.communicate()
    release(shelf)


def hold_weights(shelf: Shelf) -> None:
    shelf.hub.hold = threading.Event()


def release(shelf: Shelf) -> None:
    assert shelf.hub.hold is not None
    shelf.hub.hold.set()
    shelf.hub.hold = None


def unfinished(shelf: Shelf, name: str) -> list[Path]:
    found = shelf.folder(name).glob("blobs/*.incomplete")
    return [path for path in found if path.stat().st_size]


def test_it_is_listed_as_huggingface_hub_lists_it(shelf: Shelf) -> None:
    two_revisions(shelf)
    shelf.download(OTHER, OLD)
    shelf.download(DATA, Repository({"train.parquet": bytes(90_000)}))
    scan, listed = shelf.scan(), shelf.listed()
    assert scan["warnings"] == []
    repos = {item["name"]: item for item in listed if item["kind"] == "hub"}
    assert repos.keys() == scan["repos"].keys()
    for name, told in scan["repos"].items():
        item = repos[name]
        assert (item["path"], item["apparent_bytes"]) == (told["path"], told["size"])
        parts = [one for one in listed if one["parent"] == item["path"]]
        assert {Path(one["path"]).name for one in parts} == told["revisions"].keys()
        assert {Path(one["path"]).name for one in parts if one["detached"]} == set(told["detached"])


def test_of_two_revisions_the_old_one_goes_and_the_new_one_is_read(shelf: Shelf) -> None:
    two_revisions(shelf)
    gone = shelf.run("rm", f"{MODEL}@{OLD.commit[:8]}", "--yes")
    assert gone.exit_code == 0, gone.text
    assert shelf.offline(MODEL, NEW)
    assert shelf.offline(MODEL, NEW, "main")
    assert not shelf.offline(MODEL, OLD)
    assert list(shelf.scan()["repos"][MODEL]["revisions"]) == [NEW.commit]

    shelf.download(MODEL, OLD, OLD.commit)
    assert shelf.offline(MODEL, OLD)
    assert shelf.offline(MODEL, NEW)


def test_pruning_takes_what_no_branch_names_and_what_was_not_finished(shelf: Shelf) -> None:
    two_revisions(shelf)
    interrupted(shelf, OTHER, NEWEST)
    aged(shelf.folder(MODEL), 30)
    aged(shelf.folder(OTHER), 30)
    pruned = shelf.run("prune", "--yes")
    assert pruned.exit_code == 0, pruned.text
    assert unfinished(shelf, OTHER) == []
    assert not shelf.offline(MODEL, OLD)
    assert shelf.offline(MODEL, NEW, "main")
    assert shelf.scan()["warnings"] == []

    shelf.download(OTHER, NEWEST)
    assert shelf.offline(OTHER, NEWEST)


def test_a_whole_repository_goes_and_can_be_had_again(shelf: Shelf) -> None:
    two_revisions(shelf)
    shelf.download(OTHER, OLD)
    gone = shelf.run("rm", MODEL, "--yes", "--json")
    assert gone.exit_code == 0, gone.text
    assert not shelf.folder(MODEL).exists()
    assert shelf.offline(OTHER, OLD)
    assert list(shelf.scan()["repos"]) == [OTHER]

    shelf.download(MODEL, NEW)
    assert shelf.offline(MODEL, NEW)


def test_of_two_repositories_at_one_commit_the_other_stays(shelf: Shelf) -> None:
    """A fork that nobody changed has its origin's commits."""
    shelf.download(MODEL, OLD)
    shelf.download(OTHER, OLD)
    assert shelf.run("rm", OTHER, "--yes").exit_code == 0
    assert shelf.offline(MODEL, OLD)
    assert not shelf.offline(OTHER, OLD)


def test_a_data_set_goes_by_its_name(shelf: Shelf) -> None:
    words = Repository({"train.parquet": bytes(90_000)})
    shelf.download(DATA, words)
    shelf.download(MODEL, NEW)
    assert shelf.offline(DATA, words)
    assert shelf.run("rm", f"{OWNER}/words", "--yes").exit_code == 0
    assert not shelf.offline(DATA, words)
    assert shelf.offline(MODEL, NEW)


def test_what_was_downloaded_is_as_its_etags_say_until_a_bit_falls(shelf: Shelf) -> None:
    two_revisions(shelf)
    sound = shelf.run("verify")
    assert sound.exit_code == 0, sound.text

    blob = shelf.folder() / "blobs" / NEW.object_id("model-big.safetensors")
    content = bytearray(blob.read_bytes())
    content[1000] ^= 4
    blob.write_bytes(content)
    damaged = shelf.run("verify", MODEL)
    assert damaged.exit_code == 6
    assert "model-big.safetensors" in damaged.text

    assert shelf.run("rm", MODEL, "--yes").exit_code == 0
    shelf.download(MODEL, NEW)
    assert shelf.run("verify", MODEL).exit_code == 0


def test_an_interrupted_download_can_go_alone(shelf: Shelf) -> None:
    shelf.download(MODEL, OLD)
    interrupted(shelf, MODEL, NEWEST)
    left = unfinished(shelf, MODEL)
    size = sum(path.stat().st_blocks * 512 for path in left)
    parts = [item for item in shelf.listed() if item["kind"] == "incomplete"]
    assert sum(item["frees_bytes"] for item in parts) == size > 0

    gone = shelf.run("rm", "kind=incomplete", "--yes")
    assert gone.exit_code == 0, gone.text
    assert unfinished(shelf, MODEL) == []
    assert shelf.offline(MODEL, OLD)
    shelf.download(MODEL, NEWEST)
    assert shelf.offline(MODEL, NEWEST)


@pytest.mark.parametrize("word", ["kind=hub", "kind=incomplete", "kind=revision"])
def test_what_is_being_downloaded_stays(shelf: Shelf, word: str) -> None:
    shelf.download(MODEL, OLD)
    hold_weights(shelf)
    process = shelf.start(MODEL, NEWEST, "main")
    wait_for(lambda: unfinished(shelf, MODEL))
    refused = shelf.run("rm", word, "--yes")
    release(shelf)
    ended(process)
    assert shelf.offline(MODEL, NEWEST)
    if word != "kind=revision":
        assert refused.exit_code == 3, refused.text
        assert "in use" in refused.text
        assert shelf.offline(MODEL, OLD)


def test_a_download_that_came_after_the_plan_is_not_lost(shelf: Shelf, deleters: Deleters) -> None:
    shelf.download(MODEL, OLD)
    errand = waiting(shelf)
    pid = deleters.start(errand)
    wait_for(lambda: deleters.told(errand).endswith("\n"))
    shelf.download(MODEL, NEW)
    Path(errand.go).write_bytes(b"g")
    done = deleters.end(pid, errand)
    assert (done.exit_code, done.errors) == (0, "")
    assert str(shelf.folder()) in done.report["kept"]
    assert shelf.offline(MODEL, NEW)
    assert shelf.offline(MODEL, OLD)


@pytest.mark.parametrize("change", [1, 4, 12, 16])
def test_a_download_that_begins_amid_the_deletion_can_be_ended(
    shelf: Shelf, deleters: Deleters, change: int
) -> None:
    """The deletion stops before one of its changes until the download has asked the Hub for its first file.

    huggingface_hub links to a blob that it saw before it waited for the lock, though it is gone by then: the same
    download once more fetches it.
    """
    shelf.download(MODEL, OLD)
    errand = waiting(shelf, change)
    pid = deleters.start(errand)
    wait_for(lambda: deleters.told(errand).count("\n") == 1)
    asked = len(shelf.hub.requests)
    process = shelf.start(MODEL, NEW, "main")
    wait_for(lambda: len(shelf.hub.requests) > asked + 2)
    pipe = os.open(errand.go, os.O_RDWR)
    os.write(pipe, b"g")
    done = deleters.end(pid, errand)
    os.close(pipe)
    process.communicate(timeout=120)
    assert (done.exit_code, done.errors) == (0, "")
    assert (shelf.folder() / "snapshots" / NEW.commit).is_dir() or process.returncode
    shelf.download(MODEL, NEW)
    assert shelf.offline(MODEL, NEW)
    assert shelf.offline(MODEL, NEW, "main")


def waiting(shelf: Shelf, change: int | None = None) -> Errand:
    """To delete the model, stopping after the plan or before a change."""
    pipe = shelf.root / "go"
    os.mkfifo(pipe)
    return Errand(
        shelf.variables,
        str(shelf.root / "report"),
        chosen=[str(shelf.folder())],
        wait_at=change,
        go=str(pipe),
    )
