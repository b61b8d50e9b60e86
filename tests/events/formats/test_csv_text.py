from __future__ import annotations

import pytest

from velora_edge import open_events
from velora_edge.errors import RecordingError
from velora_edge.events.formats import csv_text

T, X, Y, P = [10, 20, 20, 35], [3, 0, 1, 2], [1, 0, 1, 1], [0, 1, 1, 0]
ROWS = list(zip(T, X, Y, P, strict=True))


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "recording.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def lines(rows, separator=","):
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def columns(reader):
    b = reader.read()
    return [c.tolist() for c in (b.t_us, b.x, b.y, b.p)]


@pytest.mark.parametrize("separator", [",", ", ", ";", "\t", " ", "  "])
def test_any_separator(write, separator):
    reader = open_events(write("t,x,y,p\n" + lines(ROWS, separator)), sensor=(4, 2))
    assert columns(reader) == [T, X, Y, P]
    assert (reader.format, reader.warnings) == ("CSV", [])


@pytest.mark.parametrize(
    "header", ["x,y,polarity,timestamp", '"x","y","pol","ts"', "# x y on t", "\ufeffx;y;p;time", "id,x,y,p,t"]
)
def test_columns_go_by_their_names(write, header):
    extra = header.startswith("id")
    rows = [((7,) if extra else ()) + (x, y, p, t) for t, x, y, p in ROWS]
    assert columns(open_events(write(header + "\n" + lines(rows)), sensor=(4, 2))) == [T, X, Y, P]


@pytest.mark.parametrize(
    ("name", "us"), [("t_us", 1), ("time [ms]", 1000), ("timestamp (s)", 1_000_000), ("t_ns", 0.001)]
)
def test_a_unit_in_the_name_of_the_times_is_believed(write, name, us):
    rows = [(1000 * t, x, y, p) for t, x, y, p in ROWS]
    reader = open_events(write(f"{name},x,y,p\n" + lines(rows)), sensor=(4, 2))
    assert reader.read().t_us.tolist() == [int(1000 * t * us) for t in T]
    assert reader.warnings == []


def test_without_names_the_order_is_t_x_y_p_and_fractions_are_seconds(write):
    reader = open_events(
        write(lines([(t / 1e6, x, y, p) for t, x, y, p in ROWS], " "), "events.txt"), sensor=(4, 2)
    )
    assert columns(reader) == [T, X, Y, P]
    assert reader.warnings == ["the file does not tell the unit of time; taken as seconds by its values"]


def test_metavision_s_order_is_told_by_its_values(write):
    text = "%geometry:640,480\n" + lines([(x, y, p, t) for t, x, y, p in ROWS])
    reader = open_events(write(text))
    assert columns(reader) == [T, X, Y, P]
    assert (reader.width, reader.height) == (640, 480)
    assert reader.warnings == ["the columns have no names; taken as x, y, p, t by their values"]


def test_a_first_line_of_two_numbers_is_the_sensor(write):
    reader = open_events(write("240 180\n" + lines(ROWS, " ")))
    assert columns(reader) == [T, X, Y, P]
    assert (reader.width, reader.height) == (240, 180)


def test_words_for_polarities(write):
    rows = [(t, x, y, "True" if p else "False") for t, x, y, p in ROWS]
    assert columns(open_events(write("t,x,y,p\n" + lines(rows)), sensor=(4, 2))) == [T, X, Y, P]


def test_times_in_nanoseconds_keep_every_digit(write):
    t = 1_700_000_000_123_456_789
    reader = open_events(write(f"t,x,y,p\n{t},1,1,1\n"), sensor=(4, 2))
    assert reader.read().t_us.tolist() == [t // 1000]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_lines_that_are_no_event_are_left_out_and_told(write, monkeypatch, size):
    monkeypatch.setattr(csv_text, "LINES", size)
    text = lines(ROWS[:2]) + "\n# a remark\nnonsense\n20,1,1\n" + lines(ROWS[2:]) + "35,2"
    reader = open_events(write("t,x,y,p\n" + text), sensor=(4, 2))
    assert columns(reader) == [T, X, Y, P]
    assert reader.warnings == ["3 lines are no events and were left out (first: line 6)"]


def test_a_line_without_an_end_is_bounded(write, monkeypatch):
    monkeypatch.setattr(csv_text, "_MAX_LINE_CHARACTERS", 32)
    reader = open_events(write("t,x,y,p\n" + lines(ROWS) + "9" * 1000), sensor=(4, 2))
    assert columns(reader) == [T, X, Y, P]
    assert "are no events and were left out" in reader.warnings[0]


def test_content_decides_not_the_name(write):
    assert open_events(write(lines(ROWS), "recording.raw")).format == "CSV"


@pytest.mark.parametrize(
    "text",
    [
        "This is not a recording, it is a text.\nIt has several lines.\n",
        "1,2,3\n4,5,6\n",
        "a,b,c,d\ne,f,g,h\n",
    ],
)
def test_other_texts_are_no_recordings(write, text):
    with pytest.raises(RecordingError, match="not a recording of any known format"):
        open_events(write(text, "notes.raw"))


def test_columns_that_cannot_be_told_apart_are_refused(write):
    with pytest.raises(
        RecordingError, match="put a line with the columns' names first, such as t,x,y,p"
    ) as caught:
        open_events(write("1,2,3,4\n5,6,7,8\n"))
    assert "line 1" in str(caught.value)


def test_lines_that_end_as_old_macs_ended_them_are_read_from_any_time(write):
    reader = open_events(write(("t,x,y,p\n" + lines(ROWS)).replace("\n", "\r")), sensor=(4, 2))
    assert columns(reader) == [T, X, Y, P]
    assert [t_us for batch in reader.between(20) for t_us in batch.t_us.tolist()] == T[1:]
