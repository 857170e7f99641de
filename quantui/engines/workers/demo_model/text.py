"""English text that every CPython carries, cut into what the demo model is trained and judged on.

Two kinds, from the standard library alone:

- **documentation**: the language reference behind ``help("assert")`` (``pydoc_data.topics``, about
  370 KB without its repeated paragraphs), the domain of the base model;
- **short answers**: a question and an answer in a fixed manner for each documented function and
  class of the standard library, read from its source with ``ast``, the domain of the adapter.

The two do not overlap, and the held-out part of each is never trained on. The text differs a little
between Python versions (checked: 3.11, 3.12, 3.13), nothing here depends on which.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_CHARACTERS = 1500
"""Held-out text is cut in whole blocks of paragraphs of about this size: it reads as prose."""

HELD_OUT_EVERY = 14
"""Each 14th block, and each 14th question, is held out: about 7 %."""

_NOT_LIBRARY = {
    "dist-packages", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages",
    "test", "tests", "turtledemo",
}  # fmt: skip


@dataclass(frozen=True)
class DemoText:
    """Documents to train on, and the text held out of each domain."""

    base: list[str]
    base_held_out: str
    answers: list[str]
    answers_held_out: list[str]


def question_and_answer(question: str, answer: str = "") -> str:
    """The form the adapter is taught, and what the demo tokenizer's chat template renders."""
    return f"Question: {question}\nAnswer:" + (f" {answer}" if answer else "")


def gather() -> DemoText:
    """Read the standard library and split it. Takes about 3 seconds.

    Raises:
        LookupError: this Python was installed without its documentation or its sources.
    """
    train, held_out = _documentation()
    answers = _short_answers()
    if len(answers) < 500:
        raise LookupError(
            f"only {len(answers)} documented functions were found below "
            f"{sysconfig.get_paths()['stdlib']}"
        )
    return DemoText(
        base=train,
        base_held_out="\n\n".join(held_out) + "\n",
        answers=[text for n, text in enumerate(answers) if n % HELD_OUT_EVERY],
        answers_held_out=[text for n, text in enumerate(answers) if n % HELD_OUT_EVERY == 0],
    )


def _documentation() -> tuple[list[str], list[str]]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise LookupError("this Python carries no pydoc_data.topics") from error
    seen: set[str] = set()
    train: list[str] = []
    held_out: list[str] = []
    block_number = 0
    for name in sorted(topics):
        kept: list[str] = []
        for block in _blocks(topics[name], seen):
            block_number += 1
            (held_out if block_number % HELD_OUT_EVERY == 0 else kept).append(block)
        if kept:
            train.append("\n\n".join(kept) + "\n")
    return train, held_out


def _blocks(topic: str, seen: set[str]) -> Iterator[str]:
    """Paragraphs not ``seen`` before, gathered into blocks: topics quote one another at length."""
    block: list[str] = []
    for paragraph in re.split(r"\n\s*\n", topic.strip("\n")):
        key = " ".join(paragraph.split())
        if not key or key in seen:
            continue
        seen.add(key)
        block.append(paragraph)
        if sum(map(len, block)) >= BLOCK_CHARACTERS:
            yield "\n\n".join(block)
            block = []
    if block:
        yield "\n\n".join(block)


def _short_answers() -> list[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    seen: set[str] = set()
    texts: list[str] = []
    for source in sorted(library.rglob("*.py")):
        parts = source.relative_to(library).with_suffix("").parts
        if _NOT_LIBRARY & set(parts) or any(part.startswith("_") for part in parts[:-1]):
            continue
        module = ".".join(parts).removesuffix(".__init__")
        if module.startswith("_"):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for name, is_class, docstring in _documented(tree, module):
            sentence = _first_sentence(docstring)
            if sentence and sentence not in seen:
                seen.add(sentence)
                question = f"What is {name}?" if is_class else f"What does {name} do?"
                texts.append(question_and_answer(question, f"In short: {sentence} That is all."))
    return texts


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, bool, str]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if child.name.startswith("_"):
            continue
        name = f"{prefix}.{child.name}"
        docstring = ast.get_docstring(child)
        if docstring:
            yield name, isinstance(child, ast.ClassDef), docstring
        yield from _documented(child, name)


def _first_sentence(docstring: str) -> str:
    """The first sentence on one line, or nothing where it would not read as one."""
    paragraph = " ".join(docstring.split("\n\n", maxsplit=1)[0].split())
    sentence = re.split(r"(?<=[.])\s", paragraph)[0]
    plain = sentence.isascii() and not re.search(r">>>|->|::|[{}<>=|]", sentence)
    if not (plain and 20 <= len(sentence) <= 160 and sentence[0].isupper()):
        return ""
    return sentence if sentence.endswith(".") else sentence + "."
