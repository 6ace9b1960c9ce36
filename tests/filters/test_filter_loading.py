"""Finding filters by name, by path, with arguments; and the sample that comes with mailsrv."""

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.plugin import IPlugin, getPlugins
from zope.interface.verify import verifyObject

from mailsrv.filters.function import filter_function
from mailsrv.filters.loading import FilterNotFound, available_filters, load_filters
from mailsrv.filters.pipeline import FilterPipeline
from mailsrv.filters.settings import FilterSettings
from mailsrv.interfaces.filter import IFilter, Phase, Reject
from mailsrv.testing.filters import ask, message_view, session_view, transaction_view


@filter_function(phase="rcpt")
def kept_elsewhere():
    return Reject("Elsewhere")


def forgotten_decorator():
    return None


HERE = f"{__name__}:"


def attachment(disposition, body="MZ"):
    return (
        'Content-Type: multipart/mixed; boundary="b"\r\nSubject: x\r\n\r\n--b\r\n\r\nSee attached.\r\n--b\r\n'
        f"{disposition}\r\n\r\n{body}\r\n--b--\r\n"
    ).encode()


def sample(*arguments):
    (loaded,) = load_filters([FilterSettings(use="no-executables", arguments=arguments)])
    return loaded.filter


def test_the_sample_is_found_as_a_twisted_plugin():
    (found,) = [plugin for plugin in getPlugins(IFilter) if plugin.name == "no-executables"]
    verifyObject(IFilter, found)
    assert IPlugin.providedBy(found)
    assert available_filters()["no-executables"] is found
    assert found.phases == {Phase.MESSAGE}


@pytest.mark.parametrize(
    "disposition",
    [
        "Content-Disposition: attachment; filename=run.exe",
        'Content-Disposition: attachment; filename="photo.jpg.SCR"',
        'Content-Disposition: attachment; filename="run.exe. "',
        'Content-Type: application/octet-stream; name="run.js"',
        "Content-Disposition: attachment; filename=ok.txt; filename=run.exe",
        "Content-Disposition: attachment; filename*=utf-8''run%2Eexe",
        "Content-Disposition: attachment; filename*0=run.; filename*1=exe",
        "Content-Disposition: attachment; filename==?utf-8?q?run=2Eexe?=",
        'Content-Type: text/plain; name="ok.txt"\r\nContent-Disposition: inline; filename="run.vbs"',
    ],
)
def test_r_mime_2_executables_are_refused_under_every_name_they_have(disposition):
    decision = ask(sample(), Phase.MESSAGE, message=message_view(attachment(disposition)))
    assert decision.refusal is not None
    assert decision.refusal.text.startswith("Attachments of type .")


def test_other_attachments_pass_and_arguments_add_endings():
    message = message_view(attachment("Content-Disposition: attachment; filename=disk.iso"))
    assert ask(sample(), Phase.MESSAGE, message=message).refusal is None
    assert ask(sample(".ISO"), Phase.MESSAGE, message=message).refusal is not None
    mentioned = message_view(b"Subject: x\r\n\r\nContent-Disposition: attachment; filename=run.exe\r\n")
    assert ask(sample(), Phase.MESSAGE, message=mentioned).refusal is None


def test_a_large_message_is_looked_at_where_it_lies(tmp_path, monkeypatch):
    octets = attachment("Content-Disposition: attachment; filename=run.exe", "x" * 200_000)
    path = tmp_path / "message"
    path.write_bytes(octets)
    refusing = sample()
    monkeypatch.setitem(refusing.function.__globals__, "deferToThread", execute)
    message = message_view(octets, path=str(path))
    assert ask(refusing, Phase.MESSAGE, message=message).refusal is not None


def test_filters_keep_the_order_of_the_configuration():
    settings = [FilterSettings(use=HERE + "kept_elsewhere"), FilterSettings(use="no-executables")]
    loaded = load_filters(settings)
    assert [each.name for each in loaded] == ["kept-elsewhere", "no-executables"]
    assert FilterPipeline(loaded, None).filters == loaded  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("use", "says"),
    [
        ("no-executable", "did you mean 'no-executables'"),
        ("xyzzy", "there are: .*no-executables"),
        ("", "no filter is named ''"),
        (HERE + "nothing", "cannot be imported"),
        ("no.such.module:filter", "cannot be imported"),
        (":x", "cannot be imported"),
        (HERE + "forgotten_decorator", "needs @filter_function"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(use, says):
    with pytest.raises(FilterNotFound, match=says) as caught:
        load_filters([FilterSettings(use=use)])
    assert "\n" not in str(caught.value)


def test_arguments_for_a_filter_that_takes_none():
    with pytest.raises(FilterNotFound, match="takes none"):
        load_filters([FilterSettings(use=HERE + "kept_elsewhere", arguments=("x",))])


def test_a_loaded_filter_is_asked_through_the_pipeline():
    pipeline = FilterPipeline(load_filters([FilterSettings(use=HERE + "kept_elsewhere")]), None)  # type: ignore[arg-type]
    decisions: list = []
    asked = pipeline.ask(Phase.RCPT, session_view(), transaction_view())
    Deferred.fromCoroutine(asked).addCallback(decisions.append)
    assert decisions[0].refusal.text == "Elsewhere"
