"""nodemailer, as npm installs it, in the folder of the other peers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.interop.peers.installing import cache_folder, locked

VERSION = "7.0.13"

_PROGRAM = """\
const { createTransport } = require('nodemailer');
const { readFileSync } = require('fs');
const job = JSON.parse(readFileSync(0, 'utf8'));
if (job.transport.tls) job.transport.tls.ca = readFileSync(job.ca);
const transport = createTransport(job.transport);
(async () => {
  const answers = [];
  for (const message of job.messages) {
    try {
      answers.push((await transport.sendMail(message)).response);
    } catch (error) {
      answers.push(`${error.code} ${error.response}`);
    }
  }
  transport.close();
  console.log(JSON.stringify(answers));
})();
"""


def installed() -> Path:
    """A program that reads what to send, as JSON, and writes what the server answered, as JSON; for ``node``."""
    with locked("nodemailer"):
        folder = cache_folder() / f"nodemailer-{VERSION}"
        program = folder / "send.cjs"
        if not (folder / "node_modules" / "nodemailer" / "package.json").exists():
            folder.mkdir(exist_ok=True)
            subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, f"nodemailer@{VERSION}"],
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=300,
            )
        program.write_text(_PROGRAM)
        return program
