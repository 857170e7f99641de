"""A profile records what its choices were made on, and a replay tells what differs."""

from __future__ import annotations

from dataclasses import replace

from test_planning import CPU, LORA, MODEL, draft, facts

from quantui.domain.draft import ServeChoice
from quantui.domain.events import Measured, ServerReady
from quantui.domain.run_state import RunState
from quantui.engines.planning import build_plan
from quantui.engines.recording import differences, with_record

FACTS = facts(adapter=LORA)


def recorded(the_facts=FACTS, state=None, **sections):
    wanted = draft(True, **sections)
    return with_record(
        wanted, the_facts, build_plan(wanted, the_facts), state, "2026-11-21T10:00:00"
    )


def what_differs(saved, the_facts):
    return differences(saved, the_facts, build_plan(saved, the_facts))


def test_what_the_choices_were_made_on_is_recorded():
    record = recorded().recorded
    assert record.saved_at == "2026-11-21T10:00:00"
    assert (record.base_fingerprint, record.adapter_fingerprint) == (
        "base-content",
        "adapter-content",
    )
    assert (record.engine, record.vllm_version, record.hardware) == ("vllm-cpu", "0.32.0", "no GPU")
    assert record.max_model_len == 2048
    assert record.expected_weight_bytes > 0


def test_what_was_measured_is_recorded_beside_it():
    state = RunState(
        ready=ServerReady(at=1.0, url="u", model="m", pid=1, seconds=12.345),
        measured=(
            Measured(at=1.0, name="weights", value=123.0, unit="bytes", source="log"),
            Measured(at=1.0, name="KV cache", value=32768.0, unit="tokens", source="log"),
        ),
    )
    record = recorded(state=state).recorded
    assert (record.measured_weight_bytes, record.kv_cache_tokens, record.load_seconds) == (
        123,
        32768,
        12.3,
    )


def test_the_choices_themselves_are_not_changed():
    wanted = draft(True)
    assert replace(recorded(), recorded=wanted.recorded) == wanted


def test_on_the_same_machine_nothing_differs():
    assert what_differs(recorded(), FACTS) == []


def test_what_differs_is_told_with_what_it_was_and_is():
    changed = facts(
        replace(CPU, versions={**CPU.versions, "vllm-cpu": "0.33.0"}),
        adapter=replace(LORA, fingerprint="retrained"),
        model=replace(MODEL, revision="abc"),
    )
    assert what_differs(recorded(), changed) == [
        "adapter content was adapter-content, is retrained",
        "vLLM was 0.32.0, is 0.33.0",
    ]


def test_of_several_adapters_each_is_recorded_and_a_change_of_any_is_told():
    style = replace(LORA, fingerprint="style-content", source="hub", revision="abc")
    two = facts(adapter=LORA, also=(style,))
    saved = recorded(two)
    assert saved.recorded.adapter_fingerprint == "adapter-content + style-content"
    assert saved.recorded.adapter_revision == "- + abc"
    changed = facts(adapter=LORA, also=(replace(style, fingerprint="retrained"),))
    assert what_differs(saved, changed) == [
        "adapter content was adapter-content + style-content, is adapter-content + retrained"
    ]


def test_a_context_that_is_computed_otherwise_is_told():
    saved = recorded()
    changed = replace(saved, serve=ServeChoice(max_model_len=512))
    assert what_differs(changed, FACTS) == ["context was 2048, is 512"]


def test_a_profile_without_a_record_has_nothing_to_compare():
    assert what_differs(draft(True), FACTS) == []
