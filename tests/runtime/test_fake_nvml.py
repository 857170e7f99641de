"""The stand-in is what nvidia-ml-py takes for NVML: same structs, versions and errors."""

from __future__ import annotations

import json

import pytest
from fake_nvml import FakeNvml, compile_fake, gpu, machine

STRUCTS = """
import ctypes, json, pynvml
pynvml.nvmlInit()
names = ["c_nvmlMemory_t", "c_nvmlMemory_v2_t", "c_nvmlProcessInfo_v2_t", "c_nvmlProcessInfo_v3_t",
         "c_nvmlUtilization_t", "c_nvmlTemperature_v1_t"]
ours = {n: pynvml.nvmlLib.fake_sizeof(n.encode()) for n in names}
theirs = {n: ctypes.sizeof(getattr(pynvml, n)) for n in names}
print(json.dumps([ours, theirs]))
"""

MEMORY = """
import json, pynvml, sys
from quantui.runtime.nvml import MEMORY_VARIANTS
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
v1 = pynvml.nvmlDeviceGetMemoryInfo(handle)
v2 = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
try:
    pynvml.nvmlDeviceGetMemoryInfo(handle, 0x03000028)
    refused = None
except pynvml.NVMLError as error:
    refused = error.value
print(json.dumps({
    "v1": [v1.total, v1.used, v1.free], "v2": [v2.total, v2.reserved, v2.used, v2.free],
    "refused": refused, "binding": pynvml.nvmlMemory_v2, "ours": MEMORY_VARIANTS[0][1],
}))
"""

WHICH = """
import pynvml
pynvml.nvmlInit()
print([line.split()[-1] for line in open("/proc/self/maps") if "libnvidia-ml" in line][0])
"""


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeNvml:
    return FakeNvml(compile_fake(tmp_path_factory.mktemp("lib")), tmp_path_factory.mktemp("work"))


def test_nvidia_ml_py_loads_the_stand_in_by_its_own_path(fake: FakeNvml) -> None:
    assert fake.run(WHICH, machine()).strip() == str(fake.folder / "libnvidia-ml.so.1")


def test_structs_have_the_sizes_the_binding_expects(fake: FakeNvml) -> None:
    ours, theirs = json.loads(fake.run(STRUCTS, machine()))
    assert 0 not in ours.values()
    assert ours == theirs


def test_memory_fields_arrive_where_the_binding_reads_them(fake: FakeNvml) -> None:
    scenario = machine("gpu 0 total 1000\ngpu 0 free 300\ngpu 0 reserved 50")
    found = json.loads(fake.run(MEMORY, scenario))
    assert found["v1"] == [1000, 700, 300]
    assert found["v2"] == [1000, 50, 650, 300]


def test_a_struct_version_it_does_not_know_is_refused_as_nvml_does(fake: FakeNvml) -> None:
    found = json.loads(fake.run(MEMORY, machine(gpu(0))))
    assert found["refused"] == 25


def test_the_probe_asks_for_the_version_the_binding_names(fake: FakeNvml) -> None:
    found = json.loads(fake.run(MEMORY, machine(gpu(0))))
    assert found["ours"] == found["binding"]


def test_a_call_without_init_is_answered_and_noted(fake: FakeNvml) -> None:
    code = (
        "import ctypes; lib = ctypes.CDLL('libnvidia-ml.so.1');"
        "print(lib.nvmlDeviceGetCount_v2(ctypes.byref(ctypes.c_uint())))"
    )
    assert fake.run(code, machine()).strip() == "1"
    assert fake.log == ["misuse uninitialized nvmlDeviceGetCount_v2"]


def test_a_misspelt_statement_is_noted(fake: FakeNvml) -> None:
    fake.run("import pynvml; pynvml.nvmlInit()", machine(also="gpus 3"))
    assert "misuse bad-statement gpus 3" in fake.log
