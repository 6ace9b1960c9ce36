"""Mail software of Debian that cannot (or need not) be installed: unpacked into a folder and run from there.

The folder (``/var/tmp/mailsrv-peers-UID``, or ``$MAILSRV_PEERS``) is kept between runs, and filled by one
process at a time. Libraries that this machine lacks come along; nothing is installed but the system users
these servers give their privileges to.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

LOCK_SECONDS = 180
"""Less than a test may take."""


class CannotRun(AssertionError):
    """A peer cannot be had on this machine; the text says what is missing."""


def cache_folder() -> Path:
    """Ours alone to write, and everybody's to read: the servers run as several users."""
    named = os.environ.get("MAILSRV_PEERS")
    folder = Path(named) if named else Path("/var/tmp") / f"mailsrv-peers-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise CannotRun(f"{folder} is not a folder of ours")
    folder.chmod(0o755)
    return folder


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One at a time on this machine."""
    deadline = time.monotonic() + LOCK_SECONDS
    with (cache_folder() / f"{name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CannotRun(f"{file.name} stayed locked") from None
                time.sleep(0.1)
        yield


def require_root() -> None:
    """These servers begin as root and become users of their own."""
    if os.geteuid() != 0:
        raise CannotRun("tests with Postfix, Exim and OpenSMTPD need root: run them as root or with sudo")


def unpacked(name: str, packages: Sequence[str]) -> Path:
    """The folder with the files of these packages and of libraries that are missing here."""
    with locked(f"unpack-{name}"):
        folder = cache_folder() / name
        done = folder / ".complete"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _know_packages(packages)
            for package in _download(name, [*packages, *_missing_libraries(packages)]):
                _run("dpkg", "-x", str(package), str(folder))
                package.unlink()
            _drop_privileged_bits(folder)
            folder.chmod(0o755)
            done.touch()
        return folder


def library_path(root: Path) -> str:
    """For ``LD_LIBRARY_PATH``."""
    folders = {path.parent for path in root.glob("**/lib*.so*")}
    return ":".join(sorted(map(str, folders)))


def ensure_user(name: str, *, groups: Sequence[str] = ()) -> None:
    """A system user with a group of its own, and these further groups, as the packages would make them."""
    require_root()
    with locked("users"):
        for group in (name, *groups):
            try:
                grp.getgrnam(group)
            except KeyError:
                _run("groupadd", "--system", group)
        try:
            pwd.getpwnam(name)
        except KeyError:
            _run(
                *("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"),
                *("--shell", "/usr/sbin/nologin", "--gid", name, name),
            )


def _know_packages(packages: Sequence[str]) -> None:
    """The lists of a fresh machine are empty, and then nothing would be said of libraries either."""
    try:
        _run("apt-cache", "show", *packages)
    except CannotRun:
        _update()


def _update() -> None:
    try:
        _run("apt-get", "update", "-qq")
    except CannotRun:
        time.sleep(5)
        _run("apt-get", "update", "-qq")


def _missing_libraries(packages: Sequence[str]) -> list[str]:
    """What apt would install along with them and has to be on the library path: without changing anything."""
    found = set()
    for package in packages:
        # One at a time: they exclude one another.
        printed = _run("apt-get", "install", "--simulate", "--no-install-recommends", package, may_fail=True)
        found |= set(re.findall(r"^Inst (lib\S+)", printed, re.MULTILINE))
    return sorted(found)


def _download(name: str, packages: Sequence[str]) -> list[Path]:
    folder = cache_folder() / f"{name}.deb"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # apt's own user fetches into it.
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(folder, pwd.getpwnam("_apt").pw_uid, 0)
    command = ("apt-get", "download", "-qq", *packages)
    try:
        _run(*command, cwd=folder)
    except CannotRun:
        # The lists are old, or the network failed for once.
        _update()
        _run(*command, cwd=folder)
    return sorted(folder.glob("*.deb"))


def _drop_privileged_bits(folder: Path) -> None:
    """Nothing in a folder that everybody can enter is setuid or setgid; we start it as root."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o6000:
                path.chmod(mode & 0o1777)


def _run(*command: str, cwd: Path | None = None, may_fail: bool = False) -> str:
    environment = dict(os.environ, LC_ALL="C.UTF-8", DEBIAN_FRONTEND="noninteractive")
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
        text=True,
    )
    if done.returncode and not may_fail:
        raise CannotRun(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout
