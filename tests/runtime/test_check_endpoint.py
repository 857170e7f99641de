"""The check worker, run as a program against a server that answers as vLLM does, or as it should not."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from live_processes import wait_for
from worker_runs import Worker

FAKE = Path(__file__).parents[1] / "fixtures/fake_vllm.py"


@pytest.fixture
def check(tmp_path):
    """Checks a server with the given script; gives the worker's run."""
    servers = []

    def run(script=None, **job):
        script = script or Script()
        script.log, script.seen = "", str(tmp_path / "seen")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        path = script.write(tmp_path / "script.json")
        options = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "served"]
        servers.append(subprocess.Popen([sys.executable, FAKE, path, *options]))
        wait_for(lambda: _listens(port))
        full = {
            "url": f"http://127.0.0.1:{port}",
            "model": "served",
            "prompt": "The capital of France is",
            "max_tokens": 8,
            "text": None,
            "max_perplexity": None,
            **job,
        }
        return Worker(sys.executable).run("check_endpoint", full, tmp_path)

    yield run
    for server in servers:
        server.kill()
        server.wait()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def requests(tmp_path):
    return [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]


def text_of(tmp_path, words):
    path = tmp_path / "heldout.txt"
    path.write_text(" ".join(["word"] * words))
    return str(path)


def test_the_answer_comes_with_its_tokens_and_the_servers_kv_cache(check):
    result = check(Script(chunks=["", " Par", "is", "."])).result
    assert result["answer"]["text"] == " Paris."
    assert result["answer"]["tokens"] == 4
    assert result["kv_cache_tokens"] == 32768


def test_the_first_token_is_no_later_than_the_last(check):
    answer = check().result["answer"]
    assert 0 < answer["first_token_seconds"] <= answer["seconds"]


def test_the_prompt_is_asked_greedily_and_as_long_as_wanted(check, tmp_path):
    check(max_tokens=3)
    (body,) = [told["body"] for told in requests(tmp_path) if told["path"] == "/v1/completions"]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 3, True)


@pytest.mark.parametrize("chunks", [[], [" ", "\n"]], ids=["nothing", "white space"])
def test_an_empty_answer_fails_the_check(check, chunks):
    error = check(Script(chunks=chunks)).error
    assert (error["code"], error["exit_code"]) == ("check.empty-answer", 6)


def test_a_server_of_another_model_fails_the_check(check):
    error = check(Script(models=["other", "third"])).error
    assert (error["code"], error["exit_code"]) == ("check.wrong-model", 6)
    assert "other, third" in error["why"]


def test_an_error_in_the_middle_of_an_answer_fails_the_check(check):
    error = check(Script(error="EngineCore encountered an issue")).error
    assert (error["code"], error["exit_code"]) == ("check.error", 6)
    assert "EngineCore encountered" in error["why"]


def test_the_key_is_sent_with_every_request(check, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "sk-1")
    check(Script(key="sk-1"), text=text_of(tmp_path, 4)).result  # noqa: B018 - asserts that there is one
    assert {told["key"] for told in requests(tmp_path)} == {"Bearer sk-1"}


def test_a_key_the_server_does_not_take_fails_the_check(check, monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    error = check(Script(key="sk-1")).error
    assert (error["code"], error["exit_code"]) == ("check.refused", 6)
    assert "401" in error["what"]


def test_perplexity_is_the_exponential_of_the_mean_negative_log_likelihood(check, tmp_path):
    # Six tokens in one window: the first has no prediction, the others -2, -3, -1, -2, -3.
    result = check(Script(logprobs=[-1.0, -2.0, -3.0]), text=text_of(tmp_path, 6)).result
    assert result["perplexity"]["tokens"] == 5
    assert result["perplexity"]["perplexity"] == pytest.approx(math.exp(11 / 5), rel=1e-12)


def test_a_long_text_is_measured_in_windows_that_fit_the_context(check, tmp_path):
    # Windows of 3 tokens, two predictions each; the last, of a single token, has none.
    result = check(Script(max_model_len=4), text=text_of(tmp_path, 7)).result
    assert result["perplexity"]["tokens"] == 4
    prompts = [told["body"]["prompt"] for told in requests(tmp_path)
               if told["path"] == "/v1/completions" and not told["body"].get("stream")]  # fmt: skip
    assert prompts == [[0, 1, 2], [3, 4, 5]]


def test_a_perplexity_above_the_limit_fails_the_check(check, tmp_path):
    error = check(Script(logprobs=[-3.0]), text=text_of(tmp_path, 6), max_perplexity=20.0).error
    assert (error["code"], error["exit_code"]) == ("check.perplexity", 6)
    assert "20.09" in error["what"]
    assert "check.max_perplexity = 20.0" in error["what"]


def test_a_perplexity_below_the_limit_passes(check, tmp_path):
    assert check(Script(logprobs=[-3.0]), text=text_of(tmp_path, 6), max_perplexity=20.1).result


@pytest.mark.parametrize("logprob", [-1000.0, -math.inf], ids=str)
def test_a_model_that_finds_the_text_impossible_fails_without_a_limit_too(check, tmp_path, logprob):
    error = check(Script(logprobs=[logprob]), text=text_of(tmp_path, 6)).error
    assert (error["code"], error["what"]) == ("check.perplexity", "The perplexity is inf.")


def test_a_text_of_one_token_measures_nothing(check, tmp_path):
    error = check(text=text_of(tmp_path, 1)).error
    assert (error["code"], error["exit_code"]) == ("check.text-too-short", 2)


def test_a_text_that_is_no_text_is_bad_input(check, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    error = check(text=str(tmp_path / "binary")).error
    assert (error["code"], error["exit_code"]) == ("check.bad-text", 2)


def test_a_proxy_of_the_environment_is_not_asked(check, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert check().result


def test_a_server_that_dies_while_it_answers_is_an_error_of_the_engine(check):
    run = check(Script(die_after=1))
    assert run.exit_code == 1
    assert run.error["exit_code"] == 4
