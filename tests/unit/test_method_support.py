"""What works on which machine, told in that machine's terms."""

from __future__ import annotations

from dataclasses import MISSING, fields

import pytest

from quantui.domain.architecture.attention_layers import AttentionLayers
from quantui.domain.architecture.model_shape import ModelShape
from quantui.domain.hardware import Gpu
from quantui.domain.methods import methods
from quantui.domain.support.method_support import support

GTX_1080 = Gpu(0, name="GeForce GTX 1080", compute_capability=(6, 1))
V100 = Gpu(0, name="Tesla V100", compute_capability=(7, 0))
T4 = Gpu(0, name="Tesla T4", compute_capability=(7, 5))
A100 = Gpu(0, name="NVIDIA A100", compute_capability=(8, 0))
RTX_4090 = Gpu(0, name="RTX 4090", compute_capability=(8, 9))
H100 = Gpu(0, name="NVIDIA H100", compute_capability=(9, 0))
B200 = Gpu(0, name="NVIDIA B200", compute_capability=(10, 0))
RTX_5090 = Gpu(0, name="RTX 5090", compute_capability=(12, 0))
UNKNOWN = Gpu(0, name="a card")

SERVED = [name for name, one in methods().items() if one.status in ("current", "plugin")]
AWQ_LIKE = ["awq", "gptq", "w4a16", "autoround", "rotations_w4a16"]


def shape(**given):
    empty = {field.name: None for field in fields(ModelShape) if field.default is MISSING}
    known = {
        "model_type": "llama",
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "intermediate_size": 14336,
        "tied": False,
        "shared_experts": 0,
        "has_vision": False,
        "is_encoder_decoder": False,
        "is_generative": True,
        "dtype": "bfloat16",
    }
    known["attention"] = (
        AttentionLayers("full", 32, kv_heads=given.get("kv_heads", 8), head_dim=128),
    )
    return ModelShape(**{**empty, **known, **given})


LLAMA_8B = shape()
MIXTRAL = shape(intermediate_size=None, experts=8, experts_per_token=2, moe_intermediate_size=14336)
QWEN_72B = shape(layers=80, hidden_size=8192, heads=64, intermediate_size=29568)


def four(gpu, count=4):
    return [
        Gpu(index, name=gpu.name, compute_capability=gpu.compute_capability)
        for index in range(count)
    ]


def refusal(name, gpu=None, **given):
    """The first reason; the method must be refused."""
    found = support(name, gpus=[gpu] if gpu else given.pop("gpus", ()), **given)
    assert not found.supported
    assert found.how == "none"
    return found.reasons[0]


def works(name, gpu=None, **given):
    found = support(name, gpus=[gpu] if gpu else given.pop("gpus", ()), **given)
    assert found.reasons == ()
    assert found.supported
    return found


