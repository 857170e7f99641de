"""What a failed call to the Hub is told as, when it is this machine that fails."""

from __future__ import annotations

import errno

import pytest

from quantui.domain.errors import ExitCode
from quantui.domain.hub_failures import explain_hub_failure


def test_a_full_disk_is_named_and_does_not_count_as_not_found():
    failure = explain_hub_failure(OSError(errno.ENOSPC, "No space left on device"), ref="a/b")
    assert failure.code == "disk.full"
    assert failure.exit_code == ExitCode.DOES_NOT_FIT


def test_a_cache_of_someone_elses_is_named():
    error = PermissionError(errno.EACCES, "Permission denied", "/cache/hub")
    failure = explain_hub_failure(error, ref="a/b")
    assert failure.code == "hub.cache-not-writable"
    assert "/cache/hub" in failure.why


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), OSError("x")])
def test_the_text_of_an_exception_is_never_quoted(error):
    error.args = ("https://cdn.example/?X-Amz-Signature=secret",)
    failure = explain_hub_failure(error, ref="a/b")
    assert "secret" not in str(failure)
    assert failure.code == "hub.bad-answer"


def test_the_cause_behind_a_failed_cache_lookup_is_what_is_told():
    class ConnectError(Exception):
        pass

    class LocalEntryNotFoundError(FileNotFoundError):
        pass

    error = LocalEntryNotFoundError("not here")
    assert explain_hub_failure(error, ref="a/b").code == "hub.offline"
    error.__cause__ = ConnectError("refused")
    assert explain_hub_failure(error, ref="a/b").code == "hub.unreachable"
