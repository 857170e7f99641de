"""What a config.json says of a model: attention by kind, windows, states, experts; and configs that say nonsense."""

from __future__ import annotations

import math

import pytest
from fixtures.published_models import MODELS, config_of

from quantui.domain.architecture.model_shape import model_shape

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def kinds(config):
    """(kind, layers, K/V heads, head size, window) of each kind."""
    return [
        (a.kind, a.count, a.kv_heads, a.head_dim, a.window) for a in model_shape(config).attention
    ]


def only(name, **changes):
    (layers,) = model_shape({**config_of(name), **changes}).attention
    return layers


def state(name):
    return next(a for a in model_shape(config_of(name)).attention if a.kind == "state")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (LLAMA, [("full", 32, 8, 128, None)]),
        ("mistralai/Mistral-7B-v0.1", [("sliding", 32, 8, 128, 4096)]),
        ("mistralai/Mistral-7B-Instruct-v0.3", [("full", 32, 8, 128, None)]),
        ("microsoft/Phi-3-mini-4k-instruct", [("sliding", 32, 32, 96, 2047)]),
        ("Qwen/Qwen2.5-7B", [("full", 28, 4, 128, None)]),
        ("bigcode/starcoder2-3b", [("sliding", 30, 2, 128, 4096)]),
        ("google/gemma-2-9b-it", [("sliding", 21, 8, 256, 4096), ("full", 21, 8, 256, None)]),
        ("google/gemma-3-4b-it", [("sliding", 29, 4, 256, 1024), ("full", 5, 4, 256, None)]),
        ("google/gemma-3-1b-it", [("sliding", 22, 1, 256, 512), ("full", 4, 1, 256, None)]),
        # Twenty layers own a cache, ten read theirs.
        ("google/gemma-3n-E2B-it", [("sliding", 16, 2, 256, 512), ("full", 4, 2, 256, None)]),
        ("google/gemma-4-26B-A4B-it", [("sliding", 25, 8, 256, 1024), ("full", 5, 2, 512, None)]),
        ("openai/gpt-oss-20b", [("sliding", 12, 8, 64, 128), ("full", 12, 8, 64, None)]),
        # vLLM's window of Cohere 2 holds the token itself as well.
        (
            "CohereForAI/c4ai-command-r7b-12-2024",
            [("sliding", 24, 8, 128, 4097), ("full", 8, 8, 128, None)],
        ),
        (
            "meta-llama/Llama-4-Scout-17B-16E-Instruct",
            [("chunked", 36, 8, 128, 8192), ("full", 12, 8, 128, None)],
        ),
        ("tiiuae/falcon-7b", [("full", 32, 1, 64, None)]),
        ("tiiuae/falcon-40b", [("full", 60, 8, 64, None)]),
        ("bigcode/starcoder", [("full", 40, 1, 128, None)]),
        ("databricks/dbrx-base", [("full", 40, 8, 128, None)]),
        (
            "meta-llama/Llama-3.2-11B-Vision-Instruct",
            [("full", 32, 8, 128, None), ("cross", 8, 8, 128, None)],
        ),
        # Its latent is expanded to heads of 64 + 32 before the cache.
        ("openbmb/MiniCPM3-4B", [("full", 62, 40, 96, None)]),
    ],
)
def test_attention_is_known_by_kind(name, expected):
    assert kinds(config_of(name)) == expected


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V2-Lite", "moonshotai/Kimi-K2-Instruct"])
def test_latent_attention_keeps_512_and_64_elements_on_every_rank(name):
    layers = only(name)
    assert (layers.kind, layers.latent, layers.indexer) == ("mla", 576, 0)
    assert layers.elements_per_token(8) == 576


def test_sparse_attention_of_v32_has_an_index_of_132_bytes_a_token():
    assert only("deepseek-ai/DeepSeek-V3.2-Exp").indexer == 128 + 4


def test_heads_are_split_until_each_rank_has_one():
    layers = only(LLAMA)
    assert layers.elements_per_token(1) == 8 * 256
    assert layers.elements_per_token(8) == 256
    assert layers.elements_per_token(16) == 256


@pytest.mark.parametrize(
    ("name", "count", "nbytes"),
    [
        # Convolution (inner x 3) and recurrence (inner x 16), 16 bit.
        ("state-spaces/mamba-2.8b-hf", 64, 2 * (5120 * 3 + 5120 * 16)),
        ("ai21labs/AI21-Jamba-1.5-Mini", 28, 2 * (8192 * 3 + 8192 * 16)),
        # (inner + 2 groups x state) x 3, and heads x head size x state.
        ("mistralai/Mamba-Codestral-7B-v0.1", 64, 2 * ((8192 + 2048) * 3 + 128 * 64 * 128)),
        ("tiiuae/Falcon-H1-0.5B-Instruct", 36, 2 * ((1536 + 256) * 3 + 24 * 64 * 128)),
        ("ibm-granite/granite-4.0-h-micro", 36, 2 * ((4096 + 256) * 3 + 64 * 64 * 128)),
        # Nemotron-H keeps the recurrence in 32 bit.
        ("nvidia/Nemotron-H-8B-Base-8K", 24, 2 * (8192 + 2048) * 3 + 4 * 128 * 64 * 128),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 36, 2 * ((4096 + 4096) * 3 + 32 * 128 * 128)),
        # So does Kimi's delta attention.
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 20, 2 * 3 * 4096 * 3 + 4 * 32 * 128 * 128),
        ("LiquidAI/LFM2-1.2B", 10, 2 * 2048 * 2),
        ("MiniMaxAI/MiniMax-Text-01-hf", 70, 2 * 64 * 128 * 128),
    ],
)
def test_states_have_the_size_that_vllm_allocates(name, count, nbytes):
    layers = state(name)
    assert (layers.count, layers.state_bytes) == (count, nbytes)


