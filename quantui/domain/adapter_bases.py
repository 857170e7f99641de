"""Which adapters may go with a model, by the names of their bases: a guess before anything is compared."""

from __future__ import annotations

from quantui.domain.four_bit import sixteen_bit_candidates


def why_not_for(base: str | None, *models: str | None) -> str:
    """Why an adapter that names ``base`` is probably not for the model known as ``models``; "" if it is.

    ``models`` are its Hub id, its folder and such. Names only: :func:`.check_adapter_fits` knows.
    """
    if base is None:
        return "names no base"
    known = {name.rstrip("/").lower() for name in models if name}
    bases = {name.rstrip("/").lower() for name in (base, *sixteen_bit_candidates(base))}
    if bases & known:
        return ""
    last = {name.rpartition("/")[2] for name in bases}
    if last & {name.rpartition("/")[2] for name in known}:
        # A path on the machine that trained it, or a copy of the model under another owner.
        return ""
    return f"trained on {base}"
