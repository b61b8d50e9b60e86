from __future__ import annotations

import cv2
import h5py
import numpy as np
import pytest

from velora_edge.errors import InputError
from velora_edge.events.geometry.calibration import Lens, View
from velora_edge.events.geometry.calibration_files import read_calibration

TURN = cv2.Rodrigues(np.array([0.01, -0.02, 0.03]))[0]
POSE = np.eye(4)
POSE[:3, :3], POSE[:3, 3] = TURN, (0.05, 0.0, -0.01)
EVENTS = Lens((32, 24), (30.0, 31.0), (15.5, 12.0), "radtan", (-0.2, 0.05, 0.001, -0.001))
PICTURE = Lens((64, 48), (55.0, 56.0), (32.0, 23.0), "equidistant", (0.01, -0.02, 0.003, 0.0))


def rows(matrix) -> str:
    return "".join(f"\n  - {list(map(float, row))}" for row in np.asarray(matrix))


def camera(lens: Lens, topic: str, extra: str = "") -> str:
    return (
        f"  camera_model: pinhole\n  intrinsics: [{lens.focal[0]}, {lens.focal[1]}, {lens.centre[0]}, "
        f"{lens.centre[1]}]\n  distortion_model: {lens.model}\n  distortion_coeffs: "
        f"{list(lens.coefficients)}\n  resolution: {list(lens.size)}\n  rostopic: {topic}\n{extra}"
    )


def kalibr(topics=("/rgb/image_raw", "/dvs/image")) -> str:
    """cam0 is the RGB camera; cam1's pose is told from cam0."""
    pose = f"  T_cn_cnm1:{rows(np.linalg.inv(POSE))}\n"
    return f"cam0:\n{camera(PICTURE, topics[0])}cam1:\n{camera(EVENTS, topics[1], pose)}"


def opencv(path, names) -> None:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, value in names.items():
        storage.write(name, value)
    storage.release()


def matrix(lens: Lens):
    return np.array([[lens.focal[0], 0, lens.centre[0]], [0, lens.focal[1], lens.centre[1]], [0, 0, 1]])


@pytest.fixture
def write(tmp_path):
    def write(text: str, cameras: str = "") -> str:
        path = tmp_path / "calibration.yaml"
        path.write_text(text)
        return f"{path}{cameras}"

    return write


def same(a: View, b: View) -> bool:
    np.testing.assert_allclose(
        np.broadcast_to(a.x, a.source_hw), np.broadcast_to(b.x, b.source_hw), atol=1e-6
    )
    np.testing.assert_allclose(
        np.broadcast_to(a.y, a.source_hw), np.broadcast_to(b.y, b.source_hw), atol=1e-6
    )
    return (a.view_hw, a.is_rgb) == (b.view_hw, b.is_rgb)


@pytest.mark.parametrize("cameras", ["", "#cam1:cam0"])
def test_kalibr_camchain_onto_the_rgb_camera(write, cameras):
    assert same(read_calibration(write(kalibr(), cameras), (32, 24)), View.from_lenses(EVENTS, PICTURE, POSE))


def test_kalibr_camchain_at_a_distance(write):
    view = read_calibration(write(kalibr()), (32, 24), depth_m=1.5)
    assert same(view, View.from_lenses(EVENTS, PICTURE, POSE, depth_m=1.5))


def test_one_camera_is_shown_without_distortion(write):
    view = read_calibration(write(kalibr(), "#cam1"), (32, 24))
    assert same(view, View.from_lenses(EVENTS, EVENTS.undistorted(), np.eye(4), is_rgb=False))


def test_the_event_camera_is_known_by_its_size_where_topics_do_not_tell(write):
    text = write(kalibr(topics=("/a", "/b")))
    assert same(read_calibration(text, (32, 24)), View.from_lenses(EVENTS, PICTURE, POSE))


