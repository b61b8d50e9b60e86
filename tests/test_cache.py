"""Files that are replaced whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from velora_edge.cache import cache_home, replace_file


def test_a_file_is_replaced_with_the_permissions_that_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    replace_file(tmp_path / "a", b"after", mode=0o644)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "a").stat().st_mode & 0o777) == (b"after", 0o644)


def test_where_it_cannot_be_moved_to_its_place_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "a", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_users_cache_is_where_the_desktops_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home() == tmp_path
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_home() == Path("/home/somebody/.cache")
