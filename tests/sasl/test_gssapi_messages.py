"""The end of a GSSAPI exchange, and the only message of EXTERNAL: any octets, and the right ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.sasl import SaslError
from mailsrv.sasl.external import parse_external
from mailsrv.sasl.gssapi import OFFER, parse_choice


def test_no_layer_is_offered_and_taken():
    assert OFFER == b"\x01\0\0\0"
    assert parse_choice(b"\x01\0\0\0") == ""
    assert parse_choice(b"\x01\0\x40\0alice@example.test") == "alice@example.test"


@pytest.mark.parametrize("layer", [0, 2, 3, 4, 5, 7, 255])
def test_a_layer_is_refused(layer):
    with pytest.raises(SaslError, match="No security layer"):
        parse_choice(bytes((layer, 0, 0, 0)) + b"alice")


@pytest.mark.parametrize(
    "message", [b"", b"\x01\0\0", b"\x01\0\0\0al\0ice", b"\x01\0\0\0\xff", b"\x01\0\0\0" + b"a" * 1025]
)
def test_r_ctl_1_malformed_choices(message):
    with pytest.raises(SaslError):
        parse_choice(message)


@given(st.binary(max_size=64))
def test_any_octets_end_in_an_identity_or_an_error(octets):
    for parse in (parse_choice, parse_external):
        try:
            identity = parse(octets)
        except SaslError:
            continue
        assert octets.endswith(identity.encode())
        assert not any(ord(character) < 32 for character in identity)
