"""The engines that ship: what they say, and that their locks hold what they say."""

from __future__ import annotations

import re

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import Gpu, HardwareReport
from quantui.engines.choice import (
    default_engine_name,
    family_member,
    machine_problems,
    producer_engine_name,
    suits,
)
from quantui.engines.specs import engine_spec, load_specs, parse_specs

SPECS = load_specs()
EVERY = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


SERVERS = pytest.mark.parametrize("name", ["vllm-cpu", "vllm-cuda"])
CUDA = pytest.mark.parametrize(
    "spec",
    [spec for spec in SPECS.values() if spec.accelerator == "cuda"],
    ids=lambda spec: spec.name,
)
PRODUCERS = {
    "llm-compressor": "compressor",
    "auto-round": "compressor",
    "autoawq": "autoawq",
    "gptqmodel": "gptqmodel",
    "torchao": "torchao",
    "bitsandbytes": "vllm",
    "onnxruntime": "onnx",
}


def test_the_engines_that_ship():
    assert list(SPECS) == [
        *("autoawq-cpu", "autoawq-cuda", "compressor-cpu", "compressor-cuda"),
        *("gptqmodel-cpu", "gptqmodel-cuda", "onnx", "torchao-cpu", "torchao-cuda"),
        *("vllm-cpu", "vllm-cuda"),
    ]


def test_a_family_has_one_engine_for_each_accelerator():
    members = [(spec.family, spec.accelerator) for spec in SPECS.values()]
    assert len(set(members)) == len(members)
    for spec in SPECS.values():
        assert spec.name == (
            f"{spec.family}-{spec.accelerator}" if spec.accelerator else spec.family
        )


@EVERY
def test_every_locked_package_is_pinned_and_hashed(spec):
    entries = spec.lock_entries()
    assert len(entries) > 40
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


@SERVERS
def test_an_engine_that_serves_also_merges(name):
    spec = SPECS[name]
    wanted = {"peft", "transformers", "accelerate", "bitsandbytes", "vllm-bnb-plugin", "torch"}
    assert wanted <= set(spec.locked_versions)
    assert {"serve", "merge", "train-demo"} <= set(spec.provides)


@EVERY
def test_what_an_engine_takes_is_told_with_its_source(spec):
    assert spec.download_bytes > 2e8
    assert spec.disk_bytes > spec.download_bytes
    assert spec.download_source
    assert spec.disk_source
    assert ("measured" in spec.disk_source) != (spec.accelerator == "cuda")


@EVERY
def test_an_engine_holds_the_packages_of_what_it_provides(spec):
    held = {name.replace("-", "_") for name in spec.locked_versions}
    named = {"vllm": "vllm_cpu" if spec.name == "vllm-cpu" else "vllm", "awq": "autoawq"}
    for modules in spec.provides.values():
        assert {named.get(module, module) for module in modules} <= held


@EVERY
def test_every_engine_has_the_torch_that_serves_for_the_same_python(spec):
    server = SPECS["vllm-cuda" if spec.accelerator == "cuda" else "vllm-cpu"]
    assert spec.locked_versions["torch"] == server.locked_versions["torch"]
    assert spec.python == server.python


@EVERY
def test_a_checkpoint_is_read_by_a_transformers_that_knows_rope_parameters(spec):
    assert int(spec.locked_versions["transformers"].split(".")[0]) >= 5


@SERVERS
def test_a_server_reads_what_the_engine_of_torchao_writes(name):
    writer = SPECS[name.replace("vllm", "torchao")]
    assert SPECS[name].locked_versions["torchao"] == writer.locked_versions["torchao"]


@SERVERS
def test_the_bitsandbytes_plugin_comes_only_with_a_vllm_that_has_it_outside(name):
    spec = SPECS[name]
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


@CUDA
def test_an_engine_for_gpus_says_what_card_and_driver_it_needs(spec):
    cuda = spec.locked_versions["nvidia-cuda-runtime"]
    assert cuda.startswith(f"{spec.platform.cuda_driver}.")
    assert spec.platform.compute_capability == "7.5"


@EVERY
def test_a_package_built_from_source_is_named_with_its_reason_and_has_one_hash(spec):
    entries = {entry.partition("==")[0]: entry for entry in spec.lock_entries()}
    for item in spec.built:
        assert item.reason
        assert entries[item.name].count("--hash=") == 1
        assert entries[item.name].startswith(f"{item.spec} ")
        assert bool(item.programs) == bool(item.install)
    assert bool(spec.built) == ("builds-source" in {warning.code for warning in spec.warnings})


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(QuantuiError) as caught:
        engine_spec("vllm-tpu")
    assert caught.value.code == "engine.unknown"
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert "vllm-cpu" in caught.value.why


def test_a_spec_of_another_schema_is_refused():
    with pytest.raises(ValueError, match="schema 2"):
        parse_specs("schema = 2", lambda _: "")


VARIANTS = """
schema = 1
family = "x"
python = "3.11"
imports = []
provides = { serve = ["a"] }
[platform]
system = "Linux"
python = ">=3.11"
[size]
download_bytes = 1
download_source = "s"
disk_bytes = 2
disk_source = "s"
[[requirement]]
spec = "a==1"
reason = "r"
[variant.cpu]
name = "x-cpu"
title = "for the CPU"
accelerator = "cpu"
lock = "x-cpu.lock"
platform = { machines = ["x86_64"] }
[[variant.cpu.requirement]]
spec = "b==1+cpu"
reason = "r"
[variant.cuda]
name = "x-cuda"
title = "for GPUs"
accelerator = "cuda"
lock = "x-cuda.lock"
platform = { machines = ["x86_64"], cuda_driver = "13.0" }
"""


def test_each_variant_of_a_file_is_an_engine_over_what_they_share():
    cpu, cuda = parse_specs(VARIANTS, lambda name: f"the text of {name}")
    assert (cpu.name, cuda.name, cpu.family) == ("x-cpu", "x-cuda", "x")
    assert [item.spec for item in cpu.requirements] == ["a==1", "b==1+cpu"]
    assert [item.spec for item in cuda.requirements] == ["a==1"]
    assert (cpu.platform.cuda_driver, cuda.platform.cuda_driver) == (None, "13.0")
    assert (cpu.platform.system, cuda.lock_text) == ("Linux", "the text of x-cuda.lock")


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


@pytest.mark.parametrize(("producer", "family"), PRODUCERS.items())
def test_a_producers_engine_follows_the_best_gpu(producer, family):
    for report, accelerator in ((HardwareReport(), "cpu"), (gpu(7, 0), "cpu"), (gpu(9, 0), "cuda")):
        spec = SPECS[producer_engine_name(producer, report)]
        assert spec.family == family
        assert spec.accelerator in (accelerator, None)
        assert f"quantize-{producer}" in spec.provides


def test_a_producer_without_an_engine_is_refused_with_those_that_have_one():
    with pytest.raises(QuantuiError) as caught:
        producer_engine_name("squeezellm", HardwareReport())
    assert caught.value.code == "engine.no-producer"
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert "llm-compressor" in caught.value.why


@pytest.mark.parametrize(
    ("report", "name"), [(HardwareReport(), "compressor-cpu"), (gpu(8, 6), "compressor-cuda")]
)
def test_a_familys_name_stands_for_its_engine_of_this_machine(report, name):
    assert family_member("compressor", report) == name
    assert suits(SPECS[name], report)
    assert family_member("compressor-cpu", report) == "compressor-cpu"
    assert family_member("nothing", report) == "nothing"
