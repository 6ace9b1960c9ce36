"""What is installed works: the wheel in an empty environment, the checkout, the systemd units, the make targets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from mailsrv.app.endpoints import parse_endpoint
from mailsrv.config.load import load
from tests.scenarios.server import ALICE, WholeServer

ROOT = Path(__file__).resolve().parents[2]


def run(*command: object, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def run_online(*command: object, cwd: Path) -> str:
    """The network may fail once."""
    try:
        return run(*command, cwd=cwd)
    except (AssertionError, subprocess.TimeoutExpired):
        return run(*command, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made as a release is: from the source distribution, so that this one is whole too."""
    folder = tmp_path_factory.mktemp("wheel")
    run_online(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_carries_the_plugin_and_nothing_it_should_not(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "twisted/plugins/mailsrv_plugin.py" in names
    assert "mailsrv/py.typed" in names
    assert "twisted/__init__.py" not in names
    assert "twisted/plugins/__init__.py" not in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "tools/"))]


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", venv, cwd=tmp_path)
    run_online(venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path)
    assert "--config" in run(venv / "bin" / "twistd", "mailsrv", "--help", cwd=tmp_path)
    sendmail = subprocess.run(
        [venv / "bin" / "mailsrv-sendmail"], cwd=tmp_path, capture_output=True, text=True, input=""
    )
    assert (sendmail.returncode, sendmail.stderr.partition(":")[0]) == (os.EX_CONFIG, "mailsrv-sendmail")
    sample = run(venv / "bin" / "mailsrvctl", "config", "sample", cwd=tmp_path)
    (tmp_path / "mailsrv.toml").write_text(sample)
    assert "is good" in run(venv / "bin" / "mailsrvctl", "config", "check", "mailsrv.toml", cwd=tmp_path)
    with WholeServer(tmp_path / "s", workers=2, twistd=venv / "bin" / "twistd", cwd=tmp_path) as server:
        server.deliver(ALICE, b"Subject: from the wheel\r\n\r\nHello\r\n")
        [message] = server.messages(ALICE)
        assert b"Subject: from the wheel" in message


def test_the_checkout_works_without_being_installed(tmp_path: Path) -> None:
    twistd = Path(sys.executable).with_name("twistd")
    assert "--config" in run(twistd, "mailsrv", "--help", cwd=tmp_path, PYTHONPATH=str(ROOT))
    code = "from mailsrv.cli import main; main(['config', 'sample'])"
    assert "[[listen]]" in run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_library_has_a_reason_and_one_place() -> None:
    of_users = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    used = library_names(of_users)
    reasons = "".join(path.read_text() for path in (ROOT / "docs" / "decisions").glob("2*.rst")).lower()
    assert [name for name in used if name not in reasons] == []
    listed = used + [name for name in library_names(PROJECT["dependency-groups"].values()) if name != "mailsrv"]
    assert sorted(listed) == sorted(set(listed))


def library_names(groups: Iterable[list[str]]) -> list[str]:
    return [re.split(r"[\[>=]", each)[0] for group in groups for each in group]


