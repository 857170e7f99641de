"""The probe against a stand-in NVML that the real nvidia-ml-py loads; and without NVML."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from fake_nvml import GIB, FakeNvml, compile_fake, gpu, machine

from quantui.domain.hardware import GpuProcess, HardwareReport

CALLS = (
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetCudaDriverVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlSystemGetProcessName",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
)
# not supported, no permission, lost, version mismatch, in use, text not UTF-8, unheard of, unknown
CODES = (3, 4, 15, 18, 19, 27, 77, 999)

MIG = "\n".join(
    (
        "gpu 0 mig 1",
        "slice 0 0 name NVIDIA A100-SXM4-80GB MIG 3g.40gb",
        "slice 0 0 uuid MIG-aaaa",
        f"slice 0 0 total {39 * GIB}",
        f"slice 0 0 free {30 * GIB}",
        "slice 0 0 gi 2",
        # position 1 stays empty: MIG devices leave gaps
        "slice 0 2 name NVIDIA A100-SXM4-80GB MIG 1c.2g.20gb",
        "slice 0 2 uuid MIG-bbbb",
        f"slice 0 2 total {19 * GIB}",
        f"slice 0 2 free {19 * GIB}",
        "slice 0 2 gi 5",
        "slice 0 2 ci 1",
    )
)
BUSY = "proc 0 4242 1073741824 -1\nprocname 4242 python3"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeNvml:
    return FakeNvml(compile_fake(tmp_path_factory.mktemp("lib")), tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> FakeNvml:
    """A driver from before the versioned calls and MIG."""
    folder = compile_fake(
        tmp_path_factory.mktemp("old"),
        *("v3", "mig", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV"),
        "nvmlSystemGetCudaDriverVersion_v2",
    )
    return FakeNvml(folder, tmp_path_factory.mktemp("work"))


def probe(fake: FakeNvml, *gpus: str, also: str = "") -> HardwareReport:
    return fake.probe(machine(*gpus, also=also))[0]


def codes(report: HardwareReport) -> set[str]:
    return {problem.code for problem in report.all_problems()} - {"disk.low"}


def test_every_field_of_a_gpu_is_read(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0), gpu(1, "NVIDIA L4", "8.9", 23))
    first, second = report.gpus
    assert (report.driver_version, report.cuda_version) == ("550.54.15", "12.4")
    assert (first.index, first.uuid, first.name) == (0, "GPU-00000000", "NVIDIA A100-SXM4-80GB")
    assert (first.total_bytes, first.free_bytes, first.reserved_bytes) == (80 * GIB, 79 * GIB, GIB)
    assert first.used_bytes == 0
    assert (first.temperature_c, first.power_w, first.utilization_percent) == (31, 61.25, 7)
    assert (second.name, second.compute_capability) == ("NVIDIA L4", (8, 9))
    assert (first.mig_enabled, first.mig, first.processes) == (False, (), ())
    assert codes(report) == set()
    assert not report.simulated


def test_eight_mixed_gpus_keep_their_order(fake: FakeNvml) -> None:
    kinds = [("NVIDIA H100 80GB HBM3", "9.0"), ("NVIDIA A100-PCIE-40GB", "8.0")] * 4
    report = probe(fake, *(gpu(i, name, cc) for i, (name, cc) in enumerate(kinds)))
    assert [(one.name, one.index) for one in report.gpus] == [
        (k[0], i) for i, k in enumerate(kinds)
    ]


def test_processes_come_with_name_and_memory_largest_first(fake: FakeNvml) -> None:
    also = (
        f"proc 0 11 {GIB} -1\nproc 0 12 {5 * GIB} -1\nprocname 11 a\nprocname 12 VLLM::EngineCore"
    )
    report = probe(fake, gpu(0), also=also)
    assert report.gpus[0].processes == (
        GpuProcess(12, "VLLM::EngineCore", 5 * GIB),
        GpuProcess(11, "a", GIB),
    )


def test_a_process_that_computes_and_draws_is_listed_once(fake: FakeNvml) -> None:
    also = f"{BUSY}\ngproc 0 4242 5 -1\ngproc 0 7 5 -1\nprocname 7 Xorg"
    processes = probe(fake, gpu(0), also=also).gpus[0].processes
    assert [one.name for one in processes or ()] == ["python3", "Xorg"]


def test_process_memory_that_nvml_does_not_tell_is_unknown(fake: FakeNvml) -> None:
    processes = probe(fake, gpu(0), also="proc 0 11 -1 -1\nprocname 11 a").gpus[0].processes
    assert processes == (GpuProcess(11, "a", None),)


def test_a_name_nvml_may_not_read_comes_from_the_kernel(fake: FakeNvml) -> None:
    pid = os.getpid()
    processes = probe(fake, gpu(0), also=f"proc 0 {pid} 5 -1").gpus[0].processes
    assert processes is not None
    assert processes[0].name


def test_a_process_nobody_can_name_stays_listed(fake: FakeNvml) -> None:
    processes = probe(fake, gpu(0), also="proc 0 4194305 5 -1").gpus[0].processes
    assert processes == (GpuProcess(4194305, None, 5),)


def test_processes_without_permission_are_unknown_and_said_so(fake: FakeNvml) -> None:
    also = "\n".join(f"fail nvmlDeviceGetComputeRunningProcesses_v{v} 4" for v in (2, 3))
    report = probe(fake, gpu(0), also=also)
    assert report.gpus[0].processes is None
    assert codes(report) == {"gpu.processes-unknown"}
    assert "Insufficient Permissions" in report.gpus[0].problems[0].why


def test_that_an_older_call_is_missing_does_not_hide_the_reason(fake: FakeNvml) -> None:
    also = "fail nvmlDeviceGetComputeRunningProcesses_v3 4\n"
    also += "fail nvmlDeviceGetComputeRunningProcesses_v2 13"
    (problem,) = probe(fake, gpu(0), also=also).gpus[0].problems
    assert "Insufficient Permissions" in problem.why


def test_a_process_that_starts_while_they_are_listed_is_no_failure(fake: FakeNvml) -> None:
    # The binding's first call asks for the number, its second for the list: that one is too short.
    also = "\n".join(f"failonce nvmlDeviceGetComputeRunningProcesses_v{v} 1 7" for v in (2, 3))
    processes = probe(fake, gpu(0), also=f"{BUSY}\n{also}").gpus[0].processes
    assert processes == (GpuProcess(4242, "python3", GIB),)


def test_memory_in_use_by_nobody_visible_is_said_so(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0) + f"\ngpu 0 free {9 * GIB}")
    assert codes(report) == {"gpu.hidden-users", "gpu.memory-in-use"}
    assert "70.0 GiB" in report.gpus[0].problems[0].what


def test_mig_devices_are_listed_across_gaps(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0), gpu(1), also=MIG)
    first, second = report.gpus[0].mig or ()
    assert (first.uuid, first.profile, first.gpu_instance_id) == ("MIG-aaaa", "3g.40gb", 2)
    assert (first.total_bytes, first.free_bytes) == (39 * GIB, 30 * GIB)
    assert (second.profile, second.compute_instance_id) == ("1c.2g.20gb", 1)
    assert (report.gpus[0].mig_enabled, report.gpus[1].mig_enabled) == (True, False)


def test_a_process_in_a_mig_device_names_its_instance(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0), also=f"{MIG}\nproc 0 11 5 2\nprocname 11 a")
    assert report.gpus[0].processes == (GpuProcess(11, "a", 5, 2),)


def test_mig_without_devices_is_a_problem(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0), also="gpu 0 mig 1")
    assert codes(report) == {"gpu.mig-without-slice"}


def test_a_mig_gpu_whose_memory_is_hidden_shows_its_devices(fake: FakeNvml) -> None:
    also = f"{MIG}\nfailafter nvmlDeviceGetMemoryInfo 0 4\nfailafter nvmlDeviceGetMemoryInfo_v2 0 4"
    report = probe(fake, gpu(0), also=also)
    assert report.gpus[0].total_bytes is None
    assert [part.uuid for part in report.gpus[0].mig or ()] == ["MIG-aaaa", "MIG-bbbb"]
    assert report.gpus[0].problems[0].severity == "note"


def test_an_old_driver_gives_everything_it_has(old: FakeNvml) -> None:
    report = probe(old, gpu(0), also=BUSY)
    (found,) = report.gpus
    assert (found.total_bytes, found.free_bytes, found.used_bytes) == (80 * GIB, 79 * GIB, GIB)
    assert found.reserved_bytes is None
    assert (found.temperature_c, report.cuda_version) == (31, "12.4")
    assert found.processes == (GpuProcess(4242, "python3", GIB),)
    assert (found.mig_enabled, found.mig) == (False, ())
    assert codes(report) == set()


@pytest.mark.parametrize(
    ("code", "problem"),
    [(9, "nvml.driver-not-loaded"), (18, "nvml.version-mismatch"), (4, "nvml.no-permission")],
)
def test_nvml_that_does_not_start_says_what_to_do(fake: FakeNvml, code: int, problem: str) -> None:
    report = probe(fake, gpu(0), also=f"fail nvmlInitWithFlags {code}")
    assert report.gpus == ()
    assert codes(report) == {problem}
    assert report.problems[0].fix
    assert fake.log == ["init "]


def test_a_driver_without_a_visible_gpu_is_a_problem(fake: FakeNvml) -> None:
    assert codes(probe(fake)) == {"nvml.no-gpu"}


def test_a_lost_gpu_is_listed_with_one_problem_beside_a_healthy_one(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0), gpu(1), also="lost 0")
    assert [one.total_bytes for one in report.gpus] == [None, 80 * GIB]
    assert [problem.code for problem in report.gpus[0].problems] == ["gpu.lost"]
    assert report.gpus[1].problems == ()


def test_a_gpu_lost_half_way_keeps_what_was_read(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0), also="failafter nvmlDeviceGetName 0 15")
    assert (report.gpus[0].name, report.gpus[0].total_bytes) == (None, 80 * GIB)
    assert codes(report) == {"gpu.lost"}


def test_a_gpu_without_its_own_memory_shows_the_machines_ram(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0, "NVIDIA GB10", "12.1"), also="gpu 0 nomemory")
    assert report.gpus[0].total_bytes == report.host.ram_total_bytes
    assert report.gpus[0].unified_memory
    assert codes(report) == {"gpu.memory-not-own"}


def test_a_gpu_that_is_not_known_to_share_ram_is_not_given_it(fake: FakeNvml) -> None:
    report = probe(fake, gpu(0), also="gpu 0 nomemory")
    assert (report.gpus[0].total_bytes, codes(report)) == (None, {"gpu.memory-unknown"})


def test_memory_that_may_not_be_read_is_a_warning_not_a_guess(fake: FakeNvml) -> None:
    also = "fail nvmlDeviceGetMemoryInfo 4\nfail nvmlDeviceGetMemoryInfo_v2 4"
    report = probe(fake, gpu(0), also=also)
    assert (report.gpus[0].total_bytes, report.gpus[0].free_bytes) == (None, None)
    assert codes(report) == {"gpu.memory-unknown"}


def test_names_with_escape_codes_are_cleaned(fake: FakeNvml) -> None:
    hostile = "\x1b]52;c;ZXZpbA==\x07\x1b[31mNVIDIA\u202e L4\x1b[0m"
    report = probe(fake, gpu(0, hostile), also="proc 0 9 5 -1\nprocname 9 \x1b[2Jtop")
    assert report.gpus[0].name == "NVIDIA L4"
    assert (report.gpus[0].processes or ())[0].name == "top"


def test_a_name_that_is_not_utf8_does_not_crash(fake: FakeNvml) -> None:
    scenario = machine(gpu(0, "NAME")).encode().replace(b"NAME", b"NVIDIA \xff4")
    assert fake.probe(scenario)[0].gpus[0].name == "NVIDIA \ufffd4"


def test_cuda_visible_devices_is_reported_and_hides_nothing(fake: FakeNvml) -> None:
    report = fake.probe(machine(gpu(0), gpu(1)), env={"CUDA_VISIBLE_DEVICES": "1"})[0]
    assert report.cuda_visible_devices == "1"
    assert (len(report.gpus), codes(report)) == (2, set())


@pytest.mark.parametrize("value", ["", "-1"])
def test_hiding_every_gpu_is_a_problem(fake: FakeNvml, value: str) -> None:
    report = fake.probe(machine(gpu(0)), env={"CUDA_VISIBLE_DEVICES": value})[0]
    assert (len(report.gpus), codes(report)) == (1, {"cuda.all-hidden"})


@pytest.fixture(scope="module")
def broken(fake: FakeNvml) -> dict[tuple[str, int], HardwareReport]:
    """A report for each call failing with each code, on a machine that makes every call."""
    cases = [(call, code) for call in CALLS for code in CODES]
    scenarios = [
        machine(gpu(0), gpu(1), also=f"{MIG}\n{BUSY}\nfail {call} {code}") for call, code in cases
    ]
    return dict(zip(cases, fake.probe(*scenarios), strict=True))


@pytest.mark.parametrize("call", CALLS)
def test_any_single_failing_call_leaves_a_report(
    broken: dict[tuple[str, int], HardwareReport], call: str
) -> None:
    fatal = call in ("nvmlInitWithFlags", "nvmlDeviceGetCount_v2")
    for code in CODES:
        assert len(broken[call, code].gpus) == (0 if fatal else 2)


@pytest.mark.parametrize(
    "call",
    [
        *("nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2"),
        *("nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetMaxMigDeviceCount"),
        "nvmlDeviceGetMigDeviceHandleByIndex",
    ],
)
def test_a_failure_that_matters_is_a_problem(
    broken: dict[tuple[str, int], HardwareReport], call: str
) -> None:
    assert all(codes(broken[call, code]) for code in CODES)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("nvmlDeviceGetName", "name"),
        ("nvmlDeviceGetUUID", "uuid"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetCudaComputeCapability", "compute_capability"),
    ],
)
def test_a_failed_call_is_an_unknown_field(
    broken: dict[tuple[str, int], HardwareReport], call: str, field: str
) -> None:
    assert {getattr(broken[call, code].gpus[1], field) for code in CODES} == {None}


def test_nvml_is_initialised_once_and_always_shut_down(fake: FakeNvml) -> None:
    probe(fake, gpu(0), gpu(1), also=MIG)
    assert fake.log == ["init ", "shutdown "]
    probe(fake, gpu(0), also="fail nvmlDeviceGetCount_v2 999")
    assert fake.log == ["init ", "shutdown "]


SAMPLES = """
import json, os, sys
from quantui.runtime.probe import open_gpu_memory
reader = open_gpu_memory()
first = [vars(one) for one in reader.read()]
second = [vars(one) for one in reader.read()]
reader.close(); reader.close()
log = open(os.environ["FAKE_NVML_LOG"]).read().split()
print(json.dumps([first, second, reader.read(), log]))
"""


def test_the_sampler_reads_used_and_total_of_each_gpu(fake: FakeNvml) -> None:
    scenario = machine(gpu(0) + f"\ngpu 0 free {70 * GIB}", gpu(1))
    first, _, closed, log = json.loads(fake.run(SAMPLES, scenario))
    assert first == [
        {"index": 0, "used_bytes": 9 * GIB, "total_bytes": 80 * GIB},
        {"index": 1, "used_bytes": 0, "total_bytes": 80 * GIB},
    ]
    assert closed == []
    assert log == ["init", "shutdown"]


def test_the_sampler_survives_a_gpu_that_is_lost_while_it_reads(fake: FakeNvml) -> None:
    # Opening asks once and the first reading once; the second reading finds the GPU gone.
    scenario = machine(gpu(0), also="failafter nvmlDeviceGetMemoryInfo_v2 2 15")
    first, second, *_ = json.loads(fake.run(SAMPLES, scenario))
    assert first[0]["used_bytes"] == 0
    assert second == [{"index": 0, "used_bytes": None, "total_bytes": None}]


def test_the_sampler_works_on_an_old_driver(old: FakeNvml) -> None:
    first, *_ = json.loads(old.run(SAMPLES, machine(gpu(0))))
    assert first == [{"index": 0, "used_bytes": GIB, "total_bytes": 80 * GIB}]


def test_the_sampler_without_a_driver_reads_nothing(fake: FakeNvml) -> None:
    scenario = machine(gpu(0), also="fail nvmlInitWithFlags 9")
    assert json.loads(fake.run(SAMPLES, scenario)) == [[], [], [], ["init"]]


def test_importing_the_probe_loads_no_nvml_psutil_or_torch() -> None:
    code = (
        "import sys, quantui.runtime.probe;"
        "print([n for n in ('pynvml', 'psutil', 'torch', 'huggingface_hub') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_library_the_host_is_still_read(fake: FakeNvml) -> None:
    folder = fake.work / "empty"
    folder.mkdir(exist_ok=True)
    report = fake.probe(b"", env={"LD_LIBRARY_PATH": str(folder)})[0]
    if report.driver_version is not None:
        pytest.skip("this machine has an NVIDIA driver")
    assert report.gpus == ()
    assert codes(report) & {"nvml.no-driver", "nvml.library-not-found"}
    assert report.host.ram_total_bytes
