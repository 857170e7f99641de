"""Runs code in a process whose libnvidia-ml.so.1 is the stand-in of tests/fixtures/nvml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from quantui.domain.hardware import HardwareReport

SOURCE = Path(__file__).parent.parent / "fixtures" / "nvml" / "fake_nvml.c"
GIB = 1024**3

PROBE = """
import json, os, sys
from quantui.runtime.probe import probe_hardware
found = []
for path in sys.argv[1:]:
    os.environ["FAKE_NVML_SCENARIO"] = path
    found.append(probe_hardware().to_dict())
print(json.dumps(found))
"""


def gpu(index: int, name: str = "NVIDIA A100-SXM4-80GB", cc: str = "8.0", gib: int = 80) -> str:
    """A healthy idle GPU with 1 GiB reserved."""
    return "\n".join(
        f"gpu {index} {key} {value}"
        for key, value in {
            "name": name,
            "uuid": f"GPU-0000000{index}",
            "total": gib * GIB,
            "free": (gib - 1) * GIB,
            "reserved": GIB,
            "cc": cc,
            "temp": 31 + index,
            "power": 61250,
            "util": 7,
        }.items()
    )


def machine(*gpus: str, also: str = "") -> str:
    """A scenario: these GPUs, a driver, and further statements."""
    return "\n".join((f"count {len(gpus)}", "driver 550.54.15", "cuda 12040", *gpus, also))


@dataclass(frozen=True)
class FakeNvml:
    """A compiled stand-in; ``folder`` goes into LD_LIBRARY_PATH."""

    folder: Path
    work: Path

    @property
    def log(self) -> list[str]:
        """What the library was asked for: init, shutdown, misuse."""
        path = self.work / "nvml.log"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def run(self, code: str, *scenarios: str | bytes, env: dict[str, str] | None = None) -> str:
        """Stdout of ``python -c code FILE...``, with the first scenario as the current one."""
        paths = []
        for position, scenario in enumerate(scenarios):
            path = self.work / f"scenario{position}"
            path.write_bytes(scenario.encode() if isinstance(scenario, str) else scenario)
            paths.append(str(path))
        (self.work / "nvml.log").unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", code, *paths],
            env={
                **{
                    key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"
                },
                "LD_LIBRARY_PATH": str(self.folder),
                "FAKE_NVML_LOG": str(self.work / "nvml.log"),
                "FAKE_NVML_SCENARIO": paths[0] if paths else "",
                **(env or {}),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def probe(
        self, *scenarios: str | bytes, env: dict[str, str] | None = None
    ) -> list[HardwareReport]:
        """A report a scenario, all from one process."""
        documents = json.loads(self.run(PROBE, *scenarios, env=env))
        return [HardwareReport.from_dict(document) for document in documents]


def compile_fake(folder: Path, *without: str) -> Path:
    """Compile the stand-in, leaving out what an older driver lacks; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        + [f"-DWITHOUT_{name}" for name in without]
        + ["-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)],
        check=True,
    )
    return folder
