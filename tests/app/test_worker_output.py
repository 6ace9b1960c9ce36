"""What a worker's interpreter prints, as the log has it."""

from twisted.logger import LogLevel, capturedLogs

from mailsrv.app.worker_output import WorkerOutput


def printed(*pieces: bytes) -> list[str]:
    with capturedLogs() as events:
        output = WorkerOutput(2)
        for piece in pieces:
            output.received(piece)
        output.ended()
    assert all(event["log_level"] is LogLevel.error and event["worker"] == 2 for event in events)
    return [event["output"] for event in events]


def test_lines_are_put_together_and_the_last_needs_no_end():
    assert printed(b"Trace", b"back:\n  here\n\n", b"\xff over") == ["Traceback:", "  here", "\\xff over"]


def test_a_line_without_end_is_held_to_a_bound():
    pieces = printed(*[b"x" * 1000] * 10)
    assert "".join(pieces) == "x" * 10_000
    assert max(map(len, pieces)) <= 4096
