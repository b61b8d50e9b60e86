"""Text and JSON that nobody would write: a value, or one line that says what is wrong; no traceback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from velora_edge.bundle import EngineFile, open_bundle
from velora_edge.config import Section, load_config, read_yaml
from velora_edge.errors import BundleError, ConfigError, DatasetError, InputError, RecordingError
from velora_edge.events.geometry.calibration_yaml import read_yaml as read_calibration_yaml
from velora_edge.gpu.signing import why_not_trusted
from velora_edge.preprocessing.folder import read_recording
from velora_edge.preprocessing.pictures import ImageFolder
from velora_edge.preprocessing.registry import find_sources

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.preprocessing.folder import Recording

NO_TIMES = ["9" * 30, "9" * 5000, "+-5", "--5", "1e3", "\u0665", "5_0", "0x5", "5" * 19]


def check_line(error: Exception) -> None:
    assert "\n" not in str(error)


def recording(folder: Path, info: str = '{"v": 1, "ended": "x"}', **files: str) -> Recording:
    folder.mkdir(exist_ok=True)
    (folder / "recording.json").write_text(info, encoding="utf-8")
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return read_recording(folder)


@pytest.mark.parametrize("time", NO_TIMES)
def test_a_time_that_is_none_is_told_by_its_line(tmp_path: Path, time: str) -> None:
    with pytest.raises(RecordingError, match="line 2: expected a time in whole microseconds") as caught:
        recording(tmp_path / "r", timestamps_txt=f"5\n{time}\n").times_us()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("time", NO_TIMES)
def test_a_time_of_an_image_that_is_none_is_told_by_its_line(tmp_path: Path, time: str) -> None:
    picture = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(picture)
    (tmp_path / "timestamps.txt").write_text(f"5\n{time}\n", encoding="utf-8")
    with pytest.raises(RecordingError, match="line 2: expected a time in whole microseconds") as caught:
        ImageFolder(str(tmp_path))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "row", [*(f"{time},0,0" for time in NO_TIMES), "5,300,1", "5,-1,1", "5,0,7", "5,0,-1"]
)
def test_a_line_that_is_no_edge_is_left_out(tmp_path: Path, row: str) -> None:
    edges = recording(tmp_path / "r", triggers_csv=f"t_us,id,p\n{row}\n7,1,0\n").triggers()
    assert (edges.t_us.tolist(), edges.id.tolist(), edges.p.tolist()) == ([7], [1], [0])


NESTED = ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"v": 1, "events": ' + "[" * 5000 + "]" * 5000 + "}"]


@pytest.mark.parametrize(
    "info", [*NESTED, "9" * 5000, '{"v": ' + "9" * 5000 + "}", "\ufeff{", '"\\ud800"', "[]", "5"]
)
def test_a_recording_whose_facts_cannot_be_read_is_read_without_them(tmp_path: Path, info: str) -> None:
    found = recording(tmp_path / "r", info, timestamps_txt="5\n")
    assert found.times_us().tolist() == [5]
    assert "what the recording says of itself is not known" in found.warnings[0]


FACTS: list[dict[str, Any]] = [
    {"model": "demo"}, {"model": {}}, {"model": {"path": 5}}, {"model": ["path"]}, {"model": 5},
    {"events": 5}, {"events": {"sensor": "x"}}, {"events": [1]}, {"video": "x"}, {"video": {"height": {}}},
    {"counts": []}, {"counts": {"frames": "x"}}, {"dropped": 5}, {"started": 5}, {"why_ended": {}},
    {"first_us": "x"}, {"last_us": [1]}, {"ended": 5}, {"v": True}, {"v": 1.5},
]  # fmt: skip


@pytest.mark.parametrize("facts", FACTS, ids=json.dumps)
def test_facts_of_another_form_are_not_known_or_refused_in_one_line(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    info = json.dumps({"v": 1, "ended": "x", **facts})
    try:
        found = recording(tmp_path / "r", info, timestamps_txt="5\n")
    except RecordingError as error:
        check_line(error)
        return
    assert "what the recording says of itself is not known" in found.warnings[0]
    assert found.facts.model is found.facts.events is found.facts.video is None


@pytest.mark.parametrize("facts", [facts for facts in FACTS if "model" in facts], ids=json.dumps)
def test_a_model_of_another_form_is_not_looked_for(tmp_path: Path, facts: dict[str, Any]) -> None:
    recording(tmp_path / "r", json.dumps({"v": 1, "ended": "x", **facts}))
    with pytest.raises(InputError, match="was recorded without a model"):
        find_sources(str(tmp_path / "r"), None, None, None, lambda line: None)


@pytest.mark.parametrize(
    "text",
    [
        *NESTED,
        '{"schema_version":' + "9" * 5000 + "}",
        '{"schema_version":' + "9" * 4000 + "}",
        '{"schema_version": 2, "a": ' + "[" * 900 + "]" * 900 + "}",
        '{"schema_version": 3, "name": "\\ud800"}',
    ],
)
def test_a_manifest_of_another_form_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path)
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()


class Empty(Section):
    """A configuration without keys."""


YAML = {
    "nested": "a: " + "[" * 20_000 + "]" * 20_000,
    "a date that is none": "a: 2001-99-99\n",
    "a date before all": "a: 0000-01-01\n",
    "a key of a list": "? [a, {b: c}]\n: 1\n",
    "a tag of Python's": 'a: !!python/object/apply:os.system ["id"]\n',
    "an integer that is none": 'a: !!int "x"\n',
    "a float that is none": 'a: !!float "x"\n',
    "binary that is none": 'a: !!binary "x"\n',
    "a timestamp that is none": 'a: !!timestamp "x"\n',
    "a boolean that is none": 'a: !!bool "x"\n',
    "a number of 6000 digits": "a: " + "9" * 6000 + "\n",
    "a value that holds itself": "a: &a [*a]\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "half a pair": 'a: "\\ud800"\n',
    "a bell": "a: \x07\n",
    "aliases": "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + "".join(
        f"b{k}: &b{k} [{','.join(['*' + ('a' if k == 1 else f'b{k - 1}')] * 10)}]\n" for k in range(1, 9)
    ),
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_that_cannot_be_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.yaml").write_text(YAML[name])
    for read, kind in ((read_yaml, ConfigError), (read_calibration_yaml, InputError)):
        with pytest.raises(kind) as caught:
            read(tmp_path / "a.yaml")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", ["2001-99-99", "[" * 20_000, "!!int x", "9" * 6000, "&a [*a]"])
def test_an_override_that_cannot_be_is_refused_in_one_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="a: the value") as caught:
        load_config(tmp_path / "a.yaml", Empty, [f"a={value}"])
    assert len(str(caught.value)) < 600


ENTRY = EngineFile(
    graph="rgb", file="a.engine", sha256="0" * 64, model="m", precision="fp32", tensorrt="10.3",
    gpu="g", compute_capability="8.7", origin="x",
)  # fmt: skip


@pytest.mark.parametrize("signature", ["é", "\u2028", "zz", "0" * 127, "0" * 129, "A" * 5000])
def test_a_signature_that_is_none_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signature: str
) -> None:
    from velora_edge.gpu.signing import sign

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    sign(ENTRY)  # there is a key to compare with
    assert why_not_trusted(ENTRY.model_copy(update={"signature": signature})) is not None


def test_control_characters_in_an_origin_do_not_reach_the_terminal() -> None:
    reason = why_not_trusted(ENTRY.model_copy(update={"origin": "\x1b]0;pwn\x07x"}))
    assert reason is not None
    assert reason.isprintable()


@pytest.mark.parametrize("origin", ["http://[", "http://]", "http://[::1", "\u2100", "http://a\u2100b"])
def test_an_origin_that_is_none_is_another_page(origin: str) -> None:
    pytest.importorskip("starlette", reason="needs Starlette (the extra web)")
    from starlette.requests import Request
    from velora_runtime.web.access import Gate

    headers = [(b"host", b"localhost:8080"), (b"origin", origin.encode("utf-8"))]
    request = Request(
        {"type": "http", "method": "POST", "headers": headers, "query_string": b"", "path": "/"}
    )
    assert Gate(None, 8080, is_local=True).refusal(request) == (403, "the request comes from another page")


@pytest.mark.parametrize("picture", ["png", "bmp", "jpg", "tif", "webp"])
def test_a_picture_with_spoilt_bytes_is_refused_in_one_line(tmp_path: Path, picture: str) -> None:
    whole = cv2.imencode(f".{picture}", np.full((8, 8, 3), 100, np.uint8))[1].tobytes()
    rng = np.random.default_rng(3)
    (tmp_path / "timestamps.txt").write_text("1\n")
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 200), 3):
            data[at] = rng.integers(0, 256)
        (tmp_path / f"a.{picture}").write_bytes(bytes(data))
        try:
            ImageFolder(str(tmp_path))
        except RecordingError as error:
            check_line(error)


SEGMENTS = [
    "0,inf,wave",
    "0,1e300,wave",
    "nan,nan,wave",
    "0," + "9" * 5000 + ",wave",
    "0,1," + "w" * 200_000,
    "\0",
]


@pytest.mark.parametrize("row", SEGMENTS)
def test_a_segment_that_cannot_be_is_told_by_its_line(tmp_path: Path, row: str) -> None:
    from velora_edge.data.layouts.recording_index import index_recordings

    folder = tmp_path / "day"
    folder.mkdir()
    (folder / "day.raw").write_bytes(b"% evt 3.0\n% geometry 64x48\n% end\n\x00\x80")
    (folder / "segments.csv").write_text(f"start,end,label\n0,1,wave\n{row}\n")
    try:
        (problem,) = index_recordings(tmp_path).problems
    except DatasetError as error:  # where the whole file cannot be read
        (problem,) = error.problems
    assert problem.startswith("day/segments.csv")
    assert len(problem) < 1000


@pytest.mark.parametrize("count", ["\u00b2", "9" * 5000, "-1", "+-5", "1e3"])
def test_a_list_of_recordings_with_numbers_that_are_none_is_told_by_its_line(
    tmp_path: Path, count: str
) -> None:
    from velora_edge.data.layouts.published import read_list

    (tmp_path / "train_label.txt").write_text(f"wave/a {count} 0\nwave/b 5 {count}\n", encoding="utf-8")
    problems: list[str] = []
    assert list(read_list(tmp_path / "train_label.txt", "train", tmp_path, problems)) == []
    assert [problem.partition(":")[0] for problem in problems] == [
        "train_label.txt, line 1", "train_label.txt, line 2",
    ]  # fmt: skip


def test_a_long_list_of_labels_is_read_in_a_moment(tmp_path: Path) -> None:
    import time

    from velora_edge.config import read_labels

    (tmp_path / "labels.txt").write_text("".join(f"class {k}\n" for k in range(100_000)))
    begun = time.monotonic()
    assert len(read_labels(tmp_path / "labels.txt")) == 100_000
    assert time.monotonic() - begun < 2.0


def test_a_sensor_that_takes_gigabytes_is_refused(tmp_path: Path) -> None:
    from velora_edge import open_events

    (tmp_path / "a.raw").write_bytes(
        b"% evt 3.0\n% geometry 65536x65536\n% end\n\x00\x80\x01\x00\x01\x60\x05\x20"
    )
    with pytest.raises(RecordingError, match="announces a picture of 65536x65536 pixels"):
        open_events(tmp_path / "a.raw")
