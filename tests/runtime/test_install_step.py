"""A plan installs the engines that are missing: planned with the versions of their locks, made before all else."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
import tiny_engine
from checkpoint_folders import adapter_files, model_files, write
from hollow_engine import make_hollow_engine
from live_processes import carrying
from run_plans import merge_step, plan_of, quantize_step

from quantui.domain.draft import AdapterChoice, Draft, EngineChoice, ModelChoice, QuantizationChoice
from quantui.domain.errors import QuantuiError
from quantui.domain.events import LogLine, MemorySample, Notice, StepFinished, StepPhase
from quantui.domain.plan import TO_REINSTALL, InstallStep
from quantui.engines.specs import engine_spec, load_specs
from quantui.runtime import engine_needs, engine_store, engines, install_run
from quantui.runtime.engine_needs import EngineNeed, locked_site
from quantui.runtime.engine_site import SHOWN
from quantui.runtime.resolve import plan_for
from quantui.runtime.runner import Runner


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The spec of an engine whose one package, a wheel in a folder, runs ``code`` when it is imported."""
    wheels = tmp_path / "wheels"
    for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS", "UV_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))

    def make(code: str = "", **changes):
        wheel = tiny_engine.make_wheel(wheels, "tinypkg", code=code)
        spec = load_specs(tiny_engine.write_spec(tmp_path / "specs", wheel, **changes))["tiny"]
        for module in (engines, engine_needs, install_run):
            monkeypatch.setattr(module, "engine_spec", lambda _: spec)
        return spec

    return make


def install_step(**changes) -> InstallStep:
    values = {
        "id": "install-tiny",
        "title": "install",
        "engine": "tiny",
        "download_bytes": 1000,
        "disk_bytes": 1000,
        "versions": {},
        "needed_by": ("merge",),
    }
    return InstallStep(**{**values, **changes})


def go(plan, *, until=None):
    cancel = threading.Event()
    runner = Runner(plan, cancel, hold_server=False)
    events = []
    for event in runner.run():
        events.append(event)
        if until is not None and until(event):
            cancel.set()
    assert carrying(runner.folder.run_id.encode()) == []
    return events


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def below_engines():
    return sorted(p.name for p in engine_store.engines_dir().iterdir() if p.is_dir())


def test_the_engine_is_made_first_and_its_stages_are_those_of_the_step(tiny, tmp_path):
    tiny()
    events = go(plan_of(install_step(), merge_step(tmp_path)))
    assert [event.step for event in of(StepFinished, events)] == ["install-tiny", "merge"]
    phases = [event.phase for event in of(StepPhase, events) if event.step == "install-tiny"]
    assert phases == ["environment", "resolve", "download", "unpack", "installed", "check"]
    made = of(StepFinished, events)[0].result
    assert made["python"] == str(engine_store.engine_python("tiny"))
    assert made["bytes"] > 0
    assert events[-1].outcome == "ok"


def test_its_log_is_in_the_runs_folder_and_is_this_installs_alone(tiny, tmp_path):
    tiny()
    folder = engine_store.engines_dir()
    folder.mkdir(parents=True)
    (folder / "tiny.install.log").write_text("of last week\n")
    events = go(plan_of(install_step()))
    log = Path(events[0].directory, "install-tiny.log").read_text()
    assert "of last week" not in log
    assert [event.text for event in of(LogLine, events)] == log.splitlines()


def test_memory_is_sampled_meanwhile(tiny):
    tiny(code="import time; time.sleep(2)")
    events = go(plan_of(install_step()))
    began = next(i for i, e in enumerate(events) if isinstance(e, StepPhase))
    assert of(MemorySample, events[began:])


@pytest.mark.parametrize("stage", ["environment", "check"])
def test_cancelling_leaves_nothing_half_made(tiny, stage):
    tiny(code="import time; time.sleep(600)")
    events = go(
        plan_of(install_step()), until=lambda e: isinstance(e, StepPhase) and e.phase == stage
    )
    assert events[-1].outcome == "cancelled"
    assert below_engines() == []
    assert carrying(b"engine-tiny-") == []


def test_closing_the_run_leaves_nothing_half_made(tiny):
    tiny(code="import time; time.sleep(600)")
    events = Runner(plan_of(install_step()), threading.Event()).run()
    next(event for event in events if isinstance(event, StepPhase) and event.phase == "check")
    events.close()
    assert below_engines() == []
    assert carrying(b"engine-tiny-") == []


def test_an_engine_that_does_not_work_is_the_end_of_the_run(tiny, tmp_path):
    tiny(code="raise ImportError('no libcuda')")
    events = go(plan_of(install_step(), merge_step(tmp_path)))
    assert events[-1].error["code"] == "engine.broken"
    assert below_engines() == []


def test_versions_other_than_planned_are_told(tiny):
    tiny()
    events = go(plan_of(install_step(versions={"transformers": "5.0"})))
    (notice,) = of(Notice, events)
    assert notice.level == "warning"
    assert "transformers is absent (planned: 5.0)" in notice.text


def test_a_machine_that_cannot_have_it_is_told_before_anything_is_done(tiny, tmp_path):
    tiny(machines=["s390x"])
    events = go(plan_of(install_step(), merge_step(tmp_path)))
    assert events[-1].error["code"] == "engine.platform"
    assert of(StepFinished, events) == []


