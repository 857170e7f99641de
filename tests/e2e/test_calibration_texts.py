"""Calibration data of every kind as a real tokenizer makes samples of it, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fixtures.worker_runs import Worker

pytestmark = pytest.mark.engine

FIXTURES = Path(__file__).parents[1] / "fixtures"
SENTENCE = "Number {n}: the quick brown fox jumps over the lazy dog, and nobody asks what for. "


def prose(number: int, sentences: int = 1) -> str:
    return SENTENCE.format(n=number) * sentences


def lines(*entries: Any) -> str:
    return "\n".join(json.dumps(entry) for entry in entries)


def chat(number: int) -> dict[str, Any]:
    answer = {"role": "assistant", "content": prose(number, 3)}
    return {"messages": [{"role": "user", "content": f"Say {number}."}, answer]}


FILES = {
    "chats.jsonl": lines(*map(chat, range(30))),
    "few.jsonl": lines(*({"text": prose(n, 3)} for n in range(5))),
    "twenty.jsonl": lines(*({"text": prose(n, 3)} for n in range(20))),
    "untidy.jsonl": lines(
        *({"text": prose(n % 20, 3)} for n in range(50)), {"text": ""}, {"text": " \n"}
    ),
    "same.jsonl": lines(*({"text": "Yes."} for _ in range(50))),
    "blank.txt": " \n\n \t\n",
    "empty.jsonl": "",
    "long.jsonl": lines(*({"text": prose(n, 60)} for n in range(40))),
    "short.jsonl": lines(*({"text": prose(n)} for n in range(2000))),
    "one.txt": "\n\n".join(prose(n, 4) for n in range(400)),
    "half-pair.jsonl": '{"text": "\\ud800 ' + prose(1, 3) + '"}',
}


@pytest.fixture(scope="module")
def calibrated(
    demo: Path, worker: Worker, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What came of every job, by name."""
    root = tmp_path_factory.mktemp("calibration")
    for name, content in FILES.items():
        (root / name).write_text(content)

    def job(source: str = "builtin", *, other: Any = None, **settings: Any) -> dict[str, Any]:
        asked = {"samples": 128, "length": 512, "seed": 0, **settings}
        asked["source"] = str(root / source) if source in FILES else source
        return {"model": str(demo / "base"), "calibration": asked, **(other or {})}

    jobs = {
        "builtin": job(),
        "again": job(),
        "fewer": job(samples=16),
        "other-seed": job(seed=1),
        "longest": job(samples=512, length=1024),
        "beyond-context": job(samples=16, length=2048),
        "begins": job(samples=16, other={"begins": True}),
        "chats": job("chats.jsonl"),
        "no-template": job("chats.jsonl", other={"template": False}),
        "few": job("few.jsonl"),
        "twenty": job("twenty.jsonl"),
        "untidy": job("untidy.jsonl", samples=16),
        "same": job("same.jsonl"),
        "blank": job("blank.txt"),
        "empty": job("empty.jsonl"),
        "long": job("long.jsonl", samples=32),
        "short": job("short.jsonl", samples=32),
        "one": job("one.txt", samples=32),
        "one-begins": job("one.txt", samples=32, other={"begins": True}),
        "half-pair": job("half-pair.jsonl"),
        "hub": job("hub:nobody/has-this"),
        "hub-badly": job("hub:nobody"),
    }
    (root / "jobs.json").write_text(json.dumps(jobs))
    worker.program(FIXTURES / "calibrate.py", root / "jobs.json", root / "out.json")
    found: dict[str, dict[str, Any]] = json.loads((root / "out.json").read_text())
    return found


def warnings(entry: dict[str, Any]) -> list[str]:
    return [event["text"] for event in entry["notices"] if event["level"] == "warning"]


def notices(entry: dict[str, Any]) -> str:
    return " ".join(event["text"] for event in entry["notices"])


def test_the_built_in_texts_fill_every_sample(calibrated: dict[str, dict[str, Any]]) -> None:
    found = calibrated["builtin"]
    assert [len(ids) for ids in found["ids"]] == [512] * 128
    assert found["report"]["used"] == 128
    assert found["report"]["tokens"] == 128 * 512
    assert found["notices"] == []


def test_the_built_in_texts_suffice_for_the_most_the_guides_ask_for(
    calibrated: dict[str, dict[str, Any]],
) -> None:
    assert [len(ids) for ids in calibrated["longest"]["ids"]] == [1024] * 512


def test_the_same_job_gives_the_same_samples(calibrated: dict[str, dict[str, Any]]) -> None:
    assert calibrated["again"] == calibrated["builtin"]


def test_fewer_samples_are_the_first_of_more(calibrated: dict[str, dict[str, Any]]) -> None:
    assert calibrated["fewer"]["ids"] == calibrated["builtin"]["ids"][:16]


