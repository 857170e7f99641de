"""Host facts read from /proc and /sys trees as real machines have them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quantui.runtime import probe_host
from quantui.runtime.cgroup import CgroupMemory, cgroup_memory
from quantui.runtime.nvml import Failure
from quantui.runtime.nvml_problems import no_nvml
from quantui.runtime.probe_host import read_disks, read_host

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1_MOUNT = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V1_UNLIMITED = "9223372036854771712\n"
NO_LIBRARY = Failure(12, "NVML Shared Library Not Found")


def write(root: Path, **files: str) -> None:
    """Files below ``root``; ``__`` in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def v2(root: Path, folder: str, limit: str, used: int = 0, inactive: int = 0) -> None:
    path = root / "sys/fs/cgroup" / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text(f"{used}\n")
    (path / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nactive_file 3\n")


def v1(root: Path, folder: str, limit: str, used: int = 0) -> None:
    path = root / "sys/fs/cgroup/memory" / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.limit_in_bytes").write_text(limit)
    (path / "memory.usage_in_bytes").write_text(f"{used}\n")
    (path / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 30\n")


def test_a_v2_limit_is_found_and_droppable_cache_does_not_count_as_used(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/app\n", proc__self__mountinfo=V2_MOUNT)
    v2(tmp_path, "app", "1000", used=400, inactive=100)
    assert cgroup_memory(tmp_path) == CgroupMemory("cgroup v2", 1000, 700)


def test_a_lower_limit_of_an_ancestor_wins(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/pod/app\n", proc__self__mountinfo=V2_MOUNT)
    v2(tmp_path, "pod/app", "1000", used=100)
    v2(tmp_path, "pod", "500", used=450)
    assert cgroup_memory(tmp_path) == CgroupMemory("cgroup v2", 500, 50)


def test_what_an_ancestors_other_children_use_is_not_free(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/pod/app\n", proc__self__mountinfo=V2_MOUNT)
    v2(tmp_path, "pod/app", "500", used=0)
    v2(tmp_path, "pod", "1000", used=900)
    assert cgroup_memory(tmp_path) == CgroupMemory("cgroup v2", 500, 100)


def test_max_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/app\n", proc__self__mountinfo=V2_MOUNT)
    v2(tmp_path, "app", "max", used=100)
    assert cgroup_memory(tmp_path) is None


def test_a_v1_limit_is_found_and_its_largest_number_is_none(tmp_path: Path) -> None:
    write(
        tmp_path,
        proc__self__cgroup="4:memory:/app\n0::/\n",
        proc__self__mountinfo=V1_MOUNT.format(root="/"),
    )
    v1(tmp_path, "app", "1000\n", used=230)
    v1(tmp_path, ".", V1_UNLIMITED)
    assert cgroup_memory(tmp_path) == CgroupMemory("cgroup v1", 1000, 800)
    v1(tmp_path, "app", V1_UNLIMITED)
    assert cgroup_memory(tmp_path) is None


def test_a_containers_mount_of_its_own_part_is_understood(tmp_path: Path) -> None:
    # Without a cgroup namespace, /proc names the host's path and the mount shows its inside.
    write(
        tmp_path,
        proc__self__cgroup="4:memory:/docker/abc/job\n",
        proc__self__mountinfo=V1_MOUNT.format(root="/docker/abc"),
    )
    v1(tmp_path, ".", "1000\n")
    v1(tmp_path, "job", "600\n")
    assert cgroup_memory(tmp_path) == CgroupMemory("cgroup v1", 600, 600)


def test_a_path_that_the_mount_does_not_show_falls_back_to_its_top(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/../../gone\n", proc__self__mountinfo=V2_MOUNT)
    v2(tmp_path, ".", "1000")
    assert cgroup_memory(tmp_path) == CgroupMemory("cgroup v2", 1000, 1000)


def test_nothing_and_nonsense_are_no_limit(tmp_path: Path) -> None:
    assert cgroup_memory(tmp_path) is None
    write(tmp_path, proc__self__cgroup="\n:\nx", proc__self__mountinfo="1 2\n - \n - cgroup2\n")
    assert cgroup_memory(tmp_path) is None


def test_ram_is_the_cgroups_when_that_is_lower(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/app\n", proc__self__mountinfo=V2_MOUNT)
    v2(tmp_path, "app", "5000000", used=1000000)
    host = read_host(tmp_path)
    assert (host.ram_total_bytes, host.ram_available_bytes) == (5000000, 4000000)
    assert host.ram_limit == "cgroup v2"


def test_a_cgroup_limit_above_the_machines_ram_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/app\n", proc__self__mountinfo=V2_MOUNT)
    v2(tmp_path, "app", str(1 << 50))
    host = read_host(tmp_path)
    assert host.ram_limit is None
    assert host.ram_total_bytes is not None
    assert host.ram_total_bytes < 1 << 50


def test_only_flags_that_matter_to_vllm_are_kept(tmp_path: Path) -> None:
    write(tmp_path, proc__cpuinfo="model name\t: Xeon\x1b[31m 6\nflags\t\t: fpu avx2 avx512f mmx\n")
    host = read_host(tmp_path)
    assert (host.cpu_name, host.cpu_flags) == ("Xeon 6", ("avx2", "avx512f"))


def test_arm_names_its_flags_features(tmp_path: Path) -> None:
    write(tmp_path, proc__cpuinfo="processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n")
    assert read_host(tmp_path).cpu_flags == ("asimd", "bf16", "i8mm")


def test_an_unreadable_proc_leaves_the_cpu_unknown(tmp_path: Path) -> None:
    host = read_host(tmp_path)
    assert (host.cpu_name, host.cpu_flags) == (None, None)


def test_a_folder_that_does_not_exist_yet_has_its_parents_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTUI_HOME", str(tmp_path / "not" / "there"))
    disks = {disk.purpose: disk for disk in read_disks(tmp_path)}
    assert list(disks) == ["hub cache", "artifacts", "engines", "tmp"]
    assert disks["artifacts"].path == str(tmp_path / "not/there/artifacts")
    assert disks["artifacts"].free_bytes


def test_the_device_is_the_one_mounted_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = tmp_path.stat().st_dev
    mount = f"1 1 {os.major(number)}:{os.minor(number)} / /x rw shared:1 - ext4 /dev/nvme9n1p1 rw\n"
    write(tmp_path, proc__self__mountinfo=mount)
    monkeypatch.setattr(probe_host, "_folders", lambda: (("tmp", tmp_path),))
    assert [disk.device for disk in read_disks(tmp_path)] == ["/dev/nvme9n1p1"]


def test_no_nvml_and_no_trace_of_a_gpu_is_only_a_note(tmp_path: Path) -> None:
    pci = "sys__bus__pci__devices__0000:01:00.0"
    write(tmp_path, **{f"{pci}__vendor": "0x8086\n", f"{pci}__class": "0x030000\n"})
    problem = no_nvml(NO_LIBRARY, tmp_path)
    assert (problem.code, problem.severity) == ("nvml.no-driver", "note")


def test_an_nvidia_gpu_without_its_library_is_named(tmp_path: Path) -> None:
    pci = "sys__bus__pci__devices__0000:01:00.0"
    write(tmp_path, **{f"{pci}__vendor": "0x10de\n", f"{pci}__class": "0x030200\n"})
    problem = no_nvml(NO_LIBRARY, tmp_path)
    assert (problem.code, problem.severity) == ("nvml.library-not-found", "warning")
    assert "0000:01:00.0" in problem.why


def test_an_nvidia_device_that_is_no_gpu_is_no_trace(tmp_path: Path) -> None:
    pci = "sys__bus__pci__devices__0000:01:00.1"  # the audio function of a graphics card
    write(tmp_path, **{f"{pci}__vendor": "0x10de\n", f"{pci}__class": "0x040300\n"})
    assert no_nvml(NO_LIBRARY, tmp_path).severity == "note"
