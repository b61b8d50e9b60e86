"""Reader of lens calibrations in YAML, as OpenCV, ROS, Kalibr and DSEC write them: cameras and poses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import InputError
from velora_edge.events.geometry.calibration import Lens
from velora_edge.limits import LARGEST_YAML, load_yaml, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.geometry.calibration import LensModel

_MODELS: dict[str, LensModel] = {
    "radtan": "radtan",
    "plumb_bob": "radtan",
    "rational_polynomial": "radtan",
    "none": "radtan",
    "equidistant": "equidistant",
    "fisheye": "equidistant",
}
_MATRIX = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "K")
_DISTORTION = ("distortion_coefficients", "distortion_coeffs", "distCoeffs", "Distortion_Coefficients", "D")
_MOST_COEFFICIENTS = {"radtan": 8, "equidistant": 4}


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a calibration.

    Attributes:
        lens: its intrinsics; the size is (0, 0) where the file does not tell it.
        pose: float64[4, 4], from the calibration's first camera to this one, metres.
        topic: of its messages, a hint at what it is; empty where the file does not tell.
    """

    lens: Lens
    pose: NDArray[np.float64]
    topic: str = ""


Rig = dict[str, Camera]


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file, OpenCV's matrices as arrays.

    Raises:
        InputError: if it is no YAML file, or does not hold names with values.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain YAML, and OpenCV's own types."""

    def matrix(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        return loader.construct_mapping(node, deep=True)

    for tag in ("opencv-matrix", "opencv-nd-matrix"):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", matrix)
    try:
        text = read_text(path, most=LARGEST_YAML)
        # OpenCV begins with %YAML:1.0, which YAML itself does not allow.
        content = load_yaml(re.sub(r"\A%YAML.*\n", "", text), Loader)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path, remedy="check the path") from error
    except ValueError as error:
        raise InputError(f"no YAML file ({error})", path=path, remedy="check the file") from error
    if not isinstance(content, dict):
        raise InputError("expected names with values", path=path, remedy="check that this is a calibration")
    return content


def read_rig(content: dict[str, Any], path: Path) -> Rig:
    """The cameras in a calibration of any of these kinds, by name; empty if it is of none.

    Raises:
        InputError: if what is there is not a camera's calibration, or of a lens model that is not known.
    """
    if "intrinsics" in content and "extrinsics" in content:
        return _read_dsec(content, path)
    if any(re.fullmatch(r"cam\d+", str(key)) for key in content):
        return _read_kalibr(content, path)
    return _read_opencv(content, path)


def matrix_of(value: Any, shape: tuple[int, ...], path: Path, place: str) -> NDArray[np.float64]:
    """Numbers as an array: nested lists, flat ones, or a mapping with rows, cols and data.

    Raises:
        InputError: if they are not finite numbers of that shape.
    """
    data = value.get("data") if isinstance(value, dict) else value
    try:
        array = np.array(data, np.float64).reshape(shape)
    except (ValueError, TypeError, OverflowError):
        array = np.full([max(side, 1) for side in shape], np.nan)
    if not np.isfinite(array).all():
        wanted = "x".join(map(str, shape))
        raise InputError(f"expected {wanted} numbers", path=path, place=place, remedy="check the calibration")
    return array


def _read_dsec(content: dict[str, Any], path: Path) -> Rig:
    """DSEC's `cam_to_cam.yaml`: cam0 to cam3 as they are, camRect0 to camRect3 rectified."""
    intrinsics, extrinsics = content["intrinsics"], content["extrinsics"]
    if not isinstance(intrinsics, dict) or not isinstance(extrinsics, dict):
        raise InputError("expected intrinsics and extrinsics with cameras", path=path)
    rig: Rig = {}
    pose = np.eye(4)
    for number in range(len(intrinsics)):
        name, rectified = f"cam{number}", f"camRect{number}"
        if name not in intrinsics:
            break
        if number:
            step = f"T_{number}{number - 1}"
            pose = matrix_of(extrinsics.get(step), (4, 4), path, step) @ pose
        lens = _lens(intrinsics[name], path, name)
        rig[name] = Camera(lens, pose)
        if rectified in intrinsics:
            turn = np.eye(4)
            turn[:3, :3] = matrix_of(extrinsics.get(f"R_rect{number}"), (3, 3), path, f"R_rect{number}")
            flat = _lens(intrinsics[rectified], path, rectified)
            size = flat.size if all(flat.size) else lens.size
            rig[rectified] = Camera(Lens(size, flat.focal, flat.centre), turn @ pose)
    return rig


def _read_kalibr(content: dict[str, Any], path: Path) -> Rig:
    """Kalibr's camchain: each camera's pose is told from the one before it."""
    rig: Rig = {}
    pose = np.eye(4)
    for name in sorted(
        (key for key in content if re.fullmatch(r"cam\d+", str(key))), key=lambda k: int(k[3:])
    ):
        node = content[name]
        if not isinstance(node, dict):
            raise InputError("expected a camera's calibration", path=path, place=name)
        if "T_cn_cnm1" in node:
            pose = matrix_of(node["T_cn_cnm1"], (4, 4), path, f"{name}, T_cn_cnm1") @ pose
        rig[name] = Camera(_lens(node, path, name), pose, str(node.get("rostopic", "")))
    return rig


def _read_opencv(content: dict[str, Any], path: Path) -> Rig:
    """One camera as OpenCV's samples and ROS name its parts, or two: M1 D1 M2 D2 (or K1 K2), R, T."""
    names = [name for name in _MATRIX if name in content]
    if names:
        return {
            "camera": Camera(_lens(content, path, names[0]), np.eye(4), str(content.get("camera_name", "")))
        }
    prefix = next((letter for letter in "MK" if f"{letter}1" in content and f"{letter}2" in content), None)
    if prefix is None:
        return {}
    pose = np.eye(4)
    pose[:3, :3] = matrix_of(content.get("R"), (3, 3), path, "R")
    pose[:3, 3] = matrix_of(content.get("T"), (3,), path, "T")
    rig: Rig = {}
    for number, where in ((1, np.eye(4)), (2, pose)):
        node = {"camera_matrix": content[f"{prefix}{number}"], "D": content.get(f"D{number}", [])}
        for side in ("width", "height"):
            node[f"image_{side}"] = content.get(f"image_{side}_{number}", content.get(f"image_{side}"))
        rig[f"cam{number}"] = Camera(_lens(node, path, f"{prefix}{number}"), where)
    return rig


def _lens(node: Any, path: Path, place: str) -> Lens:
    if not isinstance(node, dict):
        raise InputError("expected a camera's calibration", path=path, place=place)
    if str(node.get("camera_model", "pinhole")) != "pinhole":
        raise InputError(
            f"expected a pinhole camera, got {node['camera_model']!r}",
            path=path,
            place=place,
            remedy="calibrate it as pinhole-radtan or pinhole-equi",
        )
    model = _MODELS.get(str(node.get("distortion_model", "radtan")))
    if model is None:
        raise InputError(
            f"expected one of the lens models {', '.join(_MODELS)}, got {node['distortion_model']!r}",
            path=path,
            place=place,
            remedy="calibrate it with one of these",
        )
    fx, fy, cx, cy = _focal_and_centre(node, path, place)
    return Lens(_size(node, path, place), (fx, fy), (cx, cy), model, _coefficients(node, model, path, place))


def _focal_and_centre(node: dict[str, Any], path: Path, place: str) -> tuple[float, float, float, float]:
    value = next((node[key] for key in ("intrinsics", *_MATRIX) if key in node), None)
    if isinstance(value, list) and len(value) == 4:
        fx, fy, cx, cy = matrix_of(value, (4,), path, place).tolist()
    else:
        matrix = matrix_of(value, (3, 3), path, place)
        fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
    if fx <= 0 or fy <= 0:
        raise InputError(f"expected focal lengths above 0, got {fx:g} and {fy:g}", path=path, place=place)
    return float(fx), float(fy), float(cx), float(cy)


def _coefficients(node: dict[str, Any], model: LensModel, path: Path, place: str) -> tuple[float, ...]:
    value: Any = next((node[key] for key in _DISTORTION if key in node), [])
    data = value.get("data") if isinstance(value, dict) else value
    flat = matrix_of(data if data is not None else [], (-1,), path, f"{place}, distortion").tolist()
    most = _MOST_COEFFICIENTS[model]
    if any(flat[most:]):
        raise InputError(
            f"expected at most {most} coefficients of {model}, got {len(flat)}", path=path, place=place
        )
    return tuple(flat[:most]) if any(flat) else ()


def _size(node: dict[str, Any], path: Path, place: str) -> tuple[int, int]:
    value = node.get("resolution")
    if value is None:
        value = [node.get("image_width"), node.get("image_height")]
    if value == [None, None]:
        return 0, 0
    width, height = matrix_of(value, (2,), path, f"{place}, resolution").tolist()
    if not (1 <= width <= 65536 and 1 <= height <= 65536):
        raise InputError(
            f"expected a picture of 1 to 65536 pixels a side, got {width:g}x{height:g}",
            path=path,
            place=place,
        )
    return int(width), int(height)
