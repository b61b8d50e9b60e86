"""Settings of cameras in YAML: read whole, refused with every problem at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from velora_runtime.cameras.camera_settings import (
    CameraSettings,
    ErcSettings,
    PropheseeSettings,
    Region,
    RGBSettings,
    read_camera_settings,
)

from velora_edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_file_everything_stays_as_the_cameras_have_it() -> None:
    assert read_camera_settings(None) == CameraSettings()
    assert (CameraSettings().prophesee.biases, CameraSettings().rgb.width) == ({}, None)


def test_what_is_given_is_read_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "prophesee:\n"
        "  biases: {bias_fo: -35}\n"
        "  roi: [{x: 1, y: 2, width: 3, height: 4}]\n"
        "  erc: {events_per_s: 20000000}\n"
        "  trigger_in: [main, aux]\n"
        "rgb: {width: 640, height: 480, delay_us: 4000}\n"
    )
    assert read_camera_settings(str(tmp_path / "c.yaml")) == CameraSettings(
        prophesee=PropheseeSettings(
            biases={"bias_fo": -35},
            roi=(Region(x=1, y=2, width=3, height=4),),
            erc=ErcSettings(events_per_s=20_000_000),
            trigger_in=("main", "aux"),
        ),
        rgb=RGBSettings(width=640, height=480, delay_us=4000),
    )


def test_every_problem_is_told_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "prophesee: {biases: {bias_fo: low}, roi: [{x: -1, y: 0, width: 0, height: 1}], trigger_in: [side]}\n"
        "inivation: {interval_us: 5}\n"
        "rgb: {transport: smoke, widht: 3}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_camera_settings(str(tmp_path / "c.yaml"))
    keys = {problem.split(":")[0] for problem in caught.value.problems}
    assert keys == {
        "prophesee.biases.bias_fo",
        "prophesee.roi.0.x",
        "prophesee.roi.0.width",
        "prophesee.trigger_in.0",
        "inivation.interval_us",
        "rgb.transport",
        "rgb.widht",
    }


def test_a_width_needs_a_height(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("rgb: {width: 640}\n")
    with pytest.raises(ConfigError, match="give width and height, or none of them"):
        read_camera_settings(str(tmp_path / "c.yaml"))
