"""What Dovecot kept beside a Maildir: UIDs (``dovecot-uidlist``) and subscriptions. Read once, at adoption.

So users of an existing Maildir keep UIDs and UIDVALIDITY, and their clients what they cached.
"""

from __future__ import annotations

from attrs import frozen

from mailsrv.disk import IDisk, opened
from mailsrv.store.mailbox_name import INBOX, canonical_name
from mailsrv.store.maildir import filename
from mailsrv.store.maildir.names import decode_level

_UIDLIST = "dovecot-uidlist"
_SUBSCRIPTIONS = "subscriptions"
_MOST_OCTETS = 64 << 20


@frozen
class UidList:
    """The header's numbers, and UIDs by the unchanging part of file names."""

    uid_validity: int
    uid_next: int
    uids: dict[str, int]


def _read(disk: IDisk, path: str) -> str | None:
    try:
        with opened(disk.open(path)) as file:
            # As names of files are made readable: they are to be found again.
            return file.read(0, _MOST_OCTETS).decode("utf-8", "backslashreplace")
    except OSError:
        return None


def read_uidlist(disk: IDisk, directory: str) -> UidList | None:
    """Version 3: ``3 V<validity> N<next> …``, then ``<uid> [extensions] :<file name>``."""
    text = _read(disk, f"{directory}/{_UIDLIST}")
    if text is None:
        return None
    lines = text.split("\n")
    header = lines[0].split()
    if not header or header[0] != "3":
        return None
    numbers = {word[0]: int(word[1:]) for word in header[1:] if word[0] in "VN" and word[1:].isdigit()}
    validity, uid_next = numbers.get("V", 0), numbers.get("N", 1)
    if not 0 < validity < 1 << 32 or not 0 < uid_next < 1 << 32:
        return None
    uids = {}
    for line in lines[1:]:
        number, _, rest = line.partition(" ")
        _, colon, name = rest.partition(":") if not rest.startswith(":") else ("", ":", rest[1:])
        if colon and number.isdigit() and 0 < int(number) < uid_next:
            uids[filename.base_of(name)] = int(number)
    return UidList(validity, uid_next, uids)


def with_uids(disk: IDisk, path: str, listed: dict[str, str], told: UidList) -> dict[str, str]:
    """The files of ``listed``, renamed where needed to name the UID the list tells."""
    renamed = {}
    for base, file in listed.items():
        uid = told.uids.get(base)
        if uid is not None and filename.parse_base(base).uid != uid:
            directory, _, name = file.partition("/")
            _, colon, info = name.partition(":")
            new_base = filename.with_uid(base, uid)
            target = f"{directory}/{new_base}{colon}{info}"
            try:
                disk.rename(f"{path}/{file}", f"{path}/{target}")
            except OSError:
                renamed[base] = file
            else:
                renamed[new_base] = target
        else:
            renamed[base] = file
    return renamed


def read_subscriptions(disk: IDisk, root: str) -> set[str]:
    """Names of the file ``subscriptions``, of either version; empty where there is none."""
    text = _read(disk, f"{root}/{_SUBSCRIPTIONS}")
    if not text:
        return set()
    lines = text.split("\n")
    # Version 2 begins with "V\t2" and an empty line, and puts tabs between levels.
    is_second = lines[0].startswith("V\t2")
    names = set()
    for line in lines[2:] if is_second else lines:
        if not line:
            continue
        try:
            levels = [decode_level(level) for level in line.split("\t" if is_second else ".")]
        except (ValueError, UnicodeError):
            continue
        name = canonical_name("/".join(levels))
        if all(levels):
            names.add(name)
    return names | {INBOX} if names else names


def write_subscriptions(disk: IDisk, root: str, names: list[str]) -> None:
    """Replace the file, for other programs; the index is truth."""
    from mailsrv.store.maildir.names import encode_level

    text = "V\t2\n\n" + "".join("\t".join(map(encode_level, name.split("/"))) + "\n" for name in names)
    temporary = f"{root}/{_SUBSCRIPTIONS}.new"
    with opened(disk.open_or_create(temporary)) as file:
        file.truncate(0)
        file.write(0, [text.encode()])
    disk.rename(temporary, f"{root}/{_SUBSCRIPTIONS}")
