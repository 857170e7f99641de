"""Machine descriptions: what is read, what is refused, what is known to go wrong."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import (
    Disk,
    Gpu,
    GpuProcess,
    HardwareReport,
    Host,
    MigSlice,
    Problem,
)
from quantui.domain.hardware_checks import check_gpu, check_host

GIB = 1024**3

LEAST: dict[str, Any] = {
    "gpus": [
        {
            "name": "NVIDIA A100-SXM4-80GB",
            "total_bytes": 80 * GIB,
            "free_bytes": 79 * GIB,
            "compute_capability": "8.0",
        }
    ],
    "ram_bytes": 64 * GIB,
    "disk_free_bytes": 500 * GIB,
}

FULL = HardwareReport(
    gpus=(
        Gpu(
            index=3,
            uuid="GPU-1",
            name="NVIDIA L4",
            total_bytes=23 * GIB,
            used_bytes=GIB,
            free_bytes=21 * GIB,
            reserved_bytes=GIB,
            unified_memory=False,
            compute_capability=(12, 10),
            temperature_c=40.0,
            power_w=31.5,
            utilization_percent=9.0,
            processes=(GpuProcess(1, "a", None, 2),),
            mig_enabled=True,
            mig=(MigSlice("MIG-1", "x MIG 1g.5gb", "1g.5gb", 5, 1, 4, 2, 0),),
            problems=(Problem("gpu.lost", "w", "y", "f", "note"),),
        ),
        Gpu(index=5),
    ),
    host=Host(
        cpu_name="c",
        physical_cores=2,
        logical_cores=4,
        usable_cores=3,
        cpu_flags=("avx2",),
        ram_total_bytes=8,
        ram_available_bytes=7,
        ram_limit="cgroup v2",
        disks=(Disk("artifacts", "/a", 9, 8, "/dev/x"),),
        platform="Linux",
        machine="x86_64",
        kernel="6",
        python="3.11",
        glibc="2.36",
    ),
    driver_version="550",
    cuda_version="12.4",
    cuda_visible_devices="0",
    problems=(Problem("x.y", "what"),),
    simulated=True,
)


def changed(**gpu: Any) -> dict[str, Any]:
    return {**LEAST, "gpus": [{**LEAST["gpus"][0], **gpu}]}


def test_a_report_comes_back_equal_through_json() -> None:
    assert HardwareReport.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_the_round_trip_covers_every_field() -> None:
    for part in (FULL, FULL.gpus[0], FULL.host, FULL.host.disks[0]):
        assert [f.name for f in fields(part) if getattr(part, f.name) in (None, (), "")] == []


def test_an_empty_report_comes_back_equal_through_json() -> None:
    empty = HardwareReport()
    assert HardwareReport.from_dict(json.loads(json.dumps(empty.to_dict()))) == empty


def test_the_least_form_is_read() -> None:
    report = HardwareReport.from_dict(LEAST)
    assert report.gpus == (
        Gpu(0, None, "NVIDIA A100-SXM4-80GB", 80 * GIB, None, 79 * GIB, compute_capability=(8, 0)),
    )
    assert report.host.ram_total_bytes == 64 * GIB
    disk = report.host.disk("engines")
    assert disk is not None
    assert disk.free_bytes == 500 * GIB


def test_the_written_form_holds_the_least_form() -> None:
    document = FULL.to_dict()
    assert document["gpus"][0]["compute_capability"] == "12.10"
    assert (document["ram_bytes"], document["disk_free_bytes"]) == (8, 8)


def test_a_description_counts_as_simulated_unless_it_says_otherwise() -> None:
    assert HardwareReport.from_dict(LEAST).simulated
    assert not HardwareReport.from_dict({**LEAST, "simulated": False}).simulated


def test_what_is_left_out_or_null_is_unknown() -> None:
    assert HardwareReport.from_dict({"gpus": [{"name": None}]}).gpus == (Gpu(index=0),)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (changed(total_bytes="80 GiB"), "gpus[0].total_bytes"),
        (changed(total_bytes=True), "gpus[0].total_bytes"),
        (changed(total_bytes=-1), "gpus[0].total_bytes"),
        (changed(free_bytes=1.5), "gpus[0].free_bytes"),
        (changed(compute_capability=8.0), "gpus[0].compute_capability"),
        (changed(compute_capability="8"), "gpus[0].compute_capability"),
        (changed(temperature_c=float("nan")), "gpus[0].temperature_c"),
        (changed(name=7), "gpus[0].name"),
        (changed(mig_enabled="no"), "gpus[0].mig_enabled"),
        (changed(processes=[{"pid": "1"}]), "gpus[0].processes[0].pid"),
        ({"gpus": {}}, "gpus"),
        ({"gpus": [1]}, "gpus[0]"),
        ({"host": {"cpu_flags": ["a", 1]}}, "host.cpu_flags[1]"),
        ({"host": {"disks": [{}]}}, "host.disks[0].purpose"),
        ({"ram_bytes": "1"}, "ram_bytes"),
        ([], "the document"),
    ],
)
def test_a_wrong_type_is_refused_with_the_fields_name(document: object, field: str) -> None:
    with pytest.raises(QuantuiError) as caught:
        HardwareReport.from_dict(document)
    assert caught.value.code == "hardware.wrong-type"
    assert f" {field} is not " in caught.value.what
    assert caught.value.exit_code == ExitCode.BAD_INPUT


def test_a_misspelt_field_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(QuantuiError) as caught:
        HardwareReport.from_dict(changed(total_byte=1))
    assert "gpus[0].total_byte" in caught.value.what
    assert caught.value.fix == "Did you mean total_bytes?"


def test_the_fingerprint_ignores_order_and_what_changes_from_hour_to_hour() -> None:
    report = HardwareReport.from_dict({"gpus": [*LEAST["gpus"], {"name": "B"}]})
    warm = replace(report.gpus[0], index=9, free_bytes=1, temperature_c=80.0)
    other = replace(report, gpus=(report.gpus[1], warm))
    assert other.fingerprint() == report.fingerprint()


@pytest.mark.parametrize(
    "change",
    [{"name": "X"}, {"total_bytes": 1}, {"compute_capability": (9, 0)}, {"mig": FULL.gpus[0].mig}],
)
def test_the_fingerprint_notices_another_gpu(change: dict[str, Any]) -> None:
    report = HardwareReport.from_dict(LEAST)
    other = replace(report, gpus=(replace(report.gpus[0], **change),))
    assert other.fingerprint() != report.fingerprint()


def test_the_fingerprint_notices_the_number_of_gpus_and_the_driver() -> None:
    report = HardwareReport.from_dict(LEAST)
    two = replace(report, gpus=report.gpus * 2)
    assert len({report.fingerprint(), two.fingerprint(), FULL.fingerprint()}) == 3
    assert replace(report, driver_version="1").fingerprint() != report.fingerprint()


def test_no_gpu_and_unknown_gpu_have_a_fingerprint() -> None:
    assert HardwareReport().fingerprint() == "no GPU"
    assert HardwareReport(gpus=(Gpu(0),)).fingerprint() == "1x ? ? B cc ?; driver ?"


def codes(problems: tuple[Problem, ...]) -> list[str]:
    return [problem.code for problem in problems]


def test_unknown_fields_are_no_problem() -> None:
    assert check_gpu(Gpu(0)) == ()
    assert check_host(Host()) == ()


@pytest.mark.parametrize(("capability", "found"), [((7, 0), ["gpu.too-old"]), ((7, 5), [])])
def test_gpus_below_7_5_are_too_old_for_vllm(capability: tuple[int, int], found: list[str]) -> None:
    assert codes(check_gpu(Gpu(0, compute_capability=capability))) == found


@pytest.mark.parametrize(("free", "found"), [(91, ["gpu.memory-in-use"]), (92, [])])
def test_memory_below_vllms_default_share_is_in_use(free: int, found: list[str]) -> None:
    assert codes(check_gpu(Gpu(0, total_bytes=110, reserved_bytes=10, free_bytes=free))) == found


def test_mig_without_a_visible_device_is_a_problem() -> None:
    assert codes(check_gpu(Gpu(0, mig_enabled=True, mig=()))) == ["gpu.mig-without-slice"]
    assert check_gpu(Gpu(0, mig_enabled=True, mig=None)) == ()


def test_another_platform_than_linux_is_an_error() -> None:
    (problem,) = check_host(Host(platform="Darwin"))
    assert (problem.code, problem.severity) == ("host.not-linux", "error")


def test_linux_without_glibc_is_a_problem() -> None:
    assert codes(check_host(Host(platform="Linux", glibc=""))) == ["host.no-glibc"]


def test_an_x86_cpu_without_avx2_is_a_problem_and_arm_is_not() -> None:
    assert codes(check_host(Host(machine="x86_64", cpu_flags=("fma",)))) == ["cpu.no-avx2"]
    assert check_host(Host(machine="x86_64", cpu_flags=("avx512f",))) == ()
    assert check_host(Host(machine="aarch64", cpu_flags=())) == ()


def test_a_nearly_full_disk_is_a_problem_where_engines_go() -> None:
    assert codes(check_host(Host(disks=(Disk("engines", free_bytes=GIB),)))) == ["disk.low"]
    assert check_host(Host(disks=(Disk("tmp", free_bytes=GIB),))) == ()
