"""Calibration data: texts from anywhere, as token ids of equal length, with a report and a fingerprint.

The same source, seed and length give the same samples; asking for fewer gives the first of them, unless
short texts are joined.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from quantui_wire import notice, progress
from streaming_merge.checkpoint import read_config

from quantizing.calibration import builtin, hub, sources, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantizing.calibration.sources import Document
    from quantizing.job import Job

FEW = 16
"""Below so many samples, what is calibrated follows the few texts more than the model."""

SPARE = 20
"""Windows of running texts to choose from, for each sample wanted."""


@dataclass(frozen=True)
class Samples:
    """``ids``: token ids, at most the job's ``length`` each. ``report``: the result's ``calibration``."""

    ids: list[list[int]]
    report: dict[str, Any]


def samples(job: Job, tokenizer: Any) -> Samples:  # noqa: ANN401 - transformers has no stubs
    """The samples that the job's ``calibration`` asks for.

    Raises:
        WorkerError: ``calibration.*``: exit code 2, and 5 for a data set that is not found.
    """
    asked = dict(job.calibration or {})
    source = str(asked.get("source") or "builtin")
    count, seed = int(asked.get("samples") or 128), int(asked.get("seed") or 0)
    length = _length(job, int(asked.get("length") or 512))
    texts = Texts(tokenizer)
    prefix = texts.prefix
    if source == "builtin":
        cutting = _builtin(texts, count, length, seed)
    else:
        render = _renderer(tokenizer)
        documents = (
            hub.read(source, count, render)
            if source.startswith("hub:")
            else sources.read(source, render)
        )
        pieces = list(texts.pieces(documents))
        order = windows.shuffled(len(pieces), seed)
        tokenized: Iterator[list[int]] = chain.from_iterable(
            texts.tokenized(pieces[n], length) for n in order
        )
        many = len(pieces)
        if any(piece.running for piece in pieces):
            # Windows of one long text are as good apart as texts are.
            found = list(islice(tokenized, SPARE * count))
            many = len(found)
            tokenized = (found[n] for n in windows.shuffled(many, seed))
        cutting = windows.cut_and_join(tokenized, many, count, length, prefix)
    return _finished(source, cutting, texts, count, length)


def _builtin(texts: Texts, count: int, length: int, seed: int) -> windows.Cutting:
    """Windows of the English, in the order of the seed, and then of the source code if they are too few."""
    found = windows.Cutting()
    kinds: tuple[Callable[[], Iterable[Document]], ...] = (builtin.prose, builtin.source_code)
    for documents in kinds:
        if len(found.samples) >= count:
            break
        stream: list[int] = []
        for piece in texts.pieces(documents()):
            stream += texts.encode(piece)
        whole = [
            window
            for window in windows.running(stream, length, texts.prefix)
            if len(window) == length
        ]
        found.samples += [whole[n] for n in windows.shuffled(len(whole), seed)]
    if not found.samples:
        raise builtin.no_builtin()
    del found.samples[count:]
    return found


class Texts:
    """Texts on their way to tokens, with what was left out on it."""

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        self._tokenizer = tokenizer
        self._seen: set[bytes] = set()
        self.texts = self.empty = self.duplicates = 0
        self.prefix = first_tokens(tokenizer)

    def pieces(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents without their empty and repeated texts; running ones as one text."""
        for document in documents:
            kept = tuple(text for text in map(_whole, document.texts) if self._is_new(text))
            if kept and document.running:
                yield sources.Document(("\n\n".join(kept),), running=True)
            elif kept:
                yield sources.Document(kept, rendered=document.rendered)

    def _is_new(self, text: str) -> bool:
        plain = " ".join(text.split())
        if not plain:
            self.empty += 1
            return False
        self.texts += 1
        digest = hashlib.sha256(plain.encode()).digest()
        if digest in self._seen:
            self.duplicates += 1
            return False
        self._seen.add(digest)
        return True

    def encode(self, document: Document) -> list[int]:
        """Token ids of a document of one text, without what begins every text."""
        return list(self._tokenizer(document.texts[0], add_special_tokens=False)["input_ids"])

    def tokenized(self, document: Document, length: int) -> Iterator[list[int]]:
        """What a document gives: windows of a running text, else its text."""
        ids = self.encode(document)
        if document.running:
            yield from windows.running(ids, length, self.prefix)
        else:
            # A chat template writes what begins a chat itself.
            yield ids if document.rendered else [*self.prefix, *ids]


