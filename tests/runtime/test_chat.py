"""Talking to a served model: what comes piece by piece, how it ends, how it is stopped, and what goes wrong."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from fake_vllm import Script
from live_processes import wait_for
from run_plans import serve_step

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.chat import NO_TEMPLATE, ChatDelta, ChatEnd, chat, snippets

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def server(tmp_path):
    """Starts a stand-in for vLLM that serves ``served``; gives its URL."""
    started = []

    def start(**script):
        script.setdefault("seen", str(tmp_path / "seen"))
        step = serve_step(tmp_path, Script(log="", **script))
        started.append(subprocess.Popen(step.argv))
        url = f"http://127.0.0.1:{step.port}"

        def answers():
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"{url}/health").status == 200

        wait_for(answers)
        return f"{url}/v1"

    yield start
    for process in started:
        process.kill()
        process.wait()


def ask(url, messages=HELLO, *, model="served", **options):
    """(text, end) of an answer."""
    *deltas, end = chat(url, model, messages, max_tokens=8, **options)
    assert isinstance(end, ChatEnd)
    return "".join(delta.text for delta in deltas), end


def requests(tmp_path):
    return [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]


def failure(*args, **options):
    with pytest.raises(QuantuiError) as raised:
        ask(*args, **options)
    return raised.value


def test_an_answer_comes_piece_by_piece_and_ends_with_its_figures(server):
    *deltas, end = chat(server(), "served", HELLO, max_tokens=8)
    assert deltas == [ChatDelta(" Paris"), ChatDelta(".")]
    assert (end.tokens, end.prompt_tokens, end.finish_reason, end.note) == (2, 5, "stop", "")
    assert 0 < end.first_token_seconds <= end.seconds


def test_the_whole_conversation_is_sent_as_it_is(server, tmp_path):
    talk = [*HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Ünd?"}]
    ask(server(), talk, temperature=0.5)
    (request,) = requests(tmp_path)
    assert request["path"] == "/v1/chat/completions"
    assert request["body"]["messages"] == talk
    assert (request["body"]["temperature"], request["body"]["max_tokens"]) == (0.5, 8)


def test_unless_it_is_chosen_the_temperature_is_the_models_own(server, tmp_path):
    ask(server())
    assert "temperature" not in requests(tmp_path)[0]["body"]


def test_the_key_goes_along(server):
    assert ask(server(key="secret"), api_key="secret")[0] == " Paris."


def test_letters_of_several_bytes_arrive_whole(server):
    assert ask(server(chunks=["Grüße", " 你好", " 🦙"]))[0] == "Grüße 你好 🦙"


def test_a_model_without_a_chat_template_continues_the_last_message_and_says_so(server, tmp_path):
    talk = [*HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "The end"}]
    text, end = ask(server(chat_template=False), talk)
    assert (text, end.tokens, end.note) == (" Paris.", 2, NO_TEMPLATE)
    assert requests(tmp_path)[-1]["body"]["prompt"] == "The end"


def test_what_a_model_thinks_is_told_apart():
    from quantui.runtime.chat import _deltas

    assert list(_deltas({"delta": {"reasoning": "hm"}})) == [ChatDelta("hm", reasoning=True)]


def test_stopping_closes_the_connection_at_once_and_gives_what_came(server, tmp_path):
    gone, stop = tmp_path / "gone", threading.Event()
    url = server(hangs=True, gone=str(gone))
    parts = []
    for part in chat(url, "served", HELLO, max_tokens=8, stop=stop):
        parts.append(part)
        if part == ChatDelta("."):
            stop.set()
    wait_for(gone.exists)
    assert parts[:2] == [ChatDelta(" Paris"), ChatDelta(".")]
    assert (parts[2].finish_reason, parts[2].tokens) == ("stopped", 2)


def test_stopping_helps_before_the_first_word_too(server, tmp_path):
    gone, stop = tmp_path / "gone", threading.Event()
    url = server(hangs=True, gone=str(gone), chunks=[""])

    def stop_it_once_it_was_asked():
        wait_for((tmp_path / "seen").exists)
        stop.set()

    threading.Thread(target=stop_it_once_it_was_asked, daemon=True).start()
    (end,) = chat(url, "served", HELLO, max_tokens=8, stop=stop)
    assert (end.finish_reason, end.first_token_seconds) == ("stopped", None)
    wait_for(gone.exists)


def test_whoever_stops_listening_closes_the_connection(server, tmp_path):
    gone = tmp_path / "gone"
    answer = chat(server(hangs=True, gone=str(gone)), "served", HELLO, max_tokens=8)
    next(answer)
    answer.close()
    wait_for(gone.exists)


def test_where_nothing_listens_that_is_said():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = failure(f"http://127.0.0.1:{port}/v1")
    assert (error.code, error.exit_code) == ("chat.no-answer", ExitCode.ENGINE)
    assert str(port) in error.what


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_key_that_is_refused_is_one_clear_error(server, key):
    error = failure(server(key="secret"), api_key=key)
    assert error.code == "chat.unauthorized"
    assert "wrong" not in str(error)


def test_a_model_that_is_not_served_is_one_clear_error(server):
    error = failure(server(), model="other")
    assert (error.code, error.exit_code) == ("chat.no-model", ExitCode.NOT_FOUND)
    assert "other" in error.what


def test_a_failure_in_the_middle_gives_what_came_and_then_the_error(server):
    answer = chat(server(error="CUDA error"), "served", HELLO, max_tokens=8)
    assert next(answer) == ChatDelta(" Paris")
    with pytest.raises(QuantuiError) as raised:
        list(answer)
    assert (raised.value.code, raised.value.why) == ("chat.failed", "CUDA error")


def test_a_stream_that_breaks_off_is_no_whole_answer(server):
    assert failure(server(breaks_off=True)).code == "chat.broke-off"


def test_a_server_that_dies_meanwhile_is_one_clear_error(server):
    assert failure(server(die_after=0)).code == "chat.broke-off"


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 500 Oops\r\n\r\nno JSON",
    b"HTTP/1.1 400 Bad\r\n\r\n" + json.dumps({"error": {"message": "maximum context length"}}).encode(),
    b"HTTP/1.1 422 Bad\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\n\r\ndata: {\n\n",
    b"what is this\r\n",
    b"",
])  # fmt: skip
def test_whatever_a_server_answers_is_a_clear_error(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        error = failure(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    assert error.code in {"chat.refused", "chat.broke-off"}
    assert error.what
    assert error.fix


NAMES = ["served", 'it\'s "mine"', "$HOME `id` \\ %s", "zwölf 🦙"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("talks", [True, False])
def test_the_curl_line_asks_for_that_model_whatever_its_name(name, talks):
    line = snippets("http://127.0.0.1:8000/v1", name, key_env=None, chat=talks)["curl"]
    words = shlex.split(line.replace("\\\n", " "))
    assert words[1] == f"http://127.0.0.1:8000/v1/{'chat/' if talks else ''}completions"
    assert json.loads(words[words.index("-d") + 1])["model"] == name


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_curl_line_works_in_a_shell_with_the_key_of_the_environment(server, tmp_path):
    name = "it's $HOME"
    line = snippets(server(key="secret"), name, key_env="MY_KEY", chat=False)["curl"]
    assert "secret" not in line
    done = subprocess.run(
        ["sh", "-c", line.replace("curl ", "curl -s ", 1)],
        env={**os.environ, "MY_KEY": "secret"}, check=False, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0
    (request,) = requests(tmp_path)
    assert (request["key"], request["body"]["model"]) == ("Bearer secret", name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", [None, "MY_KEY"])
@pytest.mark.parametrize("talks", [True, False])
def test_the_python_lines_are_python_and_name_the_model(name, key, talks):
    text = snippets("http://127.0.0.1:8000/v1", name, key_env=key, chat=talks)["python"]
    constants = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert name in constants
    assert ("MY_KEY" in constants) == (key is not None)


def test_a_name_that_is_no_variable_is_not_put_into_a_shell_line():
    lines = snippets("http://h/v1", "m", key_env="X; rm -rf ~", chat=True)
    assert "rm" not in lines["curl"] + lines["python"]
