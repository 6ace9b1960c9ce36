"""What an app password looks like, and what it never is taken for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.auth.app_passwords.form import ALPHABET, digest_of, make_secret, read_secret

BODIES = st.text(ALPHABET, min_size=18, max_size=18)


def written(body: str) -> str:
    return "app-" + "-".join(body[start : start + 4] for start in range(0, 20, 4))


def test_each_is_another_and_reads_as_itself():
    made = {make_secret() for _ in range(1000)}
    assert len(made) == 1000
    for secret in made:
        assert re.fullmatch(r"app(-[a-hj-km-np-z2-9]{4}){5}", secret)
        assert read_secret(secret) == secret.removeprefix("app").replace("-", "")
    # All characters are used: 18 of 31 are 89 bits.
    assert {character for secret in made for character in secret.removeprefix("app-")} - {"-"} == set(ALPHABET)


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        str.title,
        lambda text: text.replace("-", " "),
        lambda text: text.replace("-", ""),
        lambda text: f" {text}\n",
        lambda text: text.replace("-", "", 1),
    ],
)
def test_it_may_be_typed_in_other_ways(change):
    secret = make_secret()
    assert read_secret(change(secret)) == read_secret(secret) != ""


@given(st.data())
def test_one_or_two_wrong_characters_are_found_and_it_is_still_ours(data):
    secret = make_secret()
    body = list(read_secret(secret) or "")
    places = data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=2, unique=True))
    for place in places:
        body[place] = data.draw(st.sampled_from([one for one in ALPHABET if one != body[place]]))
    assert read_secret(written("".join(body))) == ""
    assert read_secret("app" + "".join(body)) == ""


@given(st.integers(0, 18))
def test_characters_that_changed_places_are_found(place):
    secret = make_secret()
    body = list(read_secret(secret) or "")
    body[place], body[place + 1] = body[place + 1], body[place]
    expected = "" if body[place] != body[place + 1] else "".join(body)
    assert read_secret(written("".join(body))) == expected


@pytest.mark.parametrize("slip", ["o", "0", "l", "1", "i", ""])
def test_a_slip_is_still_ours(slip):
    secret = make_secret()
    for place in (4, 9, 12, len(secret) - 1):
        if secret[place] != "-":
            assert read_secret(secret[:place] + slip + secret[place + 1 :]) == ""


@pytest.mark.parametrize(
    "password",
    [
        *("", "app", "app-", "apple pie", "application", "correct horse battery staple", "abcd-efgh-jkmn-pqrs-tuvw"),
        *(
            "app this must work some more",
            "xapp-abcd-efgh-jkmn-pqrs-tuvw",
            "{PLAIN}app",
            "аpp-abcd-efgh-jkmn-pqrs-tuvw",
        ),
        *("app-abcd-efgh-jkmn-pqrs-tuv\u212a", "app" * 1000, "app-abcd-efgh-jkmn-pqrs", "hunter2", "\ud800"),
    ],
)
def test_other_passwords_are_for_the_directory(password):
    assert read_secret(password) is None


@given(st.text(max_size=60))
def test_any_text_is_read(text):
    secret = read_secret(text)
    assert secret in (None, "") or (len(secret or "") == 20 and set(secret or "") <= set(ALPHABET))


@given(st.text(max_size=30), BODIES, st.text(max_size=30), BODIES)
def test_no_two_users_share_a_digest(account, secret, other_account, other_secret):
    is_same = (account, secret) == (other_account, other_secret)
    assert (digest_of(account, secret) == digest_of(other_account, other_secret)) is is_same
