"""What is made of a model when a method is asked for: by whom, with which defaults, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from run_plans import model_spec

from quantui.domain.draft import PRODUCERS, AdapterChoice, Draft, MergeChoice, QuantizationChoice
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.methods import methods
from quantui.domain.models import TensorInfo
from quantui.domain.producing.produced import produced_method, unread_by_vllm
from quantui.domain.producing.producers import aliases, made_as, makings, producers, producers_of
from quantui.domain.producing.recipes import check_makeable, default_recipe, recipe_for

HIDDEN = 512


def model(hidden=HIDDEN, inner=1024, **changes):
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "vocab_size": 1000,
    }
    shapes = {
        "model.embed_tokens.weight": (1000, hidden),
        "model.layers.0.self_attn.q_proj.weight": (hidden, hidden),
        "model.layers.0.mlp.down_proj.weight": (hidden, inner),
        "lm_head.weight": (1000, hidden),
    }
    values = {
        "config": config,
        "model_type": "llama",
        "architectures": ("LlamaForCausalLM",),
        "has_tokenizer": True,
        "tensors": tuple(TensorInfo(name, "BF16", shape, "m") for name, shape in shapes.items()),
    }
    return model_spec(**{**values, **changes})


def recipe(method, the_model=None, *, always=True, **options):
    return recipe_for(
        QuantizationChoice(method=method, **options), the_model or model(), always=always
    )


def refused(*args, **options):
    with pytest.raises(QuantuiError) as raised:
        recipe(*args, **options)
    assert raised.value.fix
    return raised.value


# Who makes what


def test_every_method_that_is_made_is_in_the_catalogue_and_so_is_what_is_written():
    for name, by_producer in makings().items():
        assert name in methods()
        for producer, making in by_producer.items():
            assert producer in producers()
            assert making.source
            written = [*making.writes.values()]
            written += [one for other in making.format_writes.values() for one in other.values()]
            assert set(written) <= set(methods())


def test_the_producers_are_those_that_can_be_named():
    assert tuple(producers()) == PRODUCERS


def test_every_figure_of_a_producer_says_where_it_is_from():
    for one in producers().values():
        assert one.base_bytes > 2**28
        assert one.ram_factor >= 1
        assert "own run" in one.base_source
        assert one.ram_source


@pytest.mark.parametrize(
    ("method", "producer", "writes"),
    [
        ("awq", "llm-compressor", "w4a16"),
        ("gptq", "llm-compressor", "w4a16"),
        ("w4a16", "llm-compressor", "w4a16"),
        ("w8a16", "llm-compressor", "w8a16"),
        ("fp8_dynamic", "llm-compressor", "fp8_dynamic"),
        ("fp8_static", "llm-compressor", "fp8_static"),
        ("int8_w8a8", "llm-compressor", "int8_w8a8"),
        ("nvfp4", "llm-compressor", "nvfp4"),
        ("autoround", "auto-round", "autoround"),
        ("rotations_w8a8", "llm-compressor", "rotations_w8a8"),
        ("torchao", "torchao", "torchao"),
        ("bitsandbytes", "bitsandbytes", "bitsandbytes"),
        ("onnx", "onnxruntime", "onnx"),
    ],
)
def test_a_method_has_a_producer_and_a_format_by_default(method, producer, writes):
    made = recipe(method)
    assert (made.method, made.producer, made.writes) == (method, producer, writes)
    assert made.why


@pytest.mark.parametrize(
    ("method", "producer", "writes"),
    [("awq", "autoawq", "awq"), ("gptq", "gptqmodel", "gptq")],
)
def test_another_producer_writes_another_format(method, producer, writes):
    made = recipe(method, producer=producer)
    assert (made.producer, made.writes) == (producer, writes)
    assert "as asked" in made.why


def test_why_names_the_producer_and_who_else_could():
    assert "llm-compressor" in recipe("awq").why
    assert "AutoAWQ" in recipe("awq").why


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("adaround", "autoround"),
        ("brecq", "autoround"),
        ("quarot", "rotations_w4a16"),
        ("spinquant", "rotations_w4a16"),
        ("hqq", "torchao"),
    ],
)
def test_research_and_retired_formats_are_made_as_their_heirs_and_it_is_said(written, made):
    found = recipe(written)
    assert found.method == made
    assert aliases()[written].note in found.notes


def test_rotations_of_eight_bit_are_made_when_quarot_is_asked_for_in_eight():
    assert recipe("quarot", bits=8).method == "rotations_w8a8"


def test_what_a_method_is_made_by_can_be_asked():
    assert [one.name for one in producers_of("awq")] == ["llm-compressor", "autoawq"]
    assert [one.name for one in producers_of("hqq")] == ["torchao"]
    assert producers_of("squeezellm") == ()


# When nothing is made


def test_a_format_that_vllm_makes_while_loading_is_left_to_it():
    assert recipe("bitsandbytes", always=False) is None


def test_a_named_producer_stores_what_vllm_could_make_while_loading():
    assert recipe("bitsandbytes", always=False, producer="bitsandbytes").producer == "bitsandbytes"


def test_no_method_needs_nothing_made():
    assert recipe("none", always=False) is None


def test_a_quantized_checkpoint_is_served_and_not_made_again():
    assert recipe("awq", model(quantization="awq"), always=False) is None


def test_a_quantized_checkpoint_cannot_be_quantized_and_the_16_bit_one_is_asked_for():
    error = refused("gptq", model(quantization="awq", ref="owner/model-AWQ"))
    assert error.code == "quantize.quantized-base"
    assert "16-bit" in error.fix


# Defaults and options


def test_defaults_are_the_producers():
    made = recipe("awq")
    assert (made.bits, made.group_size, made.symmetric) == (4, 128, True)
    assert made.needs_data
    assert made.ignore == ("lm_head",)


@pytest.mark.parametrize("method", ["w4a16", "fp8_dynamic", "torchao", "bitsandbytes", "onnx"])
def test_rounding_alone_needs_no_data(method):
    assert not recipe(method).needs_data


def test_rotated_weights_are_rounded_on_texts_or_without():
    assert recipe("rotations_w4a16").needs_data
    assert not recipe("rotations_w4a16", rounding="rtn").needs_data
    assert not recipe("rotations_w8a8").needs_data
    assert recipe("rotations_w8a8", rounding="gptq").needs_data


def test_gptq_of_eight_bit_is_written_as_w8a16():
    assert recipe("gptq", bits=8).writes == "w8a16"


@pytest.mark.parametrize(
    ("format", "writes"),
    [("auto_round", "autoround"), ("auto_gptq", "gptq"), ("auto_awq", "awq"),
     ("llm_compressor", "w4a16")],
)  # fmt: skip
def test_autoround_writes_four_formats(format, writes):
    assert recipe("autoround", format=format).writes == writes


def test_a_mix_goes_into_a_format_that_holds_it():
    eight, six = recipe("autoround", mixed_bits=8), recipe("autoround", mixed_bits=6)
    assert (eight.format, six.format) == ("auto_round", "llm_compressor")
    assert six.writes == "w4a16"
    assert any("6-bit" in note for note in six.notes)
    assert refused("autoround", mixed_bits=6, format="auto_gptq").code == "quantize.format"
    assert refused("autoround", mixed_bits=8, symmetric=False).code == "quantize.symmetric"


def test_a_mix_is_as_large_as_its_weights_are_on_average():
    served = produced_method(recipe("autoround", mixed_bits=8))
    assert served.bytes_per_linear_weight == pytest.approx(5 / 8 + 2 / 128)


def test_no_layer_can_be_left_out_of_an_onnx_graph():
    error = refused("onnx", ignore=("lm_head", "q_proj"))
    assert error.code == "quantize.foreign-option"
    assert "--ignore" in error.fix


def test_a_job_holds_the_recipe_and_nothing_of_the_reasons():
    job = recipe("autoround", mixed_bits=8).to_job()
    assert job["mixed_bits"] == 8
    assert set(job) == {
        "method", "producer", "writes", "bits", "group_size", "symmetric", "ignore", "format",
        "mixed_bits", "rounding",
    }  # fmt: skip


def test_a_folder_is_named_by_what_is_in_it():
    assert recipe("awq").slug == "awq-llm-compressor-w4-g128"
    assert recipe("awq", symmetric=False).slug == "awq-llm-compressor-w4-g128-asym"
    assert recipe("gptq", bits=8, group_size=-1).slug == "gptq-llm-compressor-w8-row"


@pytest.mark.parametrize(
    ("method", "options", "code", "nearest"),
    [
        ("awq", {"bits": 3}, "quantize.bits", "Take 4"),
        ("gptq", {"bits": 3}, "quantize.bits", "--producer gptqmodel"),
        ("w4a16", {"bits": 8}, "quantize.bits", "w8a16"),
        ("awq", {"group_size": 96}, "quantize.group-size", "Take 128"),
        ("awq", {"producer": "autoawq", "symmetric": True}, "quantize.symmetric", "Take false"),
        ("autoround", {"mixed_bits": 7}, "quantize.mixed-bits", "Take 8"),
        ("autoround", {"mixed_bits": 8, "bits": 8}, "quantize.bits", "Take 4"),
        ("autoround", {"format": "auto_awq", "bits": 8}, "quantize.bits", "Take 4"),
        ("awq", {"producer": "torchao"}, "quantize.producer", "llm-compressor or autoawq"),
        ("fp8_dynamic", {"group_size": 128}, "quantize.foreign-option", "--group-size"),
        ("awq", {"rounding": "rtn"}, "quantize.foreign-option", "--rounding"),
        ("onnx", {"bits": 8, "group_size": 32}, "quantize.foreign-option", "--group-size"),
    ],
)
def test_what_a_producer_does_not_take_is_refused_with_the_nearest_that_works(
    method, options, code, nearest
):
    error = refused(method, **options)
    assert error.code == code
    assert error.exit_code == ExitCode.BAD_INPUT
    assert nearest in error.fix


# What cannot be made


@pytest.mark.parametrize(
    "name", [name for name, one in methods().items() if one.status in ("retired", "research")]
)
def test_every_ended_method_is_made_as_its_heir_or_refused_with_what_can_be_made(name):
    if made_as(name) is not None:
        assert recipe(name).method == made_as(name)
        return
    error = refused(name)
    if error.code == "quantize.in-flight-only":
        return
    assert error.code == "quantize.no-producer"
    assert any(method in error.fix for method in makings())
    until = methods()[name].until
    assert until is None or ".".join(map(str, until)) in error.why


def test_squeezellm_says_since_when_and_what_is_nearest():
    error = refused("squeezellm", always=False)
    assert "0.6.1" in error.why
    assert "awq, gptq, autoround" in error.fix


def test_qlora_is_trained_and_its_adapter_merged_before_a_method():
    error = refused("qlora")
    assert "merged" in error.why
    assert "awq" in error.fix


@pytest.mark.parametrize("name", ["gguf", "quark", "modelopt", "deepseek_v4_fp8"])
def test_a_format_of_somebody_elses_tools_needs_a_checkpoint(name):
    error = refused(name, always=False)
    assert error.code == "method.needs-checkpoint"
    assert "--variants" in error.fix


def test_a_format_that_lives_only_in_vllms_memory_cannot_be_stored():
    error = refused("fp8_per_channel")
    assert error.code == "quantize.in-flight-only"
    assert "fp8_dynamic" in error.fix


def test_a_method_has_to_be_named():
    assert refused("none").code == "quantize.no-method"


# Models


def test_an_architecture_that_a_strict_producer_does_not_have_is_refused_with_the_other_producer():
    unknown = model(model_type="mamba", architectures=("MambaForCausalLM",))
    error = refused("awq", unknown, producer="autoawq")
    assert error.code == "quantize.unknown-model"
    assert error.exit_code == ExitCode.DOES_NOT_FIT
    assert "llm-compressor" in error.fix
    assert "mamba" in error.what


def test_an_architecture_that_is_in_no_list_is_tried_and_that_is_said():
    unknown = model(model_type="new", architectures=("NewForCausalLM",))
    assert any("tried all the same" in note for note in recipe("awq", unknown).notes)
    assert not any("tried all the same" in note for note in recipe("awq").notes)


def test_data_cannot_be_run_through_a_model_without_a_tokenizer():
    error = refused("awq", model(has_tokenizer=False))
    assert error.code == "quantize.no-tokenizer"
    assert "w4a16" in error.fix
    assert recipe("w4a16", model(has_tokenizer=False))


# Groups


def test_a_group_size_that_does_not_divide_a_layer_names_it_and_those_that_do():
    error = refused("awq", model(inner=96 + 1024), group_size=128)
    assert error.code == "quantize.group-size"
    assert "down_proj has 1120 inputs" in error.why
    assert "32" in error.fix
    assert "64" not in error.fix


def test_a_default_group_size_gives_way_to_one_that_divides_and_says_so():
    made = recipe("awq", model(inner=64 + 1024))
    assert made.group_size == 64
    assert any("down_proj" in note for note in made.notes)


def test_a_layer_that_is_left_in_16_bit_is_not_asked():
    odd = model(inner=1000)
    assert recipe("awq", odd, ignore=("lm_head", "down_proj")).group_size == 128
    assert recipe("awq", odd, ignore=("lm_head", "re:.*down_proj$")).group_size == 128


def test_a_whole_row_takes_the_place_of_groups_where_none_divides():
    assert recipe("gptq", model(inner=1001)).group_size == -1


def test_a_model_whose_layers_take_no_group_of_the_producer_is_refused():
    assert refused("awq", model(inner=1001)).code == "quantize.group-size"


# What is served afterwards


def test_what_is_made_is_found_in_the_checkpoint_and_not_made_while_loading():
    served = produced_method(recipe("mxfp4"))
    assert served.argument == ""
    assert not served.in_flight


@pytest.mark.parametrize(
    ("options", "bytes_a_weight"),
    [
        ({}, 0.5 + 2 / 128),
        ({"group_size": 32}, 0.5 + 2 / 32),
        ({"group_size": 64, "symmetric": False}, 0.5 + 2 / 64 + 0.5 / 64),
        ({"bits": 8}, 1 + 2 / 128),
        ({"bits": 8, "group_size": -1}, 1 + 2 / 4096),
    ],
)
def test_its_size_is_that_of_the_real_width_and_groups(options, bytes_a_weight):
    served = produced_method(recipe("gptq", **options))
    assert served.bytes_per_linear_weight == pytest.approx(bytes_a_weight, abs=1e-4)


def test_a_width_without_a_cpu_kernel_is_not_for_the_cpu():
    assert produced_method(recipe("gptq", producer="gptqmodel")).cpu
    assert not produced_method(recipe("gptq", producer="gptqmodel", bits=8)).cpu


def test_what_vllm_does_not_read_is_known_before_it_is_made():
    of_two = recipe("gptq", producer="gptqmodel", bits=2)
    assert "4 and 8 bit" in unread_by_vllm(of_two, on_cpu=False)
    asymmetric = recipe("gptq", producer="gptqmodel", symmetric=False)
    assert "symmetric" in unread_by_vllm(asymmetric, on_cpu=False)
    assert unread_by_vllm(recipe("gptq"), on_cpu=True) is None


@pytest.mark.parametrize("name", list(makings()))
def test_the_default_recipe_is_what_a_person_gets_who_chooses_nothing(name):
    plain = default_recipe(name)
    assert plain == replace(recipe(name), why="", notes=())


# Contradictions


def test_an_adapter_that_may_stay_unmerged_leaves_nothing_to_quantize():
    wanted = Draft(
        adapter=AdapterChoice(id="owner/lora"),
        merge=MergeChoice(on_failure="serve-lora"),
        quantization=QuantizationChoice(method="awq"),
    )
    with pytest.raises(QuantuiError) as raised:
        check_makeable(wanted, recipe("awq"))
    assert raised.value.code == "quantize.unmerged-adapter"
