"""`quantui quantize` with bad input: one clear error, its exit code, and nothing begun or left behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fixtures.bench import one_clear_error
from fixtures.checkpoint_folders import model_files, write
from fixtures.hollow_engine import PRODUCER, make_hollow_engine
from fixtures.quantizing_bench import HIDDEN, QuantizingBench, make_quantizing_bench
from fixtures.quantui_command import write_profile

if TYPE_CHECKING:
    from pathlib import Path

AWQ = ("--method", "awq")


@pytest.fixture
def bench(tmp_path: Path) -> QuantizingBench:
    return make_quantizing_bench(tmp_path)


def test_the_bench_is_right_before_it_is_spoilt(bench: QuantizingBench) -> None:
    ended = bench.run(*AWQ)
    one_clear_error(ended, 4)
    assert "quantize to awq with llm-compressor" in ended.err
    assert bench.serving.worked()
    assert bench.home.artifacts == bench.home.unfinished == []


# What is asked for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "awk"], "Did you mean `awq`?"),
        (["--method", "none"], "No quantization method is named"),
        (["--method", "squeezellm"], "0.6.1"),
        (["--method", "awq", "--producer", "autogptq"], 'must be one of "auto"'),
        (["--method", "awq", "--producer", "gptqmodel"], "GPTQModel does not make awq"),
        (["--method", "awq", "--bits", "5"], "bits"),
        (["--method", "awq", "--bits", "17"], "at most 8"),
        (["--method", "awq", "--group-size", "48"], "48"),
        (["--method", "awq", "--group-size", "0"], "0"),
        (["--method", "awq", "--mixed-bits", "8"], "mixed_bits"),
        (["--method", "awq", "--format", "auto_awq"], "format"),
        (["--method", "awq", "--rounding", "rtn"], "rounding"),
        (["--method", "fp8_dynamic", "--group-size", "128"], "group_size"),
        (["--method", "awq", "--samples", "0"], "at least 1"),
        (["--method", "awq", "--length", "1"], "at least 8"),
        (["--method", "awq", "--seed", "-1"], "at least 0"),
        (["--method", "awq", "--max-loss", "-0.1"], "at least 0"),
        (["--method", "awq", "--max-loss", "nan"], "finite"),
        (["--method", "awq", "--device", "tpu"], "must be one of"),
        (["--method", "awq", "--ignore", ""], "must not be empty"),
        (["--method", "awq", "--set", "quantization.bit=4"], "quantization.bits"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_made_is_refused(
    bench: QuantizingBench, arguments: list[str], says: str
) -> None:
    assert says in bench.refused(2, *arguments)


def test_a_group_size_that_divides_no_layer_names_the_layer_and_those_that_do(
    bench: QuantizingBench,
) -> None:
    write(bench.model, model_files(hidden=96))
    text = bench.refused(2, *AWQ, "--group-size", "64")
    assert "q_proj" in text or "down_proj" in text
    assert "32" in text


def test_a_method_is_needed(bench: QuantizingBench) -> None:
    ended = bench.home.run("quantize", bench.model)
    assert ended.exit_code == 2
    assert "--method" in ended.err


# The model -------------------------------------------------------------------------------------------


def test_a_model_that_is_not_there_names_the_near_one(bench: QuantizingBench) -> None:
    text = bench.refused(5, *AWQ, model=bench.folder / "modle")
    assert f"Did you mean {bench.model}?" in text


def test_an_adapter_that_is_not_there_is_not_found(bench: QuantizingBench) -> None:
    assert f"Did you mean {bench.adapter}?" in bench.refused(5, bench.folder / "adaptor", *AWQ)


def test_a_model_that_is_quantized_already_is_refused(bench: QuantizingBench) -> None:
    shutil.rmtree(bench.model)
    write(
        bench.model,
        model_files(hidden=HIDDEN, quantization_config={"quant_method": "awq", "bits": 4}),
    )
    assert "quantized" in bench.refused(2, *AWQ)


def test_a_model_without_a_tokenizer_cannot_be_calibrated(bench: QuantizingBench) -> None:
    (bench.model / "tokenizer.json").unlink()
    assert "tokenizer" in bench.refused(2, *AWQ)


def test_an_architecture_that_the_producer_refuses_is_told_before_any_work(
    bench: QuantizingBench,
) -> None:
    shutil.rmtree(bench.model)
    write(
        bench.model,
        model_files(hidden=HIDDEN, model_type="nobodys", architectures=["NobodysModel"]),
    )
    text = bench.refused(3, *AWQ, "--producer", "autoawq")
    assert "nobodys" in text.lower()


# The texts -------------------------------------------------------------------------------------------


def test_calibration_data_that_is_not_there_is_refused(bench: QuantizingBench) -> None:
    text = bench.refused(2, *AWQ, "--calibration", bench.folder / "none.txt")
    assert "There is no calibration file" in text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("chats.csv", b"a,b", "The kinds are .txt"),
        ("empty.txt", b"", "is empty"),
        ("folder/picture.png", b"x", "holds no calibration data"),
    ],
)
def test_calibration_data_of_no_use_is_refused(
    bench: QuantizingBench, name: str, content: bytes, says: str
) -> None:
    write(bench.folder / "texts", {name: content})
    path = bench.folder / "texts" / name.split("/", maxsplit=1)[0]
    assert says in bench.refused(2, *AWQ, "--calibration", path)


@pytest.mark.parametrize(
    "source", ["hub:", "hub:owner", "hub:owner/name@", "hub:a b/c", "hub:../x/y z"]
)
def test_what_names_no_data_set_is_refused(bench: QuantizingBench, source: str) -> None:
    assert "hub:OWNER/NAME" in bench.refused(2, *AWQ, "--calibration", source)


def test_a_data_set_of_the_hub_cannot_be_read_offline(bench: QuantizingBench) -> None:
    text = bench.refused(5, *AWQ, "--calibration", "hub:owner/name", HF_HUB_OFFLINE="1")
    assert "cannot be read offline" in text


def test_a_proof_text_that_is_not_there_is_refused(bench: QuantizingBench) -> None:
    text = bench.refused(2, *AWQ, "--proof-text", bench.folder / "none.txt")
    assert "quantization.proof_text names" in text


# Where to, and with what -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_an_out_that_exists_is_never_touched(bench: QuantizingBench, kind: str) -> None:
    out = bench.folder / "out"
    if kind == "folder":
        write(out, {"mine": b"x"})
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(bench.folder / "nowhere")
    before = sorted(bench.folder.rglob("*"))
    assert f"{out} exists" in bench.refused(2, *AWQ, "--out", out, "--recreate", "--force")
    assert [path for path in before if not path.exists() and not path.is_symlink()] == []


def test_an_out_whose_parent_is_not_there_is_refused(bench: QuantizingBench) -> None:
    out = bench.folder / "no" / "such" / "out"
    assert f"There is no folder {out.parent}" in bench.refused(2, *AWQ, "--out", out)
    assert not (bench.folder / "no").exists()


def test_a_gpu_that_is_not_there_is_refused(bench: QuantizingBench) -> None:
    assert "GPU" in bench.refused(3, *AWQ, "--device", "gpu")


def test_an_engine_without_the_producer_is_refused(bench: QuantizingBench) -> None:
    lacking = make_hollow_engine(
        bench.folder / "lacking", versions=PRODUCER, without=("llmcompressor",)
    )
    text = replace(bench, producing=lacking).refused(4, *AWQ)
    assert f"{lacking.python} lacks llmcompressor" in text
    assert "quantization.python" in text


def test_what_is_not_served_here_is_told_before_the_work_and_asks_for_force(
    bench: QuantizingBench,
) -> None:
    text = bench.refused(3, "--method", "nvfp4")
    assert "--force" in text
    ended = bench.run("--method", "nvfp4", "--force")
    assert ended.exit_code == 4
    assert bench.serving.worked() or bench.producing.worked()


def test_a_profile_that_would_serve_the_adapter_unmerged_cannot_quantize(
    bench: QuantizingBench,
) -> None:
    profile = write_profile(
        bench.folder / "prod.toml",
        {
            "model": {"id": str(bench.model)},
            "adapter": {"id": str(bench.adapter)},
            "merge": {"on_failure": "serve-lora"},
            "quantization": {"method": "awq"},
        },
    )
    ended = bench.home.run("--profile", profile)
    one_clear_error(ended, 2)
    assert "serve-lora" in ended.text


# What is said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["m\x1b[31mred\x9b0m", "[bold red]x[-]"], ids=["escapes", "markup"]
)
def test_a_name_neither_steers_the_terminal_nor_is_read_as_markup(
    bench: QuantizingBench, name: str
) -> None:
    model = bench.model.rename(bench.folder / name)
    for ended in (
        bench.run(*AWQ, model=model),
        bench.run(*AWQ, "--dry-run", model=model),
        bench.run(*AWQ, "--calibration", f"{bench.folder}/\x1b[31mno.txt", model=model),
    ):
        assert not {"\x1b", "\x9b", "\x07"} & set(ended.out + ended.err)


def test_json_errors_are_json(bench: QuantizingBench) -> None:
    ended = bench.run(*AWQ, "--group-size", "48", "--json")
    assert ended.exit_code == 2
    assert json.loads(ended.err)["code"] == "quantize.group-size"
    assert ended.out == ""


def test_without_engines_one_error_names_all_that_are_missing(bench: QuantizingBench) -> None:
    ended = bench.home.run("quantize", bench.model, *AWQ)
    one_clear_error(ended, 4)
    assert "compressor" in ended.text
    assert "vllm-c" in ended.text
    assert "--yes" in ended.text