class TestComputeCapability:
    @pytest.mark.parametrize("gpu", [V100, GTX_1080])
    @pytest.mark.parametrize("name", SERVED)
    def test_nothing_runs_below_what_vllm_runs_on(self, name, gpu):
        have = ".".join(map(str, gpu.compute_capability))
        found = support(name, gpus=[gpu], shape=MIXTRAL)
        assert any(f"{gpu.name}) has {have}" in said for said in found.reasons)

    def test_a_refusal_says_what_is_needed_and_what_this_card_has(self):
        assert refusal("fp8_per_channel", A100) == (
            "FP8 per channel, in flight needs compute capability 8.9; GPU 0 (NVIDIA A100) has 8.0."
        )

    @pytest.mark.parametrize("name", ["fp8_dynamic", "fp8_static", "fp8_block", "fp8_per_tensor"])
    def test_fp8_on_ampere_is_weight_only_and_said_to_be(self, name):
        found = works(name, A100, shape=LLAMA_8B)
        assert found.how == "weight-only"
        assert any("8.0" in said and "8.9" in said and "16 bit" in said for said in found.cautions)

    @pytest.mark.parametrize("gpu", [RTX_4090, H100, B200])
    def test_fp8_is_native_from_ada_on(self, gpu):
        assert works("fp8_dynamic", gpu, shape=LLAMA_8B).how == "native"

    @pytest.mark.parametrize("name", ["nvfp4", "mxfp4", "mxfp8"])
    def test_four_bit_floats_are_weight_only_before_blackwell(self, name):
        assert works(name, H100, shape=LLAMA_8B).how == "weight-only"
        assert works(name, B200, shape=LLAMA_8B).how == "native"

    @pytest.mark.parametrize("name", ["int8_w8a8", "rotations_w8a8"])
    @pytest.mark.parametrize("gpu", [B200, RTX_5090])
    def test_int8_with_activations_is_refused_on_blackwell(self, name, gpu):
        assert "up to compute capability 9.0" in refusal(name, gpu)

    def test_int8_served_as_it_is_is_refused_on_blackwell_too(self):
        assert "INT8 W8A8" in refusal("none", B200, stored_as="int8_w8a8")

    @pytest.mark.parametrize("gpu", [A100, RTX_4090, B200])
    def test_w4a8_needs_hopper_exactly(self, gpu):
        assert "9.0" in refusal("w4a8", gpu)
        works("w4a8", H100)

    def test_the_experts_nvfp4_needs_data_centre_blackwell(self):
        works("nvfp4_per_token", B200, shape=MIXTRAL)
        refusal("nvfp4_per_token", RTX_5090, shape=MIXTRAL)
        refusal("nvfp4_per_token", H100, shape=MIXTRAL)

    @pytest.mark.parametrize("name", SERVED)
    def test_an_unknown_capability_cautions_and_never_refuses(self, name):
        found = (
            works(name, UNKNOWN, shape=shape(experts=8, moe_intermediate_size=2048))
            if (not methods()[name].only_dense)
            else works(name, UNKNOWN)
        )
        assert any(
            "compute capability of GPU 0 (a card) is unknown" in said for said in found.cautions
        )

    def test_the_weakest_of_several_cards_decides(self):
        old = Gpu(1, name="RTX 3090", compute_capability=(8, 6))
        assert "GPU 1 (RTX 3090) has 8.6" in refusal("fp8_per_channel", gpus=[RTX_4090, old])

    def test_quark_is_cautioned_where_one_of_its_schemes_does_not_run(self):
        assert any("FP8" in said for said in works("quark", A100).cautions)
        assert works("quark", H100).cautions == ()


class TestCpu:
    RUNS = frozenset({
        "none", "bitsandbytes", "bitsandbytes_8bit", "awq", "gptq", "fp8_per_channel", "fp8_dynamic",
        "int8_w8a8", "w4a16", "torchao", "autoround", "rotations_w4a16", "rotations_w8a8",
    })  # fmt: skip

    @pytest.mark.parametrize("name", SERVED)
    def test_exactly_what_has_been_served_there_runs(self, name):
        assert support(name, on_cpu=True, shape=LLAMA_8B).supported == (name in self.RUNS)

    def test_a_refusal_names_what_runs_there(self):
        found = support("fp8_per_tensor", on_cpu=True)
        assert "does not run on the CPU" in found.reasons[0]
        assert "bitsandbytes" in found.refused[0].fix
        assert "squeezellm" not in found.refused[0].fix

    @pytest.mark.parametrize("name", ["fp8_per_channel", "bitsandbytes"])
    def test_some_have_no_kernel_for_experts_there(self, name):
        said = refusal(name, on_cpu=True, shape=MIXTRAL, cpu_flags=("amx_tile",))
        assert "experts" in said

    @pytest.mark.parametrize("name", [*AWQ_LIKE, "int8_w8a8", "fp8_dynamic"])
    def test_quantized_experts_need_amx_there(self, name):
        assert "AMX" in refusal(name, on_cpu=True, shape=MIXTRAL, cpu_flags=("avx2", "avx512f"))
        works(name, on_cpu=True, shape=MIXTRAL, cpu_flags=("avx512f", "amx_tile"))
        works(name, on_cpu=True, shape=LLAMA_8B, cpu_flags=("avx2",))
        assert any("AMX" in said for said in works(name, on_cpu=True, shape=MIXTRAL).cautions)

    def test_compute_capabilities_of_cards_that_are_not_used_do_not_matter(self):
        works("awq", V100, on_cpu=True)

    def test_sizes_that_the_kernel_has_no_tiles_for_are_refused(self):
        found = support(
            "w4a16",
            on_cpu=True,
            shape=shape(intermediate_size=4112, group_size=16),
            stored_as="w4a16",
        )
        assert "multiples of 32" in found.reasons[0]


