"""Read calibration texts from files: what is in them, or one clear error about it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError, notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MOST_CHARACTERS = 64_000_000
"""What is read of one source: far more than 512 samples need, and what fits into memory."""

SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".parquet")

_NAMES = ("text", "content", "completion", "messages", "conversations")
_FIELDS = "`text`, `content`, `prompt` and `completion`, or a chat in `messages` or `conversations`"


@dataclass(frozen=True)
class Document:
    """Texts that belong together. ``running``: they follow one another and are cut anywhere; otherwise
    each is a sample of its own, which begins as the model will see such texts begin.

    ``rendered``: a chat template made them, special tokens and all.
    """

    texts: tuple[str, ...]
    running: bool = False
    rendered: bool = False


def read(source: str, render: Callable[[list[dict[str, str]]], str]) -> Iterator[Document]:
    """The documents of a file or folder, in the order of their names.

    Raises:
        WorkerError: ``calibration.*``, exit code 2.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise refused(
            "calibration.no-file",
            f"There is no {path}.",
            "",
            "Check the path of the calibration data.",
        )
    left = MOST_CHARACTERS
    for file in files(path):
        try:
            documents = _READERS[file.suffix.lower()](file, render)
            for document in documents:
                yield document
                left -= sum(map(len, document.texts))
                if left < 0:
                    notice(
                        f"Only the first {MOST_CHARACTERS // 10**6} million characters of {path} are "
                        "read: more than calibration needs."
                    )
                    return
        except OSError as error:
            raise refused(
                "calibration.unreadable",
                f"{file} cannot be read.",
                error.strerror or str(error),
                "Give a file that you may read.",
            ) from error


def files(path: Path) -> list[Path]:
    """``path`` itself, or every file with texts below it; hidden ones are skipped.

    Raises:
        WorkerError: ``calibration.unknown-kind``, ``calibration.empty``.
    """
    if path.is_dir():
        found = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file()
            and file.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not found:
            raise refused(
                "calibration.empty",
                f"{path} holds no calibration data.",
                f"No file in it ends in {', '.join(SUFFIXES)}.",
                "Name a folder with such files, or a file.",
            )
        return found
    if path.suffix.lower() not in SUFFIXES:
        raise refused(
            "calibration.unknown-kind",
            f"{path} is of no kind that calibration reads.",
            f"The kinds are {', '.join(SUFFIXES)}.",
            "Rename it if it is one of them, or convert it.",
        )
    return [path]


def _read_text(file: Path, _: object) -> Iterator[Document]:
    paragraphs = re.split(r"\n\s*\n", text_of(file))
    yield Document(tuple(paragraphs), running=True)


def _read_json_lines(
    file: Path, render: Callable[[list[dict[str, str]]], str]
) -> Iterator[Document]:
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if line.strip():
            yield record(parsed(line, f"{file}, line {number},"), f"{file}, line {number},", render)


def _read_json(file: Path, render: Callable[[list[dict[str, str]]], str]) -> Iterator[Document]:
    entries = parsed(text_of(file), str(file))
    if not isinstance(entries, list):
        raise refused(
            "calibration.bad-json",
            f"{file} is no list.",
            f"Its outermost value is {_kind(entries)}.",
            "Give a JSON list of texts or objects, or one object a line in a .jsonl file.",
        )
    for number, entry in enumerate(entries, 1):
        yield record(entry, f"{file}, entry {number},", render)


def _read_parquet(file: Path, render: Callable[[list[dict[str, str]]], str]) -> Iterator[Document]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise refused(
            "calibration.no-parquet",
            f"{file} is a Parquet file, and this engine cannot read those.",
            "It lacks pyarrow.",
            "Convert the file to .jsonl.",
        ) from error
    try:
        rows = parquet.ParquetFile(file)
        number = 0
        for batch in rows.iter_batches(batch_size=256):
            for entry in batch.to_pylist():
                number += 1
                yield record(entry, f"{file}, row {number},", render)
    except pyarrow.ArrowException as error:
        raise refused(
            "calibration.bad-parquet",
            f"{file} is no whole Parquet file.",
            str(error)[:300],
            "Give a file as datasets or pyarrow writes it.",
        ) from error


