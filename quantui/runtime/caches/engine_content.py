"""What the files of an environment should be: each wheel says it in its ``RECORD`` (PyPA, "Recording projects")."""

from __future__ import annotations

import base64
import binascii
import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.caches.verification import Finding, Soundness
from quantui.runtime.caches.content import Expected
from quantui.runtime.caches.hub_content import Content

if TYPE_CHECKING:
    from quantui.domain.caches.items import CacheItem


def engine_content(item: CacheItem) -> Content:
    """Every file of every installed package with its hash; compiled modules and what has none are left out.

    A file that two packages claim may be either's: the one installed last wrote it.
    """
    content = Content()
    digests: dict[str, set[str]] = {}
    found = sorted(Path(item.path).glob("lib/python3*/site-packages/*.dist-info"))
    for package in found:
        record, site = package / "RECORD", str(package.parent)
        try:
            rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines()))
        except FileNotFoundError:
            what = "has no RECORD: what it installed is not known"
            content.findings.append(Finding(what, package.stem, counts=Soundness.INCOMPLETE))
            continue
        except (OSError, ValueError, csv.Error) as error:
            what = f"cannot be read: {error}"
            content.findings.append(Finding(what, os.path.relpath(record, item.path)))
            continue
        for row in rows:
            digest = _sha256(row[1]) if len(row) >= 2 and not row[0].endswith(".pyc") else None
            if digest is None:
                continue
            path = os.path.normpath(os.path.join(site, row[0]))  # noqa: PTH118
            if path.startswith(item.path + os.sep):
                digests.setdefault(path, set()).add(digest)
    content.expected = [
        Expected(path, os.path.relpath(path, item.path), "sha256", frozenset(known))
        for path, known in sorted(digests.items())
    ]
    if not content.expected and not content.findings:
        what = "no package in it says what its files should be"
        content.findings.append(Finding(what, counts=Soundness.UNKNOWN))
    return content


def _sha256(told: str) -> str | None:
    """The hex of ``sha256=`` and URL-safe base64 without padding; None for anything else."""
    name, _, value = told.partition("=")
    if name != "sha256":
        return None
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except (binascii.Error, ValueError):
        return None
