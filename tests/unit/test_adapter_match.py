"""An adapter for another base is refused before any work; what only PEFT can tell passes."""

from __future__ import annotations

import pytest

from quantui.domain.adapter_match import base_of, check_adapter_fits
from quantui.domain.errors import QuantuiError
from quantui.domain.models import AdapterSpec, FourBitVerdict, ModelSpec, TensorInfo


def model(tensors, **config):
    infos = tuple(TensorInfo(n, d, tuple(s), "model.safetensors") for n, (d, s) in tensors.items())
    quantization = "bitsandbytes" if "quantization_config" in config else None
    return ModelSpec(
        ref="owner/base",
        source="folder",
        path="/x",
        revision=None,
        architectures=(),
        model_type=config.get("model_type"),
        dtype=None,
        config=config,
        weight_files=(),
        weight_bytes=0,
        parameters=None,
        tensors=infos,
        quantization=quantization,
        context_length=None,
        has_tokenizer=True,
        has_chat_template=True,
        custom_code=False,
        license=None,
        fingerprint="f",
    )


def adapter(tensors, peft_type="LORA", base="owner/base", **config):
    infos = tuple(TensorInfo(n, "F32", tuple(s), "adapter_model.safetensors") for n, s in tensors)
    return AdapterSpec(
        ref="owner/adapter",
        source="folder",
        path="/y",
        revision=None,
        peft_type=peft_type,
        task_type=None,
        base_ref=base,
        base_revision=None,
        rank=4,
        alpha=8,
        use_rslora=False,
        use_dora=False,
        target_modules=None,
        modules_to_save=(),
        config=config,
        tensors=infos,
        weight_bytes=0,
        fingerprint="g",
        four_bit=FourBitVerdict(None),
    )


def lora(module, rows, columns, rank=4, prefix="base_model.model."):
    return [
        (f"{prefix}{module}.lora_A.weight", (rank, columns)),
        (f"{prefix}{module}.lora_B.weight", (rows, rank)),
    ]


