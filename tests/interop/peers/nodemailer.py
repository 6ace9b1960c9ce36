"""nodemailer, as Debian has it, in the folder of the other peers."""

from __future__ import annotations

from tests.interop.peers.installing import unpacked

_PROGRAM = """\
const { createTransport } = require(process.argv[1]);
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


def command() -> tuple[str, ...]:
    """A program that reads what to send, as JSON, and writes what the server answered, as JSON."""
    library = unpacked("nodemailer", ["node-nodemailer"]) / "usr/share/nodejs/nodemailer"
    return ("node", "-e", _PROGRAM, "--", str(library))
