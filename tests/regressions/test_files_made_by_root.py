"""What is written as root, before ``twistd --uid`` or by an administrator, can be read by the server afterwards."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mailsrv.address import Address
from mailsrv.delivery.settings import DeliverySettings
from mailsrv.delivery.srs_secret import open_rewriting, secret_path
from mailsrv.directory.passwd_edit import PasswdEditor


def test_the_secret_of_rewritten_senders_belongs_to_the_owner_of_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[int, tuple[int, int]] = {}

    def give(file: int | str, uid: int, gid: int) -> None:
        given[os.stat(file).st_ino] = (uid, gid)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", give)
    monkeypatch.setattr(os, "lchown", give)
    assert open_rewriting(DeliverySettings(), str(tmp_path), 1_000_000.0) is not None
    folder = tmp_path.stat()
    path = secret_path(str(tmp_path))
    files = [os.stat(each).st_ino for each in (path, f"{path}.lock")]
    assert given == dict.fromkeys(files, (folder.st_uid, folder.st_gid))


@pytest.mark.parametrize(("group", "mode"), [(0, 0o600), (77, 0o640)])
def test_the_group_of_a_folder_of_roots_may_read_a_new_passwd_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, mode: int
) -> None:
    real_stat = os.stat
    owners: list[tuple[int, int]] = []

    def folder_of_root(path: str, **options: bool) -> os.stat_result:
        found = real_stat(path, **options)
        if path != str(tmp_path):
            return found
        values = list(found[:10])
        values[4:6] = [0, group]
        return os.stat_result(values)

    path = tmp_path / "users.passwd"
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 0)
        patched.setattr(os, "stat", folder_of_root)
        patched.setattr(os, "fchown", lambda _, uid, gid: owners.append((uid, gid)))
        PasswdEditor(str(path)).add(Address("alice", "example.test"), "{PLAIN}x")
    assert owners == [(0, group)]
    assert stat.S_IMODE(path.stat().st_mode) == mode