def test_a_disk_too_small_for_all_engines_together_is_told_before_anything_is_done(tiny, tmp_path):
    tiny()
    steps = (install_step(disk_bytes=1), install_step(id="install-other", disk_bytes=1 << 60))
    events = go(plan_of(*steps, merge_step(tmp_path)))
    assert events[-1].error["code"] == "disk.not-enough"
    assert of(StepFinished, events) == []


def test_what_was_made_before_needs_no_engine(tiny, tmp_path):
    tiny(machines=["s390x"])
    made = quantize_step(tmp_path)
    go(plan_of(made))
    install = install_step(needed_by=("merge", "quantize"))
    events = go(plan_of(install, merge_step(tmp_path), made))
    assert events[-1].outcome == "ok"
    assert of(StepFinished, events)[0].result == {"needless": True}


def test_a_broken_engine_is_made_anew(tiny):
    tiny()
    go(plan_of(install_step()))
    package = next(engine_store.engine_path("tiny").glob("lib/python*/site-packages/tinypkg"))
    package.rename(package.with_name("elsewhere"))
    need = EngineNeed("tiny", "serve")
    assert need.facts().origin == TO_REINSTALL
    events = go(plan_of(install_step(force=True)))
    assert events[-1].outcome == "ok"
    assert need.facts().origin == "managed"


def test_the_command_is_what_a_person_would_type():
    commands = plan_of(install_step(), install_step(force=True)).commands()
    assert [line for _, line in commands] == [
        "quantui engine install tiny --yes",
        "quantui engine install tiny --yes --force",
    ]


@pytest.fixture
def draft(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = write(tmp_path / "model", model_files(hidden=128))
    adapter = write(tmp_path / "adapter", adapter_files(str(model), hidden=128))
    return Draft(
        model=ModelChoice(id=str(model)),
        adapter=AdapterChoice(id=str(adapter)),
        engine=EngineChoice(name="vllm-cpu"),
        quantization=QuantizationChoice(method="awq"),
    )


def test_without_being_asked_a_missing_engine_is_an_error(draft):
    with pytest.raises(QuantuiError) as raised:
        plan_for(draft)
    assert raised.value.code == "engine.not-installed"


def test_missing_engines_are_planned_for_by_their_locks(draft):
    plan, facts = plan_for(draft, install=True)
    first, second = plan.steps[:2]
    assert [step.kind for step in plan.steps] == [
        "install", "install", "merge", "quantize", "serve", "check",
    ]  # fmt: skip
    assert (first.engine, first.needed_by) == ("vllm-cpu", ("merge", "quantize", "serve"))
    assert (second.engine, second.needed_by) == ("compressor-cpu", ("quantize",))
    spec = engine_spec("vllm-cpu")
    assert (first.download_bytes, first.disk_bytes) == (spec.download_bytes, spec.disk_bytes)
    assert plan.engine.absent
    assert plan.engine.python == str(engine_store.engine_python("vllm-cpu"))
    assert plan.engine.vllm_version == spec.locked_versions["vllm-cpu"]
    assert facts.merge_engine == facts.engine == plan.engine


def test_what_is_planned_is_the_same_as_with_the_engine_there(draft, tmp_path):
    """An artifact's key holds versions: the assumed ones name the artifact that the real ones would."""
    planned, _ = plan_for(replace(draft, quantization=QuantizationChoice()), install=True)
    hollow = make_hollow_engine(
        tmp_path / "engine", versions=engine_spec("vllm-cpu").locked_versions
    )
    here = replace(draft, quantization=QuantizationChoice())
    here = replace(here, engine=EngineChoice(name="vllm-cpu", python=str(hollow.python)))
    real, _ = plan_for(here, install=True)
    assert real.step("install") is None
    assert real.step("merge").artifact == planned.step("merge").artifact
    assert real.engine.versions == planned.engine.versions


def test_a_named_interpreter_that_is_missing_stays_an_error(draft):
    named = replace(draft, engine=EngineChoice(name="vllm-cpu", python="/nonexistent/python"))
    with pytest.raises(QuantuiError) as raised:
        plan_for(named, install=True)
    assert raised.value.code == "engine.python-missing"


def test_an_engine_that_the_machine_cannot_have_is_told_when_planning(tiny):
    tiny(machines=["s390x"])
    with pytest.raises(QuantuiError) as raised:
        EngineNeed("tiny", "serve").facts()
    assert raised.value.code == "engine.platform"


def test_arguments_of_the_persons_own_are_not_checked_by_an_engine_that_is_not_there(draft):
    serve = replace(draft.serve, extra_args={"no_such_flag": True})
    plan, _ = plan_for(replace(draft, serve=serve), install=True)
    assert any("serve.extra_args" in notice for notice in plan.notices)


@pytest.mark.parametrize("name", sorted(load_specs()))
def test_a_lock_tells_what_an_environment_made_from_it_would(name):
    spec = engine_spec(name)
    assumed = locked_site(spec)
    assert assumed["python"].startswith(spec.python)
    assert {k for k in assumed if k != "python"} == set(SHOWN) & set(spec.locked_versions)
    assert "torch" in assumed
