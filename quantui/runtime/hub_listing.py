"""One listing of models, asked of the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_S = 15.0


def listing(query: Mapping[str, Any], expand: Sequence[str]) -> list[dict[str, Any]]:
    """``GET /api/models``, the most downloaded first: what ``HfApi.list_models`` asks, but once.

    It would try again for half a minute, or for several, where the Hub does not answer. ``expand`` names the
    fields of the answer. Raises what huggingface_hub's HTTP library does; see :func:`.hub.explained`.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
    )

    response = get_session().get(
        f"{constants.ENDPOINT}/api/models",
        params={**query, "sort": "downloads", "expand": list(expand)},
        headers=build_hf_headers(library_name="quantui"),
        timeout=TIMEOUT_S,
    )
    hf_raise_for_status(response)
    entries = response.json()
    if not isinstance(entries, list):
        raise ValueError("not a list")
    return [entry for entry in entries if isinstance(entry, dict)]
