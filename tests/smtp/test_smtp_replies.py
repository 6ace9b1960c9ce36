"""Replies on the wire, and which one an error becomes."""

from __future__ import annotations

import pytest

from mailsrv import status
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.account import InvalidCredentials
from mailsrv.interfaces.mailbox import OverQuota
from mailsrv.smtp import replies
from mailsrv.smtp.replies import Reply, Stage, internal_error_reply, make_reply, reply_for_error


def test_lines_carry_code_status_and_separator():
    assert make_reply(250, None, "a", "b").octets == b"250-a\r\n250 b\r\n"
    assert make_reply(214, status.OK, "a", "b").octets == b"214-2.0.0 a\r\n214 2.0.0 b\r\n"


def test_r_inj_text_on_the_wire_is_printable_ascii_of_bounded_length():
    reply = make_reply(550, status.BAD_MAILBOX, "x\r\n250 ok\0ä" + "y" * 1000)
    assert reply.octets.count(b"\r\n") == 1
    assert reply.octets.isascii()
    assert len(reply.octets) <= 512


@pytest.mark.parametrize(
    ("error", "stage", "code", "closes"),
    [
        (MailError(status.BAD_MAILBOX, "x"), Stage.RCPT, 550, False),
        (MailError(status.BAD_DOMAIN, "x"), Stage.RCPT, 550, False),
        (MailError(status.BAD_RECIPIENT_SYNTAX, "x"), Stage.RCPT, 553, False),
        (MailError(status.BAD_SENDER, "x"), Stage.MAIL, 550, False),
        (OverQuota(), Stage.RCPT, 552, False),
        (MailError(status.MAILBOX_FULL.as_temporary(), "x"), Stage.MESSAGE, 452, False),
        (MailError(status.MESSAGE_TOO_LARGE, "x"), Stage.MESSAGE, 552, False),
        (MailError(status.ROUTING_LOOP, "x"), Stage.MESSAGE, 554, False),
        (MailError(status.NON_ASCII_NOT_SUPPORTED, "x"), Stage.MESSAGE, 554, False),
        (MailError(status.NON_ASCII_NOT_SUPPORTED, "x"), Stage.RCPT, 553, False),
        (MailError(status.AUTHENTICATION_REQUIRED, "x"), Stage.MAIL, 530, False),
        (MailError(status.NOT_AUTHORISED, "x"), Stage.RCPT, 550, False),
        (MailError(status.NOT_AUTHORISED, "x"), Stage.CONNECT, 554, False),
        (MailError(status.POLICY_DELAY, "x"), Stage.RCPT, 450, False),
        (MailError(status.POLICY_DELAY, "x"), Stage.CONNECT, 421, True),
        (MailError(status.SHUTTING_DOWN, "x"), Stage.RCPT, 421, True),
        (InsufficientStorage(), Stage.DATA, 452, False),
        (Unavailable(), Stage.RCPT, 451, False),
        (InvalidCredentials(), Stage.AUTH, 535, False),
    ],
)
def test_errors_become_replies(error, stage, code, closes):
    reply = reply_for_error(error, stage)
    assert (reply.code, reply.closes, reply.status) == (code, closes, error.status)


@pytest.mark.parametrize("error", [Unavailable(), InsufficientStorage()])
def test_r_auth_7_a_log_in_that_cannot_be_decided_is_a_temporary_authentication_failure(error):
    reply = reply_for_error(error, Stage.AUTH)
    assert (reply.code, reply.status) == (454, status.TEMPORARY_AUTHENTICATION_FAILURE)


def test_the_cause_of_an_error_is_not_told():
    assert b"disk" not in reply_for_error(Unavailable(cause="disk 3 died"), Stage.RCPT).octets


@pytest.mark.parametrize("stage", Stage)
def test_bugs_have_a_temporary_reply(stage):
    assert internal_error_reply(stage).code == 252 if stage is Stage.QUERY else internal_error_reply(stage).code < 500


def test_r_rfc2034_every_reply_has_a_status_of_its_class():
    for name, reply in vars(replies).items():
        if isinstance(reply, Reply) and reply.code // 100 != 3:
            assert reply.status is not None, name
            assert reply.status.kind == reply.code // 100, name
            assert (reply.code == 421) <= reply.closes, name