def test_the_plugin_folder_is_twisteds_own() -> None:
    assert not (ROOT / "twisted" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()


UNITS = sorted((ROOT / "etc" / "systemd").iterdir())


def test_every_socket_is_named_by_the_service_and_fits_the_sample() -> None:
    service = (ROOT / "etc" / "systemd" / "mailsrv.service").read_text()
    [listed] = re.findall(r"^Sockets=(.*)$", service, re.MULTILINE)
    assert sorted(listed.split()) == [path.name for path in UNITS if path.suffix == ".socket"]
    for path in UNITS:
        if path.suffix == ".socket":
            name = path.stem.removeprefix("mailsrv-")
            assert f"FileDescriptorName={name}\n" in path.read_text()
            assert f":name={name}" in path.read_text()


def test_the_folders_of_the_sample_are_made_for_the_servers_user() -> None:
    # A command that root gives before the first start would make them root's.
    made = re.findall(
        r"^d (\S+) \d+ mailsrv mailsrv -$", (ROOT / "etc/tmpfiles.d/mailsrv.conf").read_text(), re.MULTILINE
    )
    settings = load(str(ROOT / "etc" / "mailsrv.toml"))
    endpoints = [parse_endpoint(listen.endpoint) for listen in settings.listen]
    sockets = {os.path.dirname(each.argument("address")) for each in endpoints if each.kind == "unix"}
    assert {settings.state_dir, *sockets} <= set(made)
    service = (ROOT / "etc" / "systemd" / "mailsrv.service").read_text()
    for line in ["StateDirectory=mailsrv", "RuntimeDirectory=mailsrv", "LogsDirectory=mailsrv"]:
        assert f"\n{line}\n" in service


def test_the_sandbox_is_the_one_required() -> None:
    service = (ROOT / "etc" / "systemd" / "mailsrv.service").read_text()
    for line in [
        *("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes"),
        *("PrivateDevices=yes", "ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectKernelLogs=yes"),
        *("ProtectControlGroups=yes", "ProtectClock=yes", "ProtectHostname=yes", "ProtectProc=invisible"),
        *("RestrictNamespaces=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "LockPersonality=yes"),
        *("RemoveIPC=yes", "SystemCallArchitectures=native", "SystemCallFilter=@system-service", "UMask=0077"),
        *("DevicePolicy=closed", "LimitNOFILE=65535", "OOMPolicy=continue", "Restart=always", "WatchdogSec=30"),
        *("LimitCORE=0",),
    ]:
        assert f"\n{line}\n" in service
    assert not re.search(r"^MemoryDenyWriteExecute", service, re.MULTILINE)


@pytest.mark.interop
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path in UNITS:
        text = re.sub(r"=/opt/mailsrv/bin/\w+", "=/bin/true", path.read_text())
        (tmp_path / path.name).write_text(text)
    said = run("systemd-analyze", "verify", "--man=no", *(tmp_path / path.name for path in UNITS), cwd=tmp_path)
    assert [line for line in said.splitlines() if str(tmp_path) in line] == []


def test_the_scripts_can_be_run_and_read_no_terminal() -> None:
    for script in [*(ROOT / "tools").glob("*.sh"), ROOT / ".ci" / "run"]:
        assert os.access(script, os.X_OK), script
        run("bash", "-n", script, cwd=ROOT)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("python", ["", "/nowhere/python3", "old"])
def test_a_python_that_is_missing_or_old_is_told(tmp_path: Path, python: str) -> None:
    if python == "old":
        python = str(tmp_path / "python")
        Path(python).write_text("#!/bin/sh\nexit 1\n")
        Path(python).chmod(0o755)
    result = subprocess.run(
        [ROOT / "tools" / "venv.sh", python, tmp_path / "venv"], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "mailsrv needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ...\n"


def test_an_environment_that_was_left_half_made_is_made_anew(tmp_path: Path) -> None:
    # Without pip in it, as an interrupted or refused `python -m venv` leaves it; and no network is asked here.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in "-m venv"*) echo "asked: $*"; exit 3;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    result = subprocess.run(
        [ROOT / "tools" / "venv.sh", python, tmp_path / "venv"], cwd=ROOT, capture_output=True, text=True
    )
    assert f"asked: -m venv --clear {tmp_path / 'venv'}" in result.stdout
    assert result.returncode == 3


def test_a_bare_debian_is_told_the_one_line_it_needs(tmp_path: Path) -> None:
    # A Python without ensurepip, as Debian's is before python3-venv is installed.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    result = subprocess.run(
        [ROOT / "tools" / "venv.sh", python, tmp_path / "venv"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].strip() == "apt-get install python3-venv"
    assert not (tmp_path / "venv").exists()