class TestDtype:
    def test_a_bfloat16_model_runs_in_float16_on_turing(self):
        found = works("awq", T4, shape=LLAMA_8B)
        assert found.dtype == "float16"
        assert any("--dtype half" in said for said in found.cautions)

    @pytest.mark.parametrize("name", ["none", *AWQ_LIKE])
    def test_asking_for_bfloat16_on_turing_is_refused(self, name):
        assert "bfloat16 needs compute capability 8.0" in refusal(name, T4, dtype="bfloat16")

    @pytest.mark.parametrize("kind", ["gemma2", "gemma3", "gemma3_text", "glm4"])
    def test_a_model_that_may_not_run_in_float16_is_refused_on_turing(self, kind):
        gemma = shape(model_type=kind)
        assert kind in refusal("none", T4, shape=gemma)
        assert kind in refusal("awq", T4, shape=gemma)
        works("none", A100, shape=gemma)

    def test_it_runs_there_in_float32_when_that_is_asked_for(self):
        gemma = shape(model_type="gemma3")
        works("none", T4, shape=gemma, dtype="float32")
        assert "float32" in refusal("awq", T4, shape=gemma, dtype="float32")

    def test_a_float16_gemma_is_refused_on_any_card(self):
        assert "gemma2" in refusal("none", A100, shape=shape(model_type="gemma2"), dtype="half")

    def test_awq_in_bfloat16_is_refused_where_its_kernel_takes_float16_only(self):
        assert "float16 only" in refusal("awq", A100, shape=LLAMA_8B, vllm_version="0.5.2")
        works("awq", A100, shape=LLAMA_8B, vllm_version="0.5.2", dtype="half")
        works("awq", A100, shape=LLAMA_8B, vllm_version="0.6.0")

    def test_mxfp4_takes_bfloat16_only(self):
        assert "not in float16" in refusal("mxfp4", H100, dtype="half")
        assert works("mxfp4", H100, shape=shape(dtype="float16")).dtype == "bfloat16"

    def test_a_float32_checkpoint_is_served_in_16_bit(self):
        works("awq", A100, shape=shape(dtype="float32"))


class TestModelFamily:
    def test_experts_only_methods_are_refused_on_a_dense_model(self):
        said = refusal("int8_per_channel_weight_only", H100, shape=LLAMA_8B)
        assert "nothing would be quantized" in said
        works("int8_per_channel_weight_only", H100, shape=MIXTRAL)

    def test_without_facts_about_the_model_they_are_cautioned(self):
        assert works("int8_per_channel_weight_only", H100).cautions

    def test_stored_8_bit_bitsandbytes_is_not_loaded_with_experts(self):
        assert "experts" in refusal("bitsandbytes_8bit", A100, shape=MIXTRAL)


