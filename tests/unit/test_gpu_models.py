"""What a card can do, found by its name."""

from __future__ import annotations

import tomllib
from importlib import resources

import pytest

from quantui.domain.hardware import Gpu, HardwareReport, MigSlice
from quantui.domain.performance.gpu_models import fill_in, gpu_model
from quantui.domain.units import GIB


def named(name: str, **facts: object) -> str | None:
    model = gpu_model(name, **facts)  # type: ignore[arg-type]
    return model.name if model else None


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("Tesla T4", "T4 16 GB"),
        ("NVIDIA T4", "T4 16 GB"),
        ("nvidia-tesla-t4", "T4 16 GB"),
        ("Tesla V100-SXM2-16GB", "V100 SXM 16 GB"),
        ("Tesla V100-PCIE-32GB", "V100 PCIe 32 GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB"),
        ("A100-40GB", "A100 40 GB"),
        ("NVIDIA A10", "A10 24 GB"),
        ("NVIDIA A10G", "A10G 24 GB"),
        ("NVIDIA L4", "L4 24 GB"),
        ("NVIDIA L40S", "L40S 48 GB"),
        ("NVIDIA RTX A6000", "RTX A6000 48 GB"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada 48 GB"),
        ("Quadro RTX 6000", "Quadro RTX 6000 24 GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell 96 GB"),
        ("RTX 3060 12 GB", "RTX 3060 12 GB"),
        ("NVIDIA GeForce RTX 4060 Ti 16GB", "RTX 4060 Ti 16 GB"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti SUPER 16 GB"),
        ("rtx3090", "RTX 3090 24 GB"),
        ("GeForce GTX 1080 Ti", "GTX 1080 Ti 11 GB"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 laptop 16 GB"),
        ("GeForce RTX 2070 with Max-Q Design", "RTX 2070 laptop 8 GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM 80 GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe 80 GB"),
        ("NVIDIA H100 NVL", "H100 NVL 94 GB"),
        ("NVIDIA H200", "H200 141 GB"),
        ("NVIDIA GH200 480GB", "GH200 96 GB"),
        ("NVIDIA GH200 144G HBM3e", "GH200 144 GB"),
        ("NVIDIA B200", "B200 180 GB"),
        ("NVIDIA B300 SXM6 AC", "B300 288 GB"),
        ("NVIDIA GB10", "GB10 128 GB"),
        ("NVIDIA Thor", "Jetson Thor 128 GB"),
    ],
)
def test_names_as_drivers_clouds_and_people_write_them(name: str, card: str) -> None:
    assert named(name) == card


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "RTX 4090/3090 24GB",  # either of two cards
        "A100/H100-80GB",
        "NVIDIA GeForce RTX 6090",  # not known: never taken for a neighbour
        "NVIDIA R200",
        "NVIDIA GeForce RTX 5090 Ti",
        "GRID T4-16Q",  # a share of a card, of unknown size
        "RTX 6000",  # Turing or Ada
        "1g.10gb",  # a slice of what?
        "AMD Instinct MI300X",
    ],
)
def test_what_is_unknown_or_ambiguous_is_not_guessed(name: str | None) -> None:
    assert gpu_model(name) is None


def test_compute_capability_tells_namesakes_apart() -> None:
    assert named("RTX 6000", compute_capability=(8, 9)) == "RTX 6000 Ada 48 GB"
    assert named("RTX 6000", compute_capability=(7, 5)) == "Quadro RTX 6000 24 GB"


def test_a_contradicting_compute_capability_makes_the_card_unknown() -> None:
    assert gpu_model("Tesla T4", compute_capability=(8, 0)) is None


@pytest.mark.parametrize(
    ("gib", "card"), [(12, "RTX 3060 12 GB"), (7.7, "RTX 3060 8 GB"), (6, "RTX 3060 laptop 6 GB")]
)
def test_the_total_chooses_between_sizes_of_one_name(gib: float, card: str) -> None:
    assert named("NVIDIA GeForce RTX 3060", total_bytes=int(gib * GIB)) == card


@pytest.mark.parametrize("gib", [80, 79.65, 79.2, 80e9 / GIB])
def test_the_total_may_be_marketed_or_reported(gib: float) -> None:
    assert named("NVIDIA H100", total_bytes=int(gib * GIB)) == "H100 80 GB"


def test_without_a_size_the_memory_is_unknown_and_the_rest_is_the_least() -> None:
    model = gpu_model("NVIDIA GeForce RTX 3060")
    assert model is not None
    assert model.memory_bytes is None
    assert model.bandwidth_bytes_per_s == 240e9
    assert "least" in model.note


def test_an_unknown_form_gets_the_slower_ones_figures() -> None:
    model, slower = gpu_model("H100-80GB"), gpu_model("NVIDIA H100 PCIe")
    assert model is not None
    assert slower is not None
    assert model.bandwidth_bytes_per_s == slower.bandwidth_bytes_per_s
    assert model.tflops_fp8 == slower.tflops_fp8


def test_a_card_rebuilt_with_more_memory_keeps_its_speed() -> None:
    model = gpu_model("NVIDIA GeForce RTX 2080 Ti", total_bytes=22 * GIB)
    assert model is not None
    assert model.memory_bytes == 22 * GIB
    assert model == gpu_model("RTX 2080 Ti 22GB")
    assert model.bandwidth_bytes_per_s == 616e9
    assert model.note


