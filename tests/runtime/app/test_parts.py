"""Parts of an archive: rows as lines of `--out`, files whole or not at all, and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.app.parts import Outcome, ParquetPart, Report, as_row
from velora_runtime.inference.decision import Action
from velora_runtime.sinks.base import Result
from velora_runtime.sinks.jsonl import as_action_record, as_record

from velora_edge.datatypes import FramePair, Prediction
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

pq = pytest.importorskip("pyarrow.parquet", reason="needs the archive extra: pip install -e '.[archive]'")

PREDICTION = Prediction(
    seq=12,
    t_us=400_000,
    label="größe",
    score=0.1234567891,
    top=(("größe", 0.1234567891), ("wave", 0.1)),
    events=18_211,
    skew_us=None,
    latency_ms={"total": 5.75},
    dropped={"rgb": 0, "events": 3},
    missing=("rgb",),
)
STARTS = Action(0, "wave", 0.7, 13, 500_000, 400_000)
ENDS = Action(0, "wave", 0.9, 20, 900_000, 400_000, 800_000, "weak")


def as_line(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a line of `--out` has it, without version and latencies."""
    line = {key: value for key, value in row.items() if value is not None or key == "skew_us"}
    del line["recording"]
    if line["type"] == "prediction":
        del line["type"]
        line["top"] = [[one["label"], one["score"]] for one in line["top"]]
    else:
        del line["skew_us"]
    return line


def without(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in ("v", "latency_ms")}


def test_rows_are_lines_of_out(tmp_path: Path) -> None:
    with ParquetPart(tmp_path / "a-1-2.parquet", "day/door", {"velora": "{}"}) as part:
        for item in (PREDICTION, STARTS, ENDS):
            part.write(item)
        part.commit()
    rows = pq.read_table(tmp_path / "a-1-2.parquet").to_pylist()
    assert [row["recording"] for row in rows] == ["day/door"] * 3
    expected = [as_record(PREDICTION), as_action_record(STARTS), as_action_record(ENDS)]
    assert [as_line(row) for row in rows] == [without(line) for line in expected]


def test_a_pair_without_a_prediction_is_no_row(tmp_path: Path) -> None:
    with ParquetPart(tmp_path / "a-1-2.parquet", "a", {}) as part:
        assert part.take(Result(FramePair(0, 5, None, None), None)) is None
        assert part.take(Result(FramePair(0, 5, None, None), PREDICTION)) is PREDICTION
        assert part.take_action(STARTS) is STARTS


def test_long_recordings_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velora_runtime.app.parts.ROWS_AT_ONCE", 2)
    with ParquetPart(tmp_path / "a-1-2.parquet", "a", {}) as part:
        for _ in range(5):
            part.write(PREDICTION)
        part.commit()
    file = pq.ParquetFile(tmp_path / "a-1-2.parquet")
    assert (file.metadata.num_rows, file.metadata.num_row_groups, part.rows) == (5, 3, 5)


def test_what_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    with ParquetPart(tmp_path / "a-1-2.parquet", "a", {}) as part:
        part.write(PREDICTION)
        part.close()
    assert list(tmp_path.iterdir()) == []


def test_a_part_takes_the_place_of_an_older_state_and_of_no_other_recording(tmp_path: Path) -> None:
    for name in ("a[1]-11111111-old.parquet", "a[1]-22222222-old.parquet", "b-11111111-old.parquet"):
        (tmp_path / name).write_bytes(b"old")
    with ParquetPart(tmp_path / "a[1]-11111111-new.parquet", "a", {}) as part:
        part.commit()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["a[1]-11111111-new.parquet", "a[1]-22222222-old.parquet", "b-11111111-old.parquet"]


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written: No such file or directory; choose another"):
        ParquetPart(tmp_path / "gone" / "a-1-2.parquet", "a", {})


def test_a_row_of_an_action_has_its_fields_alone() -> None:
    assert as_row("a", STARTS) == {"recording": "a", **as_action_record(STARTS)}


DONE = Outcome("a", "done", "a.parquet", "d1", "5e7", 3, 1.5, 0.2, "onnxruntime", ("odd",))
FAILED = Outcome("b", "failed", error="the file is empty")


def test_an_outcome_survives_its_line() -> None:
    assert Outcome.from_json(DONE.to_json()) == DONE
    assert Outcome.from_json(FAILED.to_json()) == FAILED


@pytest.mark.parametrize(
    "line", ["", "{", "[]", '{"recording":"a"}', '{"recording":"a","state":"done","notes":[],"x":1}', "7"]
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Outcome.from_json(line)


def test_a_report_knows_what_is_done_and_forgets_failures_and_half_lines(tmp_path: Path) -> None:
    with Report(tmp_path, {"v": 1}) as report:
        assert report.known == {}
        report.add(DONE)
        report.add(FAILED)
    (tmp_path / "a.parquet").write_bytes(b"rows")
    with (tmp_path / "report.jsonl").open("a") as file:
        file.write(DONE.to_json()[:40])
    with Report(tmp_path, {"v": 1}) as report:
        assert report.known == {"a": DONE}
    assert (tmp_path / "report.jsonl").read_text() == DONE.to_json() + "\n"


def test_a_line_whose_part_is_gone_is_forgotten(tmp_path: Path) -> None:
    with Report(tmp_path, {}) as report:
        report.add(DONE)
    with Report(tmp_path, {}) as report:
        assert report.known == {}


def test_a_report_leads_to_no_part_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_bytes(b"")
    line = Outcome("a", "done", "../secret").to_json()
    (tmp_path / "run" / "report.jsonl").write_text(line + "\n")
    with Report(tmp_path / "run", {}) as report:
        assert report.known == {}


def test_two_runs_do_not_write_one_report(tmp_path: Path) -> None:
    with Report(tmp_path, {}), pytest.raises(InputError, match="another velora predict writes here"):
        Report(tmp_path, {})
    with Report(tmp_path, {}):
        pass
