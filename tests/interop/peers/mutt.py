"""mutt, on a terminal of its own."""

from __future__ import annotations

from pathlib import Path

from tests.interop.running import BOB, MailServer, run


def saves(server: MailServer, folder: Path, settings: str) -> str:
    """What it found in bob's INBOX."""
    file = folder / "muttrc"
    file.write_text(
        f'set imap_user="{BOB}"\nset ssl_verify_host=no\nset certificate_file="{server.certificate}"\n'
        f'set mbox_type=mbox\nset folder="{folder}"\nset confirmcreate=no\nset quit=yes\nset wait_key=no\n'
        f"set header_cache=\n{settings}"
        f'push "<tag-pattern>~A<enter><tag-prefix><copy-message>{folder}/saved<enter><exit>"\n'
    )
    run(
        *("mutt", "-n", "-F", file, "-f", f"imaps://localhost:{server.ports['imaps']}/INBOX"),
        home=folder,
        terminal=True,
    )
    return (folder / "saved").read_text()
