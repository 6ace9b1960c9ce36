"""SCRAM by the vectors of its RFCs, against a client of others' making, and against everything malformed."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient

from mailsrv.sasl import SaslError
from mailsrv.sasl.saslprep import prepare_password, saslprep
from mailsrv.sasl.scram import ScramServer
from mailsrv.sasl.scram_keys import ScramKeys, make_decoy

VECTORS = {
    # RFC 7677 3
    "SCRAM-SHA-256": (
        "rOprNGfwEbeRWgbNEkqO",
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
    # RFC 5802 5
    "SCRAM-SHA-1": (
        "fyko+d2lbbFgONRv9qkxdawL",
        "3rfcNHYJY1ZVvWVs7j",
        "QSXCR+Q6sek8bf92",
        "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
}


PENCIL = ScramKeys.derive("SCRAM-SHA-256", "pencil", 4096, b"saltsaltsalt")


def no_bindings(_kind: str) -> None:
    return None


@pytest.mark.parametrize("mechanism", VECTORS)
def test_the_example_of_the_rfc(mechanism):
    client_nonce, server_nonce, salt, proof, signature = VECTORS[mechanism]
    keys = ScramKeys.derive(mechanism, "pencil", 4096, base64.b64decode(salt))
    server = ScramServer(mechanism, is_plus=False, offers_plus=False, nonce=server_nonce)
    assert server.receive_first(f"n,,n=user,r={client_nonce}".encode()).authcid == "user"
    nonce = client_nonce + server_nonce
    assert server.challenge(keys) == f"r={nonce},s={salt},i=4096".encode()
    assert server.receive_final(f"c=biws,r={nonce},p={proof}".encode(), no_bindings)
    assert server.signature == f"v={signature}".encode()


def run(mechanism, password, typed, binding=None, bindings=no_bindings, offers_plus=False, name="user"):
    """Whether the server believed the client, and the client the server."""
    server = ScramServer(mechanism.removesuffix("-PLUS"), is_plus=mechanism.endswith("-PLUS"), offers_plus=offers_plus)
    client = ScramClient([mechanism], name, typed, channel_binding=binding)
    first = server.receive_first(client.get_client_first().encode())
    assert first.authcid == name
    keys = ScramKeys.derive(server.mechanism, password, 4096)
    client.set_server_first(server.challenge(keys).decode())
    if not server.receive_final(client.get_client_final().encode(), bindings):
        return False
    client.set_server_final(server.signature.decode())
    return True


@pytest.mark.parametrize("mechanism", VECTORS)
@pytest.mark.parametrize("password", ["pencil", "pass word", "pässwörd", "\u2168", "I\u00adX", "a\u00a0b"])
def test_another_implementation_agrees(mechanism, password):
    assert run(mechanism, password, password)
    assert not run(mechanism, password, password + "x")


def test_forms_of_one_password_are_one():
    assert run("SCRAM-SHA-256", "\u00aa\u2168", "aIX")


def test_names_with_commas_and_equals_signs():
    assert run("SCRAM-SHA-256", "pencil", "pencil", name="a,b=c")


def test_plus_is_bound_to_the_channel():
    kind = "tls-server-end-point"

    def bindings(asked):
        return b"ours" if asked == kind else None

    assert run("SCRAM-SHA-256-PLUS", "p", "p", (kind, b"ours"), bindings, offers_plus=True)
    assert not run("SCRAM-SHA-256-PLUS", "p", "p", (kind, b"another"), bindings, offers_plus=True)
    with pytest.raises(SaslError, match="channel binding"):
        run("SCRAM-SHA-256-PLUS", "p", "p", ("tls-unique", b"ours"), bindings, offers_plus=True)


def test_a_client_that_was_not_shown_plus_is_refused():
    server = ScramServer("SCRAM-SHA-256", is_plus=False, offers_plus=True)
    with pytest.raises(SaslError):
        server.receive_first(b"y,,n=user,r=abc")
    assert ScramServer("SCRAM-SHA-256", is_plus=False, offers_plus=False).receive_first(b"y,,n=user,r=abc")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,",
        b"n,,n=,r=abc",
        b"n,,n=user",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2cer,r=abc",
        b"n,,m=ext,n=user,r=abc",
        b"p=tls-exporter,,n=user,r=abc",
        b"x,,n=user,r=abc",
        b"n,b,n=user,r=abc",
        b"n,,n=us\0er,r=abc",
        b"n,,n=us\x01er,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=user,r=a bc",
        b"n,,n=" + b"a" * 2000 + b",r=abc",
    ],
)
def test_r_auth_3_malformed_first_messages(message):
    with pytest.raises(SaslError):
        ScramServer("SCRAM-SHA-256", is_plus=False, offers_plus=False).receive_first(message)


@given(first=st.binary(max_size=80), final=st.binary(max_size=120))
def test_arbitrary_octets_are_refused_or_wrong(first, final):
    server = ScramServer("SCRAM-SHA-256", is_plus=False, offers_plus=False)
    try:
        server.receive_first(b"n,,n=user,r=" + first)
    except SaslError:
        return
    server.challenge(ScramKeys("SCRAM-SHA-256", 4096, b"salt", b"k" * 32, b"s" * 32))
    with contextlib.suppress(SaslError):
        assert not server.receive_final(final, no_bindings)


@given(change=st.integers(0, 1000), octet=st.integers(0, 255))
def test_one_changed_octet_never_proves_anything(change, octet):
    keys = PENCIL
    server = ScramServer("SCRAM-SHA-256", is_plus=False, offers_plus=False)
    client = ScramClient(["SCRAM-SHA-256"], "user", "pencil")
    server.receive_first(client.get_client_first().encode())
    client.set_server_first(server.challenge(keys).decode())
    final = bytearray(client.get_client_final().encode())
    position = change % len(final)
    is_same = final[position] == octet
    final[position] = octet
    try:
        assert server.receive_final(bytes(final), no_bindings) is is_same
    except SaslError:
        assert not is_same


@given(
    mechanism=st.sampled_from(sorted(VECTORS)), password=st.text(min_size=1, max_size=20), salt=st.binary(min_size=1)
)
def test_keys_are_read_as_they_are_written(mechanism, password, salt):
    try:
        keys = ScramKeys.derive(mechanism, password, 2, salt)
    except UnicodeEncodeError:
        return
    assert ScramKeys.parse(mechanism, keys.format()) == keys
    assert keys.stored_key.hex() not in repr(keys)


@pytest.mark.parametrize("text", ["", "x", "0,YQ==,YQ==,YQ==", "4096,YQ==,YQ==,YQ==", "99999999,YQ==,YQ==,YQ=="])
def test_broken_keys(text):
    with pytest.raises(ValueError, match="malformed"):
        ScramKeys.parse("SCRAM-SHA-256", text)


def test_r_auth_4_decoys_are_stable_and_differ_by_name_and_secret():
    def decoy(name="a", secret=b"s" * 32, mechanism="SCRAM-SHA-256"):
        return make_decoy(mechanism, name, secret, iterations=7, salt_octets=16)

    assert decoy() == decoy()
    assert len({decoy().salt, decoy("b").salt, decoy(secret=b"t" * 32).salt, decoy(mechanism="SCRAM-SHA-1").salt}) == 4
    assert len(decoy(mechanism="SCRAM-SHA-1").stored_key) == hashlib.sha1(b"").digest_size


@pytest.mark.parametrize(
    ("text", "prepared"),
    # RFC 4013 3
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX")],
)
def test_saslprep_by_the_examples_of_the_rfc(text, prepared):
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u06271"])
def test_saslprep_refuses_and_the_password_stays_as_it_is(text):
    with pytest.raises(ValueError, match=r"prohibited|right-to-left"):
        saslprep(text)
    assert prepare_password(text) == text.encode()