def test_opencv_yaml_of_one_camera_undistorts_as_opencv_does(tmp_path):
    path = tmp_path / "camera.yml"
    coefficients = np.array(EVENTS.coefficients)
    opencv(path, {"image_width": 32, "image_height": 24, "camera_matrix": matrix(EVENTS),
                  "distortion_coefficients": coefficients.reshape(1, 4)})  # fmt: skip
    view = read_calibration(str(path), (32, 24))
    # OpenCV's map goes the other way: from the picture without distortion to the sensor.
    back = cv2.initUndistortRectifyMap(
        matrix(EVENTS), coefficients, None, matrix(EVENTS), (32, 24), cv2.CV_32FC1
    )
    x, y = view.x[12, 20] - 0.5, view.y[12, 20] - 0.5
    found = [cv2.remap(m, np.float32([[x]]), np.float32([[y]]), cv2.INTER_CUBIC)[0, 0] for m in back]
    np.testing.assert_allclose(found, [20, 12], atol=0.02)
    assert not view.is_rgb


def test_opencv_yaml_of_two_cameras(tmp_path):
    path = tmp_path / "stereo.yml"
    flat = Lens((64, 48), (55.0, 56.0), (32.0, 23.0))
    opencv(path, {"M1": matrix(EVENTS), "D1": np.array(EVENTS.coefficients), "M2": matrix(flat),
                  "D2": np.zeros((1, 14)), "R": TURN, "T": POSE[:3, 3:], "image_width_2": 64,
                  "image_height_2": 48})  # fmt: skip
    assert same(read_calibration(str(path), (32, 24)), View.from_lenses(EVENTS, flat, POSE))


def test_ros_camera_info(write):
    text = (
        "image_width: 32\nimage_height: 24\ncamera_name: dvs\ncamera_matrix:\n  rows: 3\n  cols: 3\n  data: "
        f"{matrix(EVENTS).ravel().tolist()}\ndistortion_model: plumb_bob\ndistortion_coefficients:\n"
        f"  rows: 1\n  cols: 5\n  data: {[*EVENTS.coefficients, 0.0]}\n"
    )
    expected = View.from_lenses(EVENTS, EVENTS.undistorted(), np.eye(4), is_rgb=False)
    assert same(read_calibration(write(text), (32, 24)), expected)


def test_a_homography_with_the_size_of_its_picture(write):
    text = write("homography:\n- [2, 0, 1]\n- [0, 2, 3]\n- [0, 0, 1]\nresolution: [64, 48]\n")
    expected = View.from_homography(np.array([[2.0, 0, 1], [0, 2, 3], [0, 0, 1]]), (24, 32), (48, 64))
    assert same(read_calibration(text, (32, 24)), expected)


def dsec() -> tuple[str, Lens, Lens, np.ndarray]:
    """DSEC's file in small; the rectified lenses and the turn between them."""
    flat_events, flat_picture = (
        Lens((32, 24), (28.0, 28.0), (16.0, 12.0)),
        Lens((64, 48), (60.0, 60.0), (31.0, 24.0)),
    )
    turns = [cv2.Rodrigues(np.array([0.0, 0.01 * k, 0.02]))[0] for k in range(4)]

    def intrinsics(lens: Lens) -> str:
        coefficients = list(lens.coefficients or (0, 0, 0, 0))
        return (
            f"    camera_model: pinhole\n    camera_matrix: {[*lens.focal, *lens.centre]}\n"
            f"    distortion_model: radtan\n    distortion_coeffs: {coefficients}\n"
            f"    resolution: {list(lens.size)}\n"
        )

    plain = Lens((64, 48), (55.0, 56.0), (32.0, 23.0), "radtan", (0.01, 0.0, 0.0, 0.0))
    lenses = {"cam0": EVENTS, "cam1": plain, "cam2": plain, "cam3": EVENTS, "camRect0": flat_events,
              "camRect1": flat_picture, "camRect2": flat_picture, "camRect3": flat_events}  # fmt: skip
    text = "intrinsics:\n" + "".join(f"  {name}:\n{intrinsics(lens)}" for name, lens in lenses.items())
    text += "extrinsics:\n"
    for step in ("T_10", "T_21", "T_32"):
        text += f"  {step}:{rows(POSE).replace(chr(10), chr(10) + '  ')}\n"
    for k, turn in enumerate(turns):
        text += f"  R_rect{k}:{rows(turn).replace(chr(10), chr(10) + '  ')}\n"
    return text, flat_events, flat_picture, turns[1] @ TURN @ turns[0].T


