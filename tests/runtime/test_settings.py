"""`settings.toml`: read strictly, made once something is set, a person's own text kept."""

from __future__ import annotations

import tomllib

import pytest

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.settings import (
    CacheSettings,
    Settings,
    change_setting,
    parse_settings,
    read_settings,
    settings_file,
)


def refused(text: str) -> QuantuiError:
    with pytest.raises(QuantuiError) as caught:
        parse_settings(text)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    return caught.value


def test_without_a_file_the_defaults_hold_and_none_is_made():
    assert read_settings() == Settings()
    assert read_settings().cache == CacheSettings(None, None, 7, ())
    assert not settings_file().exists()


def test_sizes_are_text_with_their_unit():
    settings = parse_settings('[cache]\nbudget = "200GB"\nkeep_free = "1.5GiB"\n')
    assert settings.cache.budget == 200 * 10**9
    assert settings.cache.keep_free == 3 * 2**29


def test_everything_can_be_set():
    settings = parse_settings('[cache]\ntrash_days = 0\nhub_roots = ["/data/hub", "~/hub"]\n')
    assert settings.cache.trash_days == 0
    assert settings.cache.hub_roots == ("/data/hub", "~/hub")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('[cache]\nbudgt = "1GB"', 2, "Did you mean `cache.budget`?"),
        ('[cach]\nbudget = "1GB"', 1, "Did you mean `cache`?"),
        ('budget = "1GB"', 1, "Did you mean `cache.budget`?"),
        ("cache = 3", 1, "[cache]"),
        ("[cache]\n\nbudget = 200", 3, "in quotes"),
        ('[cache]\nbudget = "much"', 2, '"much"'),
        ("[cache]\ntrash_days = true", 2, "whole number"),
        ("[cache]\ntrash_days = 7.5", 2, "whole number"),
        ("[cache]\ntrash_days = -1", 2, "from 0"),
        ('[cache]\nhub_roots = "/data"', 2, "list of folders"),
        ('[cache]\nhub_roots = ["data"]', 2, "whole paths"),
        ("[cache]\nhub_roots = [3]", 2, "list of folders"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line_and_the_nearest_name(text, line, says):
    error = refused(text)
    assert f"line {line}" in error.what
    assert says in f"{error.what} {error.fix}".replace("'", '"')


def test_what_is_no_toml_is_refused():
    assert refused("[cache").code == "settings.syntax"


def test_setting_something_makes_a_file_that_explains_every_setting():
    assert change_setting("cache.budget", "200GB").cache.budget == 200 * 10**9
    text = settings_file().read_text()
    assert tomllib.loads(text) == {"cache": {"budget": "200GB"}}
    for name in CacheSettings.__dataclass_fields__:
        assert f"{name} = " in text
    assert text.count("budget = ") == 1


def test_what_is_unset_is_a_comment_again_and_can_be_set_again():
    change_setting("cache.trash_days", 3)
    before = settings_file().read_text()
    change_setting("cache.trash_days", None)
    assert read_settings() == Settings()
    change_setting("cache.trash_days", 3)
    assert settings_file().read_text() == before


def test_lists_are_set_and_unset():
    assert change_setting("cache.hub_roots", ["/a", "/b"]).cache.hub_roots == ("/a", "/b")
    assert change_setting("cache.hub_roots", ["/a"]).cache.hub_roots == ("/a",)
    assert change_setting("cache.hub_roots", None) == Settings()


def test_a_persons_own_comments_and_layout_stay():
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text("# mine\n[cache] # here\ntrash_days   =  9 # a week or so\n")
    change_setting("cache.budget", "1GB")
    text = settings_file().read_text()
    assert "# mine\n[cache] # here\ntrash_days   =  9 # a week or so\n" in text
    assert read_settings().cache == CacheSettings(10**9, None, 9, ())
    change_setting("cache.trash_days", 2)
    assert "# a week or so" in settings_file().read_text()


def test_an_empty_file_and_one_without_the_table_can_be_set():
    settings_file().parent.mkdir(parents=True)
    for text in ("", "\n", "# nothing yet\n"):
        settings_file().write_text(text)
        assert change_setting("cache.budget", "1GB").cache.budget == 10**9
        assert text in settings_file().read_text()


def test_a_file_that_is_wrong_is_left_as_it_is():
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text("[cache]\nbudgt = 3\n")
    with pytest.raises(QuantuiError, match="budgt"):
        change_setting("cache.budget", "1GB")
    assert settings_file().read_text() == "[cache]\nbudgt = 3\n"


def test_a_wrong_value_is_not_written():
    with pytest.raises(QuantuiError, match="budget"):
        change_setting("cache.budget", "lots")
    assert not settings_file().exists()


def test_what_a_link_points_to_is_written(tmp_path):
    target = tmp_path / "dotfiles.toml"
    target.write_text("")
    settings_file().parent.mkdir(parents=True)
    settings_file().symlink_to(target)
    change_setting("cache.budget", "1GB")
    assert settings_file().is_symlink()
    assert "1GB" in target.read_text()


def test_a_file_that_cannot_be_read_is_named():
    settings_file().parent.mkdir(parents=True)
    settings_file().write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QuantuiError) as caught:
        read_settings()
    assert caught.value.code == "settings.unreadable"
    assert str(settings_file()) in caught.value.what
