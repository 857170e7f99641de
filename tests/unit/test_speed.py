"""How fast a method decodes: by formula, by what others measured, by the user's own runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from quantui.domain.architecture.model_shape import ModelShape, model_shape
from quantui.domain.methods import method, methods
from quantui.domain.performance.evidence import Evidence, SpeedPoint, published
from quantui.domain.performance.gpu_models import GpuModel, gpu_model
from quantui.domain.performance.speed import OwnRun, Speed, decode_speed

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMULA_ONLY = dataclasses.replace(published(), speeds=(), ratios=())
METHOD_OF_KERNEL = {"none": "none", "fp8": "fp8_dynamic", "int4": "gptq", "int8-weights": "w8a16"}


def dense(hidden: int, layers: int, heads: int, kv: int, mlp: int, **more: Any) -> ModelShape:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": mlp,
        "vocab_size": 128256,
        "torch_dtype": "bfloat16",
        "max_position_embeddings": 131072,
    }
    return model_shape({**config, **more})


def qwen3(hidden: int, layers: int, heads: int, kv: int, mlp: int, **more: Any) -> ModelShape:
    vocabulary = {"model_type": "qwen3", "vocab_size": 151936, "head_dim": 128}
    return dense(hidden, layers, heads, kv, mlp, **vocabulary, **more)


LLAMA_8B = dense(4096, 32, 32, 8, 14336)
LLAMA_70B = dense(8192, 80, 64, 8, 28672)
QWEN3_8B = qwen3(4096, 36, 32, 8, 12288)
MIXTURE = dense(
    2048,
    48,
    32,
    4,
    6144,
    model_type="qwen3_moe",
    vocab_size=151936,
    head_dim=128,
    num_experts=128,
    num_experts_per_tok=8,
    moe_intermediate_size=768,
    decoder_sparse_step=1,
)
MODELS = {
    "Llama-3.1-8B-Instruct": LLAMA_8B,
    "Llama-3.1-70B-Instruct": LLAMA_70B,
    "Qwen3-8B": QWEN3_8B,
    "Qwen3-14B": qwen3(5120, 40, 40, 8, 17408),
    "Qwen3-32B": qwen3(5120, 64, 64, 8, 25600),
    "Qwen3-30B-A3B-Instruct-2507": MIXTURE,
}


def card(name: str, **facts: Any) -> GpuModel:
    found = gpu_model(name, **facts)
    assert found is not None
    return found


def speed(
    shape: ModelShape,
    name: str,
    gpu: GpuModel | None,
    *,
    users: int = 1,
    context: int = 2048,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    evidence: Evidence | None = FORMULA_ONLY,
    own_runs: Sequence[OwnRun] = (),
    model: str | None = None,
    hardware: str | None = None,
) -> Speed:
    """The speed, with weights and KV cache counted as the memory model counts them, roughly."""
    chosen = method(name)
    assert shape.parameters is not None
    tables = (shape.vocabulary or 0) * (shape.hidden_size or 0) * (1 if shape.tied else 2)
    ranks = tensor_parallel * pipeline_parallel
    weights = (shape.parameters - tables) * chosen.bytes_per_linear_weight + tables * 2
    kv = sum(layer.elements_per_token(tensor_parallel) * layer.count for layer in shape.attention)
    return decode_speed(
        shape,
        weights / ranks,
        kv * 2 / pipeline_parallel,
        chosen,
        gpu,
        users=users,
        context=context,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        evidence=evidence,
        own_runs=own_runs,
        model=model,
        hardware=hardware,
    )


def per_user(result: Speed) -> float:
    assert result.tokens_per_s_per_user is not None
    return result.tokens_per_s_per_user


def relative(result: Speed) -> float:
    assert result.relative_to_16bit is not None
    return result.relative_to_16bit


CURRENT = [point for point in published().speeds if not point.ratio_only]
FP8 = ("fp8_dynamic", "fp8_per_channel", "fp8_per_tensor", "fp8_block")
H100, A100 = card("NVIDIA H100 80GB HBM3"), card("NVIDIA A100-SXM4-80GB")


@pytest.mark.parametrize("point", CURRENT, ids=lambda p: f"{p.model} {p.card} {p.users} users")
def test_the_formula_holds_on_what_was_measured(point: SpeedPoint) -> None:
    gpu = card(point.card + (" 80GB" if "H100" in point.card else ""))
    for kernel, measured in point.tokens_per_s.items():
        computed = speed(
            MODELS[point.model],
            METHOD_OF_KERNEL[kernel],
            gpu,
            users=point.users,
            context=point.context,
            tensor_parallel=point.tensor_parallel,
        )
        assert computed.basis == "formula"
        assert computed.low is not None
        assert computed.high is not None
        assert computed.low <= measured <= computed.high
        if point.users <= 32:
            assert per_user(computed) == pytest.approx(measured, rel=0.12)


def test_one_user_is_bound_by_reading_weights() -> None:
    four_bit = speed(QWEN3_8B, "awq", card("RTX 4090"))
    assert four_bit.regime == "weights"
    assert 1.8 < relative(four_bit) < 3.2


def test_many_users_are_bound_by_arithmetic_and_weight_only_formats_lose_there() -> None:
    plain = speed(LLAMA_8B, "none", A100, users=400, context=128)
    four_bit = speed(LLAMA_8B, "gptq", A100, users=400, context=128)
    assert four_bit.regime == "arithmetic"
    assert relative(four_bit) < 1
    assert per_user(plain) > per_user(four_bit)


def test_eight_bit_activations_gain_at_every_load_where_the_card_has_units() -> None:
    for users in (1, 16, 256):
        assert relative(speed(LLAMA_8B, "fp8_dynamic", H100, users=users, context=512)) > 1.05
        assert relative(speed(LLAMA_8B, "int8_w8a8", A100, users=users, context=512)) > 1.05


def test_fp8_has_no_units_on_ampere() -> None:
    many = speed(LLAMA_8B, "fp8_dynamic", A100, users=400, context=128)
    assert relative(many) < 1
    assert "no units for this format" in many.formula


def test_long_contexts_are_bound_by_the_kv_cache() -> None:
    result = speed(LLAMA_8B, "awq", H100, users=16, context=65536)
    assert result.regime == "kv cache"
    assert relative(result) < 1.3


def test_a_sliding_window_bounds_what_is_read() -> None:
    windowed = dense(4096, 32, 32, 8, 14336, model_type="mistral", sliding_window=4096)
    assert any(layer.window for layer in windowed.attention)
    long = {"users": 16, "context": 65536}
    assert per_user(speed(windowed, "none", H100, **long)) > 2 * per_user(
        speed(LLAMA_8B, "none", H100, **long)
    )


def test_int8_units_of_a_b300_are_a_relic() -> None:
    slow = speed(LLAMA_8B, "int8_w8a8", card("NVIDIA B300 SXM6 AC"), users=256, context=256)
    assert slow.regime == "arithmetic"
    assert relative(slow) < 0.5


def test_four_bit_floats_have_units_from_blackwell_on() -> None:
    load = {"users": 400, "context": 128}
    assert "FP4" in speed(LLAMA_8B, "nvfp4", card("NVIDIA B200"), **load).formula
    assert "of 16 bit" in speed(LLAMA_8B, "nvfp4", H100, **load).formula


def test_a_mixture_of_experts_reads_few_experts_for_one_user_and_nearly_all_for_many() -> None:
    dense_30b = qwen3(5120, 64, 64, 8, 23000)
    one, many = 1, 400
    gain_of_one = per_user(speed(MIXTURE, "none", H100, users=one)) / per_user(
        speed(dense_30b, "none", H100, users=one)
    )
    gain_of_many = per_user(speed(MIXTURE, "none", H100, users=many, context=64)) / per_user(
        speed(dense_30b, "none", H100, users=many, context=64)
    )
    assert gain_of_one > 3
    assert gain_of_many < 2


def test_total_speed_grows_with_users_and_that_of_each_falls() -> None:
    speeds = [speed(LLAMA_8B, "none", H100, users=users) for users in (1, 8, 64, 256)]
    each = [per_user(result) for result in speeds]
    totals = [result.tokens_per_s_total or 0 for result in speeds]
    assert each == sorted(each, reverse=True)
    assert totals == sorted(totals)


def test_tensor_parallel_helps_less_over_pcie_than_over_nvlink() -> None:
    nvlink = speed(LLAMA_70B, "awq", A100, tensor_parallel=4)
    pcie = speed(LLAMA_70B, "awq", card("NVIDIA A100 80GB PCIe"), tensor_parallel=4)
    assert per_user(pcie) < 0.95 * per_user(nvlink)
    assert "communication" in pcie.formula


def test_communication_can_be_what_binds() -> None:
    load = {"tensor_parallel": 8, "users": 256, "context": 64}
    many = speed(LLAMA_70B, "fp8_dynamic", card("NVIDIA L40S"), **load)
    assert many.regime == "interconnect"


def test_a_pipeline_does_not_speed_up_one_user() -> None:
    one = speed(LLAMA_70B, "awq", A100)
    piped = speed(LLAMA_70B, "awq", A100, pipeline_parallel=2)
    assert per_user(piped) == pytest.approx(per_user(one), rel=0.1)


def test_a_mig_slice_is_as_slow_as_its_memory() -> None:
    whole = speed(LLAMA_8B, "awq", A100)
    part = speed(LLAMA_8B, "awq", card("NVIDIA A100-SXM4-80GB", mig_profile="1g.10gb"))
    assert per_user(part) < per_user(whole) / 4


def test_an_unknown_card_has_an_unknown_speed() -> None:
    result = speed(LLAMA_8B, "awq", None)
    assert result.tokens_per_s_per_user is None
    assert result.regime == "unknown"


def test_every_method_has_a_band_around_its_speed_on_every_generation() -> None:
    cards = ("Tesla T4", "RTX 3090", "NVIDIA L40S", "NVIDIA H200", "RTX 5090", "NVIDIA B300")
    for name in cards:
        for chosen in methods():
            result = speed(LLAMA_8B, chosen, card(name), users=8, evidence=None)
            assert result.low is not None
            assert result.high is not None
            assert 0 < result.low <= per_user(result) <= result.high, (name, chosen)
            assert result.formula
            assert result.source


# Evidence outranks the formula; the user's own runs outrank both.

SMALL = OwnRun("awq", "m", "h", users=1, tokens_per_s=50.0, context=2048)


def test_a_published_measurement_outranks_the_formula() -> None:
    result = speed(QWEN3_8B, "fp8_dynamic", H100, users=64, context=640, evidence=None)
    assert result.basis == "published"
    assert per_user(result) == pytest.approx(137.7, rel=0.01)
    assert "SilyBench" in result.source


def test_a_published_ratio_outranks_the_formula() -> None:
    result = speed(LLAMA_8B, "bitsandbytes", A100, users=256, context=512, evidence=None)
    assert result.basis == "published"
    assert relative(result) == pytest.approx(0.57)
    assert "GPUStack" in result.source


def test_a_ratio_of_one_card_is_carried_to_eight_by_the_formula() -> None:
    """What does not shrink with the weights weighs more on eight cards: all formats come nearer to 16 bit."""
    one, eight = (
        speed(LLAMA_70B, "gptq", H100, context=1024, tensor_parallel=ranks, evidence=None)
        for ranks in (1, 8)
    )
    assert one.basis == eight.basis == "published"
    assert 1 < relative(eight) < 0.7 * relative(one)


def test_an_old_engine_speaks_only_for_ratios() -> None:
    shape = qwen3(3584, 28, 28, 4, 18944)
    plain = speed(shape, "none", A100, context=1024, evidence=None)
    four_bit = speed(shape, "gptq", A100, context=1024, evidence=None)
    assert plain.basis == "formula"
    assert four_bit.basis == "published"
    assert relative(four_bit) == pytest.approx(154.1 / 84.3)


def test_a_published_ratio_shrinks_where_the_kv_cache_takes_most_of_a_step() -> None:
    short, long = (
        speed(LLAMA_8B, "gptq", A100, context=context, evidence=None) for context in (1024, 100_000)
    )
    assert short.basis == long.basis == "published"
    assert 1 < relative(long) < relative(short) - 0.3


def test_a_measurement_of_another_card_or_size_does_not_speak() -> None:
    for shape, gpu in ((QWEN3_8B, card("NVIDIA L40S")), (LLAMA_70B, H100)):
        result = speed(shape, "fp8_dynamic", gpu, users=64, context=640, evidence=None)
        assert result.basis == "formula"


def test_a_measurement_of_a_much_larger_load_or_context_does_not_speak() -> None:
    for load in ({"users": 3, "context": 640}, {"users": 2000, "context": 16384}):
        assert speed(QWEN3_8B, "fp8_dynamic", H100, evidence=None, **load).basis == "formula"


def test_an_own_run_outranks_what_is_published() -> None:
    own = OwnRun("fp8_dynamic", "m", "h", users=64, tokens_per_s=64 * 100.0, context=640)
    result = speed(
        QWEN3_8B, "fp8_dynamic", H100, users=64, context=640, evidence=None, own_runs=(own,)
    )
    assert result.basis == "own run"
    assert per_user(result) == pytest.approx(100)
    assert "own run" in result.source


def test_an_own_run_is_carried_to_another_load_by_the_formula() -> None:
    near = speed(LLAMA_8B, "awq", H100, users=1, own_runs=(SMALL,))
    far = speed(LLAMA_8B, "awq", H100, users=32, own_runs=(SMALL,))
    assert per_user(near) == pytest.approx(50)
    assert per_user(far) < 50
    assert near.high is not None
    assert far.high is not None
    assert far.high / per_user(far) > near.high / per_user(near)


def test_runs_of_another_model_or_machine_do_not_count() -> None:
    for key in ({"model": "other"}, {"hardware": "other"}):
        result = speed(LLAMA_8B, "awq", H100, own_runs=(SMALL,), **key)
        assert result.basis == "formula"


def test_runs_on_more_cards_do_not_count() -> None:
    result = speed(LLAMA_8B, "awq", H100, tensor_parallel=2, own_runs=(SMALL,))
    assert result.basis == "formula"


def test_an_own_run_in_16_bit_calibrates_the_other_methods() -> None:
    expected = speed(LLAMA_8B, "none", H100)
    slow = OwnRun("none", "m", "h", users=1, tokens_per_s=per_user(expected) / 2, context=2048)
    four_bit = speed(LLAMA_8B, "awq", H100, own_runs=(slow,))
    assert per_user(four_bit) == pytest.approx(per_user(speed(LLAMA_8B, "awq", H100)) / 2)
    assert four_bit.basis == "formula"
    assert "own run" in four_bit.source


def test_own_runs_speak_even_where_there_is_no_formula() -> None:
    runs = (SMALL, dataclasses.replace(SMALL, method="none", tokens_per_s=20.0))
    result = speed(LLAMA_8B, "awq", None, own_runs=runs)
    assert per_user(result) == 50
    assert relative(result) == 2.5
    assert speed(LLAMA_8B, "awq", None, users=64, own_runs=runs).tokens_per_s_per_user is None


def test_a_claim_that_contradicts_the_hardware_is_shown_with_its_author_and_not_used() -> None:
    shown = speed(LLAMA_8B, "fp8_dynamic", A100, evidence=None)
    doubtful = [claim for claim in shown.claims if "doubtful" in claim]
    assert len(doubtful) == 1
    assert doubtful[0].startswith("the guides")
    assert "guides" not in shown.source
    assert not any("doubtful" in c for c in speed(LLAMA_8B, "fp8_dynamic", H100).claims)


def test_formats_of_one_kernel_are_judged_by_the_same_figure() -> None:
    load = {"users": 256, "context": 512, "evidence": None}
    eight = {name: relative(speed(LLAMA_8B, name, H100, **load)) for name in FP8}
    assert max(eight.values()) == pytest.approx(min(eight.values()), rel=0.01)
    four = {
        name: relative(speed(LLAMA_8B, name, H100, **load)) for name in ("awq", "gptq", "w4a16")
    }
    assert max(four.values()) == pytest.approx(min(four.values()), rel=0.01)


def test_integers_speak_for_floats_that_are_computed_in_16_bit() -> None:
    for pair in (("nvfp4", "gptq"), ("fp8_per_tensor", "w8a16")):
        float_, integer = (
            speed(LLAMA_8B, name, A100, context=1024, evidence=None) for name in pair
        )
        assert relative(float_) == pytest.approx(relative(integer))
        assert "int" in float_.source


def test_fp8_speaks_for_int8_where_the_units_are_as_fast() -> None:
    load = {"users": 256, "context": 640, "evidence": None}
    assert relative(speed(LLAMA_8B, "int8_w8a8", H100, **load)) == pytest.approx(
        relative(speed(LLAMA_8B, "fp8_dynamic", H100, **load))
    )
    assert speed(LLAMA_8B, "int8_w8a8", card("NVIDIA B300"), **load).basis == "formula"
