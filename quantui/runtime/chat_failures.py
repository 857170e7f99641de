"""What goes wrong while a served model answers, as errors with their fix."""

from __future__ import annotations

import http.client
import json

from quantui.domain.errors import ExitCode, QuantuiError

READ_BYTES = 20_000
"""So much of an error's body is read."""


class NoChatTemplateError(Exception):
    """The server cannot make a prompt of messages: the model has no template for it."""


def no_answer(url: str, error: OSError) -> QuantuiError:
    """``chat.no-answer``: nobody listens."""
    return QuantuiError(
        "chat.no-answer",
        f"Nothing answers at {url}.",
        error.strerror or str(error),
        "See whether the server still runs: its log tells.",
        ExitCode.ENGINE,
    )


def refused(status: int, raw: bytes, model: str, url: str) -> QuantuiError:
    """The error of a response that is not 200; raises :class:`NoChatTemplateError` where it says that."""
    message = _message(raw)
    if status == 400 and "chat template" in message.lower():
        raise NoChatTemplateError
    if status in {401, 403}:
        return QuantuiError(
            "chat.unauthorized",
            f"The server refuses the API key ({status}).",
            message,
            "Set the variable that serve.api_key_env names to the key that the server was started with.",
        )
    if status == 404:
        return QuantuiError(
            "chat.no-model",
            f"The server at {url} does not know the model {model}.",
            message,
            "Use the name under which it is served (serve.served_name).",
            ExitCode.NOT_FOUND,
        )
    too_long = "maximum context length" in message
    return QuantuiError(
        "chat.refused",
        "The conversation is longer than the context."
        if too_long
        else f"The server refused the request ({status}).",
        message,
        "Begin a new conversation, or serve with a larger serve.max_model_len."
        if too_long
        else "The server's log has more.",
        ExitCode.BAD_INPUT if status < 500 else ExitCode.ENGINE,
    )


def failed(error: object) -> QuantuiError:
    """``chat.failed``: the server tells an error in the middle of its answer."""
    text = error.get("message") if isinstance(error, dict) else error
    return QuantuiError(
        "chat.failed",
        "The server failed while it answered.",
        str(text)[:500],
        "The server's log has more.",
        ExitCode.ENGINE,
    )


def broke_off(url: str, error: Exception) -> QuantuiError:
    """``chat.broke-off``: the answer has no end."""
    ended = isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected)
    return QuantuiError(
        "chat.broke-off",
        f"The connection to {url} broke off in the middle of the answer.",
        "The server closed it." if ended else str(error) or type(error).__name__,
        "See whether the server still runs: its log tells.",
        ExitCode.ENGINE,
    )


def _message(raw: bytes) -> str:
    """What an error response says: vLLM's ``{"error": {"message": ...}}``, an older one's, or its text."""
    text = raw.decode("utf-8", "replace").strip()
    try:
        told = json.loads(text)
        inner = told.get("error", told)
        text = inner.get("message", text) if isinstance(inner, dict) else str(inner)
    except (ValueError, AttributeError):
        pass
    return str(text)[:500]
