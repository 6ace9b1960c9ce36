"""Names as paths (R-PATH-1), and file names."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.interfaces.journal import DeliveryKey
from mailsrv.interfaces.mailbox import InvalidMailboxName
from mailsrv.store.mailbox_name import checked_name
from mailsrv.store.maildir import filename, keywords, names
from mailsrv.store.settings import StoreSettings
from tests.store.store_setting import StoreSetting


@given(st.text(min_size=1, max_size=21))
def test_r_path_1_parts_of_addresses_are_escaped_bijectively(text: str):
    component = names.escape_component(text)
    assert component not in (".", "..")
    assert "/" not in component
    assert "\0" not in component
    assert component[0] != "."
    assert names.unescape_component(component) == text


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_r_path_1_no_account_lies_outside_the_store(local: str, domain: str):
    path = names.account_path(
        "/mail/{domain}/{local}/Maildir", cast(Address, SimpleNamespace(local_part=local, domain=domain))
    )
    assert os.path.normpath(path) == path
    assert path.startswith("/mail/")
    assert path.count("/") == 4


def test_r_path_1_a_part_too_long_for_a_file_name_is_refused():
    assert names.escape_component("a" * 255)
    for local in ("a" * 256, "é" * 100, ""):
        with pytest.raises(InvalidMailboxName):
            names.escape_component(local)


@given(st.text(min_size=1, max_size=40))
def test_r_path_1_mailbox_names_are_escaped_bijectively(text: str):
    try:
        name = checked_name(text, StoreSettings())
    except InvalidMailboxName:
        return
    directory = names.directory_name(name)
    if name == "INBOX":
        assert directory == ""
    else:
        assert names.mailbox_name(directory) == name
        assert "/" not in directory
        assert directory.isascii()


@given(st.text(alphabet="&-.,aZ0+é~", max_size=12))
def test_r_path_1_a_folder_of_any_name_is_one_mailbox_or_none(text: str):
    directory = "." + text
    name = names.mailbox_name(directory)
    if name is not None:
        assert names.directory_name(name) == directory


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("Sent", ".Sent"),
        ("Archive/2026", ".Archive.2026"),
        ("Entwürfe", ".Entw&APw-rfe"),
        ("R&D", ".R&-D"),
        ("a.b", ".a&AC4-b"),
        ("日本語", ".&ZeVnLIqe-"),
        ("INBOX/x", ".INBOX.x"),
    ],
)
def test_mailboxes_stand_where_dovecot_has_them(name: str, directory: str):
    assert names.directory_name(name) == directory
    assert names.mailbox_name(directory) == name


def test_folders_of_no_mailbox_are_left_alone():
    for directory in ("", ".", "..", "cur", ".a..b", ".a&b", ".INBOX", ".inbox.x", ".caf\udce9", ".&AGE-"):
        assert names.mailbox_name(directory) is None


@given(
    st.integers(0, 2**40),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**60),
    st.integers(0, 2**31),
    st.integers(1, 2**32 - 2),
    st.integers(0, 31),
)
def test_file_names_tell_what_was_put_into_them(
    seconds: int, segment: bytes, offset: int, number: int, uid: int, bits: int
):
    key = DeliveryKey(segment, offset, number)
    base = filename.format_base(seconds, filename.token_of("K", key.to_octets()), offset % 2**40, offset % 2**41, uid)
    file = filename.format_file(base, bits, "ac")
    parts = filename.parse_base(filename.base_of(file))
    assert tuple(parts) == (offset % 2**40, offset % 2**41, uid, filename.token_of("K", key.to_octets()))
    assert filename.key_of(parts.token) == key
    assert filename.bits_of(filename.info_of(file)) == bits
    assert filename.keyword_letters(filename.info_of(file)) == "ac"
    assert len(file) < 255
    assert filename.parse_base(filename.with_uid(base, 7)).uid == 7


@given(st.text(max_size=80))
def test_any_file_name_can_be_looked_at(name: str):
    parts = filename.parse_base(filename.base_of(name))
    filename.key_of(parts.token)
    filename.bits_of(filename.info_of(name))


def test_the_letters_of_keywords(tmp_path: Path):
    setting = StoreSetting(StoreSettings(path=str(tmp_path / "{local}")))
    known = ["work", "$Forwarded", "later"]
    assert keywords.letters_of("$Forwarded later", known) == "bc"
    assert keywords.keywords_of("ca", known) == "later work"
    assert keywords.keywords_of("z", known) == ""
    keywords.write_keywords(setting.table.disk, str(tmp_path), known)
    assert keywords.read_keywords(setting.table.disk, str(tmp_path)) == known
    (tmp_path / "dovecot-keywords").write_text("0 a\n2 c\nx y\n99 z\n")
    assert keywords.read_keywords(setting.table.disk, str(tmp_path)) == ["a", "unknown-1", "c"]


@settings(max_examples=30)
@given(st.text(alphabet="a/.é", min_size=1, max_size=30))
def test_checked_names_have_no_empty_level(text: str):
    try:
        name = checked_name(text, StoreSettings())
    except InvalidMailboxName:
        return
    assert all(name.split("/"))
