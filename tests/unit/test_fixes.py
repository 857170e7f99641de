"""Fixes: for each way to fail, the changes that may help, with their numbers."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from recommendation_cases import situation_of
from run_plans import ESTIMATE, merge_step, plan_of, quantize_step
from situation import Expected

from quantui.domain.answers import key_of
from quantui.domain.draft import Draft
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import RunStarted, StepFailed
from quantui.domain.fixes import MOST, fixes_for
from quantui.domain.plan import EngineFacts
from quantui.domain.profile import apply_overrides
from quantui.domain.recommend import recommend
from quantui.domain.run_state import RunState, reduce

GPU = EngineFacts("vllm-cuda", "/e/python", "profile", False, {"vllm": "0.32.0"})
PLAN = replace(
    plan_of(), engine=GPU, estimate=replace(ESTIMATE, max_model_len=32768, utilization=0.92)
)
CODES = {
    entry["code"]: entry
    for entry in tomllib.loads(
        resources.files("quantui.data").joinpath("failures.toml").read_text(encoding="utf-8")
    )["failure"]
}


def error(code, text="", exit_code=ExitCode.DOES_NOT_FIT):
    return QuantuiError(code, "what", text, "fix", exit_code)


def draft(**options):
    made = Draft()
    for name, value in options.items():
        made = made.with_option(*name.split("__"), value)
    return made


def state(step):
    folded = reduce(
        RunStarted(at=0.0, run_id="r", steps=((step, step),), directory="/d", quantui_version="1"),
        RunState(),
    )
    return reduce(StepFailed(at=1.0, step=step, error={"what": "x"}, final=True), folded)


def changes(code, text="", *, step="serve", plan=PLAN, exit_code=ExitCode.DOES_NOT_FIT, **options):
    """(section.name, value) of every fix that changes one option."""
    found = fixes_for(error(code, text, exit_code), draft(**options), plan, state(step))
    return [
        (f"{section}.{name}", value)
        for fix in found
        for (section, name), value in fix.changes.items()
    ]


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_failure_of_vllm_has_something_a_key_can_do(code):
    options = {
        "serve__tensor_parallel": 4,
        "serve__extra_args": {"no-such": 1},
        "engine__python": "/opt/python",
        "serve__max_model_len": 99999,
    }
    found = fixes_for(error(code), draft(**options), PLAN, state("serve"))
    assert found
    assert all(fix.words for fix in found)


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_change_is_one_that_a_profile_takes(code):
    found = fixes_for(error(code), Draft(), PLAN, state("serve"))
    for fix in found:
        for (section, name), value in fix.changes.items():
            if isinstance(value, bool | int | float | str):
                written = str(value).lower() if isinstance(value, bool) else value
                apply_overrides(Draft(), [f"{section}.{name}={written}"])


def test_the_context_goes_to_what_vllm_says_fits():
    text = "Based on the available memory, the estimated maximum model length is 4099."
    assert ("serve.max_model_len", 4096) in changes("serve.no-room-for-kv-cache", text)


def test_without_a_better_number_the_context_is_halved():
    assert ("serve.max_model_len", 16384) in changes("serve.out-of-memory")


def test_the_share_of_the_card_goes_to_what_is_free():
    text = "Free memory on device cuda:0 (3.2/14.7 GiB) on startup is less than desired GPU memory utilization"
    assert changes("serve.memory-at-start", text)[0] == ("serve.gpu_memory_utilization", 0.21)


def test_on_the_cpu_no_share_of_a_card_is_offered():
    plan = replace(PLAN, engine=replace(GPU, on_cpu=True))
    names = [name for name, _ in changes("serve.memory-at-start", plan=plan)]
    assert "serve.gpu_memory_utilization" not in names


def test_fewer_requests_and_no_graphs_spare_memory():
    found = changes("serve.out-of-memory", serve__max_num_seqs=64)
    assert ("serve.max_num_seqs", 32) in found
    assert ("serve.enforce_eager", True) in found


def test_a_cache_size_set_by_hand_is_computed_instead():
    assert ("serve.kv_cache_gib", None) in changes(
        "serve.no-room-for-kv-cache", serve__kv_cache_gib=9.0
    )


def test_a_context_above_the_models_goes_down_to_it():
    text = "max_model_len (99999) is greater than the derived max_model_len (max_position_embeddings=512.0)"
    found = changes("serve.context-too-long", text, serve__max_model_len=99999)
    assert found == [("serve.max_model_len", 512)]


def test_the_gpus_are_as_many_as_divide_the_heads():
    text = "Total number of attention heads (14) must be divisible by tensor parallel size (4)."
    found = changes("serve.tensor-parallel", text, serve__tensor_parallel=4)
    assert found == [("serve.tensor_parallel", 2)]


def test_a_taken_port_gives_way_to_a_free_one():
    assert changes("serve.port-in-use") == [("serve.port", 0)]


def test_the_argument_that_was_refused_is_left_out():
    text = "error: unrecognized arguments: --no-such 1"
    extra = {"no-such": 1, "seed": 2}
    found = changes("serve.bad-argument", text, serve__extra_args=extra)
    assert found == [("serve.extra_args", {"seed": 2}), ("serve.extra_args", {})]


def test_code_of_the_repository_runs_only_when_a_key_says_so():
    found = fixes_for(error("serve.remote-code"), Draft(), PLAN, state("serve"))
    assert [fix.changes for fix in found] == [{("model", "trust_remote_code"): True}]
    assert "only after reading it" in found[0].words


def test_a_damaged_artifact_is_made_again(tmp_path):
    plan = replace(PLAN, steps=(merge_step(tmp_path), quantize_step(tmp_path)))
    found = changes("serve.bad-checkpoint", plan=plan)
    assert found == [("quantization.recreate", True), ("merge.recreate", True)]


def test_a_full_disk_loses_the_merged_model_once_it_is_not_needed(tmp_path):
    plan = replace(PLAN, steps=(merge_step(tmp_path, bytes=2 << 30), quantize_step(tmp_path)))
    (_, fix, again) = fixes_for(error("disk.full"), Draft(), plan, state("quantize"))
    assert fix.changes == {("cleanup", "after_run"): "delete-merged"}
    assert "2.00 GiB" in fix.words
    assert again.changes == {}


@pytest.mark.parametrize(
    "code", ["disk.full", "disk.too-little", "disk.too-small", "disk.not-enough", "serve.disk-full",
             "quantize.not-enough-disk"],
)  # fmt: skip
def test_where_a_disk_has_too_little_room_the_caches_are_looked_at_first(code):
    first, *others = fixes_for(error(code), Draft(), PLAN, state("merge"))
    assert (first.opens, dict(first.changes)) == ("cache", {})
    assert not any(fix.opens for fix in others)


def test_other_failures_do_not_lead_to_the_caches():
    for code in ("serve.out-of-memory", "merge.no-gpu", "run.os-error"):
        assert not any(fix.opens for fix in fixes_for(error(code), Draft(), PLAN, state("serve")))


@pytest.mark.parametrize(
    ("step", "code", "change"),
    [
        ("merge", "worker.out-of-memory", ("merge.device", "cpu")),
        ("merge", "worker.died", ("merge.device", "cpu")),
        ("merge", "merge.no-gpu", ("merge.device", "cpu")),
        ("merge", "merge.proof-failed", ("merge.on_failure", "serve-lora")),
        ("quantize", "worker.out-of-memory", ("quantization.device", "cpu")),
        ("quantize", "quantize.not-enough-memory", ("quantization.calibration_length", 256)),
        ("quantize", "quantize.failed-proof", ("quantization.calibration_samples", 256)),
        ("quantize", "quantize.producer-failed", ("quantization.producer", "auto")),
        ("serve", "worker.died", ("serve.max_model_len", 16384)),
        ("serve", "serve.timeout", ("serve.startup_timeout_s", 3600)),
        ("serve", "serve.bad-host", ("serve.host", "127.0.0.1")),
        ("serve", "serve.no-api-key", ("serve.api_key_env", None)),
        ("install-vllm", "engine.lacks-packages", ("engine.python", None)),
        ("check", "check.wrong-model", ("serve.port", 0)),
        ("check", "check.perplexity", ("check.max_perplexity", None)),
        ("check", "check.empty-answer", ("check.max_tokens", 192)),
        ("check", "check.no-text", ("check.text", None)),
        ("serve", "memory.context-does-not-fit", ("serve.max_model_len", 16384)),
    ],
)  # fmt: skip
def test_each_step_has_its_own_ways_out(step, code, change):
    options = {
        "adapter__id": "/a",
        "quantization__producer": "autoawq",
        "engine__python": "/opt/python",
        "serve__host": "10.0.0.9" if code == "serve.bad-host" else "127.0.0.1",
        "serve__api_key_env": "KEY",
        "check__max_perplexity": 9.0,
        "check__text": "t.txt",
    }
    quantizing = {"quantization__method": "awq"} if step == "quantize" else {}
    assert change in changes(code, step=step, **options, **quantizing)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("run.host-died", "what was finished is reused"),
        ("engine.broken", "install the engine again"),
        ("hub.unreachable", "downloads go on where they stopped"),
        ("disk.too-little", "when there is room on the disk"),
        ("serve.failed", "try again as it is"),
        ("worker.crashed", "try again as it is"),
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again_without_a_change(code, words):
    last = fixes_for(error(code, exit_code=ExitCode.ENGINE), Draft(), PLAN, state("serve"))[-1]
    assert last.changes == {}
    assert words in last.words


def test_what_cannot_pass_is_not_tried_again_as_it_is():
    for code in ("serve.context-too-long", "serve.remote-code", "profile.unknown-key"):
        found = fixes_for(error(code, exit_code=ExitCode.BAD_INPUT), Draft(), PLAN, state("serve"))
        assert all(fix.changes for fix in found)


def test_there_are_never_more_fixes_than_keys():
    for code in [*CODES, "disk.full", "merge.proof-failed", "quantize.failed-proof"]:
        assert len(fixes_for(error(code), Draft(), PLAN, state("serve"))) <= MOST


def test_another_method_is_the_best_ready_one_with_smaller_weights():
    case = Expected("", "3090", "llama-3.1-8b", "balanced", 1, 4096, frozenset(), "", "")
    choices = recommend(situation_of(case)).choices
    plan = replace(PLAN, estimate=replace(ESTIMATE, weight_bytes=16 << 30))
    found = fixes_for(error("serve.out-of-memory"), Draft(), plan, state("serve"), choices)
    (other,) = [fix for fix in found if fix.method]
    ready = [
        choice
        for choice in choices
        if choice.ready and choice.method != "none" and choice.fit.weights.bytes < 16 << 30
    ]
    assert other.method == key_of(ready[0])
    assert "they were 16.00" in other.words


def test_without_a_recommendation_no_method_is_made_up():
    found = fixes_for(error("serve.no-kernel"), Draft(), PLAN, state("serve"))
    assert not any(fix.method for fix in found)
