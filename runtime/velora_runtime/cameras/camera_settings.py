"""Camera settings from a YAML file: biases, regions, rate control, picture size."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from velora_edge.config import Section, load_config


class Region(Section):
    """A rectangle of the sensor, pixels.

    Attributes:
        x: of its left edge.
        y: of its upper edge.
        width: of it.
        height: of it.
    """

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class ErcSettings(Section):
    """Prophesee's event rate controller: the sensor itself drops events above a rate.

    Attributes:
        enabled: whether it is on.
        events_per_s: that it lets through; None: as the camera has it.
    """

    enabled: bool = True
    events_per_s: int | None = Field(None, gt=0)


class PropheseeSettings(Section):
    """Of a camera that the Metavision SDK opens.

    Attributes:
        biases: values by name, such as bias_diff_on; the SDK checks their ranges.
        roi: regions that give events; empty: the whole sensor.
        erc: event rate control; None: as the camera has it.
        trigger_in: trigger inputs to listen to.
    """

    biases: dict[str, int] = Field(default_factory=dict)
    roi: tuple[Region, ...] = ()
    erc: ErcSettings | None = None
    trigger_in: tuple[Literal["main", "aux", "loopback"], ...] = ("main",)


class InivationSettings(Section):
    """Of a camera that dv-processing opens.

    Attributes:
        roi: region that gives events; None: the whole sensor.
        settings: values of the camera's setters by name without `set`, such as ContrastThresholdOn: 12.
        trigger_rising: let the trigger input tell rising edges.
        trigger_falling: likewise falling ones.
        interval_us: events are sent at least so often.
    """

    roi: Region | None = None
    settings: dict[str, bool | int | float] = Field(default_factory=dict)
    trigger_rising: bool = True
    trigger_falling: bool = False
    interval_us: int = Field(2_000, ge=100, le=100_000)


class EmulatorSettings(Section):
    """Of the event camera that is made up from the RGB camera's pictures.

    Attributes:
        threshold_on: rise of log intensity that gives an ON event.
        threshold_off: fall of log intensity that gives an OFF event.
        noise_rate_hz: background activity of each pixel.
        longest_px: pictures are made smaller until their longer side is this.
        seed: of noise and mismatch.
    """

    threshold_on: float = Field(0.2, gt=0)
    threshold_off: float = Field(0.2, gt=0)
    noise_rate_hz: float = Field(0.0, ge=0)
    longest_px: int = Field(320, gt=0)
    seed: int = 0


class RGBSettings(Section):
    """Of a live RGB camera.

    Attributes:
        width: of the pictures to ask for, pixels; None: the camera's choice.
        height: likewise.
        rate_hz: pictures a second to ask for.
        delay_us: from the middle of the exposure to the picture's time, where that is known; it is taken off.
        transport: of RTSP.
        pixel_format: of a V4L2 camera, such as mjpeg or yuyv422.
    """

    width: int | None = Field(None, gt=0)
    height: int | None = Field(None, gt=0)
    rate_hz: float | None = Field(None, gt=0)
    delay_us: int = 0
    transport: Literal["tcp", "udp"] = "tcp"
    pixel_format: str | None = None

    def problems(self) -> list[str]:
        """A width needs a height."""
        if (self.width is None) != (self.height is None):
            return ["width: give width and height, or none of them"]
        return []


class CameraSettings(Section):
    """All cameras; what is not given stays as the camera has it."""

    prophesee: PropheseeSettings = PropheseeSettings()
    inivation: InivationSettings = InivationSettings()
    emulate: EmulatorSettings = EmulatorSettings()
    rgb: RGBSettings = RGBSettings()


def read_camera_settings(path: str | None) -> CameraSettings:
    """The settings in a YAML file; the defaults where there is none.

    Raises:
        ConfigError: with every problem of the file.
    """
    return CameraSettings() if path is None else load_config(path, CameraSettings)
