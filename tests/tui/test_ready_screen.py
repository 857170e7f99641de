"""The Ready step: a chat that streams, figures predicted and measured, snippets, keeping the server or stopping it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from live_processes import carrying
from pilots import screen_text, wait_until
from run_plans import check_step, plan_of, serve_step
from textual.app import App
from wizard_runs import running, shown, wizard

from quantui.tui.widgets.chat_box import ChatBox, ChatInput
from quantui.tui.widgets.served_facts import ServedFacts


async def ready(app, pilot, folder, script=None, **changes):
    plan = plan_of(serve_step(folder, script or Script(), **changes), check_step())
    view = await running(app, pilot, plan)
    await wait_until(pilot, lambda: shown(app) == "ReadyScreen" and app.screen._snippets)
    return view


async def say(pilot, words):
    await pilot.press(*("space" if letter == " " else letter for letter in words), "enter")


def answered(app):
    return not app.screen.query_one(ChatBox).answering and len(app.screen.talk.turns) >= 2


async def test_an_answer_streams_in_with_its_speed(tmp_path):
    async with wizard() as (app, pilot):
        view = await ready(app, pilot, tmp_path, Script(chunks=["The ", "[red]answer", " is 42."]))
        assert view.state.ready.url in screen_text(pilot)
        await say(pilot, "what is it")
        await wait_until(pilot, lambda: "The [red]answer is 42." in screen_text(pilot))
        await wait_until(pilot, lambda: answered(app))
        assert "you  what is it" in screen_text(pilot)
        assert "3 tokens, " in screen_text(pilot)
        assert "first after" in screen_text(pilot)


async def test_the_whole_conversation_and_the_system_prompt_are_sent(tmp_path):
    seen = tmp_path / "seen.jsonl"
    async with wizard() as (app, pilot):
        await ready(app, pilot, tmp_path, Script(chunks=["yes"], seen=str(seen)))
        await pilot.press("escape", "t")
        await say(pilot, "be brief")
        await say(pilot, "one")
        await wait_until(pilot, lambda: answered(app))
        await say(pilot, "two")
        await wait_until(pilot, lambda: answered(app) and len(app.screen.talk.turns) == 4)
        asked = [json.loads(line) for line in seen.read_text().splitlines()]
        chats = [
            one["body"]["messages"] for one in asked if one["path"].endswith("/chat/completions")
        ]
        assert chats[-1] == [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "two"},
        ]


async def test_escape_stops_the_answer_and_then_leaves_the_input(tmp_path):
    async with wizard() as (app, pilot):
        # The check comes first and needs an end: only the chat's answer hangs.
        await ready(app, pilot, tmp_path, Script(chunks=["begun"], hangs=True, hangs_in="chat"))
        await say(pilot, "go")
        await wait_until(pilot, lambda: "begun" in screen_text(pilot))
        await pilot.press("escape")
        await wait_until(pilot, lambda: answered(app))
        assert "stopped" in screen_text(pilot)
        assert isinstance(app.focused, ChatInput)
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(app.focused, ChatInput))
        assert "x stop" in screen_text(pilot).splitlines()[-1]


async def test_a_failing_answer_says_why_and_the_next_one_can_be_asked(tmp_path):
    async with wizard() as (app, pilot):
        await ready(app, pilot, tmp_path)
        app.screen.query_one(ChatBox).connect("http://127.0.0.1:9/v1", "served", None)
        await say(pilot, "go")
        await wait_until(pilot, lambda: answered(app))
        assert "✗ " in screen_text(pilot)


async def test_figures_stand_beside_what_was_predicted(tmp_path):
    async with wizard((120, 40)) as (app, pilot):
        await ready(app, pilot, tmp_path)
        await wait_until(pilot, lambda: "KV cache" in screen_text(pilot))
        text = screen_text(pilot)
        assert "32,768 tokens" in text
        assert "predicted 32,768 tokens (+0.0%)" in text
        await pilot.press("escape", "w")
        await wait_until(pilot, lambda: "vLLM's /metrics" in screen_text(pilot))


async def test_snippets_are_switched_and_copied(tmp_path):
    async with wizard((120, 40)) as (app, pilot):
        view = await ready(app, pilot, tmp_path)
        await wait_until(pilot, lambda: "[curl]" in screen_text(pilot))
        await pilot.press("escape", "y")
        assert view.state.ready.url in app.clipboard
        first = app.clipboard
        await pilot.press("tab", "y")
        assert app.clipboard != first
        assert "openai" in app.clipboard.lower()


async def test_a_narrow_screen_shows_the_figures_on_a_key(tmp_path):
    async with wizard((80, 24)) as (app, pilot):
        await ready(app, pilot, tmp_path)
        assert "KV cache" not in screen_text(pilot)
        await pilot.press("escape", "m")
        await wait_until(pilot, lambda: "KV cache" in screen_text(pilot))
        await pilot.press("m")
        await wait_until(pilot, lambda: "Say something" in screen_text(pilot))


async def test_stopping_asks_and_proves_that_nothing_is_left(tmp_path):
    async with wizard() as (app, pilot):
        view = await ready(app, pilot, tmp_path)
        await pilot.press("escape", "x")
        await wait_until(pilot, lambda: "Stop the server?" in screen_text(pilot))
        await pilot.press("x")
        await wait_until(pilot, lambda: "✓ freed" in screen_text(pilot), within_s=60)
        assert "Stopped after" in screen_text(pilot)
        assert carrying(view.hosted.run_id.encode()) == []


async def test_a_server_that_dies_leads_to_the_failure(tmp_path):
    async with wizard() as (app, pilot):
        view = await ready(app, pilot, tmp_path, Script(die_after=3, status=1))
        await say(pilot, "die")
        await wait_until(pilot, lambda: shown(app) == "FailureScreen", within_s=40)
        assert view.outcome == "failed"
        assert "The server ended while it served." in screen_text(pilot)


async def test_the_conversation_is_still_there_after_another_step(tmp_path):
    async with wizard() as (app, pilot):
        await ready(app, pilot, tmp_path)
        await say(pilot, "remember")
        await wait_until(pilot, lambda: answered(app))
        app.go("run")
        await wait_until(
            pilot, lambda: shown(app) == "ReadyScreen" and "remember" in screen_text(pilot)
        )


async def test_the_key_of_the_server_is_taken_from_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "open-sesame")
    async with wizard() as (app, pilot):
        await ready(app, pilot, tmp_path, Script(key="open-sesame"), api_key_env="MY_KEY")
        await say(pilot, "hello")
        await wait_until(pilot, lambda: answered(app))
        assert "Paris." in screen_text(pilot)
        await pilot.press("escape", "m", "end")
        await wait_until(pilot, lambda: "MY_KEY" in screen_text(pilot))
        assert "open-sesame" not in screen_text(pilot)


async def test_snippets_may_come_before_there_is_a_place_for_them():
    class Facts(App[None]):
        def compose(self):
            facts = ServedFacts()
            facts.offer({"curl": "curl http://here/v1", "python": "import openai"})
            yield facts

    async with Facts().run_test() as pilot:
        await wait_until(pilot, lambda: "curl http://here/v1" in screen_text(pilot))
        facts = pilot.app.query_one(ServedFacts)
        await facts.remove_children()
        facts.next_snippet()
        assert facts.snippet == ("python", "import openai")
