"""What can be adjusted about taking messages in."""

from __future__ import annotations

from attrs import frozen

from mailsrv.address.setting_check import is_domain_or_empty
from mailsrv.setting import setting
from mailsrv.wire.networks import are_networks


@frozen
class DeliverySettings:
    """Limits and checks on the way from the session to the journal."""

    hop_limit: int = setting(50, "A message with more Received fields than this is going round in circles (554 5.4.6).")
    header_limit_octets: int = setting(
        262144, "A header section is held back up to this size; what comes after it counts as body.", unit="octets"
    )
    accounts_per_message: int = setting(
        20_000,
        "Accounts and addresses elsewhere one message may go to, aliases resolved; more recipients get 452 4.5.3.",
        at_least=1,
    )
    alias_targets: int = setting(
        20_000,
        "Addresses that the aliases and lists behind one recipient may name together; mail for what leads "
        "to more waits (451).",
        at_least=1,
    )
    forwarders_per_message: int = setting(
        20,
        "Addresses of ours that forward one message elsewhere, each with a copy of its own; more "
        "recipients get 452 4.5.3.",
        at_least=1,
    )
    check_from_field: bool = setting(
        True, "Submission: every address in From must belong to the user, not only the envelope sender."
    )
    believe_list_senders: bool = setting(
        False,
        "Lists that are for members or for those they name: whether addresses elsewhere count as who the "
        "envelope sender says they are. Anybody can write that.",
    )
    relay_networks: tuple[str, ...] = setting(
        (),
        "Networks whose clients may send mail anywhere under any name, without a log-in: printers, an "
        "old application. At an MX they do so like anybody; at a submission listener they need not log in.",
        check=are_networks,
        example=["192.0.2.0/28"],
    )
    srs: bool = setting(
        True,
        "Rewrite the envelope sender of mail that is forwarded elsewhere (SRS), so that it passes SPF "
        "there and bounces come back through here.",
    )
    srs_domain: str = setting(
        "",
        "The domain of rewritten senders, one of [[domain]]; empty: that of the address that forwards.",
        check=is_domain_or_empty,
        example="example.test",
    )
    srs_days: int = setting(
        21, "How long a bounce to a rewritten sender is taken.", at_least=2, at_most=500, unit="days"
    )
    srs_rotation_days: int = setting(
        90, "How old the secret of rewritten senders grows before a start makes a new one.", at_least=1, unit="days"
    )


@frozen
class SendmailSettings:
    """``[sendmail]``: mail of programs on this machine, by mailsrv-sendmail."""

    spool_dir: str = setting(
        "",
        "Where it leaves mail while the server is down; made with mode 1733, everybody must be able to get "
        "there. Empty: sendmail-spool in state_dir, which only the server's own user can reach.",
        example="/var/spool/mailsrv",
    )
    trusted_users: tuple[str, ...] = setting(
        (),
        "Users of this machine who may send under any name, beside root and the server's own user.",
        example=["www-data"],
    )
    pickup_seconds: float = setting(15.0, "How often the server looks for mail that was left.", above=0, unit="seconds")
    pickup_messages: int = setting(100, "Messages it takes in one go.", at_least=1)
    message_octets: int = setting(
        52_428_800, "A larger message is refused by the command.", at_least=1024, unit="octets"
    )
    max_age_seconds: float = setting(
        432_000.0, "What could not be taken for so long goes back to who sent it.", above=0, unit="seconds"
    )