def first_tokens(tokenizer: Any) -> list[int]:  # noqa: ANN401
    """The tokens that this tokenizer begins every text with: one (Llama, Gemma) or none (Qwen)."""
    bos = getattr(tokenizer, "bos_token_id", None)
    ids = list(tokenizer("a")["input_ids"])
    return [bos] if bos is not None and ids[:1] == [bos] and len(ids) > 1 else []


def _whole(text: str) -> str:
    """``text`` without halves of surrogate pairs, which JSON can hold and no tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _renderer(tokenizer: Any) -> Callable[[list[dict[str, str]]], str]:  # noqa: ANN401
    def render(messages: list[dict[str, str]]) -> str:
        if not getattr(tokenizer, "chat_template", None):
            raise sources.refused(
                "calibration.no-chat-template",
                "The calibration data are chats, and this model has no chat template.",
                "Without one nobody knows how the model expects a chat to be written.",
                "Copy chat_template.jinja of the model it was trained from into its folder, or give plain "
                "texts (the field `text`).",
            )
        return str(tokenizer.apply_chat_template(messages, tokenize=False))

    return render


def _length(job: Job, wanted: int) -> int:
    """``wanted`` tokens, or as many as the model's context has."""
    config = read_config(job.model)
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    context = (text or {}).get("max_position_embeddings")
    if isinstance(context, int) and SHORTEST_CONTEXT <= context < wanted:
        notice(
            f"The model's context is {context} tokens: samples are of that length, not {wanted}."
        )
        return context
    return wanted


SHORTEST_CONTEXT = 2 * windows.SHORTEST
"""Below this a config means something else by max_position_embeddings."""


def _finished(
    source: str, cutting: windows.Cutting, texts: Texts, count: int, length: int
) -> Samples:
    """The samples with their report; notices for what a person should know.

    Raises:
        WorkerError: ``calibration.empty``.
    """
    ids = cutting.samples
    report = {
        "source": source,
        "fingerprint": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        "texts": texts.texts,
        "used": len(ids),
        "tokens": sum(map(len, ids)),
        "longest_cut": cutting.longest_cut,
        "cut": cutting.cut,
        "joined": cutting.joined,
        "empty": texts.empty,
        "duplicates": texts.duplicates,
        "too_short": cutting.too_short,
    }
    if not ids:
        raise sources.refused(
            "calibration.empty",
            f"Nothing in the calibration data ({source}) can be used.",
            f"It has {texts.texts} texts, {texts.duplicates} of them repeated and "
            f"{cutting.too_short} too short even together, and {texts.empty} empty ones.",
            "Give texts of the kind that the model will see, 128 or more.",
        )
    if source != "builtin":
        _tell(report, count, length)
    progress(len(ids), len(ids), unit="samples", message="calibration data")
    return Samples(ids, report)


def _tell(report: dict[str, Any], count: int, length: int) -> None:
    used = report["used"]
    if used < FEW:
        notice(
            f"Only {used} calibration samples: the result will fit them and little else. The guides say "
            f"128 to 512.",
            level="warning",
        )
    elif used < count:
        notice(f"{used} calibration samples, where {count} were asked for.", level="warning")
    if report["duplicates"]:
        notice(f"{report['duplicates']} calibration texts repeat others and are left out.")
    if report["cut"]:
        notice(
            f"{report['cut']} calibration texts are longer than {length} tokens (the longest "
            f"{report['longest_cut']}) and are cut."
        )
    if report["joined"]:
        notice(f"{report['joined']} calibration samples are joined of several short texts.")
    if report["too_short"]:
        notice(f"{report['too_short']} calibration texts are too short and are left out.")
