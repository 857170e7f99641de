"""A quantization is measured, made, proven and only then in its place; whatever stops it, nothing lies."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from live_processes import carrying
from run_plans import check_step, merge_step, plan_of, quantize_step, serve_step

from quantui.domain.caches.made_from import Ingredient, MadeFrom
from quantui.domain.errors import ExitCode
from quantui.domain.events import (
    Measured,
    Notice,
    RunFinished,
    StepFailed,
    StepFinished,
    StepPhase,
    StepReused,
    StepStarted,
)
from quantui.runtime.artifacts import ArtifactStore, exclusive
from quantui.runtime.caches.area_sizes import area_sizes
from quantui.runtime.paths import cache_dir
from quantui.runtime.runner import Runner
from quantui.runtime.unfinished import discard_unfinished

WAIT = 'wire.phase("busy")\ntime.sleep(600)'
MAKE = "Path(job['out']).mkdir(); Path(job['out'], 'model.safetensors').write_text(job['device'])"
NO_ROOM = (
    "raise wire.WorkerError('quantize.not-enough-memory', 'No room.', 'Why.', 'Fix.', exit_code=3)"
)
NOT_AGAIN = "raise SystemExit('it ran again')"


@pytest.fixture
def go():
    """Runs a plan to its end; ``until``: cancelled at the first event for which it is true."""
    runners = []

    def run(*steps, until=None, after_run="keep"):
        cancel = threading.Event()
        runner = Runner(plan_of(*steps, after_run=after_run), cancel, hold_server=False)
        runners.append(runner)
        events = []
        for event in runner.run():
            events.append(event)
            if until is not None and until(event):
                cancel.set()
        return events

    yield run
    for runner in runners:
        assert carrying(runner.folder.run_id.encode()) == []


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def end(events):
    assert isinstance(events[-1], RunFinished)
    return events[-1]


def result(events):
    (finished,) = [event for event in of(StepFinished, events) if event.step == "quantize"]
    return finished.result


def texts(events):
    return [notice.text for notice in of(Notice, events)]


def stored():
    """What is in the artifact store, locks left out."""
    root = ArtifactStore().root
    return sorted(p.name for p in root.iterdir() if p.suffix != ".lock") if root.is_dir() else []


# What is made ----------------------------------------------------------------------------------------


def test_what_is_made_and_proven_is_an_artifact_that_says_how(go, tmp_path):
    step = quantize_step(tmp_path, why_not_vllm="why")
    events = go(step)
    assert end(events).outcome == "ok"
    assert stored() == [step.artifact.folder]
    made = ArtifactStore().find(step.artifact).record["made"]
    assert made["proof"]["runtime"] == "vLLM 0.32.0 (CPU)"
    assert (made["base"]["perplexity"], made["proof"]["perplexity"]) == (10.0, 10.5)
    assert made["loss"] == pytest.approx(0.05)
    assert made["device"] == "cpu"
    assert made["why_not_vllm"] == "why"
    assert result(events) == {**made, "reused": False, "path": step.path}
    names = {path.name for path in Path(step.path).iterdir()}
    assert names == {"quantui.json", "model.safetensors"}


def test_perplexity_and_size_are_told_beside_the_16_bit_models(go, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(4096))
    told = {event.name: event for event in of(Measured, go(quantize_step(tmp_path)))}
    assert (told["perplexity"].value, told["perplexity"].base) == (10.5, 10.0)
    assert (told["size on disk"].value, told["size on disk"].base) == (1, 4096)


def test_each_worker_has_its_own_log_and_the_phases_tell_which_runs(go, tmp_path):
    say = "print('{0} speaks', flush=True); wire.phase('load')\n"
    step = quantize_step(
        tmp_path,
        say.format("producer") + MAKE,
        prove=say.format("proof"),
        measure=say.format("reference") + "Path(job['out']).write_text('x')",
    )
    events = go(step)
    folder = Path(events[0].directory)
    for name, word in (
        ("quantize-reference", "reference"), ("quantize", "producer"), ("quantize-proof", "proof"),
    ):  # fmt: skip
        assert (folder / f"{name}.log").read_text() == f"{word} speaks\n"
    assert [event.phase for event in of(StepPhase, events)] == [
        "reference", "reference: load", "load", "proof in vLLM on the CPU", "proof: load",
    ]  # fmt: skip


def test_a_second_run_reuses_it_and_runs_no_worker(go, tmp_path):
    step = quantize_step(tmp_path)
    first = result(go(step))
    events = go(quantize_step(tmp_path, NOT_AGAIN, prove=NOT_AGAIN, measure=NOT_AGAIN))
    assert [event.artifact for event in of(StepReused, events)] == [step.path]
    assert result(events) == {**first, "reused": True}


def test_recreate_makes_it_again(go, tmp_path):
    go(quantize_step(tmp_path))
    events = go(quantize_step(tmp_path, MAKE + "\nwire.notice('again')", recreate=True))
    assert texts(events) == ["again"]
    assert end(events).outcome == "ok"


def test_what_is_served_is_the_quantized_model(go, tmp_path):
    events = go(quantize_step(tmp_path), serve_step(tmp_path, Script()), check_step())
    assert [event.step for event in of(StepFinished, events)] == ["quantize", "serve", "check"]


# Devices ---------------------------------------------------------------------------------------------


def test_without_room_on_the_gpu_it_is_made_on_the_cpu(go, tmp_path):
    body = f"if job['device'] != 'cpu': {NO_ROOM}\n{MAKE}"
    events = go(quantize_step(tmp_path, body, devices=("cuda:0", "cpu")))
    assert [event.detail for event in of(StepStarted, events)] == ["cuda:0", "cpu"]
    (failed,) = of(StepFailed, events)
    assert (failed.final, failed.error["code"]) == (False, "quantize.not-enough-memory")
    assert result(events)["device"] == "cpu"


def test_killed_for_memory_on_the_gpu_it_is_made_on_the_cpu(go, tmp_path):
    body = f"if job['device'] != 'cpu': os.kill(os.getpid(), 9)\n{MAKE}"
    assert end(go(quantize_step(tmp_path, body, devices=("cuda:0", "cpu")))).outcome == "ok"


def test_on_a_gpu_the_producer_sees_that_gpu_alone_and_so_does_the_proof(go, tmp_path):
    say = "wire.notice(job['device'] + ' ' + os.environ['CUDA_VISIBLE_DEVICES'])"
    step = quantize_step(
        tmp_path, f"{say}\n{MAKE}", prove=say, devices=("cuda:3",), proof_device="cuda:1"
    )
    events = go(step)
    assert texts(events) == ["cuda:0 3", "cuda:0 1"]
    assert result(events)["device"] == "cuda:3"


def test_when_no_device_has_room_the_last_reason_is_the_error_and_nothing_is_left(go, tmp_path):
    events = go(quantize_step(tmp_path, NO_ROOM, devices=("cuda:0", "cpu")))
    assert end(events).exit_code == ExitCode.DOES_NOT_FIT
    assert stored() == []


def test_killed_on_the_last_device_the_error_speaks_of_memory(go, tmp_path):
    body = "partial = Path(job['out'] + '.partial'); partial.mkdir(); os.kill(os.getpid(), 9)"
    events = go(quantize_step(tmp_path, body))
    assert "memory" in end(events).error["why"]
    assert end(events).exit_code == ExitCode.DOES_NOT_FIT
    assert stored() == []


def test_a_producer_that_crashes_is_not_tried_elsewhere_and_leaves_nothing(go, tmp_path):
    body = f"{MAKE}\nraise KeyError('x')"
    events = go(quantize_step(tmp_path, body, devices=("cuda:0", "cpu")))
    assert len(of(StepStarted, events)) == 1
    assert end(events).error["code"] == "worker.crashed"
    assert end(events).exit_code == ExitCode.ENGINE
    assert stored() == []


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(go, tmp_path):
    body = (
        f"{MAKE}\nimport errno\nraise OSError(errno.ENOSPC, 'No space left on device', job['out'])"
    )
    events = go(quantize_step(tmp_path, body))
    assert end(events).error["code"] == "disk.full"
    assert end(events).exit_code == ExitCode.DOES_NOT_FIT
    assert stored() == []


def test_a_disk_too_small_is_told_before_the_producer_starts(go, tmp_path):
    events = go(quantize_step(tmp_path, NOT_AGAIN, bytes=1 << 60))
    assert end(events).error["code"] == "disk.too-little"
    assert stored() == []


# The reference ---------------------------------------------------------------------------------------


def references():
    folder = cache_dir() / "references"
    return sorted(p.suffix for p in folder.iterdir() if p.suffix != ".lock")


def test_the_producer_and_the_proof_get_the_reference(go, tmp_path):
    check = "assert Path(job['reference']).read_text() == 'reference', job"
    events = go(quantize_step(tmp_path, f"{check}\n{MAKE}", prove=check))
    assert end(events).outcome == "ok", end(events).error
    assert references() == [".json", ".safetensors"]


def test_a_model_is_measured_once_whatever_is_made_of_it(go, tmp_path):
    go(quantize_step(tmp_path))
    events = go(quantize_step(tmp_path, measure=NOT_AGAIN, recreate=True))
    assert end(events).outcome == "ok"
    assert result(events)["base"]["perplexity"] == 10.0


@pytest.mark.parametrize("what", ["model", "text", "tokens"])
def test_another_model_text_or_number_of_tokens_is_measured_anew(go, tmp_path, what):
    text = tmp_path / "text.txt"
    text.write_text("some text")

    def step(measure, model="b", content=None, tokens=4096):
        made = quantize_step(tmp_path, measure=measure, recreate=True)
        made.artifact.inputs["base"] = model
        made.reference.job.update(tokens=tokens, text=content)
        return made

    go(step("Path(job['out']).write_text('x')"))
    other = {"model": "another", "content": str(text), "tokens": 99}
    change = {"model": "model", "text": "content", "tokens": "tokens"}[what]
    events = go(
        step(WAIT, **{change: other[change]}),
        until=lambda e: getattr(e, "phase", "") == "reference: busy",
    )
    assert end(events).outcome == "cancelled"


def test_a_model_that_cannot_be_held_is_quantized_without_a_reference_and_that_is_said(
    go, tmp_path
):
    check = "assert job['reference'] is None, job"
    step = quantize_step(tmp_path, f"{check}\n{MAKE}", prove=check, measure=NO_ROOM)
    events = go(step)
    assert any("what quantizing cost is not known" in text for text in texts(events))
    assert result(events)["base"] is None
    assert result(events)["loss"] is None
    assert references() == []


def test_a_reference_that_failed_halfway_is_not_kept(go, tmp_path):
    body = "Path(job['out']).write_text('half'); raise KeyError('x')"
    events = go(quantize_step(tmp_path, NOT_AGAIN, measure=body))
    assert end(events).error["code"] == "worker.crashed"
    assert references() == []


def test_without_a_reference_a_limit_on_the_loss_is_refused_before_anything_is_made(go, tmp_path):
    for measure in (None, NO_ROOM):
        events = go(quantize_step(tmp_path, NOT_AGAIN, measure=measure, max_loss=0.02))
        assert end(events).error["code"] == "quantize.no-reference"
        assert end(events).exit_code == ExitCode.DOES_NOT_FIT


# The proof -------------------------------------------------------------------------------------------


LOADS_NOT = "raise wire.WorkerError('prove.does-not-load', 'vLLM did not load it.', 'KeyError: x', exit_code=6)"
CRASHES = "os.kill(os.getpid(), 11)"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prove": LOADS_NOT}, "KeyError: x"),
        ({"prove": CRASHES}, "Signal 11"),
        ({"perplexity": 101.0}, "more than 10 times as high"),
        ({"perplexity": 10.5, "max_loss": 0.02}, "+5.00%, more than the 2.00%"),
        ({"prove": "return {'perplexity': float('nan'), 'finite': True}"}, "finite"),
        ({"prove": "return {'perplexity': 10.0, 'finite': False}"}, "finite"),
    ],
    ids=[
        "does not load",
        "crashes vLLM",
        "ten times worse",
        "above the limit",
        "nan",
        "infinite logits",
    ],
)
def test_what_fails_its_proof_is_set_aside_with_the_reason_and_its_size(
    go, tmp_path, changes, says
):
    body = "Path(job['out']).mkdir(); Path(job['out'], 'x').write_bytes(bytes(3 << 20))"
    step = quantize_step(tmp_path, body, **{"prove": "pass", **changes})
    error = end(go(step)).error
    broken = f"{step.artifact.folder}.broken"
    assert (error["code"], error["exit_code"]) == ("quantize.failed-proof", ExitCode.CHECK_FAILED)
    assert says in error["why"]
    assert f"{broken} (3.0 MiB)" in error["fix"]
    assert stored() == [broken]
    record = json.loads((ArtifactStore().root / broken / "quantui-broken.json").read_text())
    assert says in record["why"]
    assert record["device"] == "cpu"


def test_what_failed_is_never_reused_and_goes_with_the_next_try(go, tmp_path):
    go(quantize_step(tmp_path, perplexity=1000.0))
    step = quantize_step(tmp_path, MAKE + "\nwire.notice('made anew')")
    events = go(step)
    assert texts(events) == ["made anew"]
    assert stored() == [step.artifact.folder]


def test_a_loss_within_the_limit_passes(go, tmp_path):
    assert end(go(quantize_step(tmp_path, perplexity=10.1, max_loss=0.02))).outcome == "ok"


def test_one_made_under_a_greater_limit_is_not_served_under_a_smaller(go, tmp_path):
    step = quantize_step(tmp_path)
    go(step)
    events = go(quantize_step(tmp_path, max_loss=0.02))
    assert end(events).error["code"] == "quantize.failed-proof"
    assert end(events).exit_code == ExitCode.CHECK_FAILED
    assert stored() == [step.artifact.folder]


@pytest.mark.parametrize(
    "prove",
    [NO_ROOM, "os.kill(os.getpid(), 9)", "raise OSError(28, 'No space left on device')"],
    ids=["no memory", "killed for memory", "disk full"],
)
def test_when_the_machine_keeps_the_proof_from_running_the_next_run_goes_on_with_it(
    go, tmp_path, prove
):
    step = quantize_step(tmp_path, prove=prove)
    error = end(go(step)).error
    assert error["exit_code"] == ExitCode.DOES_NOT_FIT
    assert f"{step.artifact.folder}.staged" in error["fix"]
    assert ArtifactStore().find(step.artifact) is None
    events = go(quantize_step(tmp_path, NOT_AGAIN))
    assert end(events).outcome == "ok", end(events).error
    assert result(events)["device"] == "cpu"
    assert stored() == [step.artifact.folder]


def test_an_unproven_one_of_other_inputs_or_with_a_damaged_file_is_made_anew(go, tmp_path):
    step = quantize_step(tmp_path, prove=NO_ROOM)
    go(step)
    staged = ArtifactStore().staged_of(step.artifact)
    (staged / "model.safetensors").write_text("damaged by somebody")
    events = go(quantize_step(tmp_path, MAKE + "\nwire.notice('made anew')"))
    assert texts(events) == ["made anew"]


# Cancelled -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["measure", "produce", "prove"])
def test_cancelled_in_any_phase_nothing_is_left_of_it(go, tmp_path, where):
    bodies = {
        "measure": "Path(job['out']).write_text('half')\n",
        "produce": MAKE + "\n",
        "prove": "",
    }
    body = bodies[where] + WAIT
    step = (
        quantize_step(tmp_path, body)
        if where == "produce"
        else quantize_step(tmp_path, **{where: body})
    )
    events = go(step, until=lambda event: getattr(event, "phase", "").endswith("busy"))
    assert end(events).outcome == "cancelled"
    assert stored() == []
    assert references() == ([] if where == "measure" else [".json", ".safetensors"])


@pytest.mark.parametrize("where", ["produce", "prove"])
def test_closed_early_nothing_is_left_of_it(tmp_path, where):
    body = MAKE + "\n" + WAIT if where == "produce" else WAIT
    step = (
        quantize_step(tmp_path, body) if where == "produce" else quantize_step(tmp_path, prove=body)
    )
    events = Runner(plan_of(step), threading.Event()).run()
    while not getattr(next(events), "phase", "").endswith("busy"):
        pass
    events.close()
    assert stored() == []


def test_waiting_for_another_run_can_be_cancelled(go, tmp_path):
    step = quantize_step(tmp_path)
    with exclusive(ArtifactStore().lock_of(step.artifact), lambda: False):
        events = go(step, until=lambda event: event.type == "run.started")
    assert end(events).outcome == "cancelled"


# After a merge ---------------------------------------------------------------------------------------


def test_the_merged_copy_is_kept_and_it_is_said_how_large_it_is_and_how_to_free_it(go, tmp_path):
    body = "Path(job['out']).mkdir(); Path(job['out'], 'x').write_bytes(bytes(3 << 20))"
    merge = merge_step(tmp_path, body)
    events = go(merge, quantize_step(tmp_path))
    (told,) = texts(events)
    assert f"quantui cache rm {Path(merge.path).name}" in told
    assert "takes 3.0 MiB" in told
    assert 'cleanup.after_run = "delete-merged"' in told
    assert merge.artifact.folder in stored()


def test_asked_to_it_deletes_the_merged_copy_once_the_quantized_one_is_proven(go, tmp_path):
    step = quantize_step(tmp_path)
    events = go(merge_step(tmp_path), step, after_run="delete-merged")
    assert stored() == [step.artifact.folder]
    assert texts(events)[0].startswith("Deleted the merged 16-bit model")


def test_a_failed_quantization_deletes_no_merged_copy(go, tmp_path):
    merge = merge_step(tmp_path)
    go(merge, quantize_step(tmp_path, perplexity=1e6), after_run="delete-merged")
    assert merge.artifact.folder in stored()


def test_what_was_quantized_before_needs_no_merge(go, tmp_path):
    go(merge_step(tmp_path), quantize_step(tmp_path), after_run="delete-merged")
    step = quantize_step(tmp_path, NOT_AGAIN)
    events = go(merge_step(tmp_path, NOT_AGAIN), step)
    assert end(events).outcome == "ok"
    assert [(event.step, event.result.get("needless")) for event in of(StepFinished, events)] == [
        ("merge", True), ("quantize", None),
    ]  # fmt: skip
    assert stored() == [step.artifact.folder]


# Into a folder of the user's -------------------------------------------------------------------------


def to_folder(folder, *bodies, **changes):
    return quantize_step(folder, *bodies, path=str(folder / "out"), to_folder=True, **changes)


def beside(folder):
    return sorted(path.name for path in folder.glob("out*"))


def test_a_folder_of_the_users_has_its_name_only_when_it_is_proven(go, tmp_path):
    body = f"assert not Path({str(tmp_path / 'out')!r}).exists()"
    events = go(to_folder(tmp_path, prove=body))
    assert result(events)["path"] == str(tmp_path / "out")
    assert beside(tmp_path) == ["out"]
    record = json.loads((tmp_path / "out" / "quantui.json").read_text())
    assert record["made"]["proof"]["tokens"] == 4096
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "model.safetensors", "quantui.json",
    ]  # fmt: skip
    assert stored() == []


def test_a_folder_that_exists_is_never_touched(go, tmp_path):
    (tmp_path / "out").mkdir()
    events = go(to_folder(tmp_path, NOT_AGAIN, recreate=True))
    assert end(events).error["code"] == "quantize.exists"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["out.unproven", "out.unproven.partial", "out.broken"])
def test_somebody_elses_folder_beside_it_is_never_touched(go, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis").write_text("mine")
    events = go(to_folder(tmp_path, NOT_AGAIN))
    assert end(events).error["code"] == "quantize.foreign-partial"
    assert (tmp_path / name / "thesis").read_text() == "mine"


def test_broken_into_a_folder_it_is_set_aside_beside_it_and_goes_with_the_next_try(go, tmp_path):
    go(to_folder(tmp_path, perplexity=1e6))
    assert beside(tmp_path) == ["out.broken"]
    go(to_folder(tmp_path))
    assert beside(tmp_path) == ["out"]


def test_unproven_into_a_folder_the_next_run_goes_on_with_the_proof(go, tmp_path):
    go(to_folder(tmp_path, prove=NO_ROOM))
    assert beside(tmp_path) == ["out.unproven"]
    assert end(go(to_folder(tmp_path, NOT_AGAIN))).outcome == "ok"
    assert beside(tmp_path) == ["out"]


def test_cancelled_nothing_is_left_beside_the_folder(go, tmp_path):
    body = f"{MAKE}\n{WAIT}"
    go(to_folder(tmp_path, body), until=lambda event: getattr(event, "phase", "") == "busy")
    assert beside(tmp_path) == []


def test_the_record_says_what_it_was_made_from_and_how_long_that_took(go, tmp_path):
    sources = MadeFrom(Ingredient("owner/llama", "a" * 40), (), ("quantize", "owner/llama"))
    go(quantize_step(tmp_path, made_from=sources))
    (folder,) = [path for path in ArtifactStore().root.iterdir() if path.is_dir()]
    record = json.loads((folder / "quantui.json").read_text())
    assert MadeFrom.from_dict(record["made_from"]) == sources
    assert record["seconds"] > 0


def test_of_one_whose_making_an_earlier_run_did_the_time_is_not_known(go, tmp_path):
    go(to_folder(tmp_path, prove=NO_ROOM))
    go(to_folder(tmp_path, NOT_AGAIN))
    assert json.loads((tmp_path / "out" / "quantui.json").read_text())["seconds"] is None


def test_a_merge_into_a_folder_adds_to_its_proof_what_it_was_made_from(go, tmp_path):
    body = """Path(job['out']).mkdir()
