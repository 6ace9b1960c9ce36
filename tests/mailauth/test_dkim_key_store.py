"""Keys on disk: their life, who may read them, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mailsrv.mailauth.key_store import KeyState, KeyStore, KeyStoreError, load_signing_keys
from mailsrv.mailauth.keys import Algorithm
from mailsrv.mailauth.settings import DkimSettings

DOMAIN = "example.test"


def new(store: KeyStore, selector: str, state: KeyState, algorithm: Algorithm = Algorithm.ED25519, seconds: int = 1):
    return store.new(DOMAIN, selector, algorithm, bits=2048, state=state, seconds=seconds)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(str(tmp_path / "dkim"))


def loaded(store: KeyStore) -> dict[str, list[str]]:
    keys = load_signing_keys(DkimSettings(key_dir=store.folder), "/nonexistent")
    return {domain: [key.selector for key in found] for domain, found in keys.items()}


def test_only_active_keys_sign_and_rsa_comes_first(store):
    assert loaded(store) == {}
    new(store, "a", KeyState.ACTIVE)
    new(store, "b", KeyState.ACTIVE, Algorithm.RSA)
    new(store, "c", KeyState.PUBLISHED, seconds=2)
    assert loaded(store) == {DOMAIN: ["b", "a"]}
    store.set_state(DOMAIN, "c", KeyState.ACTIVE)
    store.set_state(DOMAIN, "a", KeyState.RETIRED)
    assert loaded(store) == {DOMAIN: ["b", "c"]}
    assert [(found.key.selector, found.state) for found in store.keys(DOMAIN)] == [
        ("a", KeyState.RETIRED),
        ("b", KeyState.ACTIVE),
        ("c", KeyState.ACTIVE),
    ]


def test_the_folder_is_in_the_state_folder_unless_named(tmp_path):
    new(KeyStore(str(tmp_path / "dkim")), "a", KeyState.ACTIVE)
    assert list(load_signing_keys(DkimSettings(), str(tmp_path))) == [DOMAIN]


def test_files_are_private_and_nothing_is_left_beside_them(store):
    new(store, "a", KeyState.ACTIVE)
    folder = os.path.join(store.folder, DOMAIN)
    assert sorted(os.listdir(folder)) == ["a.pem", "states.json"]
    assert stat.S_IMODE(os.stat(store.path(DOMAIN, "a")).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_is_refused(store, mode):
    new(store, "a", KeyState.ACTIVE)
    os.chmod(store.path(DOMAIN, "a"), mode)
    with pytest.raises(KeyStoreError, match="chmod 600"):
        loaded(store)


def test_a_key_put_there_by_hand_is_active(store):
    new(store, "a", KeyState.ACTIVE)
    os.rename(store.path(DOMAIN, "a"), store.path(DOMAIN, "by-hand"))
    assert loaded(store) == {DOMAIN: ["by-hand"]}


def test_a_selector_is_never_used_twice(store):
    new(store, "a", KeyState.ACTIVE)
    with pytest.raises(KeyStoreError, match="already"):
        new(store, "a", KeyState.ACTIVE)
    os.unlink(store.path(DOMAIN, "a"))
    with pytest.raises(KeyStoreError, match="already"):
        new(store, "a", KeyState.ACTIVE)


def test_broken_files_are_named(store):
    new(store, "a", KeyState.ACTIVE)
    path = Path(store.path(DOMAIN, "a"))
    path.write_text("nonsense")
    with pytest.raises(KeyStoreError, match=r"a\.pem has no private key"):
        loaded(store)
    path.unlink()
    for text in ("[]", "{", '{"a": 3}', '{"a": {"state": "odd"}}'):
        (path.parent / "states.json").write_text(text)
        with pytest.raises(KeyStoreError, match=r"states\.json"):
            loaded(store)
    (path.parent / "states.json").unlink()
    (path.parent / "Bad_Selector.pem").write_text("x")
    with pytest.raises(KeyStoreError, match="selector"):
        loaded(store)
    assert store.domains() == (DOMAIN,)


def test_what_is_no_domain_is_passed_over(store):
    new(store, "a", KeyState.ACTIVE)
    os.mkdir(os.path.join(store.folder, "Not A Domain"))
    Path(store.folder, "example.org").write_text("")
    assert store.domains() == (DOMAIN,)
