"""Whether what lies on disk is what it was: what a check of a thing tells while it runs and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantui.domain.caches.items import CacheItem


class Soundness(StrEnum):
    """What was found of a thing, from good to bad but for the last."""

    OK = "ok"
    """Every file that has a hash has that hash, and none is missing."""
    INCOMPLETE = "incomplete"
    """Files that belong to it are missing; those that are there are right."""
    DAMAGED = "damaged"
    """A file has other content than it should, or cannot be read."""
    UNKNOWN = "unknown"
    """Nothing says what it should be."""


@dataclass(frozen=True)
class Finding:
    """One thing to say: ``what`` in words, of ``path`` (untrusted; "" for the whole), ``fix``: what to do about it.

    ``counts``: how much it says of the thing; a finding that is OK is only a remark.
    """

    what: str
    path: str = ""
    fix: str = ""
    counts: Soundness = Soundness.DAMAGED


@dataclass(frozen=True)
class Verifying:
    """How far the check of a thing is: bytes read of bytes to read; 0 of 0 before its files are listed."""

    item: CacheItem
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Verified:
    """The end of a thing's check. ``checked_bytes``: bytes whose hash was compared.

    ``findings`` say why it is not OK, worst first; with UNKNOWN what is lacking to check it and how to get that.
    """

    item: CacheItem
    state: Soundness
    findings: tuple[Finding, ...] = ()
    checked_bytes: int = 0

    @property
    def damaged(self) -> bool:
        """Whether something is to be done about it."""
        return self.state in (Soundness.DAMAGED, Soundness.INCOMPLETE)


VerificationEvent = Verifying | Verified

_WORST = (Soundness.DAMAGED, Soundness.INCOMPLETE, Soundness.UNKNOWN, Soundness.OK)


def soundness_of(findings: tuple[Finding, ...]) -> Soundness:
    """What findings come to together: the worst of them; OK when there are none."""
    return min((finding.counts for finding in findings), key=_WORST.index, default=Soundness.OK)


def worst_first(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings in the order to tell them."""
    return tuple(sorted(findings, key=lambda finding: _WORST.index(finding.counts)))