Path(job['out'], 'merge_proof.json').write_text('{"proof": {"all_finite": true}}')"""
    sources = MadeFrom(Ingredient("owner/llama", "a" * 40))
    go(merge_step(tmp_path, body, path=str(tmp_path / "out"), to_folder=True, made_from=sources))
    proof = json.loads((tmp_path / "out" / "merge_proof.json").read_text())
    assert proof["proof"] == {"all_finite": True}
    assert MadeFrom.from_dict(proof["made_from"]) == sources
    assert proof["seconds"] >= 0


# What doctor says of it ------------------------------------------------------------------------------


def test_doctor_names_what_is_unproven_and_what_is_broken(go, tmp_path):
    big = "Path(job['out']).mkdir(); Path(job['out'], 'x').write_bytes(bytes(3 << 20))"
    go(quantize_step(tmp_path, big, prove=NO_ROOM))
    (artifacts,) = [size for size in area_sizes() if size.name == "artifacts"]
    assert artifacts.problem.startswith("1 thing was not made to the end (3.0 MiB): ")
    go(quantize_step(tmp_path, big, prove="pass", perplexity=1e6, recreate=True))
    (artifacts,) = [size for size in area_sizes() if size.name == "artifacts"]
    assert artifacts.problem.startswith("1 result did not pass the proof (3.0 MiB): ")


def test_discarding_a_merge_leaves_what_was_quantized_from_it(go, tmp_path):
    step = quantize_step(tmp_path, prove=NO_ROOM)
    go(step)
    inputs = {"base": "b", "adapter": "a"}
    assert list(discard_unfinished(ArtifactStore(), inputs)) == []
    assert ArtifactStore().staged_of(step.artifact).is_dir()
