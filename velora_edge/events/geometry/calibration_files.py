"""Calibration files of any kind to a `View`, and masks of hot pixels: what is kept of an event camera.

FILE               the event camera of the file, onto the RGB camera's picture where it has one
FILE#cam0          cam0 is the event camera; its own picture, without distortion
FILE#cam0:cam1     cam0 onto cam1's picture
"""

from __future__ import annotations

import io
import json
import operator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import InputError
from velora_edge.events.geometry.calibration import View
from velora_edge.events.geometry.calibration_yaml import matrix_of, read_rig, read_yaml
from velora_edge.files import replace_file
from velora_edge.limits import check_picture, check_request, check_stored, inside, load_json, read_text

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from velora_edge.events.geometry.calibration import Lens
    from velora_edge.events.geometry.calibration_yaml import Camera, Rig


FACTOR = 10.0
"""A hot pixel fires this many times as often as the pixels around it do..."""
LEAST_EVENTS = 20
"""... and this often at least..."""
LEAST_HZ = 5.0
"""... and at this rate."""


def find_hot_pixels(counts: NDArray[np.int64], duration_us: int) -> NDArray[np.bool_]:
    """The pixels that fire far more often than those around them.

    A pixel is hot if it has `FACTOR` times the events of the median of the 5x5 pixels about it, and more
    than `LEAST_EVENTS` and `LEAST_HZ`. An edge that moves makes its neighbours fire as well, so it is not
    taken for one; a group of up to twelve hot pixels is.

    Args:
        counts: int64[H, W], events of each pixel; not modified.
        duration_us: of the recording.
    """
    import cv2

    bordered = cv2.copyMakeBorder(counts.astype(np.float32), 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
    around = cv2.medianBlur(bordered, 5)[2:-2, 2:-2]
    least = max(LEAST_EVENTS, LEAST_HZ * duration_us / 1e6)
    return np.asarray((counts > FACTOR * around) & (counts >= least), np.bool_)


def write_mask(path: str | PathLike[str], mask: NDArray[np.bool_]) -> None:
    """Keep a mask, bool[H, W]: as an array (.npy), or as a list of pixels that people can edit (.json).

    Raises:
        InputError: if the name ends in neither, or the file cannot be written.
    """
    target = Path(path)
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    pixels = [list(pixel) for pixel in zip(columns.tolist(), rows.tolist(), strict=True)]
    try:
        if target.suffix == ".npy":
            content = io.BytesIO()
            np.save(content, mask, allow_pickle=False)
            replace_file(target, content.getvalue(), mode=0o644)
        elif target.suffix == ".json":
            text = json.dumps({"sensor": [width, height], "hot_pixels": pixels}) + "\n"
            replace_file(target, text.encode(), mode=0o644)
        else:
            raise InputError("expected a name that ends in .npy or .json", path=path, remedy="change it")
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place"
        ) from error


def read_mask(path: str | PathLike[str]) -> NDArray[np.bool_]:
    """A mask, bool[H, W], that `write_mask` wrote, or any array or list of pixels of that form.

    Raises:
        InputError: if it is none.
    """
    source = Path(path)
    try:
        if source.suffix == ".npy":
            mask = np.load(source, mmap_mode="r", allow_pickle=False)
            if mask.ndim != 2 or mask.dtype.kind not in "bui":
                raise ValueError(f"a two-dimensional array of booleans, got {mask.dtype} {mask.shape}")
            return np.asarray(mask != 0, np.bool_)
        content = load_json(read_text(source))
        return _mask_of(content["sensor"], content["hot_pixels"])
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path, remedy="check the path") from error
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
        EOFError,
        RecursionError,
        MemoryError,
    ) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InputError(
            f"expected a mask of hot pixels ({reason})",
            path=path,
            remedy="make one with velora info RECORDING --hot-pixels",
        ) from error


def _mask_of(sensor: list[int], pixels: list[list[int]]) -> NDArray[np.bool_]:
    width, height = (int(side) for side in sensor)
    if not (0 < width <= 65536 and 0 < height <= 65536):
        raise ValueError(f"a sensor of {width}x{height}")
    check_picture(width, height)
    mask = np.zeros((height, width), np.bool_)
    for pixel in pixels:
        x, y = map(operator.index, pixel)
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"pixel ({x}, {y}) lies outside the sensor of {width}x{height}")
        mask[y, x] = True
    return mask


_HDF5 = b"\x89HDF\r\n\x1a\n"
_EVENT_WORDS = ("event", "dvs", "prophesee", "metavision", "davis")
# The rectified pictures are what DSEC publishes: the RGB camera beside each event camera.
_DSEC_PICTURES = {"cam0": "camRect1", "cam3": "camRect2"}


def read_calibration(text: str, sensor: tuple[int, int], *, depth_m: float = np.inf) -> View:
    """The view that a calibration file describes.

    Args:
        text: the file, with the cameras after a # where the file alone does not tell them.
        sensor: width and height of the event camera of which the recording is, pixels.
        depth_m: how far the scene is, for two cameras beside each other; see `View.from_lenses`.

    Raises:
        InputError: if the file is no calibration that is known, or one for another sensor.
    """
    path, cameras = _split(text)
    try:
        with path.open("rb") as file:
            head = file.read(len(_HDF5))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path, remedy="check the path") from error
    if head == _HDF5:
        view = _read_rectify_map(path)
    else:
        content = read_yaml(path)
        if "homography" in content:
            view = _read_homography(content, path, sensor)
        else:
            view = _view_of_rig(read_rig(content, path), path, cameras, sensor, depth_m)
    if view.source_hw != (sensor[1], sensor[0]):
        height, width = view.source_hw
        raise InputError(
            f"is for a sensor of {width}x{height}, the events are of one of {sensor[0]}x{sensor[1]}",
            path=path,
            remedy="give the calibration of this camera",
        )
    return view