def llama(layers=2, hidden=16, prefix="model."):
    tensors = {
        f"{prefix}embed_tokens.weight": ("BF16", (32, hidden)),
        "lm_head.weight": ("BF16", (32, hidden)),
    }
    for index in range(layers):
        at = f"{prefix}layers.{index}"
        tensors[f"{at}.self_attn.q_proj.weight"] = ("BF16", (hidden, hidden))
        tensors[f"{at}.self_attn.v_proj.weight"] = ("BF16", (hidden // 2, hidden))
        tensors[f"{at}.mlp.down_proj.weight"] = ("BF16", (hidden, 2 * hidden))
    return tensors


Q0 = "model.layers.0.self_attn.q_proj"


def refused(base, other):
    with pytest.raises(QuantuiError) as caught:
        check_adapter_fits(base, other)
    return caught.value


def test_an_adapter_of_this_base_fits():
    fit = check_adapter_fits(model(llama()), adapter(lora(Q0, 16, 16)))
    assert (fit.matched, fit.undecided, fit.notes) == (1, (), ())


def test_another_hidden_size_is_refused_with_an_example():
    error = refused(model(llama(hidden=16)), adapter(lora(Q0, 32, 32)))
    assert error.code == "adapter.other-base"
    assert "q_proj" in error.why
    assert "[32, 32]" in error.why
    assert "[16, 16]" in error.why
    assert "owner/base" in error.fix


def test_a_layer_beyond_the_last_is_refused():
    error = refused(model(llama(layers=2)), adapter(lora(Q0.replace("0", "7"), 16, 16)))
    assert error.code == "adapter.other-base"
    assert "layer 7" in error.why


def test_another_architecture_is_refused():
    error = refused(model(llama()), adapter(lora("transformer.h.0.attn.c_attn", 48, 16)))
    assert error.code == "adapter.other-base"


def test_multimodal_prefixes_do_not_hide_the_language_model():
    base = llama(prefix="language_model.model.")
    base["vision_tower.encoder.layers.0.self_attn.q_proj.weight"] = ("BF16", (8, 8))
    other = adapter(lora("model.language_model.layers.0.self_attn.q_proj", 16, 16))
    assert check_adapter_fits(model(base), other).matched == 1
    wrong = adapter(lora("model.language_model.layers.0.self_attn.q_proj", 8, 8))
    assert refused(model(base), wrong).code == "adapter.other-base"


def test_experts_are_left_to_peft():
    base = llama()
    base["model.layers.0.mlp.experts.0.up_proj.weight"] = ("BF16", (8, 16))
    other = adapter([*lora(Q0, 16, 16), *lora("model.layers.0.mlp.experts", 99, 99)])
    assert check_adapter_fits(model(base), other).matched == 1


def test_modules_fused_by_name_pass_with_a_note():
    base = {"model.layers.0.self_attn.qkv_proj.weight": ("BF16", (48, 16))}
    fit = check_adapter_fits(model(base), adapter(lora(Q0, 16, 16)))
    assert fit.undecided == (Q0,)
    assert "PEFT's mapping decides" in fit.notes[0]


def test_transposed_weights_of_gpt2_fit():
    base = {"h.0.attn.c_attn.weight": ("F32", (16, 48))}
    other = adapter(lora("transformer.h.0.attn.c_attn", 48, 16))
    assert check_adapter_fits(model(base, model_type="gpt2"), other).matched == 1


def test_a_resized_vocabulary_passes_with_a_note_and_another_width_does_not():
    fit = check_adapter_fits(model(llama()), adapter(lora("lm_head", 40, 16)))
    assert "resized" in fit.notes[0]
    assert refused(model(llama()), adapter(lora("lm_head", 32, 24))).code == "adapter.other-base"


def test_embedding_adapters_are_compared_transposed():
    at = "base_model.model.model.embed_tokens."
    tensors = [(at + "lora_embedding_A", (4, 32)), (at + "lora_embedding_B", (16, 4))]
    assert check_adapter_fits(model(llama()), adapter(tensors)).matched == 1


def test_a_tied_head_is_compared_with_the_embedding():
    base = llama()
    del base["lm_head.weight"]
    fit = check_adapter_fits(
        model(base, tie_word_embeddings=True), adapter(lora("lm_head", 32, 16))
    )
    assert fit.matched == 1


def test_dora_magnitudes_and_saved_modules_are_not_mistaken_for_pairs():
    extra = [
        (f"base_model.model.{Q0}.lora_magnitude_vector", (16,)),
        ("base_model.model.lm_head.weight", (99, 99)),
    ]
    assert check_adapter_fits(model(llama()), adapter([*lora(Q0, 16, 16), *extra])).matched == 1


def test_packed_weights_are_compared_by_hidden_size():
    base = {f"{Q0}.weight": ("U8", (128, 1))}
    config = {"hidden_size": 16, "quantization_config": {"load_in_4bit": True}}
    fit = check_adapter_fits(model(base, **config), adapter(lora(Q0, 16, 16)))
    assert "not compared" in fit.notes[0]
    assert refused(model(base, **config), adapter(lora(Q0, 32, 32))).code == "adapter.other-base"


def test_half_a_pair_and_differing_ranks_are_damage():
    assert refused(model(llama()), adapter(lora(Q0, 16, 16)[:1])).code == "adapter.damaged"
    halves = [lora(Q0, 16, 16, rank=4)[0], lora(Q0, 16, 16, rank=8)[1]]
    assert refused(model(llama()), adapter(halves)).code == "adapter.damaged"


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"])
def test_prompt_and_prefix_adapters_cannot_be_merged(kind):
    error = refused(model(llama()), adapter([], peft_type=kind))
    assert error.code == "adapter.unmergeable"
    assert "vLLM" in error.why


def test_other_peft_types_are_left_to_peft():
    assert "PEFT decides" in check_adapter_fits(model(llama()), adapter([], "LOHA")).notes[0]


def test_the_base_is_what_the_adapter_names():
    assert base_of(adapter([], base="Qwen/Qwen2.5-7B")) == "Qwen/Qwen2.5-7B"
    with pytest.raises(QuantuiError) as caught:
        base_of(adapter([], base=None))
    assert caught.value.code == "adapter.no-base"
