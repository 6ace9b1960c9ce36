"""Keeping the domains that directories list: asked now and then, kept for an outage, told to who has to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from mailsrv.directory.domains import DomainTable, Knowledge, LocalDomains
from mailsrv.directory.kept_domains import KeptDomains
from mailsrv.directory.memory import MemoryDomains
from mailsrv.directory.settings import DomainSettings
from mailsrv.directory.supplied_domains import RETRY_SECONDS, SuppliedDomains
from tests.contracts.directory import RunAtOnce

STATIC = (DomainSettings("own.test"),)


class House:
    """A worker with two sources; ``again`` is the next start."""

    def __init__(self, folder: Any, *sources: MemoryDomains) -> None:
        self.folder = folder
        self.sources = sources
        self.clock = Clock()
        self.clock.advance(1000)
        self.threads = RunAtOnce()
        self.tables: list[DomainTable] = []
        self.used: list[DomainTable] = []
        self.log: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.domains = LocalDomains(STATIC, supplied=bool(self.sources))
        self.supplied = SuppliedDomains(
            self.domains,
            STATIC,
            self.sources,
            KeptDomains(str(self.folder)),
            clock=self.clock,
            run_in_thread=self.threads,
            prepare=self.prepare,
            seconds=lambda: self.clock.seconds() + 1_000_000_000,
        )

    def prepare(self, table: DomainTable) -> Any:
        self.tables.append(table)
        return lambda: self.used.append(table)

    def start(self) -> None:
        self.supplied.load()
        self.supplied.start()

    def again(self) -> None:
        self.supplied.stop()
        self.begin()
        self.start()

    def observe(self, event: Any) -> None:
        if str(event.get("log_namespace", "")).startswith("mailsrv.directory.supplied"):
            self.log.append(event["log_format"].format(**event))

    def knowledge(self) -> Knowledge:
        return self.domains.knowledge

    @property
    def states(self) -> Any:
        return [(state.knowledge, state.domains) for state in self.supplied.states()]


@pytest.fixture
def make(tmp_path) -> Iterator[Any]:
    houses: list[House] = []
    publisher: Any = globalLogPublisher

    def begin(*sources: MemoryDomains) -> House:
        house = House(tmp_path / "domains", *sources)
        houses.append(house)
        publisher.addObserver(house.observe)
        return house

    yield begin
    for house in houses:
        publisher.removeObserver(house.observe)


def test_domains_come_and_go_within_the_interval_and_it_is_told(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    assert "a.test" in house.domains
    assert house.knowledge() is Knowledge.ALL
    source.add("b.test")
    source.add("c.test", "b.test")
    house.clock.advance(29)
    assert "b.test" not in house.domains
    house.clock.advance(1)
    assert house.domains.find("c.test")[0] == "b.test"
    assert "b.test is delivered here from now on (b.test in memory)" in house.log
    del source.domains["a.test"]
    house.clock.advance(30)
    assert "a.test" not in house.domains
    assert "a.test is no longer delivered here (a.test in memory)" in house.log
    assert "own.test" in house.domains


def test_who_else_has_to_know_is_told_the_table_that_is_used(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    assert house.used[-1] is house.domains.table
    tables = len(house.tables)
    house.clock.advance(300)
    assert len(house.tables) == tables  # nothing is made anew of the same list


def test_a_change_that_is_told_is_asked_for_at_once_but_not_more_than_once_a_second(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    house.clock.advance(5)
    source.add("b.test")
    for _ in range(100):
        source.tell()
    house.clock.advance(0)
    assert "b.test" in house.domains
    assert source.asked == 2
    source.add("c.test")
    source.tell()
    house.clock.advance(0.5)
    assert "c.test" not in house.domains
    house.clock.advance(0.5)
    assert "c.test" in house.domains


def test_a_change_while_it_is_asked_is_asked_for_again(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    house.threads.hold = True
    source.add("b.test")
    house.clock.advance(30)
    source.add("c.test")
    source.tell()
    house.threads.hold = False
    while house.threads.held:
        house.threads.go()
    house.clock.advance(1)
    assert "c.test" in house.domains


def test_an_outage_leaves_what_was_told_and_nothing_else_is_certain(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    source.is_down = True
    house.clock.advance(30)
    assert "a.test" in house.domains
    assert house.knowledge() is Knowledge.LAST_HEARD
    assert sum("does not tell" in line for line in house.log) == 1
    house.clock.advance(7 * 86400)
    assert "a.test" in house.domains
    assert sum("does not tell" in line for line in house.log) == 1
    source.is_down = False
    house.clock.advance(RETRY_SECONDS)
    assert house.knowledge() is Knowledge.ALL
    assert any("again" in line for line in house.log)


def test_none_at_all_is_no_answer(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    source.domains.clear()
    house.clock.advance(30)
    assert "a.test" in house.domains
    assert house.knowledge() is Knowledge.LAST_HEARD


def test_a_start_while_the_directory_is_down_serves_the_kept_list(make):
    source = MemoryDomains("a.test")
    source.add("b.test", "a.test")
    house = make(source)
    house.start()
    source.is_down = True
    house.again()
    assert house.domains.find("b.test")[0] == "a.test"
    assert house.knowledge() is Knowledge.LAST_HEARD
    [state] = house.supplied.states()
    assert state.trouble == "memory is down"
    source.is_down = False
    source.add("c.test")
    house.clock.advance(RETRY_SECONDS)
    assert house.knowledge() is Knowledge.ALL
    assert "c.test" in house.domains


def test_a_start_without_a_kept_list_knows_nothing_but_the_settings(make):
    source = MemoryDomains("a.test")
    source.is_down = True
    house = make(source)
    house.start()
    assert house.knowledge() is Knowledge.NONE
    assert "own.test" in house.domains
    assert house.states == [(Knowledge.NONE, 0)]


def test_a_kept_list_that_is_broken_is_none_and_is_written_anew(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    [file] = house.folder.iterdir()
    file.write_text("{")
    source.is_down = True
    house.again()
    assert house.knowledge() is Knowledge.NONE
    source.is_down = False
    house.clock.advance(RETRY_SECONDS)
    assert "a.test" in file.read_text()


def test_a_disk_that_cannot_be_written_costs_nothing_but_the_kept_list(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.folder.parent.joinpath("domains").write_text("")
    house.start()
    assert "a.test" in house.domains
    house.clock.advance(3000)
    assert house.knowledge() is Knowledge.ALL
    assert sum("cannot be kept" in line for line in house.log) == 1


def test_with_two_directories_the_one_that_is_known_least_counts(make):
    first, second = MemoryDomains("a.test"), MemoryDomains("b.test", name="second", key="11111111")
    second.is_down = True
    house = make(first, second)
    house.start()
    assert "a.test" in house.domains
    assert house.knowledge() is Knowledge.NONE
    second.is_down = False
    house.clock.advance(RETRY_SECONDS)
    assert house.knowledge() is Knowledge.ALL
    assert house.states == [(Knowledge.ALL, 1), (Knowledge.ALL, 1)]
    first.is_down = True
    house.clock.advance(60)
    assert house.knowledge() is Knowledge.LAST_HEARD
    assert "a.test" in house.domains


def test_answers_of_two_directories_that_come_together_are_both_used(make):
    first, second = MemoryDomains("a.test"), MemoryDomains("b.test", name="second", key="11111111")
    house = make(first, second)
    house.supplied.load()
    house.threads.hold = True
    house.supplied.start()
    while house.threads.held:
        house.threads.go()
    assert {"a.test", "b.test"} <= house.domains.table.found.keys()
    assert house.knowledge() is Knowledge.ALL
    assert house.used[-1] is house.domains.table


def test_a_directory_that_fails_while_the_table_of_another_is_made_makes_nothing_known(make):
    first, second = MemoryDomains("a.test"), MemoryDomains("b.test", name="second", key="11111111")
    first.is_down = True
    house = make(first, second)
    house.start()
    assert house.knowledge() is Knowledge.NONE
    first.is_down, second.is_down = False, True
    house.threads.hold = True
    house.clock.advance(RETRY_SECONDS)  # the first answers, its table is being made
    house.clock.advance(30)  # the second fails
    assert house.knowledge() is Knowledge.NONE
    while house.threads.held:
        house.threads.go()
    assert house.knowledge() is Knowledge.LAST_HEARD
    assert {"a.test", "b.test"} <= house.domains.table.found.keys()


def test_what_leads_nowhere_is_told_once(make):
    source = MemoryDomains("a.test")
    source.add("x.test", "gone.test")
    house = make(source)
    house.start()
    house.clock.advance(300)
    assert sum("no domain of ours" in line for line in house.log) == 1
    assert "x.test" not in house.domains


def test_many_at_once_are_counted_not_listed(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    for number in range(1000):
        source.add(f"d{number}.test")
    house.clock.advance(30)
    assert len(house.log) < 30
    assert "980 more domains: each is delivered here from now on" in house.log


def test_a_list_that_stays_is_marked_as_told_again_now_and_then(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    [file] = house.folder.iterdir()
    written = file.stat().st_ino
    house.clock.advance(86400)
    for _ in range(200):
        house.clock.advance(30)
    assert file.stat().st_ino == written


def test_who_has_stopped_asks_no_more(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    house.supplied.stop()
    asked = source.asked
    source.tell()
    house.clock.advance(300)
    assert source.asked == asked
    assert not house.clock.getDelayedCalls()


def test_without_sources_nothing_is_done(make):
    house = make()
    house.start()
    house.supplied.ask_all()
    assert house.threads.count == 0
    assert not house.clock.getDelayedCalls()
    assert house.knowledge() is Knowledge.ALL
    house.supplied.stop()


def test_a_fault_of_ours_is_an_outage_and_ends_nothing(make):
    source: Any = MemoryDomains("a.test")
    house = make(source)
    house.start()
    find = source.find_domains
    source.find_domains = lambda: fail(RuntimeError("a bug"))
    house.clock.advance(30)
    assert house.knowledge() is Knowledge.LAST_HEARD
    assert house.supplied.states()[0].trouble == "a fault"
    source.find_domains = find
    house.clock.advance(RETRY_SECONDS)
    assert house.knowledge() is Knowledge.ALL


def test_what_may_have_changed_is_known_when_each_directory_has_told_again(make):
    first, second = MemoryDomains("a.test"), MemoryDomains("b.test")
    house = make(first, second)
    assert house.supplied.may_have_changed_since(0)
    house.start()
    accepted = house.clock.seconds() + 1_000_000_000
    assert house.supplied.may_have_changed_since(accepted)
    assert not house.supplied.may_have_changed_since(accepted - 1)
    house.clock.advance(30)
    assert not house.supplied.may_have_changed_since(accepted)
    second.is_down = True
    house.clock.advance(30)
    assert house.supplied.may_have_changed_since(accepted)
    assert not make().supplied.may_have_changed_since(accepted)


def test_a_reload_knows_what_was_known_though_nothing_could_be_kept(make, tmp_path):
    (tmp_path / "domains").write_text("no folder")
    source = MemoryDomains("a.test")
    house = make(source)
    house.start()
    former = house.supplied
    source.is_down = True
    house.begin()
    house.supplied.take_over(former)
    house.supplied.load()
    asked = source.asked
    house.supplied.ask_all()
    assert source.asked == asked  # a reload does not wait for it
    assert "a.test" in house.domains
    assert house.knowledge() is Knowledge.ALL
    former.stop()
    house.supplied.start()
    assert "a.test" in house.domains
    assert house.knowledge() is Knowledge.LAST_HEARD
    source.is_down = False
    source.add("b.test")
    house.clock.advance(RETRY_SECONDS)
    assert house.knowledge() is Knowledge.ALL
    assert "b.test" in house.domains


def test_a_reload_takes_nothing_over_of_other_sources(make):
    house = make(MemoryDomains("a.test", key="00000000"))
    house.start()
    former = house.supplied
    other = MemoryDomains("b.test", key="11111111")
    other.is_down = True
    house.sources = (other,)
    house.begin()
    house.supplied.take_over(former)
    house.supplied.load()
    assert "a.test" not in house.domains
    assert house.knowledge() is Knowledge.NONE
    house.supplied.ask_all()
    assert other.asked == 1


def test_a_default_domain_that_no_directory_lists_is_told_once(make):
    source = MemoryDomains("a.test")
    house = make(source)
    house.domains = LocalDomains((), default="default.test", supplied=True)
    house.supplied._domains = house.domains
    house.supplied._static = ()
    house.start()
    source.add("b.test")
    house.clock.advance(30)
    told = [line for line in house.log if "default.test (auth.default_domain)" in line]
    assert len(told) == 1
    source.add("default.test")
    house.clock.advance(30)
    del source.domains["default.test"]
    house.clock.advance(30)
    assert len([line for line in house.log if "default.test (auth.default_domain)" in line]) == 2
