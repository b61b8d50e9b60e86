from __future__ import annotations

import sys
import types

import pytest

from tests.events import words as w
from velora_edge import open_events
from velora_edge.errors import InputError, RecordingError
from velora_edge.events import registry
from velora_edge.extensions import Extension, Registry

RAW = b"% evt 3.0\n% geometry 4x2\n% end\n" + w.evt3(w.time_high(0), w.addr_y(1), w.addr_x(3))


@pytest.mark.parametrize("name", ["events.raw", "events.h5", "events"])
def test_the_content_decides_not_the_name(tmp_path, name):
    (tmp_path / name).write_bytes(RAW)
    assert w.rows(open_events(tmp_path / name).read()) == [(0, 3, 1, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; record or copy it again"),
        (
            b"Dear diary,\nnothing moved today.\n",
            "it begins with the text 'Dear diary,\\nnoth'; check the file",
        ),
        (b"\x00\x01\x02\xff" * 9, "it begins with the bytes 00 01 02 ff 00 01 02 ff; check the file"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "recording.raw"
    path.write_bytes(content)
    with pytest.raises(RecordingError) as error:
        open_events(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(RecordingError, match="no such file; check the path"):
        open_events(tmp_path / "missing.raw")
    with pytest.raises(RecordingError, match="is a folder, expected an event file; give a file in it"):
        open_events(tmp_path)


def test_an_unknown_format_name_lists_those_that_there_are(tmp_path):
    (tmp_path / "events.raw").write_bytes(RAW)
    with pytest.raises(InputError, match=r"no event format is called 'EVT9'; there are .*EVT2.1, EVT3"):
        open_events(tmp_path / "events.raw", format="EVT9")


def test_a_sensor_without_pixels_is_refused(tmp_path):
    (tmp_path / "events.raw").write_bytes(RAW)
    with pytest.raises(InputError, match="expected a sensor of 1 to 65536 pixels a side, got 0x2"):
        open_events(tmp_path / "events.raw", sensor=(0, 2))


def test_a_format_is_one_line_in_the_registry(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "FORMATS", Registry("velora.event_formats", registry.FORMATS))
    module = types.ModuleType("my_format")
    module.open_mine = lambda path, sensor: types.SimpleNamespace(
        path=path, width=sensor[0], height=sensor[1]
    )
    monkeypatch.setitem(sys.modules, "my_format", module)
    mine = Extension("MINE", "my_format:open_mine", "mine", lambda head, path: head.startswith(b"mine"))
    registry.FORMATS.add(mine)
    (tmp_path / "a.raw").write_bytes(b"mine")
    reader = open_events(tmp_path / "a.raw", sensor=(3, 4))
    assert (reader.path.name, reader.width, reader.height) == ("a.raw", 3, 4)
