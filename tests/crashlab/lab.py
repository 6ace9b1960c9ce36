"""The lab: see README.rst in this folder. Needs root, loop devices and the tools of the file systems."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from tests.crashlab.loads import Load

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid", "btrfs": "loop"}
_INSIDE = "MAILSRV_CRASHLAB_NAMESPACE"


class Unsuitable(Exception):
    """This machine cannot run the lab."""


def check_machine(file_systems: Sequence[str]) -> None:
    """Raise :class:`Unsuitable` with the reason."""
    if os.geteuid() != 0:
        raise Unsuitable("needs root")
    if not os.path.exists("/dev/loop-control"):
        raise Unsuitable("needs loop devices")
    for tool in ("unshare", "mount", "umount", "cp", "mkfs.xfs", *(MAKE[kind][0] for kind in file_systems)):
        if shutil.which(tool) is None:
            raise Unsuitable(f"needs {tool}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def make_image(path: str, kind: str, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
    run(*MAKE[kind], path)


@contextlib.contextmanager
def mounted(image: str, kind: str, directory: str) -> Iterator[str]:
    """Mounted over a loop device that goes with the mount."""
    os.makedirs(directory, exist_ok=True)
    run("mount", "-t", kind, "-o", OPTIONS[kind], image, directory)
    try:
        yield directory
    finally:
        # A dying process may hold it for a moment; what is still busy then goes with the namespace.
        for _ in range(20):
            if subprocess.run(["umount", directory], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                break
            time.sleep(0.1)
        else:
            run("umount", "--lazy", directory)


class Working:
    """A load at work; ``lines`` grows with what was acknowledged."""

    def __init__(self, command: Sequence[str]) -> None:
        self.lines: list[str] = []
        # A group of its own: its server dies with it.
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        stdout = self._process.stdout
        if stdout is None:
            raise RuntimeError("no pipe")
        self._reader = threading.Thread(target=self._read, args=(stdout,))
        self._reader.start()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            if line.endswith("\n"):
                self.lines.append(line.rstrip("\n"))

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()


def crash(
    load: Load, kind: str, clones: int, size: int, workplace: str, *, chance: random.Random, keep: str | None = None
) -> tuple[int, int, int]:
    """Clone the image under load, audit the clones: (acknowledged before the last one, clones, broken promises).

    What is in a clone with broken promises is copied below the folder ``keep``.
    """
    image = os.path.join(workplace, f"{kind}.img")
    make_image(image, kind, size)
    taken: list[tuple[str, int]] = []
    with mounted(image, kind, f"{workplace}/{kind}"):
        working = Working(load.command(f"{workplace}/{kind}"))
        try:
            while len(working.lines) < load.lines_before and working.is_alive:
                time.sleep(0.01)
            for number in range(clones):
                time.sleep(chance.uniform(0.02, 0.4))
                if not working.is_alive:
                    raise RuntimeError("the load ended by itself")
                count = len(working.lines)
                clone = f"{workplace}/{kind}-{number}.img"
                run("cp", "--reflink=always", image, clone)
                taken.append((clone, count))
        finally:
            working.kill()
    broken = 0
    for clone, count in taken:
        before = broken
        with mounted(clone, kind, f"{workplace}/clone") as directory:
            kept = f"{keep}/{os.path.basename(clone)}-{time.time_ns()}"
            if keep is not None:
                shutil.copytree(directory, f"{kept}.before", ignore=_no_sockets)
            for problem in load.audit(directory, working.lines[:count], working.lines[count:]):
                broken += 1
                if broken <= 20:
                    say(f"{kind}: {os.path.basename(clone)}: {problem}")
            if keep is not None and broken > before:
                shutil.copytree(directory, f"{kept}.after", ignore=_no_sockets)
            elif keep is not None:
                shutil.rmtree(f"{kept}.before")
        os.unlink(clone)
    os.unlink(image)
    return taken[-1][1] if taken else 0, len(taken), broken


def _no_sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".sock")]


def find_load(name: str) -> Load:
    module, _, attribute = name.partition(":")
    found: Load = getattr(importlib.import_module(module), attribute)()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file_systems", nargs="*", default=[*MAKE], metavar="FILESYSTEM", help="ext4, xfs, btrfs")
    parser.add_argument("--load", default="tests.crashlab.journal_load:JournalLoad", metavar="MODULE:CLASS")
    parser.add_argument("--clones", type=int, default=12, help="of each image")
    parser.add_argument("--rounds", type=int, default=1, help="images of each file system")
    parser.add_argument("--megabytes", type=int, default=2048, help="size of an image")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--directory", default=None, help="where the outer image is made (sparse)")
    parser.add_argument("--keep", default=None, help="folder for copies of what was found with broken promises")
    options = parser.parse_args()
    try:
        check_machine(options.file_systems)
    except Unsuitable as error:
        say(f"crash lab: skipped ({error})")
        return 0
    if _INSIDE not in os.environ:
        # Mounts of our own: they are gone with the last process of ours.
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.crashlab.lab"]
        return subprocess.run([*command, *sys.argv[1:]], env={**os.environ, _INSIDE: "1"}, check=False).returncode
    seed = options.seed if options.seed is not None else random.randrange(1 << 30)
    say(f"crash lab: seed {seed}")
    chance = random.Random(seed)
    load = find_load(options.load)
    all_broken = 0
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory, prefix="crashlab-"))
        outer = os.path.join(place, "outer.img")
        make_image(outer, "xfs", (options.megabytes * 6 + 1024) << 20)
        workplace = stack.enter_context(mounted(outer, "xfs", os.path.join(place, "outer")))
        for kind in options.file_systems:
            for _ in range(options.rounds):
                begun = time.monotonic()
                size = options.megabytes << 20
                acknowledged, clones, broken = crash(
                    load, kind, options.clones, size, workplace, chance=chance, keep=options.keep
                )
                all_broken += broken
                say(
                    f"{kind:6} {clones} power cuts, {acknowledged} deliveries acknowledged, {broken} broken promises "
                    f"({time.monotonic() - begun:.0f} s)"
                )
    return 1 if all_broken else 0


if __name__ == "__main__":
    sys.exit(main())
