"""For all tests: names that are the same in every process, examples that are the same in every run, temporary files
out of the tree, a collector that leaves the tests themselves alone, and a look at the tree.

Hypothesis tries the same examples each time, so that what fails has changed. To search for new ones:
``pytest --hypothesis-profile=searching``. ``make check`` takes the profile ``quick``: few examples, whatever a test
asks for.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from twisted.trial.unittest import SynchronousTestCase

_LONGEST_ID = 30
_QUICK_EXAMPLES = 15
_QUICK_RUNS = 5
"""Of a state machine, which takes many steps in each."""
_NAMES_BEFORE = pytest.StashKey[set[str]]()
# What building and the tools leave behind on purpose; .gitignore has it too.
_EXPECTED = {"build", "dist", "var", "__pycache__", "mailsrv.egg-info"}

# Once trial is loaded, pytest asks before each test for Twisted's version, and each time all of its metadata is read.
importlib.metadata.version = functools.cache(importlib.metadata.version)

# While tests are read there is no garbage, only more and more to look through: a fifth of that time.
gc.disable()

# A busy machine is no fault of an example: time limits are the tests' own (faulthandler_timeout).
_STEADY = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", _STEADY)
settings.register_profile("quick", _STEADY, max_examples=_QUICK_EXAMPLES)
settings.register_profile("searching", _STEADY, derandomize=False, max_examples=1000)
# Before any test is read, because ``@settings`` starts from the profile there is; --hypothesis-profile comes later.
settings.load_profile("steady")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Long values (and fresh hashes among them) are numbered, not spelt out: names stay readable and the same
    in every process of ``pytest -n``.
    """
    return argname if isinstance(val, str | bytes) and len(val) > _LONGEST_ID else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``@settings(max_examples=…)`` of a test says how many there are in ``make test``."""
    if settings.get_current_profile_name() != "quick":
        return
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        test: Any = getattr(item.obj, "__func__", item.obj)
        asked: settings | None = getattr(test, "_hypothesis_internal_use_settings", None)
        if asked is not None:
            test._hypothesis_internal_use_settings = _at_most(asked, _QUICK_EXAMPLES)
        elif isinstance(of_machine := getattr(item.cls, "settings", None), settings):
            setattr(item.cls, "settings", _at_most(of_machine, _QUICK_RUNS))  # noqa: B010 - only such classes have it


def pytest_collection_finish() -> None:
    """What was read stays to the end: looking through it again and again takes as long as hundreds of tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _at_most(asked: settings, examples: int) -> settings:
    return settings(asked, max_examples=min(asked.max_examples, examples))


@pytest.fixture(scope="session", autouse=True)
def _trial_files_out_of_the_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trial's ``mktemp`` makes its folders in the current folder; ours are made where pytest's are."""
    base = tmp_path_factory.mktemp("trial")

    def mktemp(case: SynchronousTestCase) -> str:
        return os.path.join(tempfile.mkdtemp(dir=base), "temp")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SynchronousTestCase, "mktemp", mktemp)
        yield


def _names_in_the_root(config: pytest.Config) -> set[str]:
    return {name for name in os.listdir(config.rootpath) if not name.startswith(".")} - _EXPECTED


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_NAMES_BEFORE] = _names_in_the_root(session.config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that leaves something in the checkout has failed."""
    if hasattr(session.config, "workerinput"):
        return  # one process of several; the first one looks
    before = session.config.stash[_NAMES_BEFORE]
    left = _names_in_the_root(session.config) - before
    if left and exitstatus == pytest.ExitCode.OK:
        sys.stderr.write(f"\nThe tests left behind in {session.config.rootpath}: {', '.join(sorted(left))}\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
