"""Keywords in file names: the letters a-z, explained by the file ``dovecot-keywords``.

A mailbox's keywords stand in its index row in the order of their first use; the first 26 have a
letter. Later ones live in the index only.
"""

from __future__ import annotations

import string

from mailsrv.disk import IDisk, opened

FILE = "dovecot-keywords"
_MOST_OCTETS = 16 * 1024


def letters_of(keywords: str, known: list[str]) -> str:
    """The letters of a message's keywords (joined by spaces)."""
    if not keywords:
        return ""
    places = {keyword: place for place, keyword in enumerate(known[:26])}
    return "".join(sorted(string.ascii_lowercase[places[one]] for one in keywords.split(" ") if one in places))


def keywords_of(letters: str, known: list[str]) -> str:
    """The keywords of letters, sorted and joined by spaces; letters without a meaning are passed over."""
    places = (string.ascii_lowercase.index(letter) for letter in letters)
    return " ".join(sorted({known[place] for place in places if place < len(known)}))


def read_keywords(disk: IDisk, directory: str) -> list[str]:
    """What an existing ``dovecot-keywords`` says: lines of ``number keyword``."""
    try:
        with opened(disk.open(f"{directory}/{FILE}")) as file:
            text = file.read(0, _MOST_OCTETS).decode("utf-8", "replace")
    except OSError:
        return []
    found: dict[int, str] = {}
    for line in text.splitlines():
        number, _, keyword = line.partition(" ")
        if number.isascii() and number.isdigit() and int(number) < 26 and keyword and " " not in keyword:
            found[int(number)] = keyword
    # A gap would shift the letters after it.
    return [found.get(place, f"unknown-{place}") for place in range(max(found, default=-1) + 1)]


def write_keywords(disk: IDisk, directory: str, known: list[str]) -> None:
    """Replace ``dovecot-keywords``; unsynced, for the index is truth."""
    text = "".join(f"{place} {keyword}\n" for place, keyword in enumerate(known[:26]))
    temporary = f"{directory}/{FILE}.new"
    with opened(disk.open_or_create(temporary)) as file:
        file.truncate(0)
        file.write(0, [text.encode("utf-8", "surrogatepass")])
    disk.rename(temporary, f"{directory}/{FILE}")
