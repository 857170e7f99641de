"""``--hardware FILE``: a machine that is not this one, and what is refused of its description."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import Disk, Gpu, HardwareReport, Host, MigSlice
from quantui.runtime.described_hardware import MOST_BYTES, described_hardware

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3
CARD = {
    "name": "NVIDIA A100-SXM4-80GB",
    "total_bytes": 80 * GIB,
    "free_bytes": 79 * GIB,
    "compute_capability": "8.0",
}
LEAST = {"gpus": [CARD], "ram_bytes": 64 * GIB, "disk_free_bytes": 500 * GIB}


@pytest.fixture
def load(tmp_path: Path):
    """Writes a description and reads it."""

    def read(document: object) -> HardwareReport:
        path = tmp_path / "machine.json"
        if isinstance(document, bytes):
            path.write_bytes(document)
        else:
            path.write_text(json.dumps(document))
        return described_hardware(str(path))

    return read


def refused(load: Any, document: object) -> QuantuiError:
    with pytest.raises(QuantuiError) as caught:
        load(document)
    error = caught.value
    assert error.exit_code == ExitCode.BAD_INPUT
    assert error.what
    assert error.fix
    return error


def with_card(**changes: Any) -> dict[str, Any]:
    return {**LEAST, "gpus": [{**CARD, **changes}]}


def test_the_least_form_is_read(load):
    report = load(LEAST)
    (gpu,) = report.gpus
    assert (gpu.name, gpu.total_bytes, gpu.free_bytes) == (CARD["name"], 80 * GIB, 79 * GIB)
    assert report.host.ram_total_bytes == 64 * GIB
    assert report.host.disk("artifacts").free_bytes == 500 * GIB


def test_a_description_is_simulated_even_when_it_says_that_it_is_not(load):
    assert load({**LEAST, "simulated": False}).simulated


def test_what_doctor_writes_is_read(load):
    doctor = HardwareReport(
        gpus=(Gpu(0, name="NVIDIA L4", total_bytes=23 * GIB, free_bytes=22 * GIB),),
        host=Host(ram_total_bytes=8 * GIB, ram_available_bytes=7 * GIB),
    ).to_dict()
    report = load({**doctor, "quantui_version": "0.1.0", "engines": [], "caches": []})
    assert report.gpus[0].free_bytes == 22 * GIB
    assert report.host.ram_available_bytes == 7 * GIB


def test_it_is_read_from_standard_input(monkeypatch):
    stdin = SimpleNamespace(buffer=io.BytesIO(json.dumps(LEAST).encode()), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert described_hardware("-").gpus[0].total_bytes == 80 * GIB


def test_a_terminal_as_standard_input_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(QuantuiError, match="which is a terminal"):
        described_hardware("-")


def test_no_gpus_are_a_machine_that_serves_on_its_cpu(load):
    report = load({"gpus": [], "ram_bytes": 16 * GIB})
    assert report.gpus == ()
    assert report.host.ram_total_bytes == 16 * GIB


def test_memory_that_is_not_said_to_be_in_use_is_free_and_a_note_says_so(load):
    card = {key: value for key, value in CARD.items() if key != "free_bytes"}
    report = load({"gpus": [card], "ram_bytes": 16 * GIB})
    assert report.gpus[0].free_bytes == 80 * GIB
    assert report.host.ram_available_bytes == 16 * GIB
    notes = [problem for problem in report.all_problems() if problem.severity == "note"]
    assert [note.what for note in notes] == [
        "All of the RAM is taken as free.",
        "GPU 0: all memory is taken as free.",
    ]


def test_a_card_known_by_its_name_needs_no_sizes(load):
    (gpu,) = load({"gpus": [{"name": "Tesla T4"}]}).gpus
    assert gpu.compute_capability == (7, 5)
    assert 14 * GIB < gpu.total_bytes <= 16 * GIB
    assert gpu.free_bytes == gpu.total_bytes
    assert any("T4" in note.what for note in gpu.problems)


def test_more_free_than_the_card_of_that_name_has_is_refused(load):
    document = {"gpus": [{"name": "Tesla T4", "free_bytes": 40 * GIB}]}
    assert refused(load, document).code == "hardware.free-above-total"


def test_a_gpu_that_shares_the_hosts_ram_has_its_size(load):
    (gpu,) = load({"gpus": [{"unified_memory": True}], "ram_bytes": 120 * GIB}).gpus
    assert (gpu.total_bytes, gpu.free_bytes) == (120 * GIB, 120 * GIB)


def test_an_unknown_card_stays_unknown(load):
    (gpu,) = load({"gpus": [{"name": "Voodoo 2"}]}).gpus
    assert (gpu.total_bytes, gpu.compute_capability) == (None, None)


def test_a_mig_slice_known_by_its_profile_needs_no_sizes(load):
    (gpu,) = load(with_card(mig_enabled=True, mig=[{"profile": "3g.40gb"}])).gpus
    (part,) = gpu.mig
    assert 35 * GIB < part.total_bytes == part.free_bytes <= 40 * GIB


def test_what_is_used_and_reserved_is_not_taken_as_free(load):
    card = {"name": "NVIDIA L4", "total_bytes": 23 * GIB, "used_bytes": 3 * GIB,
            "reserved_bytes": GIB, "compute_capability": "8.9"}  # fmt: skip
    assert load({"gpus": [card]}).gpus[0].free_bytes == 19 * GIB


@pytest.mark.parametrize(
    ("document", "code", "words"),
    [
        (with_card(total_bytes=-1), "hardware.wrong-type", "gpus[0].total_bytes"),
        (with_card(total_bytes=80), "hardware.absurd-size", f"write {80 * GIB}"),
        (with_card(total_bytes=81920), "hardware.absurd-size", f"write {80 * GIB}"),
        (with_card(total_bytes=0), "hardware.absurd-size", "gpus[0].total_bytes"),
        (with_card(total_bytes=10**18), "hardware.absurd-size", "gpus[0].total_bytes"),
        (with_card(free_bytes=81 * GIB), "hardware.free-above-total", "gpus[0].free_bytes"),
        (with_card(used_bytes=81 * GIB), "hardware.free-above-total", "gpus[0].used_bytes"),
        (with_card(total_byte=1), "hardware.unknown-key", "total_bytes"),
        (with_card(compute_capability="8"), "hardware.wrong-type", "compute_capability"),
        ({**LEAST, "ram_bytes": 64}, "hardware.absurd-size", f"write {64 * GIB}"),
        ({**LEAST, "gpus": [{**CARD, "index": 1}] * 2}, "hardware.same-index", "gpus[1].index"),
        ({**LEAST, "gpus": [CARD] * 5000}, "hardware.too-many-gpus", "5000"),
        ({**LEAST, "gpus": CARD}, "hardware.wrong-type", "gpus"),
        ({}, "hardware.nothing-described", '"ram_bytes"'),
        ([LEAST], "hardware.wrong-type", "the document"),
    ],
)  # fmt: skip
def test_what_no_machine_has_is_refused_by_the_fields_name(load, document, code, words):
    error = refused(load, document)
    assert error.code == code
    assert words in str(error)
    assert "machine.json" in " ".join(error.detail)


def test_parts_of_mig_host_and_disks_are_checked_too(load):
    piece = {"profile": "1g.10gb", "total_bytes": 9 * GIB, "free_bytes": 10 * GIB}
    assert "mig[0].free_bytes" in refused(load, with_card(mig_enabled=True, mig=[piece])).what
    host = {"ram_total_bytes": GIB, "ram_available_bytes": 2 * GIB}
    assert "host.ram_available_bytes" in refused(load, {"gpus": [], "host": host}).what
    disk = {"purpose": "any", "total_bytes": 1, "free_bytes": 2}
    assert "host.disks[0]" in refused(load, {"gpus": [CARD], "host": {"disks": [disk]}}).what


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "line 1"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"ram_bytes": NaN}', "NaN"),
        (b'{"ram_bytes": Infinity}', "Infinity"),
        (b'{"gpus": [], "gpus": []}', "'gpus' is given twice"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"ram_bytes": 1' + b"0" * 5000 + b"}", "digits"),
    ],
)
def test_a_file_that_is_not_json_is_told_with_the_reason(load, content, words):
    error = refused(load, content)
    assert error.code == "hardware.not-json"
    assert words in error.why


def test_a_byte_order_mark_does_no_harm(load):
    assert load(b"\xef\xbb\xbf" + json.dumps(LEAST).encode()).gpus


def test_a_huge_file_is_not_read_to_its_end(load):
    assert refused(load, b" " * (MOST_BYTES + 1)).code == "hardware.file-too-large"


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(QuantuiError) as missing:
        described_hardware(str(tmp_path / "none.json"))
    assert missing.value.code == "hardware.file-not-found"
    with pytest.raises(QuantuiError) as folder:
        described_hardware(str(tmp_path))
    assert folder.value.code == "hardware.file-unreadable"
    assert "directory" in folder.value.why


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "~nobody-at-all/x"])
def test_a_name_that_no_file_can_have_is_an_error_not_a_crash(name):
    with pytest.raises(QuantuiError):
        described_hardware(name)


def test_every_field_of_a_described_mig_device_is_kept(load):
    piece = {"profile": "1g.10gb", "total_bytes": 9 * GIB, "free_bytes": 9 * GIB}
    (gpu,) = load(with_card(mig_enabled=True, mig=[piece])).gpus
    assert gpu.mig == (MigSlice(profile="1g.10gb", total_bytes=9 * GIB, free_bytes=9 * GIB),)


def test_the_one_disk_stands_for_every_purpose(load):
    assert load(LEAST).host.disks == (Disk("any", free_bytes=500 * GIB),)
