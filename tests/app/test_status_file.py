"""The files in which processes tell how they are: whole, locked by the living, left by the dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from mailsrv.app.status_file import MAX_OCTETS, StatusFile, clear_statuses, read_statuses, status_folder


def test_what_a_living_process_says(tmp_path):
    folder = status_folder(str(tmp_path / "state"))
    file = StatusFile(folder, "worker-0")
    file.write({"pid": 1})
    file.write({"pid": 2, "text": "ä"})
    [found] = read_statuses(folder)
    assert (found.name, found.is_alive, found.content) == ("worker-0", True, {"pid": 2, "text": "ä"})
    assert os.listdir(folder) == ["worker-0.json"]
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(folder, "worker-0.json")).st_mode & 0o777 == 0o600
    file.close()
    [found] = read_statuses(folder)
    assert (found.is_alive, found.content["pid"]) == (False, 2)


def test_a_process_that_was_killed_is_dead_whatever_has_its_number(tmp_path):
    program = (
        "import sys, time; from mailsrv.app.status_file import StatusFile\n"
        "f = StatusFile(sys.argv[1], 'worker-3'); f.write({}); print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert read_statuses(str(tmp_path))[0].is_alive
        process.kill()
        process.wait()
    assert not read_statuses(str(tmp_path))[0].is_alive


def test_no_folder_is_nobody(tmp_path):
    assert read_statuses(str(tmp_path / "none")) == []
    clear_statuses(str(tmp_path / "none"))


def test_what_is_no_file_of_ours_is_left_out(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("[1]")
    (tmp_path / "c.json").write_bytes(b"\xff" * 10)
    (tmp_path / "d.json").write_text("[" * 100_000)
    (tmp_path / "worker-0.json.new").write_text("{}")
    os.mkfifo(tmp_path / "e.json")
    assert read_statuses(str(tmp_path)) == []
    clear_statuses(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_r_lim_2_too_much_is_not_written(tmp_path):
    file = StatusFile(str(tmp_path), "worker-0")
    file.write({"x": 1})
    with pytest.raises(OSError, match="too much"):
        file.write({"x": "y" * MAX_OCTETS})
    [found] = read_statuses(str(tmp_path))
    assert (found.is_alive, found.content) == (True, {"x": 1})


def test_a_name_in_the_way_is_replaced(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("keep")
    (tmp_path / "worker-0.json").symlink_to(secret)
    (tmp_path / "worker-0.json.new").symlink_to(secret)
    StatusFile(str(tmp_path), "worker-0").write({"pid": 1})
    assert secret.read_text() == "keep"
    assert not (tmp_path / "worker-0.json").is_symlink()


def test_who_reads_while_it_is_replaced_never_takes_the_living_for_dead(tmp_path):
    file = StatusFile(str(tmp_path), "worker-0")
    file.write({"number": -1})
    is_over = threading.Event()

    def write() -> None:
        for number in range(300):
            file.write({"number": number})
        is_over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not is_over.is_set():
        seen += read_statuses(str(tmp_path))
    writer.join()
    assert seen
    assert all(found.is_alive for found in seen)
    numbers = [found.content["number"] for found in seen]
    assert numbers == sorted(numbers)
