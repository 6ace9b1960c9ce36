"""What can be adjusted about taking messages in."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class DeliverySettings:
    """Limits and checks on the way from the session to the journal."""

    hop_limit: int = field(
        default=50,
        metadata={"help": "A message with more Received fields than this is going round in circles (554 5.4.6)."},
    )
    header_limit_octets: int = field(
        default=262144,
        metadata={
            "help": "A header section is held back up to this size; what comes after it counts as body.",
            "unit": "octets",
        },
    )
    accounts_per_message: int = field(
        default=1000,
        metadata={"help": "Accounts one message may go to, aliases resolved; more recipients get 452 4.5.3."},
    )
    check_from_field: bool = field(
        default=True,
        metadata={"help": "Submission: every address in From must belong to the user, not only the envelope sender."},
    )