def test_a_hybrid_layer_has_both_a_cache_and_a_state():
    attention = model_shape(config_of("tiiuae/Falcon-H1-0.5B-Instruct")).attention
    assert [(a.kind, a.count) for a in attention] == [("full", 36), ("state", 36)]


def test_qwen_does_not_use_the_window_that_its_config_names():
    assert only("Qwen/Qwen2.5-7B", use_sliding_window=True).kind == "full"


def test_a_window_that_a_model_does_not_know_holds_for_all_its_layers():
    assert only(LLAMA, sliding_window=1000).window == 1000


def test_layer_types_come_before_a_single_window():
    types = ["sliding_attention", "full_attention"] * 16
    found = kinds({**config_of(LLAMA), "sliding_window": 1000, "layer_types": types})
    assert found == [("sliding", 16, 8, 128, 1000), ("full", 16, 8, 128, None)]


def test_the_layers_indices_are_kept_for_pipeline_stages():
    sliding, full = model_shape(config_of("google/gemma-3-1b-it")).attention
    assert full.layers == (5, 11, 17, 23)
    assert sliding.layers[:6] == (0, 1, 2, 3, 4, 6)


def test_layers_with_heads_of_their_own_are_apart():
    blocks = [
        {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 2.0}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
        {"attention": {"n_heads_in_group": 8}, "ffn": {"no_op": True}},
    ]
    config = {**config_of(LLAMA), "num_hidden_layers": 3, "block_configs": blocks}
    found = [(a.count, a.kv_heads, a.layers) for a in model_shape(config).attention]
    assert found == [(1, 8, (0,)), (1, 4, (2,))]


def test_experts_and_their_layers_are_read_in_every_spelling():
    found = {
        name: (shape.experts, shape.experts_per_token, shape.moe_intermediate_size)
        for name in (
            "mistralai/Mixtral-8x7B-Instruct-v0.1",
            "deepseek-ai/DeepSeek-V3",
            "baidu/ERNIE-4.5-21B-A3B-PT",
            "tencent/Hunyuan-A13B-Instruct",
            "databricks/dbrx-base",
        )
        if (shape := model_shape(config_of(name)))
    }
    assert list(found.values()) == [
        (8, 2, 14336),
        (256, 8, 2048),
        (64, 6, 1536),
        (64, 8, 3072),
        (16, 4, 10752),
    ]


def test_an_encoder_generates_nothing_and_keeps_no_cache():
    config = {"model_type": "bert", "num_hidden_layers": 12, "num_attention_heads": 12}
    shape = model_shape({**config, "hidden_size": 768, "architectures": ["BertModel"]})
    assert not shape.is_generative
    assert shape.attention[0].kind == "encoder"
    assert shape.attention[0].elements_per_token() == 0


def test_a_classifier_is_not_generative():
    config = {**config_of(LLAMA), "architectures": ["LlamaForSequenceClassification"]}
    assert not model_shape(config).is_generative


def test_rope_scaling_is_told_in_words():
    assert model_shape(config_of(LLAMA)).rope_scaling == "llama3 x8 from 8192"
    assert model_shape(config_of("google/gemma-3-4b-it")).rope_scaling == "linear x8"
    assert model_shape(config_of("Qwen/Qwen2.5-7B")).rope_scaling is None


def test_a_config_that_names_only_what_differs_is_filled_in_by_its_class():
    shape = model_shape(config_of("google/gemma-3-4b-it"))
    assert (shape.heads, shape.kv_heads, shape.head_dim) == (8, 4, 256)
    assert (shape.vocabulary, shape.tied, shape.context_length) == (262208, True, 131072)


def test_what_is_not_understood_is_noted():
    types = ["full_attention"] * 30 + ["telepathy"] * 2
    shape = model_shape({**config_of(LLAMA), "layer_types": types})
    assert shape.notes == ("attention of layers 30, 31 is unknown: counted as full",)


def test_an_empty_config_is_all_unknown_with_notes():
    shape = model_shape({})
    assert (shape.layers, shape.hidden_size, shape.parameters, shape.attention) == (
        None, None, None, (),
    )  # fmt: skip
    assert shape.notes


NONSENSE = [
    None, True, -1, 0, 1.5, math.inf, math.nan, 10**400, 2**70, "x", "", [], [[]], [None], {}, {"a": 1}, [1] * 5000,
]  # fmt: skip
FIELDS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
    "intermediate_size", "layer_types", "sliding_window", "model_type", "architectures", "rope_scaling",
    "rope_parameters", "quantization_config", "text_config", "vision_config", "num_experts", "mlp_layer_types",
    "block_configs", "linear_attn_config", "hybrid_override_pattern", "kv_lora_rank", "num_kv_shared_layers",
    "tie_word_embeddings", "torch_dtype", "is_encoder_decoder", "ffn_config", "attn_config",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_nonsense_in_a_config_never_raises(field):
    for name in (LLAMA, "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3", "google/gemma-3-4b-it"):
        for value in NONSENSE:
            model_shape({**config_of(name), field: value})


def test_nonsense_inside_nested_objects_never_raises():
    for inner in ("quantization_config", "rope_scaling", "text_config", "vision_config"):
        for key in ("quant_method", "bits", "config_groups", "rope_type", "factor", "model_type"):
            for value in NONSENSE:
                model_shape({**config_of(LLAMA), inner: {key: value}})


def test_every_published_model_is_understood():
    for name in MODELS:
        shape = model_shape(config_of(name))
        assert shape.notes == (), name
        assert shape.attention, name
