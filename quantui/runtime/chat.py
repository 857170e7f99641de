"""Talking to a served model: one streamed answer, and the lines with which a person asks from elsewhere.

The protocol is OpenAI's as vLLM serves it: ``/v1/chat/completions`` as server-sent events. A model without a chat
template (a base model) is asked through ``/v1/completions`` instead.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shlex
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from quantui.runtime import chat_failures as failures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CONNECT_S = 10.0
_LOOK_S = 0.05
NO_TEMPLATE = "The model has no chat template: your last message was continued as plain text."


@dataclass(frozen=True)
class ChatDelta:
    """A piece of the answer, untrusted; ``reasoning``: of what a reasoning model thinks before it."""

    text: str
    reasoning: bool = False


@dataclass(frozen=True)
class ChatEnd:
    """The end of an answer. ``seconds`` from the request to it; ``first_token_seconds`` None when nothing came.

    ``tokens`` and ``prompt_tokens`` are the server's own counts, None when it told none. ``finish_reason`` is the
    server's (``stop``, ``length``), or ``stopped`` when the answer was stopped here; ``note`` is for the person.
    """

    tokens: int | None
    prompt_tokens: int | None
    seconds: float
    first_token_seconds: float | None
    finish_reason: str
    note: str = ""


def chat(
    url: str,
    model: str,
    messages: Sequence[Mapping[str, str]],
    *,
    api_key: str | None = None,
    max_tokens: int,
    temperature: float | None = None,
    stop: threading.Event | None = None,
) -> Iterator[ChatDelta | ChatEnd]:
    """The model's answer as it comes, a :class:`ChatEnd` at its end; ``messages`` are ``{"role", "content"}``.

    ``url`` ends in ``/v1``. ``stop`` closes the connection at once, and vLLM then stops computing. Raises QuantuiError:
    ``chat.no-answer``, ``chat.unauthorized``, ``chat.no-model``, ``chat.refused``, ``chat.failed``, ``chat.broke-off``.
    """
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "stream": True,
        # The second is vLLM's own: an answer that is stopped has its count too.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if temperature is not None:
        body["temperature"] = temperature
    asked = {**body, "messages": [dict(message) for message in messages]}
    try:
        yield from _answer(url, "/chat/completions", asked, model, api_key, stop)
        return
    except failures.NoChatTemplateError:
        pass
    asked = {**body, "prompt": messages[-1]["content"]}
    yield from _answer(url, "/completions", asked, model, api_key, stop, note=NO_TEMPLATE)


def _answer(
    url: str,
    path: str,
    body: Mapping[str, Any],
    model: str,
    api_key: str | None,
    stop: threading.Event | None,
    *,
    note: str = "",
) -> Iterator[ChatDelta | ChatEnd]:
    started = time.monotonic()
    first: float | None = None
    usage: dict[str, Any] = {}
    reason, over = "", False
    with _Connection(url, stop) as connection:
        try:
            for chunk in connection.post(path, body, model, api_key):
                usage = chunk.get("usage") or usage
                for choice in chunk.get("choices") or ():
                    reason = choice.get("finish_reason") or reason
                    for delta in _deltas(choice):
                        first = time.monotonic() - started if first is None else first
                        yield delta
            over = True
        except (OSError, http.client.HTTPException, ValueError) as error:
            if stop is None or not stop.is_set():
                raise failures.broke_off(url, error) from None
    yield ChatEnd(
        tokens=usage.get("completion_tokens"),
        prompt_tokens=usage.get("prompt_tokens"),
        seconds=time.monotonic() - started,
        first_token_seconds=first,
        finish_reason=reason if over else "stopped",
        note=note,
    )


def _deltas(choice: Mapping[str, Any]) -> Iterator[ChatDelta]:
    """The text of one choice of a chunk; ``reasoning_content`` is what vLLM called it before 0.12."""
    delta = choice.get("delta") or {}
    if thought := delta.get("reasoning") or delta.get("reasoning_content"):
        yield ChatDelta(str(thought), reasoning=True)
    if text := delta.get("content") or choice.get("text"):
        yield ChatDelta(str(text))


class _Connection:
    """One request, and a thread that cuts it off when ``stop`` is set: a read that blocks hears of nothing else."""

    def __init__(self, url: str, stop: threading.Event | None) -> None:
        self._url = url
        self._stop = stop
        self._over = threading.Event()
        parts = urlsplit(url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._path = parts.path.rstrip("/")
        self._http = kind(parts.hostname or "", parts.port, timeout=_CONNECT_S)
        self._response: http.client.HTTPResponse | None = None

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._response is not None:
            self._response.close()
        self._http.close()

    def post(
        self, path: str, body: Mapping[str, Any], model: str, api_key: str | None
    ) -> Iterator[dict[str, Any]]:
        """The JSON events of the answer; raises QuantuiError for what the server refuses."""
        try:
            self._http.connect()
        except OSError as error:
            raise failures.no_answer(self._url, error) from None
        connected = self._http.sock
        # A first token may take minutes on a CPU; whoever waits can stop it.
        connected.settimeout(None)
        if self._stop is not None:
            threading.Thread(
                target=self._cut, args=(self._stop, connected), name="quantui-chat", daemon=True
            ).start()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http.request("POST", self._path + path, json.dumps(body).encode(), headers)
        response = self._response = self._http.getresponse()
        if response.status != 200:
            raise failures.refused(
                response.status, response.read(failures.READ_BYTES), model, self._url
            )
        while line := response.readline():
            data = line.decode("utf-8", "replace").strip()
            if not data.startswith("data:"):
                continue
            data = data.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            chunk = json.loads(data)
            if isinstance(chunk, dict):
                if "error" in chunk:
                    raise failures.failed(chunk["error"])
                yield chunk
        raise http.client.IncompleteRead(b"")

    def _cut(self, stop: threading.Event, connected: socket.socket) -> None:
        while not self._over.is_set():
            if stop.wait(_LOOK_S):
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)
                return


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def snippets(url: str, model: str, *, key_env: str | None, chat: bool) -> dict[str, str]:
    """How to ask the server: ``curl`` for a shell, ``python`` with the openai package; ``url`` ends in ``/v1``.

    ``key_env``: the variable that holds the API key. Without ``chat`` the model continues a text.
    """
    key = key_env if key_env and _VARIABLE.fullmatch(key_env) else None
    asked: dict[str, object] = {"prompt": "The capital of France is"}
    path, call, said = "completions", "completions", "text"
    if chat:
        asked = {"messages": [{"role": "user", "content": "Hello!"}]}
        path, call, said = "chat/completions", "chat.completions", "message.content"
    body = json.dumps({"model": model, **asked, "max_tokens": 128})
    curl = [f"curl {shlex.quote(f'{url}/{path}')}", "-H 'Content-Type: application/json'"]
    curl += [f'-H "Authorization: Bearer ${key}"'] if key else []
    curl += [f"-d {shlex.quote(body)}"]
    named = ", ".join(f"{name}={value!r}" for name, value in asked.items())
    python = [
        *(["import os", ""] if key else []),
        "from openai import OpenAI",
        "",
        f"client = OpenAI(base_url={url!r}, api_key={f'os.environ[{key!r}]' if key else repr('none')})",
        f"answer = client.{call}.create(model={model!r}, {named}, max_tokens=128)",
        f"print(answer.choices[0].{said})",
    ]
    return {"curl": " \\\n  ".join(curl), "python": "\n".join(python)}
