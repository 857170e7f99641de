"""Memory is arithmetic on what the files say: checked by hand, and against public measurements of vLLM."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.fitting.fit_room import CPU_PROCESSES_BYTES
from quantui.domain.fitting.kv_cache import kv_plan
from quantui.domain.fitting.vllm_versions import behaviour
from quantui.domain.memory import Device, estimate_memory
from quantui.domain.methods import method
from quantui.domain.models import ModelSpec, TensorInfo
from quantui.domain.units import GIB
from quantui.domain.weights.weight_bytes import weight_bytes_per_rank
from quantui.domain.weights.weight_census import weight_census

NONE, BNB = method("none"), method("bitsandbytes")
GQA = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}

# (layers, hidden, heads, kv heads, head size, vocabulary, MLP width, tied): config.json of the models.
LLAMA_8B = (32, 4096, 32, 8, 128, 128256, 14336, False)
LLAMA_3B = (28, 3072, 24, 8, 128, 128256, 8192, True)
LLAMA_1B = (16, 2048, 32, 8, 64, 128256, 8192, True)
MISTRAL_7B = (32, 4096, 32, 8, 128, 32768, 14336, False)
QWEN_HALF_B = (24, 896, 14, 2, 64, 151936, 4864, True)


def spec(tensors, config, **changes):
    infos = tuple(
        TensorInfo(name, "BF16", tuple(s), "m.safetensors") for name, s in tensors.items()
    )
    values = {
        "ref": "owner/base",
        "source": "folder",
        "path": "/m",
        "revision": None,
        "architectures": (),
        "model_type": None,
        "dtype": "bfloat16",
        "config": config,
        "weight_files": (),
        "weight_bytes": sum(tensor.nbytes for tensor in infos),
        "parameters": None,
        "tensors": infos,
        "quantization": None,
        "context_length": 4096,
        "has_tokenizer": True,
        "has_chat_template": True,
        "custom_code": False,
        "license": None,
        "fingerprint": "f",
    }
    return ModelSpec(**{**values, **changes})


def dense(layers, hidden, heads, kv_heads, size, vocabulary, width, tied, **changes):
    """A Llama-like checkpoint with the tensors its safetensors headers would list."""
    tensors = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        tensors["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.self_attn.q_proj.weight": (heads * size, hidden),
            f"{at}.self_attn.k_proj.weight": (kv_heads * size, hidden),
            f"{at}.self_attn.v_proj.weight": (kv_heads * size, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, heads * size),
            f"{at}.mlp.gate_proj.weight": (width, hidden),
            f"{at}.mlp.up_proj.weight": (width, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, width),
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.post_attention_layernorm.weight": (hidden,),
        }
    config = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": size,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    return spec(tensors, config, **changes)


def weights(model, chosen=NONE, tensor_parallel=1, dtype="auto"):
    census = weight_census(model.config, model.tensors)
    return weight_bytes_per_rank(
        census, chosen, tensor_parallel=tensor_parallel, dtype=dtype
    ).per_rank


def kv_bytes_per_token(config, tensor_parallel):
    shape = model_shape(config)
    return kv_plan(
        shape.attention, behaviour(), layers=shape.layers or 0, tensor_parallel=tensor_parallel
    ).bytes_per_token


def tiny(**changes):
    """One linear layer of 100 x 64 and an embedding of 100 x 64."""
    tensors = {
        "model.embed_tokens.weight": (100, 64),
        "model.layers.0.mlp.up_proj.weight": (100, 64),
    }
    return replace(spec(tensors, {"tie_word_embeddings": True, **GQA}), **changes)


def on_gpu(free, total=24, name="GPU 0 (L4)"):
    return Device(False, int(total * GIB), int(free * GIB), name)


def on_cpu(free, total=64):
    return Device(True, int(total * GIB), int(free * GIB), "RAM")


def refused(code, *args, **kwargs):
    with pytest.raises(QuantuiError) as raised:
        estimate_memory(*args, **kwargs)
    assert raised.value.code == code
    assert raised.value.exit_code == ExitCode.DOES_NOT_FIT
    return raised.value


# Measured by others: tests/data/measured_loads.json, "weights_gib" as vLLM printed it.
@pytest.mark.parametrize(
    ("model", "chosen", "tensor_parallel", "gib"),
    [
        (LLAMA_8B, NONE, 1, 14.9888),  # github.com/vllm-project/vllm/issues/10517
        (LLAMA_8B, NONE, 2, 7.48),  # github.com/vllm-project/vllm/pull/10511
        (LLAMA_3B, NONE, 1, 6.016),  # unslothai/notebooks, Meta_Synthetic_Data_Llama3_2_(3B)
        (LLAMA_1B, NONE, 1, 2.3185),  # github.com/oumi-ai/oumi/pull/1223
        (LLAMA_1B, BNB, 1, 0.9786),  # the same
        (QWEN_HALF_B, NONE, 1, 0.9277),  # github.com/hiyouga/EasyR1/issues/69
        (MISTRAL_7B, BNB, 1, 4.0423),  # unslothai/notebooks, Mistral_v0.3_(7B)-GRPO
    ],
)
def test_weights_are_within_five_per_cent_of_what_vllm_measured(
    model, chosen, tensor_parallel, gib
):
    assert weights(dense(*model), chosen, tensor_parallel) == pytest.approx(gib * GIB, rel=0.05)


# kv_cache_gib over kv_tokens of the same rows. (The one MLA row, of vLLM 0.7, pads 576 values to 640; V1 does not.)
@pytest.mark.parametrize(
    ("config", "gib", "tokens"),
    [
        (dense(*LLAMA_8B).config, 3.81, 31232),
        (dense(*LLAMA_3B).config, 23.46, 219584),
        (dense(*QWEN_HALF_B).config, 22.13, 1933472),
    ],
    ids=["llama-8b", "llama-3b", "qwen-0.5b"],
)  # fmt: skip
def test_the_kv_cache_of_a_token_is_what_vllm_measured(config, gib, tokens):
    assert kv_bytes_per_token(config, tensor_parallel=1) == pytest.approx(
        gib * GIB / tokens, rel=0.02
    )


def test_a_grouped_cache_counts_its_kv_heads():
    assert kv_bytes_per_token(GQA, tensor_parallel=1) == 32 * 2 * 8 * 128 * 2


def test_heads_are_split_over_ranks_and_never_below_one():
    assert kv_bytes_per_token(GQA, tensor_parallel=4) == 32 * 2 * 2 * 128 * 2
    assert kv_bytes_per_token(GQA, tensor_parallel=16) == 32 * 2 * 1 * 128 * 2


def test_a_latent_cache_is_whole_on_every_rank():
    config = {"num_hidden_layers": 27, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert kv_bytes_per_token(config, tensor_parallel=1) == 27 * 576 * 2
    assert kv_bytes_per_token(config, tensor_parallel=8) == 27 * 576 * 2


def test_without_kv_heads_every_head_has_its_own_cache():
    config = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    assert kv_bytes_per_token(config, tensor_parallel=1) == 2 * 2 * 4 * 16 * 2


def test_the_language_part_of_a_multimodal_config_counts():
    assert kv_bytes_per_token({"text_config": GQA}, tensor_parallel=1) == 131072


@pytest.mark.parametrize(
    "config",
    [{}, {"num_hidden_layers": 2}, {**GQA, "num_hidden_layers": None}, {**GQA, "num_hidden_layers": True}],
)  # fmt: skip
def test_a_config_that_does_not_tell_gives_an_unknown(config):
    model = spec({"model.embed_tokens.weight": (64, 8)}, config)
    assert (
        "does not tell the KV cache"
        in estimate_memory(model, NONE, on_gpu(23)).sources["max_model_len"]
    )


def test_a_vocabulary_is_padded_to_64_rows():
    assert weights(tiny()) == 128 * 64 * 2 + 100 * 64 * 2


def test_a_tied_head_in_the_files_is_held_once():
    untied = {
        "model.embed_tokens.weight": (64, 8),
        "lm_head.weight": (64, 8),
    }
    assert weights(spec(untied, {"tie_word_embeddings": True})) == 64 * 8 * 2
    assert weights(spec(untied, {"tie_word_embeddings": False})) == 2 * 64 * 8 * 2


def test_only_linear_weights_get_smaller_by_quantizing():
    assert weights(tiny(), BNB) == 128 * 64 * 2 + round(100 * 64 * 0.5625)


def test_norms_and_routers_stay_in_16_bit_and_on_every_rank_and_biases_are_split():
    kept = {
        "model.layers.0.input_layernorm.weight": (64,),
        "model.layers.0.self_attn.q_proj.bias": (64,),
        "model.layers.0.mlp.gate.weight": (8, 64),
    }
    model = spec(kept, {})
    assert weights(model, BNB, tensor_parallel=2) == (64 + 64 // 2 + 8 * 64) * 2


def test_experts_stacked_in_one_tensor_are_linear_weights():
    model = spec({"model.layers.0.mlp.experts.down_proj": (8, 16, 32)}, {})
    assert weights(model, BNB) == int(8 * 16 * 32 * 0.5625)


def test_a_float32_checkpoint_is_held_in_16_bit_unless_told_otherwise():
    assert weights(tiny(dtype="float32")) == weights(tiny())
    assert weights(tiny(), dtype="float32") == 2 * weights(tiny())


def test_without_shapes_the_files_sizes_stand_in_and_without_them_nothing():
    model = replace(dense(*LLAMA_1B), config={**GQA}, tensors=None, weight_bytes=3 * GIB)
    estimate = estimate_memory(model, NONE, on_gpu(23), tensor_parallel=2)
    assert estimate.weight_bytes == pytest.approx(1.5 * GIB)
    assert "weight files" in estimate.sources["weights"]
    nothing = estimate_memory(replace(model, weight_bytes=None), NONE, on_gpu(23))
    assert "could not be counted" in nothing.sources["max_model_len"]


def test_the_tables_of_rotary_positions_count_with_the_weights():
    def loaded(positions):
        model = dense(*LLAMA_8B, context_length=positions)
        config = {**model.config, "max_position_embeddings": positions}
        return estimate_memory(replace(model, config=config), NONE, on_gpu(70, total=79))

    more = loaded(131072).weight_bytes - loaded(8192).weight_bytes
    assert more == (131072 - 8192) * 128 * 2


def test_a_gpu_is_filled_to_vllms_default_share():
    estimate = estimate_memory(dense(*LLAMA_8B, context_length=8192), NONE, on_gpu(23.5))
    assert estimate.utilization == 0.92
    assert estimate.total_bytes == pytest.approx(0.92 * 24 * GIB, rel=1e-6)
    assert estimate.max_model_len == 8192


def test_graphs_cost_nothing_when_eager():
    model = dense(*LLAMA_8B)
    graphs = estimate_memory(model, NONE, on_gpu(23.5))
    eager = estimate_memory(model, NONE, on_gpu(23.5), eager=True)
    assert eager.overhead_bytes < graphs.overhead_bytes
    assert eager.kv_cache_bytes > graphs.kv_cache_bytes
    assert "graphs" not in eager.sources


def test_graphs_come_on_top_of_the_budget_of_an_older_vllm():
    model = dense(*LLAMA_8B)
    old = estimate_memory(model, NONE, on_gpu(23.5), vllm_version="0.19", utilization=0.9)
    new = estimate_memory(model, NONE, on_gpu(23.5), vllm_version="0.20", utilization=0.9)
    assert old.total_bytes == new.total_bytes == pytest.approx(0.9 * 24 * GIB, rel=1e-6)
    assert old.overhead_bytes < new.overhead_bytes


def test_the_share_is_lowered_below_what_others_leave_free():
    estimate = estimate_memory(dense(*LLAMA_1B), NONE, on_gpu(12))
    assert estimate.utilization == 0.48  # (12 - CUDA context) / 24, rounded down: it must be free
    assert estimate.total_bytes <= 12 * GIB


def test_a_share_that_is_not_free_is_refused():
    error = refused("memory.not-free", dense(*LLAMA_1B), NONE, on_gpu(12), utilization=0.9)
    assert "0.48" in error.what
    assert "quantui doctor" in error.fix


def test_a_share_that_is_free_is_taken_as_it_is():
    assert estimate_memory(dense(*LLAMA_1B), NONE, on_gpu(12), utilization=0.4).utilization == 0.4


def test_the_context_is_what_the_cache_surely_holds_when_the_model_could_do_more():
    estimate = estimate_memory(dense(*LLAMA_8B, context_length=131072), NONE, on_gpu(23.5))
    low = estimate.fit.kv_cache.low // estimate.kv_bytes_per_token
    assert low - 32 <= estimate.max_model_len <= low
    assert estimate.max_model_len < estimate.kv_cache_tokens < 131072


def test_a_context_longer_than_the_model_was_made_for_is_refused():
    error = refused(
        "memory.context-too-long", dense(*LLAMA_1B), NONE, on_gpu(23), requested_context=5000
    )
    assert "4096" in error.fix
    forced = estimate_memory(dense(*LLAMA_1B), NONE, on_gpu(23), requested_context=5000, force=True)
    assert forced.max_model_len == 5000


def test_a_context_that_does_not_fit_is_refused_with_the_one_that_does():
    model = dense(*LLAMA_8B, context_length=131072)
    error = refused(
        "memory.context-does-not-fit", model, NONE, on_gpu(23.5), requested_context=131072
    )
    fits = int(error.fix.split(" to ")[1].split()[0])
    assert estimate_memory(
        model, NONE, on_gpu(23.5), requested_context=fits
    ).max_model_len == fits  # fmt: skip


def test_a_model_that_does_not_fit_is_refused_and_fits_when_quantized():
    model = dense(*LLAMA_8B)
    error = refused("memory.does-not-fit", model, NONE, on_gpu(15.5, total=16))
    assert "GPU 0 (L4)" in error.what
    assert estimate_memory(model, BNB, on_gpu(15.5, total=16)).max_model_len == 4096


def test_force_gives_a_command_that_vllm_could_take():
    estimate = estimate_memory(dense(*LLAMA_8B), NONE, on_gpu(7.5, total=8), force=True)
    assert estimate.max_model_len == 256
    assert estimate.kv_cache_tokens >= 256


def test_on_the_cpu_the_cache_holds_four_requests_and_leaves_the_rest_alone():
    estimate = estimate_memory(dense(*LLAMA_1B), BNB, on_cpu(60))
    assert estimate.kv_cache_bytes == (4 * 4096 + 128) * estimate.kv_bytes_per_token
    assert estimate.utilization is None
    assert estimate.overhead_bytes == CPU_PROCESSES_BYTES


def test_on_the_cpu_a_long_context_never_takes_all_free_ram():
    estimate = estimate_memory(dense(*LLAMA_8B, context_length=131072), BNB, on_cpu(20))
    assert estimate.total_bytes <= 0.9 * 20 * GIB
    assert estimate.max_model_len % 128 == 0


def test_ram_that_is_too_small_is_called_ram():
    assert "RAM" in refused("memory.does-not-fit", dense(*LLAMA_8B), NONE, on_cpu(8)).what


def test_a_cache_of_a_given_size_sets_the_context():
    estimate = estimate_memory(dense(*LLAMA_8B), BNB, on_cpu(60), kv_cache_bytes=131072 * 1024)
    # Eight blocks of 128 tokens, one of which vLLM holds back.
    assert (estimate.kv_cache_tokens, estimate.max_model_len) == (1024, 896)


def test_a_cache_that_does_not_fit_is_refused():
    refused("memory.does-not-fit", dense(*LLAMA_8B), BNB, on_cpu(20), kv_cache_bytes=30 * GIB)


def test_more_requests_at_once_need_more_for_sampling():
    few, many = (
        estimate_memory(
            dense(*LLAMA_1B), NONE, on_gpu(23), max_num_seqs=seqs, vllm_version="0.10"
        ).transient_bytes
        for seqs in (256, 512)
    )
    assert many - few == pytest.approx(256 * 128256 * 38.4, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "device"),
    [
        ({}, Device(False, None, None, "the GPU")),
        ({}, Device(True, None, None, "RAM")),
        ({"config": {}}, on_gpu(23)),
        ({"config": {}, "tensors": None, "weight_bytes": None}, on_gpu(23)),
    ],
)
def test_what_is_unknown_is_not_guessed(changes, device):
    estimate = estimate_memory(replace(dense(*LLAMA_1B), **changes), NONE, device)
    assert estimate.max_model_len == 4096
    assert "not computed" in estimate.sources["max_model_len"]


def test_every_figure_has_a_source():
    for device in (on_gpu(23), on_cpu(60)):
        sources = estimate_memory(dense(*LLAMA_1B), BNB, device).sources
        assert {"weights", "kv_cache", "overhead"} <= set(sources)
        assert all(sources.values())
