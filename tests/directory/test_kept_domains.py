"""The list of domains on disk: what is written is read, and nothing else is believed."""

from __future__ import annotations

import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.directory.kept_domains import KeptDomains
from mailsrv.interfaces.domain_source import SuppliedDomain

KEY = "0123456789abcdef"
LIST = (SuppliedDomain("a.test", "a.test", "dc of dc=a"), SuppliedDomain("b.test", "a.test", "ümläut\n"))


def test_what_is_written_is_read_and_is_for_the_server_alone(tmp_path):
    kept = KeptDomains(str(tmp_path / "state" / "domains"))
    assert kept.read(KEY, 10) is None
    kept.write(KEY, "ldap one", LIST)
    found = kept.read(KEY, 10)
    assert found is not None
    assert found.domains == LIST
    [file] = (tmp_path / "state" / "domains").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_list_that_was_told_again_is_younger(tmp_path):
    kept = KeptDomains(str(tmp_path))
    kept.write(KEY, "ldap", LIST)
    os.utime(tmp_path / f"{KEY}.json", (5, 5))
    assert kept.read(KEY, 10).heard_at == 5  # type: ignore[union-attr]
    kept.touch(KEY)
    assert kept.read(KEY, 10).heard_at > 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"[]",
        b'{"version":1}',
        b'{"version":2,"domains":[]}',
        b'{"version":1,"domains":[["a.test","a.test"]]}',
        b'{"version":1,"domains":[["a.test","a.test",1]]}',
        b'{"version":1,"domains":[["A.test","a.test",""]]}',
        b'{"version":1,"domains":[["a b.test","a.test",""]]}',
        b'{"version":1,"domains":[["a.test\\n","a.test",""]]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, content):
    (tmp_path / f"{KEY}.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011
        KeptDomains(str(tmp_path)).read(KEY, 10)


def test_a_list_that_is_too_long_or_too_large_is_refused(tmp_path):
    rows = [[f"d{number}.test", f"d{number}.test", ""] for number in range(11)]
    (tmp_path / f"{KEY}.json").write_text(json.dumps({"version": 1, "domains": rows}))
    with pytest.raises(ValueError, match="too many"):
        KeptDomains(str(tmp_path)).read(KEY, 10)
    (tmp_path / f"{KEY}.json").write_text(" " * 30_000)
    with pytest.raises(ValueError, match="too large"):
        KeptDomains(str(tmp_path)).read(KEY, 10)


def test_a_link_and_a_name_that_leads_elsewhere_are_refused(tmp_path):
    (tmp_path / f"{KEY}.json").symlink_to("/etc/passwd")
    kept = KeptDomains(str(tmp_path))
    with pytest.raises(OSError, match="symbolic"):
        kept.read(KEY, 10)
    with pytest.raises(ValueError, match="names no list"):
        kept.read("../../etc", 10)


def test_lists_of_former_settings_go_and_commands_write_nothing(tmp_path):
    kept = KeptDomains(str(tmp_path))
    kept.write(KEY, "ldap", LIST)
    kept.write("aaaaaaaa", "ldap", LIST)
    reading = KeptDomains(str(tmp_path), is_read_only=True)
    reading.write("bbbbbbbb", "ldap", LIST)
    reading.clear_others(())
    kept.clear_others([KEY])
    assert [each.name for each in tmp_path.iterdir()] == [f"{KEY}.json"]


def test_a_disk_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        KeptDomains(str(tmp_path / "file" / "domains")).write(KEY, "ldap", LIST)


@given(st.binary(max_size=200))
def test_whatever_stands_there_is_a_list_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("kept")
    (folder / f"{KEY}.json").write_bytes(content)
    try:
        found = KeptDomains(str(folder)).read(KEY, 10)
    except ValueError:
        return
    assert found is not None


def test_a_list_that_was_written_is_never_too_large_to_be_read(tmp_path):
    kept = KeptDomains(str(tmp_path / "kept"))
    name = ".".join(["x" * 61] * 4)
    domains = tuple(SuppliedDomain(f"d{number:02}.{name}", name, "\U0001f4ee" * 1000) for number in range(50))
    kept.write("00000000", "directory", domains)
    found = kept.read("00000000", len(domains))
    assert found is not None
    assert [each.name for each in found.domains] == [each.name for each in domains]
