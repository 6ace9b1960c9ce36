"""The whole server with two workers, killed again and again; the power goes later, when nobody sends.

What the killed one had delivered is in the cache, and perhaps nowhere else. The one after it replays its journal, finds
it in its place and forgets the records. No load follows, so that nobody else's sync writes what those should have.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence

from tests.crashlab.server_load import ACCOUNTS, ServerLoad, SpeakingLedger, make_server
from tests.scenarios.load import Load

BUSY_SECONDS = 1.2
QUIET_SECONDS = 2.0
"""Several checkpoints, and shorter than the kernel keeps what it has to write."""


class KillLoad(ServerLoad):
    """See :class:`tests.crashlab.loads.Load`."""

    def command(self, directory: str) -> Sequence[str]:
        return [sys.executable, "-m", "tests.crashlab.kill_load", directory]


def main(directory: str) -> None:
    """Serve, send, kill, rest, without end."""
    chance = random.Random(time.time_ns())
    server = make_server(directory)
    server.write_config(workers=2)
    server.start()
    while True:
        load = Load.on(server, ACCOUNTS, time.time_ns())
        load.ledger = SpeakingLedger()
        load.start()
        time.sleep(BUSY_SECONDS * chance.random())
        if chance.random() < 0.7:
            # All is in its place when the server is killed: one new file, and the replay would have everything synced.
            load.stop()
            server.kill()
        else:
            server.kill()
            load.stop()
        server.start()
        time.sleep(QUIET_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
