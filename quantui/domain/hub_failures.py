"""What a failed call to the Hub means, and what to do about it.

Works on the exceptions of huggingface_hub and its HTTP library by class name, so that neither is
imported here. Texts never quote the exception: it can hold signed addresses.
"""

from __future__ import annotations

import errno

from quantui.domain.errors import ExitCode, QuantuiError

_Texts = tuple[str, str, str, str]
_LOGIN = "Set HF_TOKEN to a token with read access, or run `hf auth login`."

_REFUSALS: dict[str, _Texts] = {
    # A gated repository is a kind of missing one in huggingface_hub: the order matters.
    "GatedRepoError": (
        "model.gated",
        "{ref} is gated: its authors ask for an agreement first.",
        "No token is set.",
        "Accept the conditions at {page}. {login}",
    ),
    "GatedRepoError with token": (
        "model.gated",
        "{ref} is gated: its authors ask for an agreement first.",
        "Your token has not been granted access.",
        "Accept the conditions at {page} with the account of your token.",
    ),
    "RevisionNotFoundError": (
        "model.revision-not-found",
        "{ref} has no revision {revision}.",
        "There is no such branch, tag or commit.",
        "See {page}/tree/main for those there are.",
    ),
    "RepositoryNotFoundError": (
        "model.private-or-missing",
        "{ref} was not found on the Hub.",
        "It does not exist, or it is private: without a token the Hub does not say which.",
        "Check the spelling of owner/name. {login}",
    ),
    "RepositoryNotFoundError with token": (
        "model.not-found",
        "{ref} was not found on the Hub.",
        "It does not exist, or your token may not see it.",
        "Check the spelling of owner/name, and which account the token belongs to.",
    ),
    "DisabledRepoError": (
        "model.disabled",
        "{ref} has been disabled on the Hub.",
        "The Hub's operators or its owner blocked access.",
        "Choose another model.",
    ),
    "RemoteEntryNotFoundError": (
        "model.file-not-found",
        "A file of {ref} is listed by the Hub but cannot be downloaded.",
        "The repository may have changed a moment ago.",
        "Try again; name a --revision to hold on to one version.",
    ),
}
_STATUSES: dict[object, _Texts] = {
    401: (
        "hub.bad-token",
        "The Hub did not accept the token (asked for {ref}).",
        "It is wrong, expired or revoked.",
        "{login}",
    ),
    403: (
        "hub.forbidden",
        "The Hub refuses access to {ref}.",
        "The token is valid but lacks the permission (a fine-grained token?).",
        "Give the token read access to this repository.",
    ),
    429: (
        "hub.rate-limited",
        "The Hub limits requests from here (asked for {ref}).",
        "Too many requests in a short time.",
        "Wait some minutes; a token (HF_TOKEN) raises the limit.",
    ),
    None: (
        "hub.unavailable",
        "{endpoint} failed to answer for {ref}.",
        "HTTP status {status}.",
        "Try again later.",
    ),
}


def explain_hub_failure(
    error: BaseException,
    *,
    ref: str,
    revision: str | None = None,
    endpoint: str = "the Hub",
    has_token: bool = False,
) -> QuantuiError:
    """The :class:`QuantuiError` for an exception that a Hub call for repository ``ref`` raised."""
    names = frozenset(kind.__name__ for kind in type(error).__mro__)
    if "LocalEntryNotFoundError" in names and error.__cause__ is not None:
        return explain_hub_failure(
            error.__cause__, ref=ref, revision=revision, endpoint=endpoint, has_token=has_token
        )
    refusal = next((name for name in _REFUSALS if name in names), None)
    if refusal is not None:
        key = f"{refusal} with token" if has_token else refusal
        return _filled(
            _REFUSALS.get(key, _REFUSALS[refusal]),
            ref=ref,
            revision=repr(revision or "main"),
            page=f"{endpoint}/{ref}",
            login=_LOGIN,
        )
    if "HfHubHTTPError" in names:
        status = getattr(getattr(error, "response", None), "status_code", None)
        texts = _STATUSES.get(status, _STATUSES[None])
        return _filled(texts, ref=ref, endpoint=endpoint, login=_LOGIN, status=status)
    return _local_failure(error, names, ref, endpoint)


def offline(ref: str, missing: tuple[str, ...] = ()) -> QuantuiError:
    """``ref`` is needed from the Hub, and the network is not to be used."""
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        why = f"The Hub cache lacks {', '.join(missing[:3])}{more}."
    else:
        why = "It is not in the Hub cache, and nothing may be fetched."
    return QuantuiError(
        "hub.offline",
        f"{ref} is not completely on this machine, and offline mode is on.",
        why,
        "Unset HF_HUB_OFFLINE (and --offline), or download it where there is a network and copy "
        "the folder.",
        ExitCode.NOT_FOUND,
    )


def unreachable(ref: str, endpoint: str, reason: str) -> QuantuiError:
    """No connection to the Hub."""
    return QuantuiError(
        "hub.unreachable",
        f"{endpoint} could not be reached for {ref}.",
        f"The connection failed ({reason}).",
        "Check the network, HTTPS_PROXY and HF_ENDPOINT; or give a local folder.",
        ExitCode.NOT_FOUND,
    )


def _local_failure(
    error: BaseException, names: frozenset[str], ref: str, endpoint: str
) -> QuantuiError:
    if {"OfflineModeIsEnabled", "LocalEntryNotFoundError"} & names:
        return offline(ref)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return QuantuiError(
            "disk.full",
            f"The disk filled up while downloading {ref}.",
            error.strerror or "",
            "Free space, or move the Hub cache with HF_HOME; finished files are kept.",
            ExitCode.DOES_NOT_FIT,
        )
    if isinstance(error, PermissionError):
        return QuantuiError(
            "hub.cache-not-writable",
            "The Hub cache cannot be written.",
            f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror),
            "Set HF_HOME to a folder of yours, or repair the permissions.",
        )
    if {"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"} & names:
        return QuantuiError(
            "hub.bad-endpoint",
            f"HF_ENDPOINT is not a usable address: {endpoint!r}.",
            "It must begin with http:// or https:// and name a host.",
            "Correct it, or unset it to use the public Hub.",
        )
    if {"TransportError", "TimeoutException", "ConnectError", "ProxyError"} & names:
        return unreachable(ref, endpoint, type(error).__name__)
    return QuantuiError(
        "hub.bad-answer",
        f"The answer of {endpoint} for {ref} could not be understood.",
        f"{type(error).__name__}: it may be a proxy's or a login page's, or a file was damaged on "
        "the way.",
        "Try again; check HF_ENDPOINT and the proxy settings.",
        ExitCode.NOT_FOUND,
    )


def _filled(texts: _Texts, **values: object) -> QuantuiError:
    code, *sentences = texts
    what, why, fix = (sentence.format(**values) for sentence in sentences)
    return QuantuiError(code, what, why, fix, ExitCode.NOT_FOUND)
