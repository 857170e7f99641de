"""Search the Hub for models that vLLM can serve and for adapters, as a person types a name.

Listings are asked one after another, so that the first results are there early and a search that nobody waits
for any more stops between two of them. All of it is the word of strangers: faces sanitize the texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantui.domain.choosing.variants import classify, for_another_runtime
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.found import Found
from quantui.runtime import hub
from quantui.runtime.hub_listing import listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantui.domain.found import Kind

LIMIT = 50
"""Repositories asked of one listing; the most downloaded come first."""
_EXPAND = ("config", "downloads", "gated", "library_name", "safetensors", "tags")
_LISTINGS: tuple[tuple[Kind, dict[str, Any]], ...] = (
    ("model", {"pipeline_tag": "text-generation", "filter": ["safetensors"]}),
    ("adapter", {"filter": ["peft", "safetensors"]}),
    ("model", {"pipeline_tag": "image-text-to-text", "filter": ["safetensors"]}),
)
"""What is asked for in turn; models that also read images are of another task to the Hub."""
_BASE_TAG = "base_model:adapter:"


def search_hub(
    text: str, stopped: Callable[[], bool] = lambda: False, *, offline: bool | None = None
) -> Iterator[Found]:
    """Models and adapters whose name holds ``text``, each once; of every kind the most downloaded first.

    ``offline`` None follows ``HF_HUB_OFFLINE``. Ends early once ``stopped()``. Raises QuantuiError ``hub.*``
    when the Hub is not to be asked, cannot be reached or does not answer within 15 s.
    """
    if hub.is_offline(offline):
        raise QuantuiError(
            "hub.offline",
            "The Hub is not searched: offline mode is on.",
            "HF_HUB_OFFLINE is set.",
            "Unset it, or choose what is in the Hub cache or in a folder.",
            ExitCode.NOT_FOUND,
        )
    seen: set[str] = set()
    for kind, query in _LISTINGS:
        if stopped():
            return
        with hub.explained("the search"):
            entries = listing({**query, "search": text, "limit": LIMIT}, _EXPAND)
        for entry in entries:
            found = _found(entry, kind)
            if found is not None and found.ref not in seen:
                seen.add(found.ref)
                yield found


def _found(entry: dict[str, Any], asked: Kind) -> Found | None:
    ref = entry.get("id")
    if not isinstance(ref, str):
        return None
    try:
        hub.check_repo_id(ref)
    except QuantuiError:
        return None
    listed = entry.get("tags")
    tags = tuple(tag for tag in listed if isinstance(tag, str)) if isinstance(listed, list) else ()
    bases = [tag.removeprefix(_BASE_TAG) for tag in tags if tag.startswith(_BASE_TAG)]
    adapter = bool(bases) or entry.get("library_name") == "peft"
    if asked == "adapter" and not adapter:
        return None
    config = entry.get("config")
    config = config if isinstance(config, dict) else {}
    stored = None if adapter else classify(ref, config, tags)
    kind = config.get("model_type")
    library = entry.get("library_name")
    named = (*tags, library) if isinstance(library, str) else tags
    foreign = stored is None and for_another_runtime(ref, named)
    return Found(
        "adapter" if adapter else "model",
        "hub",
        ref,
        complete=False,
        stored="" if stored is None else stored[0].text or stored[0].quant_method,
        model_type=kind if isinstance(kind, str) else None,
        base=bases[0] if bases else None,
        parameters=_parameters(entry.get("safetensors"), quantized=stored is not None),
        downloads=_count(entry.get("downloads")),
        gated=bool(entry.get("gated")),
        problem="for another program than vLLM, by its name or tags" if foreign else "",
    )


def _parameters(listed: object, *, quantized: bool) -> int | None:
    """The Hub's count of the stored values: of packed ones it is not that of the parameters."""
    return _count(listed.get("total")) if isinstance(listed, dict) and not quantized else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
