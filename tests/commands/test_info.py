from __future__ import annotations

import json

import pytest

from tests.events import words as w
from velora_edge.cli import velora
from velora_edge.console import run

HEADER = b"% evt 3.0\n% geometry 40x8\n% end\n"
PAYLOAD = w.evt3(
    w.time_high(0), w.addr_y(1), w.addr_x(3, 1), w.time_low(9), w.addr_x(4, 0), w.addr_x(5, 1), w.edge(0, 1),
    w.addr_x(40),
)  # fmt: skip
LOST = "1 event lies outside the sensor of 40x8 and was dropped"


@pytest.fixture
def info(capsys, tmp_path):
    def info(content: bytes | None, *options: str):
        path = tmp_path / "recording.raw"
        if content is not None:
            path.write_bytes(content)
        code = run(velora, ["info", str(path), *options])
        out, err = capsys.readouterr()
        return code, out, err.replace(str(path), "FILE")

    return info


def test_json_has_the_recordings_facts(info):
    code, out, err = info(HEADER + PAYLOAD, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "format": "EVT3", "width": 40, "height": 8, "events": 3, "on": 2, "off": 1,
        "t_first_us": 0, "t_last_us": 9, "duration_us": 9, "triggers": 1, "warnings": [LOST],
    }  # fmt: skip


def test_the_table_says_the_same(info):
    code, out, err = info(HEADER + PAYLOAD)
    assert (code, err) == (0, "")
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        ["format", "EVT3"],
        ["sensor", "40x8"],
        ["events", "3 (2 ON, 1 OFF)"],
        ["time", "0 to 9 us"],
        ["duration", "0.000009 s"],
        ["rate", "0.333 million events a second"],
        ["triggers", "1"],
        ["warning", LOST],
    ]


def test_a_recording_without_events_has_no_times(info):
    code, out, _ = info(HEADER + w.evt3(w.time_high(0)), "--json")
    facts = json.loads(out)
    assert (code, facts["events"], facts["t_first_us"], facts["duration_us"]) == (0, 0, None, None)
    assert facts["warnings"] == ["the recording holds no events"]


def test_a_recording_cut_within_a_word_is_used_and_the_loss_told(info):
    code, out, _ = info(HEADER + PAYLOAD[:-1], "--json")
    facts = json.loads(out)
    assert (code, facts["events"], facts["triggers"]) == (0, 3, 1)
    assert facts["warnings"] == [
        "the recording was cut off within a word: dropped 1 of the 2 bytes of its last one"
    ]


def test_the_sensors_size_can_be_given(info):
    code, out, _ = info(b"% evt 3.0\n" + PAYLOAD, "--json", "--sensor", "64x48")
    assert (code, json.loads(out)["width"], json.loads(out)["events"]) == (0, 64, 4)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", (), "error: FILE: the file is empty; record or copy it again\n"),
        (None, (), "error: FILE: no such file; check the path\n"),
        (
            b"% evt 3.0\n" + PAYLOAD,
            (),
            "error: FILE, header: the header does not tell the sensor's size; pass --sensor WxH\n",
        ),
        (HEADER, ("--sensor", "wide"), "error: --sensor: expected WxH such as 1280x720, got 'wide'\n"),
    ],
)
def test_an_unusable_file_ends_with_2_and_one_line(info, content, options, message):
    assert info(content, *options) == (2, "", message)


def test_a_text_file_named_raw_ends_with_2_and_one_line(info):
    code, out, err = info(b"It was a dark and stormy night.\n")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: FILE: not a recording of any known format")
    assert err.endswith("check the file, or name the format if it lacks its header\n")
