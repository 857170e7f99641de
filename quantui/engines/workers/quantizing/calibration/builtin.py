"""Calibration texts that every Python carries: its reference in English, then its library's source.

The English is ``pydoc_data.topics`` without the blocks that the demo model holds out, which are also the
built-in text that perplexity is measured on. It is enough for about 150 samples of 512 tokens; what is
wanted beyond that is source code of modules that have been in the library for long.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from demo_model import text as demo_text
from quantui_wire import WorkerError

from quantizing.calibration.sources import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = (
    "argparse", "ast", "asyncio", "base64", "bdb", "calendar", "codecs", "collections",
    "concurrent", "configparser", "contextlib", "copy", "csv", "dataclasses", "decimal", "difflib",
    "dis", "doctest", "email", "enum", "filecmp", "fractions", "ftplib", "functools", "gettext",
    "gzip", "heapq", "html", "http", "imaplib", "inspect", "ipaddress", "json", "logging",
    "mailbox", "mimetypes", "multiprocessing", "optparse", "os", "pathlib", "pdb", "pickle",
    "pickletools", "platform", "plistlib", "pprint", "pstats", "pyclbr", "pydoc", "queue", "random",
    "re", "sched", "selectors", "shelve", "shlex", "shutil", "smtplib", "socket", "socketserver",
    "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading",
    "timeit", "tokenize", "trace", "traceback", "turtle", "typing", "unittest", "urllib", "uuid",
    "venv", "warnings", "wave", "weakref", "webbrowser", "wsgiref", "xml", "xmlrpc", "zipapp",
    "zipfile",
)  # fmt: skip
"""Modules of the standard library in every Python from 3.11 on."""


def prose() -> list[Document]:
    """The language reference, a document a topic, without what is held out; empty where it is not installed."""
    try:
        return [Document((text,), running=True) for text in demo_text.gather().base]
    except LookupError:
        return []


def source_code() -> Iterator[Document]:
    """The source of :data:`MODULES`, a document a file."""
    library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES:
        folder = library / module
        found = sorted(folder.rglob("*.py")) if folder.is_dir() else [library / f"{module}.py"]
        for file in found:
            if "test" in file.parts or not file.is_file():
                continue
            try:
                yield Document((file.read_text(encoding="utf-8"),), running=True)
            except (OSError, UnicodeDecodeError):
                continue


def held_out() -> str:
    """The part of the language reference that is never calibrated on, about 26,000 characters.

    Raises:
        WorkerError: ``calibration.no-builtin``: this Python came without its documentation.
    """
    try:
        return demo_text.gather().base_held_out
    except LookupError as error:
        raise no_builtin() from error


def no_builtin() -> WorkerError:
    """The error of a Python that was installed in part."""
    return WorkerError(
        "calibration.no-builtin",
        "This engine's Python carries none of the built-in texts.",
        "It was installed without pydoc_data and the library's source.",
        "Name a text of your own (--calibration, --proof-text).",
        exit_code=2,
    )
