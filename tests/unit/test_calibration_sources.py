"""Calibration texts of a user's files: what is read, and one clear error for what is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

WORKERS = str(Path(__file__).parents[2] / "quantui/engines/workers")
sys.path.insert(0, WORKERS)
import quantizing  # noqa: E402, F401
from quantizing.calibration import builtin, sources  # noqa: E402
from quantui_wire import WorkerError  # noqa: E402

if WORKERS in sys.path:
    sys.path.remove(WORKERS)


def render(messages: list[dict[str, str]]) -> str:
    return "".join(f"<{m['role']}>{m['content']}" for m in messages)


def read(path: Path) -> list[str]:
    return [text for document in sources.read(str(path), render) for text in document.texts]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*entries: Any) -> str:
    return "\n".join(json.dumps(entry) for entry in entries) + "\n"


def error(path: Path) -> dict[str, Any]:
    with pytest.raises(WorkerError) as caught:
        read(path)
    assert caught.value.event["exit_code"] == 2
    assert caught.value.event["fix"]
    return caught.value.event


def test_paragraphs_of_a_text_file_are_texts_that_follow_one_another(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "\ufeffOne.\r\nStill one.\r\n\r\n\r\nTwo.")
    (document,) = sources.read(str(path), render)
    assert document.texts == ("One.\nStill one.", "Two.")
    assert document.running


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"text": "plain"}, "plain"),
        ({"content": "plain"}, "plain"),
        ("plain", "plain"),
        ({"prompt": "2 + 2 =", "completion": " 4"}, "2 + 2 = 4"),
        ({"messages": CHAT}, "<user>Hi<assistant>Ho"),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, "<user>Hi<assistant>Ho"),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
            "<user>Hi<assistant>Ho",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            "<user>Hi",
        ),
        ({"text": "the text", "messages": None}, "the text"),
        ({"text": None, "id": 3}, ""),
    ],
)
def test_known_fields_of_json_lines_are_read(tmp_path: Path, entry: Any, text: str) -> None:
    assert read(written(tmp_path, "a.jsonl", lines(entry))) == [text]


def test_a_json_list_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", json.dumps([{"text": "one"}, "two"]))
    assert read(path) == ["one", "two"]


def test_a_folder_is_read_in_order_without_what_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    written(tmp_path, "b.txt", "b")
    written(tmp_path / "sub", "c.jsonl", lines({"text": "c"}))
    written(tmp_path, "a.md", "a")
    written(tmp_path, ".hidden.txt", "never")
    written(tmp_path / ".git", "d.txt", "never")
    written(tmp_path, "model.bin", b"\x00\xff")
    assert read(tmp_path) == ["a", "b", "c"]


def test_broken_json_is_told_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"text": "good"}\n\n{"text": "cut off\n')
    found = error(path)
    assert found["code"] == "calibration.bad-json"
    assert f"{path}, line 3 is no JSON" in found["what"]


def test_fields_that_were_found_are_named(tmp_path: Path) -> None:
    found = error(written(tmp_path, "a.jsonl", lines({"text": "x"}, {"body": "y", "id": 1})))
    assert found["code"] == "calibration.no-field"
    assert "line 2" in found["what"]
    assert "body, id" in found["why"]
    assert "`messages`" in found["fix"]


@pytest.mark.parametrize("entry", [1, None, True, [], {}, {"text": 3}, {"messages": []}])
def test_json_that_is_no_text_is_refused(tmp_path: Path, entry: Any) -> None:
    assert error(written(tmp_path, "a.jsonl", lines(entry)))["code"] == "calibration.no-field"


@pytest.mark.parametrize("message", [None, "text", {"role": "user"}, {"role": 1, "content": "x"}])
def test_a_chat_that_is_none_is_refused(tmp_path: Path, message: Any) -> None:
    found = error(written(tmp_path, "a.jsonl", lines({"messages": [message]})))
    assert found["code"] == "calibration.no-field"


def test_a_chat_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    def picky(_: list[dict[str, str]]) -> str:
        raise RuntimeError("roles must alternate")

    path = written(tmp_path, "a.jsonl", lines({"text": "x"}, {"messages": CHAT}))
    with pytest.raises(WorkerError) as caught:
        list(sources.read(str(path), picky))
    assert caught.value.event["code"] == "calibration.chat-template"
    assert caught.value.event["what"].endswith("line 2.")
    assert "roles must alternate" in caught.value.event["why"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_what_is_no_utf8_is_refused(tmp_path: Path, name: str) -> None:
    found = error(written(tmp_path, name, "caf\xe9".encode("latin-1")))
    assert found["code"] == "calibration.not-utf8"
    assert "0xe9" in found["why"]


def test_a_bottomless_json_is_refused(tmp_path: Path) -> None:
    assert error(written(tmp_path, "a.json", "[" * 200_000))["code"] == "calibration.bad-json"


def test_a_json_object_is_no_list(tmp_path: Path) -> None:
    assert error(written(tmp_path, "a.json", "{}"))["code"] == "calibration.bad-json"


@pytest.mark.parametrize("name", ["a.csv", "a.safetensors", "a"])
def test_an_unknown_kind_is_refused(tmp_path: Path, name: str) -> None:
    assert error(written(tmp_path, name, "x"))["code"] == "calibration.unknown-kind"


def test_a_missing_file_and_an_empty_folder_are_told_apart(tmp_path: Path) -> None:
    assert error(tmp_path / "none.txt")["code"] == "calibration.no-file"
    assert error(tmp_path)["code"] == "calibration.empty"


def test_random_bytes_never_crash(tmp_path: Path) -> None:
    import random

    noise = random.Random(0)
    for number in range(60):
        name = f"a{('.txt', '.jsonl', '.json', '.parquet')[number % 4]}"
        path = written(tmp_path, name, noise.randbytes(noise.randrange(300)))
        try:
            read(path)
        except WorkerError as refused:
            assert refused.event["code"].startswith("calibration.")


def test_what_the_demo_holds_out_is_not_among_the_built_in_texts() -> None:
    calibrated = "\n\n".join(text for document in builtin.prose() for text in document.texts)
    held_out = builtin.held_out()
    blocks = [block for block in held_out.split("\n\n") if len(block) > 200]
    assert len(blocks) > 30
    assert not [block for block in blocks if block in calibrated]


def test_the_built_in_texts_suffice_for_512_samples_of_2048_tokens() -> None:
    texts = [*builtin.prose(), *builtin.source_code()]
    characters = sum(len(text) for document in texts for text in document.texts)
    # Four characters a token is what tokenizers of 100,000 tokens and more make of English and Python.
    assert characters / 4 > 512 * 2048