class TestTensorParallel:
    def test_heads_that_do_not_divide_are_refused(self):
        model = shape(heads=28, kv_heads=4, hidden_size=3584, intermediate_size=18944)
        said = refusal("none", gpus=four(H100, 8), tensor_parallel=8, shape=model)
        assert said == "28 attention heads do not divide by 8 GPUs."

    def test_key_value_heads_that_neither_divide_nor_repeat_are_refused(self):
        model = shape(heads=24, kv_heads=6)
        assert "6 key/value heads" in refusal(
            "none", gpus=four(H100, 4), tensor_parallel=4, shape=model
        )
        works("none", gpus=four(H100, 8), tensor_parallel=8, shape=shape(heads=32, kv_heads=4))

    def test_latent_attention_has_no_key_value_heads_to_divide(self):
        layers = (AttentionLayers("mla", 27, latent=576, value_dim=128),)
        works(
            "none",
            gpus=four(H100),
            tensor_parallel=4,
            shape=shape(heads=16, kv_heads=3, attention=layers),
        )

    def test_a_checkpoint_still_to_be_made_can_have_smaller_groups(self):
        odd = shape(intermediate_size=10944, group_size=128)
        told = " ".join(works("awq", A100, shape=odd).cautions)
        assert "down_proj has 10944 inputs: not a whole number of groups of 128." in told
        assert "made with groups of 64" in told
        refusal("awq", A100, shape=odd, stored_as="awq")

    @pytest.mark.parametrize("name", AWQ_LIKE)
    def test_a_group_that_would_straddle_two_cards_is_refused_with_layer_and_numbers(self, name):
        said = refusal(name, gpus=four(A100, 8), tensor_parallel=8, shape=QWEN_72B)
        assert (
            said
            == "down_proj has 29568 inputs, 3696 on each of 8 GPUs: not a whole number of groups of 128."
        )
        works(name, gpus=four(A100, 2), tensor_parallel=1, shape=QWEN_72B)

    def test_the_checkpoints_own_group_size_counts(self):
        small = shape(layers=80, hidden_size=8192, heads=64, intermediate_size=29568, quantization="gptq",
                      quantization_bits=4, group_size=32)  # fmt: skip
        found = support(
            "none", gpus=four(A100, 8), tensor_parallel=8, shape=small, stored_as="gptq"
        )
        assert "groups of 32" in found.reasons[0]
        works("none", gpus=four(A100, 4), tensor_parallel=4, shape=small, stored_as="gptq")

    def test_a_group_that_does_not_divide_the_hidden_size_is_refused_on_one_card(self):
        odd = shape(hidden_size=2880, head_dim=64, heads=64, group_size=128)
        assert "2880 inputs" in refusal("awq", A100, shape=odd, stored_as="awq")

    def test_blocks_of_128_have_to_lie_whole_on_a_card(self):
        qwen = shape(
            heads=64, kv_heads=4, intermediate_size=None, experts=128, moe_intermediate_size=1536
        )
        assert "1536" in refusal("fp8_block", gpus=four(H100, 8), tensor_parallel=8, shape=qwen)
        works("fp8_block", gpus=four(H100, 4), tensor_parallel=4, shape=qwen)

    def test_methods_without_groups_split_what_groups_cannot(self):
        works("fp8_dynamic", gpus=four(H100, 8), tensor_parallel=8, shape=QWEN_72B)
        works("bitsandbytes", gpus=four(H100, 8), tensor_parallel=8, shape=QWEN_72B)

    def test_experts_in_awq_fall_back_to_smaller_groups(self):
        model = shape(intermediate_size=None, experts=64, moe_intermediate_size=1408)
        found = works("awq", gpus=four(A100), tensor_parallel=2, shape=model)
        assert any("moe_wna16" in said for said in found.cautions)
        refusal("w4a16", gpus=four(A100), tensor_parallel=2, shape=model)

    def test_experts_of_a_hidden_size_that_marlin_does_not_take_are_cautioned(self):
        model = shape(hidden_size=2112, head_dim=64, intermediate_size=None, experts=8, moe_intermediate_size=4096,
                      quantization="awq", quantization_bits=4, group_size=64)  # fmt: skip
        assert any(
            "slower kernel" in said
            for said in works("none", A100, shape=model, stored_as="awq").cautions
        )

    def test_the_experts_of_gpt_oss_are_padded_and_not_refused(self):
        model = shape(hidden_size=2880, heads=64, kv_heads=8, head_dim=64, intermediate_size=None, experts=128,
                      moe_intermediate_size=2880, quantization="mxfp4", quantization_bits=4, group_size=32)  # fmt: skip
        works("none", gpus=four(H100, 8), tensor_parallel=8, shape=model, stored_as="mxfp4")

    @pytest.mark.parametrize("name", ["bitsandbytes", "none"])
    def test_stored_bitsandbytes_weights_are_not_split(self, name):
        said = refusal(name, gpus=four(A100), tensor_parallel=2, stored_as="bitsandbytes")
        assert "2 GPUs" in said
        works(name, gpus=four(A100), pipeline_parallel=2, stored_as="bitsandbytes")

    def test_in_flight_bitsandbytes_is_split(self):
        works("bitsandbytes", gpus=four(A100), tensor_parallel=2, shape=LLAMA_8B)

    def test_more_cards_than_there_are_is_refused(self):
        assert refusal("none", gpus=four(A100, 2), tensor_parallel=2, pipeline_parallel=2) == (
            "4 GPUs are asked for; 2 GPUs can be used."
        )

    def test_tiles_that_marlin_has_to_pad_are_cautioned_and_were_refused(self):
        odd = shape(intermediate_size=14336 + 64, group_size=64)
        assert any(
            "pads" in said for said in works("gptq", A100, shape=odd, stored_as="gptq").cautions
        )
        said = refusal("gptq", A100, shape=odd, stored_as="gptq", vllm_version="0.20")
        assert "down_proj is 4096 x 14400" in said
        assert "64 x 128" in said
        works("gptq", A100, shape=odd, stored_as="gptq", vllm_version="0.20", dtype="half")


