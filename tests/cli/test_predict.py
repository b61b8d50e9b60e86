"""`velora predict`: the rows of velora-live, and the questions that its guide asks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events
from tests.videos import write_video
from velora_cli.main import velora
from velora_edge.console import run

pq = pytest.importorskip("pyarrow.parquet", reason="needs the archive extra: pip install -e '.[archive]'")

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "archives.md"
ASSETS = ROOT / "velora_edge" / "assets"
CPU = ("--backend", "onnxruntime", "--device", "cpu")


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = run(velora, [str(arg) for arg in args], name="velora")
    return (code, *capsys.readouterr())


def predict(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    return call(capsys, "predict", *args, *CPU, "--workers", 1, "--quiet")


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(out.glob("*/*.parquet")) for row in pq.read_table(part).to_pylist()]


def lines(path: Path) -> list[dict[str, Any]]:
    """Lines of `--out` in the form of rows."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        del line["v"]
        line.pop("latency_ms", None)
        if "top" in line:
            line["top"] = [{"label": label, "score": score} for label, score in line["top"]]
        found.append({"type": "prediction", **line})
    return found


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None and key != "recording"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--decide", "default", "--decide", "hold_ms=0", "--decide", "enter=0.3", "--decide", "leave=0.2"),
        ("--start", "0.5"),
    ],
)
def test_rows_are_those_of_velora_live(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = ("--events", ASSETS / "demo.raw", "--rgb", ASSETS / "demo.mp4")
    live = ("live", "demo", *sources, "--pace", "max", "--quiet", "--out", tmp_path / "p.jsonl")
    assert call(capsys, *live, *CPU, "--threads", 1, *options)[0] == 0
    code, out, err = predict(capsys, "demo", ASSETS / "demo.raw", "--out", tmp_path / "preds", *options)
    assert code == 0, err
    expected = lines(tmp_path / "p.jsonl")
    assert len(expected) > 50
    assert [without_nulls(row) for row in rows(tmp_path / "preds")] == [
        {key: value for key, value in line.items() if value is not None} for line in expected
    ]
    assert out.startswith(
        f"1 recordings: 1 predicted, {len(expected)} rows; 0 were there already; 0 failed\n"
    )


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and an archive of three recordings in the working folder."""
    monkeypatch.chdir(tmp_path)
    event = write_tiny_bundle(tmp_path / "m.velora").manifest.event.model_copy(update={"window_us": 10_000})
    write_tiny_bundle(tmp_path / "m.velora", 3, event=event)
    (tmp_path / "a" / "b").mkdir(parents=True)
    write_events(tmp_path / "a" / "x.raw", start_us=0)
    write_video(tmp_path / "a" / "x.mp4", [10_000 * k for k in range(1, 30)])
    write_events(tmp_path / "a" / "b" / "y.raw")
    return tmp_path


def test_a_damaged_recording_costs_a_line_of_the_report_and_exit_code_1(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive / "a" / "damaged.raw").write_bytes(b"% evt 3.0\n% geometry 0x0\n% end\n")
    code, out, err = predict(capsys, "m.velora", "a/**", "--out", "preds")
    [folder] = (archive / "preds").iterdir()
    assert code == 1
    assert out.splitlines()[0] == "3 recordings: 2 predicted, 64 rows; 0 were there already; 1 failed"
    failed, error = err.splitlines()[-2:]
    assert failed.startswith("failed: a/damaged.raw: ")
    assert error == f"error: 1 of 3 recordings failed; {folder}/report.jsonl tells why"
    report = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    assert sorted((line["recording"], line["state"]) for line in report) == [
        ("a/b/y.raw", "done"),
        ("a/damaged.raw", "failed"),
        ("a/x.raw", "done"),
    ]
    code, out, _ = predict(capsys, "m.velora", "a/**", "--out", "preds")
    assert (code, out.splitlines()[0]) == (
        1,
        "3 recordings: 0 predicted, 0 rows; 2 were there already; 1 failed",
    )


def test_what_changed_is_predicted_again_and_nothing_else(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = "2 recordings: 2 predicted, 64 rows; 0 were there already; 0 failed"
    assert predict(capsys, "m.velora", "a", "--out", "preds")[1].splitlines()[0] == first
    write_events(archive / "a" / "b" / "y.raw", seed=8)
    assert predict(capsys, "m.velora", "a", "--out", "preds")[1].splitlines()[0] == (
        "2 recordings: 1 predicted, 37 rows; 1 were there already; 0 failed"
    )
    assert len(list((archive / "preds").glob("*/*.parquet"))) == 2
    write_tiny_bundle(archive / "m.velora", 4)  # another model
    assert predict(capsys, "m.velora", "a", "--out", "preds")[1].startswith("2 recordings: 2 predicted, ")
    assert len(list((archive / "preds").glob("*/*.parquet"))) == 4


def test_what_cannot_begin_is_one_line_and_exit_code_2(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for args, error in (
        (("none.velora", "a"), "error: none.velora: no such model"),
        (("m.velora", "a/*.h5"), "error: a/*.h5: matches no recording"),
        (("m.velora", "a", "--sync", "never"), "error: expected --sync auto, timestamps, trigger, host or"),
        (("m.velora", "a", "--sync", "host"), "error: --sync host is for live cameras"),
        (("m.velora", "a", "--filter", "magic"), "error: "),
    ):
        code, out, err = predict(capsys, *args, "--out", "preds")
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert err.startswith(error)
    assert not (archive / "preds").exists()


def test_options_for_one_kind_of_recording_leave_the_others_as_they_are(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--rate", "50", "--sync", "offset=10000")
    assert predict(capsys, "m.velora", "a", "--out", "preds", *options)[0] == 0
    times_us: dict[str, list[int]] = {}
    for row in rows(archive / "preds"):
        times_us.setdefault(row["recording"], []).append(row["t_us"])
    assert times_us == {
        "a/x.raw": [10_000 * k for k in range(4, 31)],
        "a/b/y.raw": [7_000_000 + 20_000 * k for k in range(3, 20)],
    }


@pytest.fixture
def asked(archive: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Rows of a run that decides."""
    decide = ("--decide", "default", "--decide", "enter=0.1", "--decide", "leave=0", "--decide", "hold_ms=0")
    assert predict(capsys, "m.velora", "a", "--out", "preds", *decide)[0] == 0
    return rows(archive / "preds")


def block(language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return str(text)


def test_the_guides_question_for_duckdb_is_answered(asked: list[dict[str, Any]]) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install duckdb")
    expected: dict[tuple[str, str], list[float]] = {}
    for row in asked:
        if row["type"] == "action" and row["state"] == "end":
            key = (row["recording"], row["label"])
            expected.setdefault(key, []).append((row["to_us"] - row["from_us"]) / 1e6)
    found = duckdb.sql(block("sql")).fetchall()
    assert {(r, label): (n, pytest.approx(s)) for r, label, n, s in found} == {
        key: (len(times), pytest.approx(sum(times))) for key, times in expected.items()
    }
    assert len(found) >= 2


def test_the_guides_question_for_pyarrow_is_answered(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(block("python"), str(GUIDE), "exec"), {})
    printed = capsys.readouterr().out
    least = sorted(row["score"] for row in asked if row["type"] == "prediction")[:10]
    assert [float(score) for score in re.findall(r"'score': ([\d.]+)", printed)] == least