def test_another_seed_gives_other_samples_and_another_fingerprint(
    calibrated: dict[str, dict[str, Any]],
) -> None:
    one, other = calibrated["builtin"], calibrated["other-seed"]
    assert one["ids"] != other["ids"]
    assert one["report"]["fingerprint"] != other["report"]["fingerprint"]
    assert one["report"]["fingerprint"] != calibrated["fewer"]["report"]["fingerprint"]


def test_a_sample_is_no_longer_than_the_models_context(
    calibrated: dict[str, dict[str, Any]],
) -> None:
    found = calibrated["beyond-context"]
    assert {len(ids) for ids in found["ids"]} == {1024}
    assert "The model's context is 1024 tokens" in notices(found)


@pytest.mark.parametrize("name", ["begins", "one-begins"])
def test_every_sample_begins_as_the_tokenizer_begins_texts(
    calibrated: dict[str, dict[str, Any]], name: str
) -> None:
    found = calibrated[name]
    assert {ids[0] for ids in found["ids"]} == {found["bos"]}
    assert all(ids.count(found["bos"]) == 1 for ids in found["ids"])
    assert max(len(ids) for ids in found["ids"]) == 512


def test_chats_are_written_as_the_models_template_writes_them(
    calibrated: dict[str, dict[str, Any]],
) -> None:
    assert calibrated["chats"]["report"]["used"] == 30
    for text in calibrated["chats"]["text"]:
        assert text.startswith("Question: Say ")
        assert "\nAnswer: Number " in text


def test_chats_for_a_model_without_a_template_are_refused(
    calibrated: dict[str, dict[str, Any]],
) -> None:
    error = calibrated["no-template"]["error"]
    assert error["code"] == "calibration.no-chat-template"
    assert error["exit_code"] == 2
    assert "chat_template.jinja" in error["fix"]


def test_fewer_than_asked_for_is_told(calibrated: dict[str, dict[str, Any]]) -> None:
    assert warnings(calibrated["twenty"]) == ["20 calibration samples, where 128 were asked for."]


def test_hardly_any_is_told_more_strongly(calibrated: dict[str, dict[str, Any]]) -> None:
    (warning,) = warnings(calibrated["few"])
    assert warning.startswith("Only 5 calibration samples: the result will fit them")


def test_empty_and_repeated_texts_are_counted_and_left_out(
    calibrated: dict[str, dict[str, Any]],
) -> None:
    report = calibrated["untidy"]["report"]
    assert (report["texts"], report["duplicates"], report["empty"]) == (50, 30, 2)
    assert "30 calibration texts repeat others" in notices(calibrated["untidy"])


@pytest.mark.parametrize("name", ["same", "blank", "empty"])
def test_data_without_a_usable_text_is_refused(
    calibrated: dict[str, dict[str, Any]], name: str
) -> None:
    error = calibrated[name]["error"]
    assert error["code"] == "calibration.empty"
    assert error["exit_code"] == 2


def test_long_texts_are_cut_and_said_to_be(calibrated: dict[str, dict[str, Any]]) -> None:
    found = calibrated["long"]
    assert {len(ids) for ids in found["ids"]} == {512}
    assert found["report"]["longest_cut"] > 512
    assert "are longer than 512 tokens" in notices(found)


def test_many_short_texts_are_joined_and_said_to_be(calibrated: dict[str, dict[str, Any]]) -> None:
    found = calibrated["short"]
    assert found["report"]["used"] == found["report"]["joined"] == 32
    assert min(len(ids) for ids in found["ids"]) > 400
    assert "joined of several short texts" in notices(found)


def test_one_long_text_gives_full_windows(calibrated: dict[str, dict[str, Any]]) -> None:
    found = calibrated["one"]
    assert [len(ids) for ids in found["ids"]].count(512) >= 31
    assert warnings(found) == []


def test_half_a_pair_of_surrogates_does_no_harm(calibrated: dict[str, dict[str, Any]]) -> None:
    assert calibrated["half-pair"]["report"]["used"] == 1


def test_a_data_set_that_cannot_be_had_is_told_with_a_way_out(
    calibrated: dict[str, dict[str, Any]],
) -> None:
    error = calibrated["hub"]["error"]
    # The engines that need data have the library for it; the one that serves has not.
    expected = {"calibration.not-found": 5, "engine.lacks-packages": 4}
    assert error["exit_code"] == expected[error["code"]]
    assert "--calibration" in error["fix"]


def test_a_name_that_names_no_data_set_is_refused(calibrated: dict[str, dict[str, Any]]) -> None:
    assert calibrated["hub-badly"]["error"]["code"] == "calibration.bad-name"
