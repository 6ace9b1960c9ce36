"""A filter that is one function, ready to be used and to be copied.

::

    [[filter]]
    use = "no-executables"
    arguments = ["iso", "docm"]      # further endings to refuse; may be left out

Any module in a folder ``twisted/plugins/`` on the Python path (no ``__init__.py`` in either folder)
is found like this one. ``docs/filters.rst`` tells the rest.
"""

from __future__ import annotations

import mmap

from twisted.internet.threads import deferToThread

from mailsrv.filters.function import filter_function
from mailsrv.interfaces.filter import Answer, MessageView, Reject
from mailsrv.message import Octets, scan

# What Windows runs when it is double-clicked.
EXECUTABLE = frozenset(
    """ade adp appx bat chm cmd com cpl dll exe hta inf ins isp jar js jse lib lnk mde msc msi msix msp mst
    pif ps1 reg scr sct shb sys vb vbe vbs vxd wsc wsf wsh xll""".split()  # noqa: SIM905 - forty quotes less to read
)


@filter_function(phase="message")
async def no_executables(message: MessageView, arguments: tuple[str, ...]) -> Answer:
    """Refuse messages with an attachment that Windows would run; the arguments are further endings to refuse."""
    refused = EXECUTABLE.union(argument.lower().lstrip(".") for argument in arguments)
    if message.octets is not None:
        endings = endings_of_attachments(message.octets)
    else:
        # A large message is in a file. Reading it waits for the disk, so that is done in a thread.
        endings = await deferToThread(endings_in_file, message.path)
    found = sorted(refused & endings)
    return Reject(f"Attachments of type .{found[0]} are not accepted here") if found else None


def endings_of_attachments(octets: Octets) -> set[str]:
    """The endings of all file names, under every spelling a mail program might believe."""
    names = [name for part in scan(octets).parts for name in part.file_names()]
    # Windows does not see dots and spaces at the end of a name.
    return {name.rstrip(". \t").rpartition(".")[2].lower() for name in names}


def endings_in_file(path: str) -> set[str]:
    """The same for a message in a file."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as octets:
        return endings_of_attachments(octets)
