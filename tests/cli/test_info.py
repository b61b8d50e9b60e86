from __future__ import annotations

import json

import numpy as np
import pytest

from tests.events import words as w
from tests.videos import write_video
from velora_cli.main import velora
from velora_cli.recordings.event_facts import Look, read_facts
from velora_edge import open_events
from velora_edge.console import run
from velora_edge.data.clips.clips import ClipSpec, Item, Pairs
from velora_edge.data.clips.store import ClipStoreWriter

HEADER = b"% evt 3.0\n% geometry 40x8\n% end\n"
PAYLOAD = w.evt3(
    w.time_high(0), w.addr_y(1), w.addr_x(3, 1), w.time_low(9), w.addr_x(4, 0), w.addr_x(5, 1), w.edge(0, 1),
    w.addr_x(40),
)  # fmt: skip
MORE = HEADER + w.evt3(
    w.time_high(0), w.addr_y(1), w.time_low(5), w.addr_x(3), w.time_high(244), w.time_low(10), w.edge(0, 1),
    w.addr_x(4), w.time_low(20), w.addr_x(5), w.time_high(500), w.edge(0, 0), w.addr_x(6),
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
        (
            MORE,
            ("--start", "-1"),
            "error: --start: expected 0 or more seconds, and --duration: more than 0\n",
        ),
        (
            MORE,
            ("--hot-pixels", "a.png"),
            "error: a.png: expected a name that ends in .npy or .json; change it\n",
        ),
    ],
)
def test_an_unusable_file_ends_with_2_and_one_line(info, content, options, message):
    assert info(content, *options) == (2, "", message)


@pytest.mark.parametrize(
    ("options", "events", "triggers", "first_us", "last_us"),
    [
        ((), 4, 2, 5, 2_048_000),
        (("--start", "1.1"), 1, 1, 2_048_000, 2_048_000),
        (("--start", "0.5", "--duration", "1"), 2, 1, 999_434, 999_444),
        (("--duration", "0.5"), 1, 0, 5, 5),
        (("--start", "3"), 0, 0, None, None),
    ],
)
def test_a_part_of_a_recording(info, options, events, triggers, first_us, last_us):
    facts = json.loads(info(MORE, "--json", *options)[1])
    assert (facts["events"], facts["triggers"]) == (events, triggers)
    assert (facts["t_first_us"], facts["t_last_us"]) == (first_us, last_us)


def test_hot_pixels_are_counted_and_written(info, tmp_path):
    burning = [word for t in range(30) for word in (w.time_low(t), w.addr_x(7))]
    payload = w.evt3(w.time_high(0), w.addr_y(2), w.addr_x(3), *burning)
    target = str(tmp_path / "hot.json")
    code, out, err = info(HEADER + payload, "--hot-pixels", target)
    assert (code, err) == (0, "")
    assert ["hot", "pixels", "1", "of", "320"] in [line.split() for line in out.splitlines()]
    assert json.loads((tmp_path / "hot.json").read_text()) == {"sensor": [40, 8], "hot_pixels": [[7, 2]]}
    assert json.loads(info(None, "--json", "--hot-pixels", target)[1])["hot_pixels"] == 1
    assert (
        json.loads(info(None, "--json", "--start", "0.00002", "--hot-pixels", target)[1])["hot_pixels"] == 0
    )


def test_a_real_recording_has_few_hot_pixels(shared_events, tmp_path):
    mask = tmp_path / "hot.npy"
    path = shared_events / "expelliarmus_evt2_sample.raw"
    with open_events(path) as reader:
        facts = read_facts(reader, Look(hot_pixels=str(mask)))
    assert facts.events == 539_481
    assert facts.hot_pixels == int(np.load(mask).sum()) < 100


def test_a_text_file_named_raw_ends_with_2_and_one_line(info):
    code, out, err = info(b"It was a dark and stormy night.\n")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: FILE: not a recording of any known format")
    assert err.endswith("check the file, or name the format if it lacks its header\n")


@pytest.mark.parametrize(
    ("times_s", "said"),
    [
        ((0, 59, 118), None),
        ((0, 1, 100, 101), "there is no event from 1,000,000 to 100,000,000 us (99 s): "),
        ((0, 70, 140), "2 long gaps hold no event, the first from 0 to 70,000,000 us (70 s): "),
    ],
)
def test_times_that_jump_are_told(tmp_path, times_s, said):
    path = tmp_path / "jumps.csv"
    path.write_text("t,x,y,p\n" + "".join(f"{t * 1_000_000},1,2,1\n" for t in times_s))
    with open_events(path) as reader:
        warnings = [text for text in read_facts(reader).warnings if "no event" in text]
    remedy = "the camera's clock was set, or the file is damaged"
    assert warnings == ([] if said is None else [said + remedy])


def test_a_video_is_told_by_its_size_frames_and_time(capsys, tmp_path):
    write_video(tmp_path / "v.mp4", [0, 40_000, 80_000, 160_000])
    assert run(velora, ["info", str(tmp_path / "v.mp4")]) == 0
    assert [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()] == [
        ["kind", "video"],
        ["size", "48x32"],
        ["frames", "4, 18.75 a second"],
        ["duration", "0.160 s"],
    ]
    assert run(velora, ["info", str(tmp_path / "v.mp4"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "kind": "video", "width": 48, "height": 32, "frames": 4, "duration_us": 160_000, "rate_hz": 18.75,
        "warnings": [],
    }  # fmt: skip


def test_a_store_is_told_by_what_was_packed(capsys, tmp_path):
    spec = ClipSpec(length=3, image_size=(8, 16))
    images = np.zeros((4, 8, 16, 3), np.uint8)
    with ClipStoreWriter(tmp_path / "s.h5", ("a", "b"), ("rgb", "event"), spec, "somewhere") as writer:
        for k, split in enumerate(("train", "train", "test")):
            writer.add(Item(f"clip{k}", k % 2, split), Pairs(images, images))
        writer.finish()
    assert run(velora, ["info", str(tmp_path / "s.h5")]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows.pop("kind").startswith("store of clips, ")
    assert rows.pop("events").startswith("as   polarity, 33,333 us, crop")
    assert rows == {
        "recordings": "3, 12 pairs by rgb and event",
        "labels": "2: a, b",
        "splits": "test 1, train 2",
        "image": "16x8",
        "source": "somewhere",
    }
    assert run(velora, ["info", str(tmp_path / "s.h5"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["pairs"], told["image_size"]) == ("store of clips", 12, [8, 16])


def test_what_is_neither_keeps_its_own_error(capsys, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"\x00\xff" * 40)
    assert run(velora, ["info", str(tmp_path / "x.bin")]) == 2
    assert "not a recording of any known format" in capsys.readouterr().err
