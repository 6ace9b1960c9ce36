"""imapflow, the IMAP client of many web applications, from npm into the folder of the other peers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.interop.peers.installing import CannotRun, cache_folder, locked

VERSION = "2.10.2"

_PROGRAM = """\
const { ImapFlow } = require(process.argv[1]);
const { readFileSync } = require('fs');
const job = JSON.parse(readFileSync(0, 'utf8'));
const client = new ImapFlow({
  ...job.options,
  logger: false,
  tls: { ca: readFileSync(job.ca), servername: 'localhost' },
});
if (job.without) {
  // It takes OAUTHBEARER where it can; older versions of it, and others, know XOAUTH2 alone.
  const authenticate = client.authenticate.bind(client);
  client.authenticate = () => {
    for (const name of job.without) client.capabilities.delete(name);
    return authenticate();
  };
}
(async () => {
  const answer = {};
  try {
    await client.connect();
    const lock = await client.getMailboxLock(job.mailbox);
    answer.exists = client.mailbox.exists;
    if (job.looks) {
      answer.readOnly = client.mailbox.readOnly;
      answer.listed = (await client.list()).map((box) => box.path);
      answer.subjects = [];
      for await (const one of client.fetch('1:*', { envelope: true })) answer.subjects.push(one.envelope.subject);
      answer.seen = await client.messageFlagsAdd('1', ['\\\\Seen']);
      const copied = await client.messageCopy('1:*', job.destination);
      answer.copied = copied ? [...copied.uidMap.values()] : null;
    }
    lock.release();
    await client.logout();
  } catch (error) {
    client.close();
    answer.error = { ...error, message: error.message, response: error.responseText, code: error.serverResponseCode };
  }
  console.log(JSON.stringify(answer));
})();
"""


def log_in(port: int, ca: Path, auth: dict[str, str], *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """``exists``, of INBOX, or ``error``. ``without``: capabilities that it does not see."""
    job = {
        "ca": str(ca),
        "options": {"host": "localhost", "port": port, "secure": True, "auth": auth},
        "without": without,
        "mailbox": "INBOX",
    }
    return _run(job)


def look(port: int, ca: Path, auth: dict[str, str], mailbox: str, destination: str) -> dict[str, Any]:
    """Read a mailbox, set \\Seen in it, and copy it: ``listed``, ``readOnly``, ``subjects``, ``seen``, ``copied``."""
    options = {"host": "localhost", "port": port, "secure": True, "auth": auth}
    return _run({"ca": str(ca), "options": options, "mailbox": mailbox, "looks": True, "destination": destination})


def _run(job: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        ("node", "-e", _PROGRAM, "--", str(_library())),
        input=json.dumps(job).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _library() -> Path:
    folder = cache_folder() / f"imapflow-{VERSION}"
    library = folder / "node_modules" / "imapflow"
    with locked("imapflow"):
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _install(folder)
            (folder / ".complete").touch()
    return library


def _install(folder: Path) -> None:
    command = ("npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    for last in (False, True):
        done = subprocess.run(
            (*command, f"imapflow@{VERSION}"),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
            text=True,
        )
        if not done.returncode:
            return
        # The network may fail once.
        if last:
            raise CannotRun(f"npm could not install imapflow:\n{done.stdout}")
