"""Rules about several sections are asked beside other mistakes, and never about what is one of them."""

from __future__ import annotations

import attrs
import pytest

from mailsrv.config.load import parse
from mailsrv.config.partial import Unsound, any_sound, is_whole, partial_record, those, where_sound
from mailsrv.config.problems import ConfigurationError

HEAD = 'hostname = "mail.example.test"\nstate_dir = "state"\n'
TLS = '[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n'
IMAP = '[[listen]]\nservice = "imap"\nendpoint = "tcp:143"\ntls = "starttls"\n'
LMTP = '[[listen]]\nservice = "lmtp"\nendpoint = "unix:lmtp.sock"\n'
DOMAIN = '[[domain]]\nname = "example.test"\n'
DIRECTORY = '[[directory]]\ntype = "passwd-file"\npath = "users"\n'
LDAP = '[[directory]]\ntype = "ldap"\n'
GOOD = HEAD + TLS + IMAP + LMTP + DOMAIN + DIRECTORY
LIST = '[[list]]\naddress = "team@other.test"\npost = "users"\n'


def problems(text: str) -> set[str]:
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "/etc/mailsrv/mailsrv.toml")
    return {problem.key for problem in raised.value.problems}


def changed(*changes: tuple[str, str], more: str = "") -> str:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text + more


def test_the_file_that_is_changed_here_is_good():
    assert parse(GOOD, "/etc/mailsrv/mailsrv.toml").listen[1].endpoint == "unix:/etc/mailsrv/lmtp.sock"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            changed(("tls = ", "tsl = "), (TLS, "[tls]\n")), {"listen[0].tsl"}, id="tls = none is not what was said"
        ),
        pytest.param(
            changed((LMTP, LMTP.replace("lmtp.sock", "a:mode=rw") + IMAP), (TLS, "")),
            {"listen[1].endpoint", "listen[2].endpoint", "tls.certificate", "tls.key"},
            id="a listener that is wrong hides nothing of the others",
        ),
        pytest.param(
            changed((IMAP, IMAP + 'plaintext_networks = "x"\n'), ('service = "lmtp"', 'service = "pop3"')),
            {"listen[0].plaintext_networks", "listen[1].tls"},
            id="nor what is wrong with a key beside",
        ),
        pytest.param(
            changed(('tls = "starttls"', ""), more='[auth]\nplaintext_networks = ["x"]\ndefault_domain = "a.test"\n'),
            {"auth.plaintext_networks", "auth.default_domain"},
            id="of a section the sound part is looked at",
        ),
        pytest.param(
            changed(('example.test"\n[[dir', 'a b"\n[[dir'), more=LIST + LIST),
            {"domain[0].name"},
            id="what depends on a domain that is wrong is not judged",
        ),
        pytest.param(
            changed((DOMAIN, '[[domains]]\nname = "other.test"\n'), more=LIST),
            {"domains"},
            id="a section by a misspelled name is not missing",
        ),
        pytest.param(
            changed((DOMAIN, DOMAIN + "aliases = 3\n"), more='[auth]\ndefault_domain = "Example.test"\n'),
            {"domain[0].aliases"},
            id="it is enough that one name is known",
        ),
        pytest.param(
            changed(
                (DOMAIN, DOMAIN + 'catch_all = "x"\nsubaddress_delimiter = "+-"\nfoo = 1\n' + DOMAIN),
                more="[store]\npath = 3\n" + LIST,
            ),
            {"domain[0].subaddress_delimiter", "domain[0].foo", "domain[1].name", "store.path"},
            id="an unknown key may have been any that is left out, an alias too",
        ),
        pytest.param(
            changed(
                ("hostname", 'workers = "two"\nhostname'), more='[store]\ntype = "maildir"\npath = "/x"\n[[store.y]]\n'
            ),
            {"workers", "store.y", "store.path"},
            id="what is written is known beside unknown keys",
        ),
        pytest.param(
            changed((DIRECTORY, LDAP + 'uri = ["x"]\nbind_dn = "cn=a"\nbind_external = true\n')),
            {
                "directory[0].uri",
                "directory[0].base",
                "directory[0].bind_password_file",
                "directory[0].client_certificate_file",
                "directory[0].bind_dn",
            },
            id="all of a directory is told though its servers are wrong",
        ),
        pytest.param(
            changed((DOMAIN, ""), (DIRECTORY, LDAP + 'domain = "a.test"\nbase = "o=x"\nuri = []\ndomains = 3\n')),
            {"directory[0].uri", "directory[0].domains"},
            id="whether domains are missing depends on whether the directory has some",
        ),
        pytest.param(
            changed(
                (DIRECTORY, '[[directory]]\ntype = "paswd"\n'),
                more='[[route]]\nto = "a.test"\nvia = "local"\n[[route]]\nvia = 3\n'
                '[[route]]\nvia = "mx"\nusername = "x"\n[delivery]\nsrs_domain = "example.test"\n',
            ),
            {"directory[0].type", "route[1].via", "route[2].username"},
            id="routes are judged by their numbers in the file",
        ),
        pytest.param(
            changed(more='[[filter]]\n[[filter]]\nuse = 3\n[limits]\nexempt_networks = ["x"]\nfoo = 1\n'),
            {"filter[0].use", "filter[1].use", "limits.exempt_networks", "limits.foo"},
            id="each filter by itself",
        ),
        pytest.param(
            "listen = 3\ndomain = [1]\ndirectory = {}\n" + HEAD, {"listen", "domain[0]", "directory"}, id="wrong types"
        ),
    ],
)
def test_all_mistakes_at_once_and_none_that_follows_from_another(text: str, expected: set[str]):
    assert problems(text) == expected


@attrs.frozen
class Pair:
    first: int
    second: int = 2

    @property
    def total(self) -> int:
        return self.first + self.second


def test_a_partial_record_is_one_of_its_class_and_refuses_only_what_it_lacks():
    pair = partial_record(Pair, {"second": 5})
    assert isinstance(pair, Pair)
    assert pair.second == 5
    with pytest.raises(Unsound):
        _ = pair.first
    with pytest.raises(Unsound):
        _ = pair.total
    with pytest.raises(AttributeError):
        _ = pair.third  # type: ignore[attr-defined]
    assert not is_whole(pair)
    assert is_whole(Pair(1))


def test_what_can_be_told_of_several_records_is_told():
    pairs = (partial_record(Pair, {"second": 5}), Pair(1), Pair(3))
    assert list(those(pairs, lambda each: each.first > 1)) == [(2, Pair(3))]
    assert any_sound(pairs, lambda each: each.first == 3)
    with pytest.raises(Unsound):
        any_sound(pairs, lambda each: each.first == 7)
    assert not any_sound(pairs, lambda each: each.second == 7)
    assert list(where_sound(each.first for each in reversed(pairs))) == [3, 1]
