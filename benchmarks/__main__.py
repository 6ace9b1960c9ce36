"""``python -m benchmarks [NAME …]``: run workloads, print each as it ends and the table at the end."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import load_imap, load_ldap, load_queue, load_relay, load_slow, load_smtp, load_stalled
from benchmarks.report import as_json, heading, table

WORKLOADS = {
    "smtp": load_smtp.run,
    "slow": load_slow.run,
    "relay": load_relay.run,
    "stalled": load_stalled.run,
    "queue": load_queue.run,
    "login": load_imap.log_in,
    "fetch": load_imap.fetch,
    "bodies": load_imap.bodies,
    "search": load_imap.search,
    "notices": load_imap.notices,
    "idle": load_imap.idle,
    "ldap": load_ldap.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*WORKLOADS, []], metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--list", action="store_true", help="the names, one a line")
    parser.add_argument("--folder", type=Path, help="where the servers live (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="append the results to this file, a JSON object a line")
    options = parser.parse_args()
    if options.list:
        print("\n".join(WORKLOADS))
        return
    results = []
    with tempfile.TemporaryDirectory(prefix="mailsrv-bench-") as temporary:
        folder = (options.folder or Path(temporary)) / "server"
        for name in options.names or WORKLOADS:
            for result in WORKLOADS[name](folder):
                results.append(result)
                print(table([result]).splitlines()[-1], flush=True)
    print(f"\n{heading()}\n\n{table(results)}")
    if options.json:
        with options.json.open("a") as lines:
            lines.write(as_json(results) + "\n")


if __name__ == "__main__":
    main()
