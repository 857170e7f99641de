"""The catalogue of methods, and whether a method can run somewhere, told in the machine's own terms."""

from __future__ import annotations

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import Gpu
from quantui.domain.methods import check_runs_here, method, methods, read_method

T4 = Gpu(0, name="Tesla T4", compute_capability=(7, 5))
H100 = Gpu(1, name="H100", compute_capability=(9, 0))
V100 = Gpu(2, name="V100", compute_capability=(7, 0))


def check(name, *, on_cpu=False, gpus=(T4,), stored=None, tensor_parallel=1):
    check_runs_here(
        method(name),
        on_cpu=on_cpu,
        gpus=gpus,
        checkpoint_quantization=stored,
        tensor_parallel=tensor_parallel,
    )


def refused(*args, **kwargs):
    with pytest.raises(QuantuiError) as raised:
        check(*args, **kwargs)
    assert (raised.value.code, raised.value.exit_code) == (
        "method.unsupported",
        ExitCode.DOES_NOT_FIT,
    )
    return raised.value


def test_an_unknown_method_is_refused_with_the_nearest_and_all_names():
    with pytest.raises(QuantuiError) as raised:
        method("bitsandbyte")
    assert raised.value.exit_code == ExitCode.BAD_INPUT
    assert "`bitsandbytes`" in raised.value.fix
    assert all(name in raised.value.fix for name in methods())


def test_every_method_says_where_its_facts_are_from():
    for entry in methods().values():
        assert entry.source, entry.name
        assert entry.summary.endswith("."), entry.name
        assert 0 < entry.bytes_per_linear_weight <= 2, entry.name


def test_a_method_without_a_kernel_for_the_cpu_is_refused_there_with_those_that_have_one():
    error = refused("fp8_per_tensor", on_cpu=True, gpus=())
    assert "bitsandbytes" in error.fix
    assert "fp8_per_tensor" not in error.fix


def test_a_gpu_too_old_is_named_with_what_it_has_and_what_it_needs():
    error = refused("fp8_per_channel", gpus=(H100, T4))
    assert "8.9" in error.what
    assert "GPU 0 (Tesla T4) has 7.5" in error.what


def test_a_gpu_below_what_vllm_runs_on_is_refused_for_every_method():
    for name in methods():
        assert refused(name, gpus=(V100,))


def test_a_capability_that_is_unknown_refuses_nothing():
    check("fp8_per_channel", gpus=(Gpu(0),))


def test_a_quantized_checkpoint_is_not_quantized_again():
    error = refused("bitsandbytes", stored="awq")
    assert '"none"' in error.fix


def test_a_quantized_checkpoint_is_served_as_it_is():
    check("none", stored="awq")
    check("bitsandbytes", stored="bitsandbytes")


def test_stored_bitsandbytes_weights_are_not_split_over_gpus():
    assert (
        "2 GPUs"
        in refused("bitsandbytes", gpus=(T4, H100), stored="bitsandbytes", tensor_parallel=2).what
    )


SYSTEMS = (
    "none", "bitsandbytes", "bitsandbytes_8bit", "awq", "gptq", "fp8_per_tensor", "fp8_per_channel", "fp8_dynamic",
    "fp8_static", "fp8_block", "int8_w8a8", "w4a16", "w8a16", "w4a8", "nvfp4", "mxfp4", "mxfp8", "torchao", "autoround",
    "adaround", "brecq", "rotations_w4a16", "rotations_w8a8", "quarot", "spinquant", "quip", "gguf", "onnx", "qlora",
    "quark", "modelopt", "int8_per_channel_weight_only", "squeezellm", "aqlm", "hqq", "marlin", "deepspeedfp",
    "fbgemm_fp8", "ptpc_fp8", "experts_int8", "bitblas", "tpu_int8", "auto_gptq",
)  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_systems_a_user_can_meet_are_there(name):
    assert method(name).name == name


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("AWQ", "awq"),
        ("fp8", "fp8_per_tensor"),
        ("int8", "int8_w8a8"),
        ("w8a8", "int8_w8a8"),
        ("W8A8-INT8", "int8_w8a8"),
        ("bnb", "bitsandbytes"),
        ("nf4", "bitsandbytes"),
        ("int4", "w4a16"),
        ("compressed-tensors", "w4a16"),
        ("gptq_marlin", "gptq"),
        ("Auto-Round", "autoround"),
        ("Q4_K_M", "gguf"),
    ],
)
def test_a_method_answers_to_the_names_people_use(written, meant):
    assert method(written).name == meant