_READERS: dict[str, Callable[..., Iterable[Document]]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def text_of(file: Path) -> str:
    """The file's text; a byte order mark and Windows line ends are taken away.

    Raises:
        WorkerError: ``calibration.not-utf8``.
    """
    with file.open("rb") as opened:
        # A character takes at most four bytes; what is cut in the middle is no error of the file's.
        raw = opened.read(4 * MOST_CHARACTERS)
    whole = len(raw) < 4 * MOST_CHARACTERS
    try:
        text = raw.decode("utf-8-sig", errors="strict" if whole else "ignore")
    except UnicodeDecodeError as error:
        raise refused(
            "calibration.not-utf8",
            f"{file} is no text in UTF-8.",
            f"Byte {error.start} is 0x{raw[error.start]:02x}.",
            "Save it as UTF-8.",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parsed(text: str, where: str) -> object:
    """``text`` as JSON.

    Raises:
        WorkerError: ``calibration.bad-json``.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused(
            "calibration.bad-json",
            f"{where} is no JSON.".replace(", is", " is"),
            str(error)[:300],
            "Mend or remove it.",
        ) from error


def record(entry: object, where: str, render: Callable[[list[dict[str, str]]], str]) -> Document:
    """The text of one JSON value: a string, or an object with one of the known fields.

    Raises:
        WorkerError: ``calibration.no-field``, ``calibration.no-chat-template``,
            ``calibration.chat-template``.
    """
    if isinstance(entry, str):
        return Document((entry,))
    if isinstance(entry, dict):
        for field in ("messages", "conversations"):
            if isinstance(entry.get(field), list):
                return Document((_rendered(entry[field], where, render),), rendered=True)
        if isinstance(entry.get("text"), str):
            return Document((entry["text"],))
        prompt, completion = entry.get("prompt"), entry.get("completion")
        if isinstance(prompt, str) and isinstance(completion, str):
            return Document((prompt + completion,))
        if isinstance(prompt, list) and isinstance(completion, list):
            return Document((_rendered([*prompt, *completion], where, render),), rendered=True)
        if isinstance(entry.get("content"), str):
            return Document((entry["content"],))
        if any(name in entry and entry[name] is None for name in _NAMES):
            # A data set with gaps: counted as empty.
            return Document(("",))
        names = ", ".join(map(str, list(entry)[:10])) or "none"
        found = f"It has the fields {names}."
    else:
        found = f"It is {_kind(entry)}."
    raise refused(
        "calibration.no-field",
        f"{where} holds no text that calibration knows.",
        found,
        f"Name the text {_FIELDS}.",
    )


def _rendered(
    messages: list[Any], where: str, render: Callable[[list[dict[str, str]]], str]
) -> str:
    plain = [_message(message) for message in messages]
    known = [message for message in plain if message is not None]
    if len(known) < len(plain) or not known:
        raise refused(
            "calibration.no-field",
            f"{where} holds a chat that is none.",
            "A message has `role` and `content`, or `from` and `value`.",
            "Mend or remove it.",
        )
    try:
        return render(known)
    except WorkerError:
        raise
    # The template is a program of the model's author, and refuses what it likes.
    except Exception as error:
        raise refused(
            "calibration.chat-template",
            f"The model's chat template refuses {where}".rstrip(",") + ".",
            f"{type(error).__name__}: {error}"[:300],
            "Mend or remove this chat: some templates want user and assistant in turn, and no system.",
        ) from error


_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
"""What ShareGPT's files call the roles."""


def _message(message: object) -> dict[str, str] | None:
    if not isinstance(message, dict):
        return None
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None and message.get("tool_calls"):
        content = ""
    if not isinstance(role, str) or not isinstance(content, str):
        return None
    return {"role": _ROLES.get(role, role), "content": content}


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return names.get(type(value), "null" if value is None else "a number")


def refused(code: str, what: str, why: str, fix: str, exit_code: int = 2) -> WorkerError:
    """An error of the user's data."""
    return WorkerError(code, what, why, fix, exit_code=exit_code)