class TestStoredFormats:
    def test_a_quantized_checkpoint_is_not_quantized_again(self):
        assert "already quantized (awq)" in refusal("bitsandbytes", A100, stored_as="awq")
        assert "already quantized" in refusal("gptq", A100, stored_as="awq")

    def test_it_is_served_as_it_is_under_its_formats_rules(self):
        assert works("none", H100, stored_as="awq").cautions == ()
        assert works("none", A100, stored_as="fp8").how == "weight-only"

    def test_a_scheme_within_compressed_tensors_that_is_not_known_is_cautioned(self):
        assert any(
            "scheme" in said
            for said in works("none", A100, stored_as="compressed-tensors").cautions
        )

    def test_the_format_that_the_config_tells_decides_within_compressed_tensors(self):
        model = shape(
            quantization="compressed-tensors", quantization_bits=8, stored_method="int8_w8a8"
        )
        assert "INT8 W8A8" in refusal("none", B200, shape=model, stored_as="compressed-tensors")
        works("none", H100, shape=model, stored_as="compressed-tensors")

    def test_its_bits_tell_the_two_formats_of_bitsandbytes_apart(self):
        eight = shape(quantization="bitsandbytes", quantization_bits=8)
        assert works("none", A100, shape=eight, stored_as="bitsandbytes").eager
        four_bit = shape(quantization="bitsandbytes", quantization_bits=4)
        assert not works("none", A100, shape=four_bit, stored_as="bitsandbytes").eager

    def test_a_format_nobody_knows_is_refused_or_taken_at_the_engines_word(self):
        assert "does not read" in refusal("none", A100, stored_as="exl3")
        assert "exl3" in refusal("none", A100, stored_as="exl3", capabilities={"awq"})

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"quant_method": "gptq", "bits": 4, "sym": False}, "asymmetric GPTQ"),
            ({"quant_method": "gptq", "bits": 3, "sym": True}, "GPTQ in 3 bit"),
            (
                {"quant_method": "gptq", "bits": 4, "desc_act": True, "group_size": 128},
                "activation order",
            ),
            ({"quant_method": "awq", "bits": 8}, "AWQ in 8 bit"),
        ],
    )
    def test_fields_that_vllm_does_not_read_are_refused(self, fields, said):
        config = {"quantization_config": fields}
        assert said in refusal("none", A100, stored_as=fields["quant_method"], config=config)

    @pytest.mark.parametrize(
        ("order", "refused"), [("group", True), (True, True), ("weight", False), (None, False)]
    )
    def test_groups_in_the_order_of_activations_are_refused(self, order, refused):
        weights = {"num_bits": 4, "type": "int", "group_size": 128, "actorder": order}
        stored = {
            "quant_method": "compressed-tensors",
            "config_groups": {"g": {"weights": weights}},
        }
        config = {"quantization_config": stored}
        model = shape(quantization="compressed-tensors", stored_method="w4a16")
        for version in ("0.32", "0.20"):
            found = support(
                "none",
                gpus=[A100],
                shape=model,
                stored_as="compressed-tensors",
                config=config,
                vllm_version=version,
            )
            assert any("actorder" in said for said in found.reasons) == (
                refused and version == "0.32"
            )

    @pytest.mark.parametrize(
        "fields",
        [
            {"quant_method": "gptq", "bits": 8, "sym": True, "desc_act": False, "group_size": 128},
            {"quant_method": "gptq", "bits": 4, "desc_act": True, "group_size": -1},
            {"quant_method": "awq", "w_bit": 4},
            {"quant_method": "awq", "bits": "four"},
            "awq",
        ],
    )
    def test_fields_that_it_reads_or_that_say_nothing_are_not(self, fields):
        stored = fields["quant_method"] if isinstance(fields, dict) else "awq"
        works("none", A100, stored_as=stored, config={"quantization_config": fields})

    def test_groups_that_marlin_does_not_take_are_refused_or_cautioned(self):
        for name, supported in (("gptq", False), ("awq", True)):
            model = shape(quantization=name, quantization_bits=4, group_size=16)
            found = support("none", gpus=[A100], shape=model, stored_as=name)
            assert found.supported == supported
            assert any("groups are of 16" in said for said in (*found.reasons, *found.cautions))

    def test_gptq_in_8_bit_has_no_kernel_on_the_cpu(self):
        config = {"quantization_config": {"quant_method": "gptq", "bits": 8, "sym": True}}
        assert "4 bit on the CPU" in refusal("none", on_cpu=True, stored_as="gptq", config=config)


