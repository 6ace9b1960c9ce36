"""Lines end with CRLF only, within a limit, and a slow sender costs linear time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.wire.receive_buffer import BareLineBreak, LineTooLong, ReceiveBuffer


def lines_of(octets: bytes, sizes: list[int], limit: int = 20) -> list[bytes | type[Exception]]:
    buffer = ReceiveBuffer()
    found: list[bytes | type[Exception]] = []
    discarding = False
    rest = octets
    while rest:
        size = sizes.pop() if sizes else len(rest)
        buffer.append(rest[:size])
        rest = rest[size:]
        while True:
            if discarding:
                if not buffer.discard_line():
                    break
                discarding = False
            try:
                line = buffer.maybe_extract_line(limit)
            except LineTooLong:
                found.append(LineTooLong)
                discarding = True
            except BareLineBreak:
                found.append(BareLineBreak)
            else:
                if line is None:
                    break
                found.append(line)
    return found


def test_lines_come_out_without_their_end():
    assert lines_of(b"one\r\n\r\ntwo\r\nthr", []) == [b"one", b"", b"two"]


@pytest.mark.parametrize("broken", [b"\n", b"a\n", b"a\rb\r\n", b"\r\r\n", b"a\r\r\n", b"\ra\n"])
def test_r_smtp_1_a_bare_break_is_an_error(broken):
    assert lines_of(broken + b"next\r\n", []) == [BareLineBreak, b"next"]


def test_r_lim_2_a_line_at_the_limit_passes_over_it_fails_and_the_next_is_read():
    at, over = b"x" * 18 + b"\r\n", b"x" * 19 + b"\r\n"
    assert lines_of(at + over + b"ok\r\n", []) == [b"x" * 18, LineTooLong, b"ok"]
    assert lines_of(b"y" * 500 + b"\r\nok\r\n", [1] * 504) == [LineTooLong, b"ok"]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\r\n", b"bb" * 9]), max_size=30), st.lists(st.integers(1, 4)))
def test_cutting_changes_nothing(parts, sizes):
    octets = b"".join(parts)
    assert lines_of(octets, list(sizes)) == lines_of(octets, [])


def test_the_buffer_remembers_how_far_it_looked():
    buffer = ReceiveBuffer()
    for count in range(1, 50):
        buffer.append(b"x")
        assert buffer.maybe_extract_line(100) is None
        assert buffer._searched == count


def test_r_tls_1_clearing_tells_how_much_was_unread():
    buffer = ReceiveBuffer()
    buffer.append(b"EHLO")
    assert buffer.clear() == 4
    assert len(buffer) == 0


def test_octets_can_be_taken_and_put_back():
    buffer = ReceiveBuffer()
    buffer.append(b"literal\r\nnext\r\n")
    assert buffer.take(9) == b"literal\r\n"
    buffer.put_back(b"A")
    assert buffer.maybe_extract_line(100) == b"Anext"
    buffer.append(b"rest")
    assert buffer.take_all() == b"rest"