def _split(text: str) -> tuple[Path, str]:
    name, _, cameras = text.rpartition("#")
    return (Path(name), cameras) if name and not Path(text).exists() else (Path(text), "")


def _read_rectify_map(path: Path) -> View:
    """DSEC's `rectify_map.h5`: for each pixel its place in the rectified picture, of the same size."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            node = inside(file, "rectify_map")
            if not isinstance(node, h5py.Dataset) or node.ndim != 3 or node.shape[2] != 2:
                raise InputError(
                    "expected a dataset rectify_map of height x width x 2", path=path, remedy="check the file"
                )
            check_stored(path, node)
            check_request(path, node.size * node.dtype.itemsize, "the map", "rectify_map")
            table = node[()].astype(np.float64)
    except (OSError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).partition("\n")[0][:200]
        raise InputError(f"the HDF5 file is damaged ({reason})", path=path, remedy="copy it again") from error
    height, width = table.shape[:2]
    return View.from_map(table[:, :, 0], table[:, :, 1], (height, width))


def _read_homography(content: dict[str, Any], path: Path, sensor: tuple[int, int]) -> View:
    """`homography`: 3x3, sensor to picture; `resolution`: the picture's width and height."""
    matrix = matrix_of(content["homography"], (3, 3), path, "homography")
    size = content.get("resolution", [content.get("image_width"), content.get("image_height")])
    width, height = matrix_of(size, (2,), path, "resolution").tolist()
    if not (1 <= width <= 65536 and 1 <= height <= 65536):
        raise InputError(f"expected the picture's width and height, got {width:g}x{height:g}", path=path)
    if abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError("the matrix has no inverse", path=path, place="homography", remedy="find it anew")
    return View.from_homography(matrix, (sensor[1], sensor[0]), (int(height), int(width)))


def _view_of_rig(rig: Rig, path: Path, cameras: str, sensor: tuple[int, int], depth_m: float) -> View:
    if not rig:
        raise InputError(
            "expected a calibration: rectify_map (HDF5), homography, camera_matrix, M1 and M2, "
            "cam0 (Kalibr), or intrinsics and extrinsics (DSEC)",
            path=path,
            remedy="see docs/guides/calibration.md",
        )
    name, _, onto = cameras.partition(":")
    event = name or _find_event_camera(rig, path, sensor)
    picture = onto or ("" if name else _find_picture(rig, path, event))
    for wanted in filter(None, (event, picture)):
        if wanted not in rig:
            raise InputError(
                f"there is no camera {wanted!r} in it", path=path, remedy=f"choose from {', '.join(rig)}"
            )
    lens = _sized(rig[event], sensor)
    if not picture:
        return View.from_lenses(lens, lens.undistorted(), np.eye(4), is_rgb=False)
    target = rig[picture]
    if not all(target.lens.size):
        raise InputError(
            "does not tell the size of the picture",
            path=path,
            place=picture,
            remedy=f"add image_width_{picture[-1]} and image_height_{picture[-1]}",
        )
    pose = target.pose @ np.linalg.inv(rig[event].pose)
    return View.from_lenses(
        lens, target.lens, pose, depth_m=depth_m, is_rgb=picture.removeprefix("camRect") != event[3:]
    )


def _sized(camera: Camera, sensor: tuple[int, int]) -> Lens:
    return camera.lens if all(camera.lens.size) else replace(camera.lens, size=sensor)


def _find_event_camera(rig: Rig, path: Path, sensor: tuple[int, int]) -> str:
    """By the topic's name, or by the size of the sensor, where only one camera fits."""
    own = {name: camera for name, camera in rig.items() if not name.startswith("camRect")}
    if _is_dsec(rig):
        return "cam0"
    if len(own) == 1:
        return next(iter(own))
    named = [n for n, camera in own.items() if any(word in camera.topic.lower() for word in _EVENT_WORDS)]
    sized = [n for n, camera in own.items() if camera.lens.size == sensor]
    unsized = [n for n, camera in own.items() if not all(camera.lens.size)]
    for found in (named, sized, unsized):
        if len(found) == 1:
            return found[0]
    raise InputError(
        "it is not plain which of its cameras is the event camera",
        path=path,
        remedy=f"name it: {path.name}#{next(iter(own))}, or {':'.join(list(own)[:2])} after the # for both",
    )


def _find_picture(rig: Rig, path: Path, event: str) -> str:
    if _is_dsec(rig):
        return _DSEC_PICTURES.get(event, "")
    others = [name for name in rig if name != event]
    if len(others) > 1:
        raise InputError(
            "it is not plain which of its cameras is the RGB camera",
            path=path,
            remedy=f"name both: {path.name}#{event}:{others[0]}",
        )
    return others[0] if others else ""


def _is_dsec(rig: Rig) -> bool:
    return "camRect1" in rig