def test_no_name_means_two_methods():
    aliases = [alias for entry in methods().values() for alias in entry.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(methods())


def test_what_is_not_served_names_something_that_is():
    for entry in methods().values():
        for name in entry.instead:
            assert methods()[name].status in ("current", "plugin"), (entry.name, name)
        if entry.status not in ("current", "plugin"):
            assert entry.instead, entry.name


def test_what_vllm_dropped_says_since_when():
    for entry in methods().values():
        if entry.status == "retired" and entry.vllm_names:
            since = entry.until or entry.deprecated_since
            assert since or entry.name == "experts_int8", entry.name


def test_an_in_flight_method_has_an_argument_and_a_stored_one_is_found_by_vllm():
    for entry in methods().values():
        if entry.in_flight:
            assert entry.argument, entry.name
        elif entry.status in ("current", "plugin"):
            assert entry.argument == "", entry.name
        if entry.status == "current" and entry.name != "none":
            assert entry.vllm_names, entry.name


def test_claims_have_sources():
    for entry in methods().values():
        for claim in (entry.quality, entry.speed):
            assert claim is None or (claim.text and claim.source), entry.name
        for fact, source in entry.sources:
            assert hasattr(entry, fact), (entry.name, fact)
            assert source, (entry.name, fact)
            assert entry.source_of(fact) == source
        if entry.until or entry.since or entry.max_compute_capability:
            for fact in ("until", "since", "max_compute_capability"):
                assert getattr(entry, fact) is None or fact in dict(entry.sources), (
                    entry.name,
                    fact,
                )


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("bitsandbytes", 4 + 32 / 64),
        ("awq", 4 + 16 / 128 + 4 / 128),
        ("gptq", 4 + 16 / 128),
        ("w4a16", 4 + 16 / 128),
        ("fp8_dynamic", 8 + 32 / 4096),
        ("fp8_block", 8 + 32 / 128**2),
        ("int8_w8a8", 8 + 32 / 4096),
        ("w8a16", 8 + 16 / 4096),
        ("w4a8", 4 + 8 / 128 + 32 / 4096),
        ("nvfp4", 4 + 8 / 16),
        ("mxfp4", 4 + 8 / 32),
        ("mxfp8", 8 + 8 / 32),
        ("torchao", 8 + 16 / 128 + 8 / 128),
        ("gguf", 8 * (0.856 * 144 + 0.144 * 210) / 256),
        ("squeezellm", 4 + 16 * 16 / 4096),
    ],
)
def test_bytes_a_weight_are_values_scales_and_zero_points(name, bits):
    assert method(name).bytes_per_linear_weight == pytest.approx(bits / 8, abs=1e-4)


def test_the_bytes_a_formula_ends_in_are_those_of_the_entry():
    for entry in methods().values():
        sums = [
            part.split("(")[0] for part in entry.bytes_formula.replace(" x ", " * ").split("=")[1:]
        ]
        for text in sums:
            digits = text.split(",")[0].strip()
            if digits and set(digits) <= set("0123456789.+*/ "):
                assert eval(digits) == pytest.approx(entry.bytes_per_linear_weight, abs=1e-4), (
                    entry.name
                )


ENTRY = {
    "title": "a", "family": "b", "argument": "", "status": "current", "in_flight": False, "stored": True,
    "weight_bits": 4, "activation_bits": 16, "bytes_per_linear_weight": 0.5, "bytes_formula": "4 bit", "cpu": False,
    "min_compute_capability": "8.0", "summary": "c.", "source": "d",
}  # fmt: skip


def test_an_entry_is_read_with_its_versions_as_numbers():
    read = read_method("x", ENTRY | {"until": "0.6.1", "older_arguments": {"0.20": "old"}})
    assert (read.min_compute_capability, read.until) == ((8, 0), (0, 6, 1))
    assert (read.argument_in((0, 19)), read.argument_in((0, 20))) == ("old", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sumary": "c."}, "sumary"),
        ({"name": "y"}, "name"),
        ({"status": "new"}, "new"),
        ({"calibration": "much"}, "much"),
        ({"until": "soon"}, "soon"),
    ],
)
def test_an_entry_with_a_field_that_is_wrong_is_refused_by_its_name(change, said):
    with pytest.raises(ValueError, match=said):
        read_method("x", ENTRY | change)


def test_an_entry_that_lacks_a_field_is_refused():
    entry = dict(ENTRY)
    del entry["source"]
    with pytest.raises(ValueError, match="x: lacks source"):
        read_method("x", entry)
