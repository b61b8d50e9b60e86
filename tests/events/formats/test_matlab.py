from __future__ import annotations

import h5py
import numpy as np
import pytest

from velora_edge import open_events
from velora_edge.errors import MissingExtraError, RecordingError

scipy_io = pytest.importorskip("scipy.io", reason="needs SciPy (the extra mat)")

T, X, Y, P = [10, 20, 20, 35], [3, 0, 1, 2], [1, 0, 1, 1], [0, 1, 1, 0]
STRUCTURE = {
    "ts": np.array(T, float),
    "x": np.array(X, float),
    "y": np.array(Y, float),
    "p": np.array(P, float),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recording.mat"


def save_73(path, contents):
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in contents.items():
            file[name] = value
    data = bytearray(path.read_bytes())
    data[:512] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512)
    path.write_bytes(bytes(data))


def columns(reader):
    b = reader.read()
    return [c.tolist() for c in (b.t_us, b.x, b.y, b.p)]


@pytest.mark.parametrize("compress", [False, True])
def test_a_structure_with_columns(path, compress):
    scipy_io.savemat(path, {"label": 3, "TD": STRUCTURE}, do_compression=compress, oned_as="column")
    reader = open_events(path, sensor=(4, 2))
    assert columns(reader) == [T, X, Y, P]
    assert (reader.format, reader.warnings) == ("MAT", [])


def test_variables_with_columns(path):
    scipy_io.savemat(path, {"t_us": T, "x": X, "y": Y, "pol": P})
    assert columns(open_events(path, sensor=(4, 2))) == [T, X, Y, P]


def test_polarities_1_and_2_are_off_and_on(path):
    scipy_io.savemat(path, {"t_us": T, "x": X, "y": Y, "p": [1, 2, 2, 1]})
    reader = open_events(path, sensor=(4, 2))
    assert columns(reader)[3] == P
    assert reader.warnings == ["polarities are 1 and 2; taken as OFF and ON"]


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (4,)])
def test_version_7_3_is_hdf5(path, shape):
    contents = {
        f"TD/{name}": np.array(v).reshape(shape) for name, v in (("ts", T), ("x", X), ("y", Y), ("p", P))
    }
    save_73(path, contents)
    reader = open_events(path)
    assert columns(reader) == [T, X, Y, P]
    assert (reader.format, reader.width, reader.height) == ("MAT", 4, 2)


def test_columns_of_different_lengths_are_read_as_far_as_the_shortest(path):
    scipy_io.savemat(path, {"t_us": T, "x": X, "y": Y, "p": P[:3]})
    reader = open_events(path, sensor=(4, 2))
    assert columns(reader)[0] == T[:3]
    assert reader.warnings == [
        "the columns differ in length (t 4, x 4, y 4, p 3); read as far as the shortest goes"
    ]


def test_a_file_without_events_is_refused(path):
    scipy_io.savemat(path, {"image": np.zeros((4, 4)), "name": "a"})
    with pytest.raises(RecordingError, match="expected variables or a structure with t, x, y and p, got"):
        open_events(path)


def test_a_damaged_file_is_refused_in_one_line(path):
    scipy_io.savemat(path, {"TD": STRUCTURE}, do_compression=True)
    data = path.read_bytes()
    for n in (130, 140, len(data) - 20):
        path.write_bytes(data[:n])
        with pytest.raises(RecordingError) as caught:
            open_events(path, sensor=(4, 2))
        assert "\n" not in str(caught.value)
    save_73(path, {"t": T})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(RecordingError, match=r"the \.mat file is damaged"):
        open_events(path)


def test_without_scipy_the_extra_is_named(path, monkeypatch):
    scipy_io.savemat(path, {"t": T})
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[mat\]'"):
        open_events(path)