def test_less_memory_than_any_form_is_an_unknown_part_of_a_card() -> None:
    assert gpu_model("NVIDIA A100", total_bytes=20 * GIB) is None


@pytest.mark.parametrize(
    ("profile", "compute", "memory"),
    [
        ("1g.10gb", 1 / 7, 1 / 8),
        ("1g.10gb+me", 1 / 7, 1 / 8),
        ("1g.20gb", 1 / 7, 2 / 8),
        ("2g.20gb", 2 / 7, 2 / 8),
        ("3g.40gb", 3 / 7, 4 / 8),
        ("7g.80gb", 1.0, 1.0),
    ],
)
def test_a_mig_slice_scales_arithmetic_and_bandwidth_apart(
    profile: str, compute: float, memory: float
) -> None:
    whole = gpu_model("NVIDIA A100-SXM4-80GB")
    part = gpu_model("NVIDIA A100-SXM4-80GB", mig_profile=profile)
    assert whole is not None
    assert part is not None
    assert whole.tflops_16bit is not None
    assert part.tflops_16bit == pytest.approx(whole.tflops_16bit * compute)
    assert part.bandwidth_bytes_per_s == pytest.approx(whole.bandwidth_bytes_per_s * memory)


def test_a_name_may_hold_the_mig_profile() -> None:
    model = gpu_model("NVIDIA A100-SXM4-80GB MIG 1g.10gb", total_bytes=9728 * 1024**2)
    assert model is not None
    assert model.name == "A100 SXM 80 GB, MIG 1g.10gb"
    assert model.nvlink_bytes_per_s is None


def test_units_that_a_generation_lacks_are_absent() -> None:
    ampere, ada = gpu_model("NVIDIA A100-SXM4-80GB"), gpu_model("NVIDIA L40S")
    hopper, blackwell = gpu_model("NVIDIA H200"), gpu_model("NVIDIA B200")
    assert ampere is not None
    assert ada is not None
    assert hopper is not None
    assert blackwell is not None
    assert ampere.tflops_fp8 is None
    assert ada.tflops_fp8 == 733
    assert hopper.tflops_4bit is None
    assert blackwell.tflops_4bit == 9000


def test_computed_throughput_agrees_with_the_white_papers() -> None:
    # NVIDIA's Ampere GA102, Ada and RTX Blackwell white papers: dense FP16 with FP32 accumulation.
    published = {"RTX 3090": 71, "RTX 4090": 165.2, "RTX 5090": 209.5, "RTX A6000": 154.8}
    for name, tflops in published.items():
        model = gpu_model(name)
        assert model is not None
        assert model.tflops_16bit == pytest.approx(tflops, rel=0.005)


def test_a_described_card_gets_what_its_name_implies() -> None:
    report = HardwareReport(gpus=(Gpu(0, name="NVIDIA L4"),), simulated=True)
    gpu = fill_in(report).gpus[0]
    assert gpu.compute_capability == (8, 9)
    assert gpu.total_bytes == 23034 * 1024**2
    assert gpu.free_bytes is None
    assert gpu.problems[0].code == "hardware.from-table"
    assert gpu.problems[0].severity == "note"


def test_of_several_sizes_the_least_is_taken_and_it_is_said() -> None:
    report = HardwareReport(gpus=(Gpu(0, name="NVIDIA GeForce RTX 3060"),), simulated=True)
    gpu = fill_in(report).gpus[0]
    assert gpu.total_bytes == 8 * GIB
    assert "least" in gpu.problems[0].what


def test_what_was_said_is_not_replaced() -> None:
    report = HardwareReport(
        gpus=(Gpu(0, name="NVIDIA L4", compute_capability=(8, 9), total_bytes=22 * GIB),)
    )
    assert fill_in(report) is report


def test_a_part_of_a_card_has_the_cards_compute_capability() -> None:
    report = HardwareReport(gpus=(Gpu(0, name="NVIDIA A100", total_bytes=20 * GIB),))
    gpu = fill_in(report).gpus[0]
    assert gpu.compute_capability == (8, 0)
    assert gpu.total_bytes == 20 * GIB


def test_an_unknown_card_stays_unknown() -> None:
    report = HardwareReport(gpus=(Gpu(0, name="NVIDIA GeForce RTX 6090"),))
    assert fill_in(report) is report


def test_sizes_of_described_mig_slices_follow_from_their_profiles() -> None:
    slices = (MigSlice(profile="1g.10gb"), MigSlice(profile="2g.20gb", total_bytes=1))
    gpu = Gpu(0, name="NVIDIA A100-SXM4-80GB", mig_enabled=True, mig=slices)
    first, second = fill_in(HardwareReport(gpus=(gpu,))).gpus[0].mig or ()
    assert first.total_bytes == pytest.approx(9728 * 1024**2, rel=0.01)
    assert second.total_bytes == 1


def test_every_line_of_the_table_is_found_by_its_own_name() -> None:
    text = resources.files("quantui.data").joinpath("gpus.toml").read_text(encoding="utf-8")
    for group in tomllib.loads(text).values():
        major, minor = map(int, group["compute_capability"].split("."))
        for line in group["cards"]:
            name = f"{line['name']} {line.get('form', '')} {line['memory_gb']}GB"
            model = gpu_model(name, compute_capability=(major, minor))
            assert model is not None, name
            assert model.bandwidth_bytes_per_s == line["bandwidth_gb_s"] * 1e9, name
            assert model.source, name
            assert model.tflops_16bit == line.get("fp16"), name
