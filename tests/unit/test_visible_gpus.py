"""CUDA_VISIBLE_DEVICES is read as CUDA reads it."""

from __future__ import annotations

import pytest

from quantui.domain.fitting.visible_gpus import visible_gpus
from quantui.domain.hardware import Gpu, HardwareReport, MigSlice

GPUS = (
    Gpu(0, uuid="GPU-aaaa-1"),
    Gpu(1, uuid="GPU-aabb-2"),
    Gpu(2, uuid="GPU-cccc-3", mig=(MigSlice(uuid="MIG-1"), MigSlice(uuid="MIG-22"))),
)


def seen(text):
    return [gpu.index for gpu in visible_gpus(HardwareReport(GPUS, cuda_visible_devices=text))]


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        (None, [0, 1, 2]),
        ("1", [1]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("GPU-cccc-3", [2]),
        ("GPU-aab,0", [1, 0]),
        ("MIG-22", [2]),
        ("0,0", [0]),
        # What names nothing hides itself and all that follows it.
        ("", []),
        ("-1", []),
        ("0,7,1", [0]),
        ("GPU-aa", []),
        ("1,none,2", [1]),
    ],
)
def test_which_gpus_are_seen(text, indices):
    assert seen(text) == indices


def test_a_slice_that_is_named_is_the_only_one_of_its_card():
    (gpu,) = visible_gpus(HardwareReport(GPUS, cuda_visible_devices="MIG-22"))
    assert [part.uuid for part in gpu.mig] == ["MIG-22"]
