"""Before anything is made: memory, disk and time with their formulas, the devices in order, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from run_plans import model_spec

from quantui.domain.draft import QuantizationChoice
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import Gpu, Host
from quantui.domain.models import WeightFile
from quantui.domain.producing.estimates import made_bytes, preflight, require_room, told
from quantui.domain.producing.memory import Room
from quantui.domain.producing.producers import producers
from quantui.domain.producing.recipes import recipe_for
from quantui.domain.producing.times import making_time

GIB = 1024**3
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "vocab_size": 1000,
}
MODEL = model_spec(
    config=CONFIG,
    weight_bytes=4 * GIB,
    weight_files=(WeightFile("a", GIB), WeightFile("b", 3 * GIB)),
)


def recipe(method="awq", **options):
    return recipe_for(QuantizationChoice(method=method, **options), MODEL, always=True)


def room(free=64.0, gpus=(), disk=500.0, cores=2):
    host = Host(ram_available_bytes=int(free * GIB), physical_cores=cores)
    cards = tuple(
        Gpu(index, free_bytes=None if one is None else int(one * GIB))
        for index, one in enumerate(gpus)
    )
    return Room(cards, host, None if disk is None else int(disk * GIB))


def found(method="awq", where=None, device="auto", samples=128, length=512, **more):
    return preflight(
        recipe(method),
        MODEL,
        where or room(),
        device=device,
        samples=samples,
        length=length,
        **more,
    )


def refused(method="awq", where=None, device="auto", **more):
    where = where or room()
    with pytest.raises(QuantuiError) as raised:
        require_room(
            found(method, where, device, **more), recipe(method), MODEL, where, device=device
        )
    assert raised.value.exit_code == ExitCode.DOES_NOT_FIT
    return raised.value


def test_memory_is_libraries_weights_what_runs_through_and_the_largest_layer():
    producer = producers()["llm-compressor"]
    texts = 8 * 128 * 512 * 1024 * 2
    attention = 4 * 1024 * 1024
    layer = 4 * (attention + 3 * 1024 * 4096)
    expected = producer.base_bytes + 4 * GIB + texts + layer
    assert found().ram_bytes.value == pytest.approx(expected)


def test_gptq_holds_a_hessian_of_each_linear_layer():
    hessians = 4 * (6 * 1024**2 + 4096**2 + 3 * 4096**2)
    plain = found("w4a16").ram_bytes.value + 3 * 128 * 512 * 1024 * 2
    assert found("gptq").ram_bytes.value == pytest.approx(plain + hessians)


def test_every_figure_carries_its_formula_and_source():
    one = found(where=room(gpus=[24]))
    for figure in (one.ram_bytes, one.gpu_bytes, one.disk_bytes, one.seconds):
        assert figure.formula
        assert figure.source


def test_more_texts_take_more_memory_and_rounding_alone_none_for_texts():
    more = found(samples=512).ram_bytes.value - found().ram_bytes.value
    assert more == 3 * 8 * 128 * 512 * 1024 * 2
    assert found("w4a16").ram_bytes.value == found("w4a16", samples=512).ram_bytes.value


def test_what_goes_shard_by_shard_needs_the_largest_and_not_the_model():
    base = producers()["llm-compressor"].base_bytes
    assert found("fp8_dynamic").ram_bytes.value == base + 2.5 * 3 * GIB


# The cascade


def test_the_roomiest_gpu_is_tried_first_and_then_the_cpu():
    one = found(where=room(gpus=[20, 40]))
    assert one.devices == ("cuda:1", "cpu")
    assert "GPU 1" in one.reasons[0]


def test_a_gpu_without_room_is_left_out_and_the_figures_say_why():
    one = found("bitsandbytes_8bit", room(gpus=[2]))
    assert one.devices == ("cpu",)
    assert "has 2.00 GiB free" in one.reasons[0]


def test_a_gpu_whose_free_memory_is_unknown_is_tried():
    assert found(where=room(gpus=[None])).devices == ("cuda:0", "cpu")


def test_llm_compressor_keeps_the_model_in_ram_and_takes_a_layer_to_the_card():
    one = found(where=room(gpus=[2]))
    assert one.devices == ("cuda:0", "cpu")
    assert one.gpu_bytes.value < GIB
    assert one.ram_bytes.value > 4 * GIB


def test_a_producer_that_takes_the_model_to_the_card_needs_less_ram_beside_it():
    one = found("bitsandbytes_8bit", room(free=6, gpus=[40]))
    assert one.devices == ("cuda:0",)
    assert "6.00 GiB are free" in one.reasons[1]


def test_a_producer_of_the_cpu_is_not_tried_on_a_gpu():
    assert found("onnx", room(free=200, gpus=[80])).devices == ("cpu",)


def test_a_device_that_is_asked_for_is_the_only_one():
    assert found(where=room(gpus=[40]), device="cpu").devices == ("cpu",)
    assert found(where=room(gpus=[40]), device="gpu").devices == ("cuda:0",)


def test_nothing_fits_is_refused_with_the_figures_before_any_work():
    error = refused(where=room(free=2, gpus=[2]))
    assert error.code == "quantize.not-enough-memory"
    assert "2.00 GiB" in error.why
    assert "fp8_dynamic" in error.fix
    assert any("formula" in line or "x" in line for line in error.detail)


def test_a_gpu_that_is_asked_for_and_not_there_is_refused():
    error = refused(device="gpu")
    assert error.code == "quantize.no-gpu"
    assert "No GPU" in error.why


def test_what_is_not_known_of_the_memory_refuses_nothing():
    unknown = Room((), Host(), None)
    require_room(found(where=unknown), recipe(), MODEL, unknown)
    assert found(where=unknown).devices == ("cpu",)


# Disk


def test_the_disk_holds_the_result_and_the_merged_model():
    result = made_bytes(MODEL, recipe()).value
    assert found().disk_bytes.value == result
    assert found(merged_bytes=5 * GIB).disk_bytes.value == result + 5 * GIB


def test_an_onnx_of_eight_bit_has_its_32_bit_export_beside_it():
    eight = recipe("onnx", bits=8)
    one = preflight(eight, MODEL, room(), device="cpu", samples=1, length=1)
    assert "32-bit export" in one.disk_bytes.formula


def test_a_disk_that_is_too_small_is_refused_with_the_figures():
    error = refused(where=room(disk=0.001))
    assert error.code == "quantize.not-enough-disk"
    assert "QUANTUI_HOME" in error.fix


def test_fewer_bits_and_larger_groups_are_smaller():
    sizes = [
        made_bytes(MODEL, recipe("gptq", **options)).value
        for options in ({"bits": 8}, {"group_size": 32}, {"group_size": 128})
    ]
    assert sizes == sorted(sizes, reverse=True)


# Time


def test_time_grows_with_the_parameters_and_falls_with_the_cores():
    small, _ = making_time("gptq", "llm-compressor", 98_000_000, on_cpu=True, cores=2)
    large, _ = making_time("gptq", "llm-compressor", 980_000_000, on_cpu=True, cores=2)
    many, _ = making_time("gptq", "llm-compressor", 980_000_000, on_cpu=True, cores=20)
    assert large.value > 5 * small.value
    assert many.value == pytest.approx(small.value)


def test_a_published_time_is_of_its_card_and_names_it():
    figure, timed = making_time("gptq", "llm-compressor", 8_030_000_000, on_cpu=False)
    assert figure.value == pytest.approx(1800)
    assert timed.card == "A100"
    assert "docs.vllm.ai" in figure.source


def test_a_time_that_nobody_measured_is_none():
    assert making_time("onnx", "onnxruntime", 10**9, on_cpu=False) is None
    assert making_time("gptq", "llm-compressor", None, on_cpu=True) is None


def test_the_figures_are_told_in_a_line():
    assert told(found(where=room(gpus=[40]))).count("GiB") == 2
    assert "GPU" not in told(replace(found(), gpu_bytes=None))
