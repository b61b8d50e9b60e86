"""The run of all benchmarks: what it runs, and the tables that it writes."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "benchmarks"
OF_A_GPU = "gpu_"
"""Scripts that `make gpu-check` runs."""


@pytest.fixture
def bench_run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("run")


def make_ran(module: ModuleType, **changes: Any) -> Any:
    facts: dict[str, Any] = {
        "job": module.JOBS[0],
        "command": "python events.py",
        "code": 0,
        "output": "two lines\nof text\n| a | b |\n|---|---|\n| 1 | 2 |\nand more",
        "error": "",
        "seconds": 12.4,
        "others": 0.0,
    }
    return module.Ran(**{**facts, **changes})


def test_every_script_of_the_folder_is_run(bench_run: ModuleType) -> None:
    scripts = {
        path.name
        for path in FOLDER.glob("*.py")
        if '__name__ == "__main__"' in path.read_text() and not path.name.startswith(OF_A_GPU)
    }
    started = {word for job in bench_run.JOBS for word in job.command.split() if word.endswith(".py")}
    assert scripts - {"run.py", "soak_run.py"} == started  # soak.py starts soak_run.py


def test_a_page_keeps_tables_as_they_are_and_other_lines_as_text(bench_run: ModuleType) -> None:
    page = bench_run.page("events", [make_ran(bench_run)], quick=False)
    text = "```\ntwo lines\nof text\n```\n\n"
    assert f"\n## `python events.py`\n\n12 s.\n\n{text}| a | b |\n|---|---|\n| 1 | 2 |\n" in page
    assert page.endswith("\n```\nand more\n```\n\n")
    assert "not to be edited" in page


def test_a_page_says_when_the_machine_was_not_its_own(bench_run: ModuleType) -> None:
    page = bench_run.page("events", [make_ran(bench_run, others=64.0)], quick=False)
    assert "**Other programs used 64.00 cores: not to be relied on.**" in page


def test_a_page_of_a_quick_run_says_that_it_shows_nothing(bench_run: ModuleType) -> None:
    assert "**A quick run" in bench_run.page("events", [make_ran(bench_run)], quick=True)


def test_a_script_that_failed_is_in_the_page_with_what_it_said(bench_run: ModuleType) -> None:
    page = bench_run.page("events", [make_ran(bench_run, code=2, error="no such file")], quick=False)
    assert "Exit code 2." in page
    assert page.endswith("```\nno such file\n```\n")


def test_a_quick_run_does_not_overwrite_results(
    bench_run: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench_run.main(["--quick"])
    assert "give --out another folder" in capsys.readouterr().err


def test_a_job_without_its_libraries_is_left_out_with_the_reason(bench_run: ModuleType) -> None:
    job = replace(bench_run.JOBS[0], needs=("json", "no_such_module"), needs_data=False)
    assert job.why_not() == "needs no_such_module"


def test_the_tables_of_a_run_are_what_its_scripts_printed(
    bench_run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "python -c \"print('| a |'); print('|---|'); print('| {work} |'[:3] + ' |')\""
    jobs = (bench_run.Job("one", "first", "false", code), bench_run.Job("two", "second", "false", "false"))
    monkeypatch.setattr(bench_run, "JOBS", jobs)
    assert bench_run.main(["--quick", "--out", str(tmp_path)]) == 1
    assert "| a |\n|---|\n| / |" in (tmp_path / "first.md").read_text()
    assert "Exit code 1." in (tmp_path / "second.md").read_text()
    assert sys.executable not in (tmp_path / "first.md").read_text()