class TestEngine:
    def test_a_name_that_the_engine_does_not_register_is_refused(self):
        assert "fp8_per_channel" in refusal("fp8_per_channel", H100, capabilities={"awq", "fp8"})
        works("fp8_per_channel", H100, capabilities={"fp8_per_channel"})
        assert "no quantization method" in refusal("awq", H100, capabilities={"fp8"})

    def test_a_missing_plugin_is_named(self):
        assert (
            refusal("bitsandbytes", A100, capabilities={"awq"})
            == "The engine lacks vllm-bnb-plugin."
        )
        assert refusal("gguf", A100, packages={"vllm"}) == "The engine lacks vllm-gguf-plugin."
        works("bitsandbytes", A100, packages={"vllm", "vllm-bnb-plugin", "bitsandbytes"})

    def test_a_plugin_is_not_needed_by_the_vllm_that_has_the_method_itself(self):
        works("bitsandbytes", A100, vllm_version="0.27.1", packages={"vllm", "bitsandbytes"})
        works("gguf", A100, vllm_version="0.23.0", packages={"vllm"})

    def test_a_plugin_that_breaks_an_older_vllm_is_refused(self):
        packages = {"vllm", "bitsandbytes", "vllm-bnb-plugin"}
        said = refusal("bitsandbytes", A100, vllm_version="0.27.1", packages=packages)
        assert "vllm-bnb-plugin does not work with vLLM 0.27.1" in said

    @pytest.mark.parametrize(
        ("name", "last", "first_without"),
        [
            ("squeezellm", "0.6.0", "0.6.1"),
            ("aqlm", "0.9.2", "0.11.0"),
            ("hqq", "0.14.1", "0.15.0"),
            ("deepspeedfp", "0.14.1", "0.15.0"),
            ("bitblas", "0.15.1", "0.16.0"),
        ],
    )
    def test_what_a_vllm_has_dropped_runs_on_the_one_before(self, name, last, first_without):
        works(name, A100, vllm_version=last, dtype="half")
        said = refusal(name, A100, vllm_version=first_without, dtype="half")
        assert f"vLLM {first_without} no longer has" in said
        assert support(name, gpus=[A100]).refused[0].fix.startswith("Use ")

    def test_what_a_vllm_does_not_have_yet_is_refused(self):
        assert "came with 0.26" in refusal(
            "nvfp4_per_token", B200, shape=MIXTRAL, vllm_version="0.25.1"
        )
        assert "came with 0.24" in refusal("fp8_per_channel", H100, vllm_version="0.20")

    def test_fp8_in_flight_had_another_name(self):
        method = methods()["fp8_per_tensor"]
        assert method.argument_in((0, 19)) == "fp8"
        assert method.argument_in((0, 32)) == "fp8_per_tensor"
        works("fp8_per_tensor", H100, vllm_version="0.19", capabilities={"fp8"})

    def test_fp8_on_turing_came_with_0_16(self):
        works("fp8_dynamic", T4, vllm_version="0.16")
        assert "needs compute capability 8.0" in refusal("fp8_dynamic", T4, vllm_version="0.15.1")

    def test_deprecated_formats_are_cautioned_with_the_flag_they_need(self):
        found = works("fbgemm_fp8", H100, stored_as="fbgemm_fp8")
        assert any("--allow-deprecated-quantization" in said for said in found.cautions)

    @pytest.mark.parametrize(
        "name", ["qlora", "onnx", "adaround", "brecq", "quarot", "spinquant", "quip", "auto_gptq"]
    )
    def test_what_vllm_does_not_serve_names_what_it_does(self, name):
        found = support(name, gpus=[H100])
        assert not found.supported
        assert found.refused[0].fix.startswith("Use ")

    @pytest.mark.parametrize("version", [None, "unknown", "", "0.32.1.dev3+gabc"])
    def test_an_unknown_version_is_taken_for_the_catalogues(self, version):
        works("fp8_per_channel", H100, vllm_version=version)
        refusal("squeezellm", A100, vllm_version=version)

    def test_a_method_for_other_hardware_is_refused(self):
        assert "ROCM" in refusal("ptpc_fp8", H100, vllm_version="0.18")

    @pytest.mark.parametrize("name", ["eetq", "exl2", "quanto", "bitnet"])
    def test_a_format_that_no_vllm_has_is_refused(self, name):
        said = refusal("none", H100, stored_as=name)
        assert f"does not read checkpoints quantized with {name}" in said

    def test_a_format_that_a_later_vllm_may_have_is_cautioned_of(self):
        found = works("none", H100, stored_as="brand-new", vllm_version="0.40")
        assert any("does not know the format" in said for said in found.cautions)