def test_dsec_event_camera_onto_the_rectified_picture(write):
    """By the way that DSEC's authors describe: rectify the events, then turn by R_rect1 R_10 R_rect0^T."""
    text, flat_events, flat_picture, turn = dsec()
    rectified = read_calibration(write(text, "#cam0:camRect0"), (32, 24))
    assert not rectified.is_rgb
    homography = matrix(flat_picture) @ turn @ np.linalg.inv(matrix(flat_events))
    u, v, w = homography @ np.stack((rectified.x.ravel() - 0.5, rectified.y.ravel() - 0.5, np.ones(24 * 32)))
    expected = View.from_map((u / w).reshape(24, 32), (v / w).reshape(24, 32), (48, 64), is_rgb=True)
    assert same(read_calibration(write(text), (32, 24)), expected)


def test_dsec_right_event_camera(write):
    text, _, flat_picture, _ = dsec()
    view = read_calibration(write(text, "#cam3:camRect2"), (32, 24))
    back = np.eye(4)
    back[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.02, 0.02]))[0]
    assert same(view, View.from_lenses(EVENTS, flat_picture, back @ np.linalg.inv(POSE)))


def test_rectify_map(tmp_path):
    path = tmp_path / "rectify_map.h5"
    table = np.random.default_rng(3).uniform(0, 20, (24, 32, 2)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["rectify_map"] = table
    view = read_calibration(str(path), (32, 24))
    assert (view.x - 0.5).astype(np.float32).tolist() == table[:, :, 0].tolist()
    assert (view.y - 0.5).astype(np.float32).tolist() == table[:, :, 1].tolist()
    assert (view.view_hw, view.is_rgb) == ((24, 32), False)


@pytest.mark.parametrize(
    ("text", "cameras", "message"),
    [
        ("a: [", "", "no YAML file"),
        ("- 1\n", "", "expected names with values"),
        ("fps: 3\n", "", "expected a calibration: rectify_map"),
        (kalibr(), "#cam7", "there is no camera 'cam7' in it; choose from cam0, cam1"),
        (kalibr(), "#cam0", "is for a sensor of 64x48, the events are of one of 32x24"),
        (kalibr().replace("pinhole", "omni"), "", "expected a pinhole camera, got 'omni'"),
        (kalibr().replace("radtan", "fov"), "", "expected one of the lens models radtan"),
        (kalibr().replace("31.0", ".nan"), "", "cam1: expected 4 numbers"),
        (kalibr().replace("[30.0,", "[-30.0,"), "", "expected focal lengths above 0, got -30 and 31"),
        ("homography: [1, 2]\nresolution: [4, 4]\n", "", "homography: expected 3x3 numbers"),
        ("homography: [0, 0, 0, 0, 0, 0, 0, 0, 0]\nresolution: [4, 4]\n", "", "has no inverse"),
        ("homography: [1, 0, 0, 0, 1, 0, 0, 0, 1]\n", "", "resolution: expected 2 numbers"),
        (kalibr(topics=("/event", "/dvs")).replace("[64, 48]", "[32, 24]"), "", "not plain which"),
        ("cam0: 3\n", "", "cam0: expected a camera's calibration"),
        ("a: !!python/object/apply:os.getcwd []\n", "", "no YAML file"),
    ],
)  # fmt: skip
def test_what_is_no_calibration_is_told_in_one_line(write, text, cameras, message):
    with pytest.raises(InputError) as caught:
        read_calibration(write(text, cameras), (32, 24))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing.yaml: cannot be read"):
        read_calibration(str(tmp_path / "nothing.yaml"), (32, 24))


def test_a_damaged_hdf5_file_is_told(tmp_path):
    path = tmp_path / "rectify_map.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(InputError, match="the HDF5 file is damaged"):
        read_calibration(str(path), (32, 24))
    with h5py.File(path, "w") as file:
        file["rectify_map"] = np.zeros((3, 2))
    with pytest.raises(InputError, match="expected a dataset rectify_map of height x width x 2"):
        read_calibration(str(path), (32, 24))
