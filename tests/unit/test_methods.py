"""The catalogue of methods, and whether a method can run somewhere, told in the machine's own terms."""

from __future__ import annotations

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import Gpu
from quantui.domain.methods import check_runs_here, method, methods

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
