"""The KV cache is planned as vLLM plans it: pages, groups and blocks, by hand and against vLLM's own planner."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from small_architectures import SMALL

from quantui.domain.architecture.attention_layers import AttentionLayers
from quantui.domain.architecture.model_shape import model_shape
from quantui.domain.fitting.kv_cache import default_block_tokens, kv_plan, state_blocks
from quantui.domain.fitting.vllm_versions import behaviour

GIB = 1024**3
NOW = behaviour()
GQA = AttentionLayers("full", 32, kv_heads=8, head_dim=128)
LATENT = AttentionLayers("mla", 27, latent=576)
STATE = AttentionLayers("state", 36, state_bytes=1_000_000)


def sliding(count, window=512, heads=8):
    return AttentionLayers("sliding", count, kv_heads=heads, head_dim=128, window=window)


def plan(*attention, rules=NOW, layers=32, **options):
    return kv_plan(tuple(attention), rules, layers=layers, **options)


def group_sizes(of):
    return {group.kind: group.groups for group in of.groups}


# Told by vLLM 0.32's own planner for a pool of 4 GiB, contexts of 8192 tokens, blocks of 128 (MLA: 16), as
# tests/fixtures/vllm_allocates.py asks it: (tensor parallel, tokens, blocks).
@pytest.mark.parametrize(
    ("name", "split", "tokens", "blocks"),
    [
        ("llama", 1, 1048576, 8192),
        ("llama", 2, 2097152, 16384),
        ("qwen3-tied", 1, 262144, 2048),
        ("gemma3-sliding", 1, 529426, 10922),
        ("gemma3-sliding", 2, 529426, 10922),
        ("deepseek-mla", 1, 621376, 38836),
        ("deepseek-mla", 2, 621376, 38836),
        ("mixtral-experts", 2, 2796160, 21845),
        ("falcon-h1-state", 1, 1177061, 2730),
        ("falcon-h1-state", 2, 2354553, 5461),
    ],
)
def test_tokens_and_blocks_are_those_of_vllms_own_planner(name, split, tokens, blocks):
    shape = model_shape(SMALL[name])
    made = plan(
        *shape.attention,
        layers=shape.layers,
        tensor_parallel=split,
        dtype=shape.dtype,
        block_tokens=default_block_tokens(shape.attention, NOW, on_cpu=True),
        state_blocks=state_blocks(shape.model_type, NOW),
    )
    assert (made.tokens(4 * GIB, 8192, 2048), made.pool_blocks(4 * GIB)) == (tokens, blocks)


def test_a_block_holds_keys_and_values_of_sixteen_tokens_in_every_layer():
    assert plan(GQA).block_bytes == 32 * 2 * 8 * 128 * 2 * 16
    assert plan(GQA).bytes_per_token == 131072


def test_heads_are_split_over_ranks_and_never_below_one():
    assert plan(GQA, tensor_parallel=4).bytes_per_token == 131072 // 4
    assert plan(GQA, tensor_parallel=16).bytes_per_token == 131072 // 8


def test_a_latent_cache_is_whole_on_every_rank():
    assert plan(LATENT, tensor_parallel=8).bytes_per_token == 27 * 576 * 2


def test_values_may_be_narrower_than_keys():
    layers = AttentionLayers("full", 4, kv_heads=2, head_dim=192, value_dim=128)
    assert plan(layers).bytes_per_token == 4 * 2 * (192 + 128) * 2


@pytest.mark.parametrize(
    ("kv_dtype", "bytes_per_token"),
    [
        ("auto", 131072),
        ("fp8", 65536),
        ("fp8_e5m2", 65536),
        ("nvfp4", 36864),  # 4 bit and an 8-bit scale for 16 values
        ("int8_per_token_head", 65536 + 32 * 8 * 8),  # two float32 scales a head
    ],
)
def test_the_caches_dtype_counts(kv_dtype, bytes_per_token):
    assert plan(GQA, kv_dtype=kv_dtype).bytes_per_token == bytes_per_token


def test_deepseeks_own_fp8_cache_has_656_bytes_a_token():
    assert plan(LATENT, kv_dtype="fp8_ds_mla").bytes_per_token == 27 * 656


def test_the_indexer_of_sparse_attention_has_a_cache_of_its_own():
    indexed = AttentionLayers("mla", 61, latent=576, indexer=132)
    assert plan(indexed, layers=61).bytes_per_token == 61 * (576 * 2 + 132)


def test_v0_rounds_a_latent_up_to_256_bytes():
    assert plan(LATENT, rules=behaviour("0.7.3")).bytes_per_token == 27 * 1280


def test_a_sliding_window_holds_its_window_and_what_is_in_flight_and_no_more():
    made = plan(sliding(32, window=4096))
    assert made.blocks_of(1000, in_flight=2048) == 63 + 1
    assert made.blocks_of(1_000_000, in_flight=2048) == (4095 + 2048 + 15) // 16 + 1


def test_kinds_share_one_pool_in_groups_of_the_rarest_kinds_size():
    made = plan(sliding(25), AttentionLayers("full", 5, kv_heads=8, head_dim=128), layers=30)
    assert group_sizes(made) == {"sliding": 5, "full": 1}
    assert made.block_bytes == 5 * 2 * 8 * 128 * 2 * 16


def test_kinds_that_are_nearly_as_many_are_padded_to_the_more_frequent():
    made = plan(sliding(13), AttentionLayers("full", 12, kv_heads=8, head_dim=128), layers=25)
    assert group_sizes(made) == {"sliding": 1, "full": 1}
    assert made.block_bytes == 13 * 2 * 8 * 128 * 2 * 16


def test_smaller_pages_get_longer_blocks_until_all_are_of_one_size():
    made = plan(sliding(10, heads=4), AttentionLayers("full", 10, kv_heads=8, head_dim=128), layers=20)  # fmt: skip
    assert {group.kind: group.block_tokens for group in made.groups} == {"sliding": 32, "full": 16}


def test_an_old_vllm_counts_windows_like_full_attention():
    full = AttentionLayers("full", 5, kv_heads=8, head_dim=128)
    made = plan(sliding(25), full, rules=behaviour("0.8.5"), layers=30)
    assert group_sizes(made) == {"full": 1}
    assert made.block_bytes == 30 * 2 * 8 * 128 * 2 * 16


def test_chunked_attention_is_allocated_like_full():
    chunked = AttentionLayers("chunked", 36, kv_heads=8, head_dim=128, window=8192)
    full = AttentionLayers("full", 12, kv_heads=8, head_dim=128)
    assert group_sizes(plan(chunked, full, layers=48)) == {"full": 1}


def test_attention_blocks_grow_until_they_hold_a_state():
    made = plan(STATE, AttentionLayers("full", 12, kv_heads=2, head_dim=256), layers=48)
    attention = next(group for group in made.groups if group.kind == "full")
    # 2048 B a token: 489 tokens hold the state, in steps of 16.
    assert attention.block_tokens == 496
    assert made.block_bytes == 12 * 496 * 2048


def test_a_state_takes_one_block_whatever_the_length_and_more_where_prefixes_are_cached():
    full = AttentionLayers("full", 12, kv_heads=2, head_dim=256)
    assert state_blocks("qwen3_next", behaviour("0.20")) == 1
    assert state_blocks("qwen3_next", NOW) == 2
    assert state_blocks("falcon_h1", NOW) == 3
    short, long = (
        plan(STATE, full, layers=48, state_blocks=2).blocks_of(length, 2048)
        for length in (496, 4960)
    )
    assert (short, long) == (3 * 2 + 1, 3 * 2 + 10)


def test_a_pipeline_stage_holds_its_layers_only_and_the_largest_counts():
    layers = AttentionLayers("full", 61, kv_heads=8, head_dim=128, layers=tuple(range(61)))
    assert plan(layers, layers=61, pipeline_parallel=2).block_bytes == 31 * 2 * 8 * 128 * 2 * 16


def test_an_encoder_keeps_nothing():
    made = plan(AttentionLayers("encoder", 12, kv_heads=12, head_dim=64), layers=12)
    assert (made.block_bytes, made.bytes_for(512, 8, 0)) == (0, 0)
    assert made.longest(0, 1, 0, 512) == 512


def test_the_longest_context_is_the_last_one_that_fits():
    for made in (
        plan(GQA),
        plan(sliding(25), AttentionLayers("full", 5, kv_heads=8, head_dim=128)),
    ):
        for users in (1, 7):
            longest = made.longest(GIB, users, 2048, 10**6)
            assert made.bytes_for(longest, users, 2048) <= GIB
            assert made.bytes_for(longest + 1, users, 2048) > GIB


def test_users_are_the_last_number_that_fits():
    made = plan(sliding(25), AttentionLayers("full", 5, kv_heads=8, head_dim=128))
    users = made.users(GIB, 8192, 2048)
    assert made.bytes_for(8192, users, 2048) <= GIB < made.bytes_for(8192, users + 1, 2048)


def test_vllm_holds_one_block_back_since_0_29():
    assert plan(GQA).bytes_for(16, 1, 0) == 2 * plan(GQA).block_bytes
    assert plan(GQA, rules=behaviour("0.28")).bytes_for(16, 1, 0) == plan(GQA).block_bytes
