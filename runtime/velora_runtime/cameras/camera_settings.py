"""Camera settings from a YAML file: biases, regions, rate control, picture size."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from velora_edge.config import Section, load_config
from velora_edge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE_PERIOD_US, RATE_TOP = 200, (1 << 22) - 1
"""Of Prophesee sensors' event rate controller: its reference period, and the most events in one (22 bits)."""
_NOT_OTHERS = {
    *("biases", "x_mask", "y_mask", "pixel_mask", "mask_intersection_only", "region_of_interest"),
    *("rate_limiter", "enable_external_trigger", "enable_output"),
}
"""Fields of neuromorphic-drivers' configurations that `settings` may not set: other options do, or nobody."""


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


class NeuromorphicSettings(Section):
    """Of a camera that neuromorphic-drivers opens.

    Attributes:
        biases: values by the package's names, with or without `bias_` before; the camera tells their ranges.
        roi: region that gives events; None: the whole sensor.
        events_per_s: that the sensor itself lets through; None: all.
        trigger_in: listen to the trigger input.
        settings: other fields of the package's configuration of this camera, such as exposure_us of a DAVIS.
        longest_delay_ms: data that has waited longer for the host is cleared unread, and counted.
    """

    biases: dict[str, bool | int] = Field(default_factory=dict)
    roi: Region | None = None
    events_per_s: int | None = Field(None, ge=5_000, le=20_000_000_000)
    trigger_in: bool = True
    settings: dict[str, bool | int | str] = Field(default_factory=dict)
    longest_delay_ms: int = Field(500, ge=20)


class Ros2Settings(Section):
    """Of topics of ROS 2.

    Attributes:
        depth: messages of events that wait for a host that is busy; older ones are lost, and counted.
        reliability: of the subscriptions; match: reliable where all publishers of the topic are.
    """

    depth: int = Field(256, ge=1, le=10_000)
    reliability: Literal["match", "reliable", "best_effort"] = "match"


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
        decoder: of RTSP streams and of a V4L2 camera's mjpeg; auto: hardware where GStreamer has a decoder,
            and the CPU where it has none, or where it does not work.
        gstreamer: where the pipelines of csi:// and gst:// run: in a process of their own, or in this one.
    """

    width: int | None = Field(None, gt=0)
    height: int | None = Field(None, gt=0)
    rate_hz: float | None = Field(None, gt=0)
    delay_us: int = 0
    transport: Literal["tcp", "udp"] = "tcp"
    pixel_format: str | None = None
    decoder: Literal["auto", "hardware", "software"] = "auto"
    gstreamer: Literal["process", "appsink"] = "process"

    def problems(self) -> list[str]:
        """A width needs a height."""
        if (self.width is None) != (self.height is None):
            return ["width: give width and height, or none of them"]
        return []


class CameraSettings(Section):
    """All cameras; what is not given stays as the camera has it."""

    neuromorphic: NeuromorphicSettings = NeuromorphicSettings()
    prophesee: PropheseeSettings = PropheseeSettings()
    inivation: InivationSettings = InivationSettings()
    ros2: Ros2Settings = Ros2Settings()
    emulate: EmulatorSettings = EmulatorSettings()
    rgb: RGBSettings = RGBSettings()


def read_camera_settings(path: str | None) -> CameraSettings:
    """The settings in a YAML file; the defaults where there is none.

    Raises:
        ConfigError: with every problem of the file.
    """
    return CameraSettings() if path is None else load_config(path, CameraSettings)


def make_configuration(module: Any, settings: NeuromorphicSettings) -> Any:
    """The configuration of a camera in the terms of neuromorphic-drivers.

    Args:
        module: the package's of this model of camera, such as `neuromorphic_drivers.prophesee_evk4`.
        settings: what the user gave.

    Raises:
        ConfigError: with every setting that such a camera does not have, or that does not fit.
    """
    changes: dict[str, Any] = {}
    problems = [
        *_set_biases(module, settings, changes),
        *_set_roi(module, settings, changes),
        *_set_rate(module, settings, changes),
        *_set_trigger(module, settings, changes),
        *_set_others(module, settings, changes),
    ]
    if problems:
        raise ConfigError(problems)
    return module.Configuration(**changes)


def _set_biases(module: Any, settings: NeuromorphicSettings, changes: dict[str, Any]) -> Iterator[str]:
    known = {field.name for field in dataclasses.fields(module.Biases)}
    values: dict[str, bool | int] = {}
    for given, value in settings.biases.items():
        name = given.removeprefix("bias_")
        if name not in known:
            yield f"neuromorphic.biases.{given}: this camera has {', '.join(sorted(known))}"
        elif reason := _misfit(module.Biases(**{name: value})):
            yield f"neuromorphic.biases.{given}: {value} is refused: {reason}"
        else:
            values[name] = value
    changes["biases"] = module.Biases(**values)


def _set_roi(module: Any, settings: NeuromorphicSettings, changes: dict[str, Any]) -> Iterator[str]:
    roi, sensor = settings.roi, module.Properties()
    if roi is None:
        return
    if roi.x + roi.width > sensor.width or roi.y + roi.height > sensor.height:
        yield f"neuromorphic.roi: the sensor is {sensor.width}x{sensor.height}"
    elif hasattr(module, "RowColumnMask"):
        mask = module.RowColumnMask(set=True)
        # Rows are counted from below: mask.pixels() shows it, and cameras do so.
        mask.clear_rectangle(roi.x, sensor.height - roi.y - roi.height, roi.width, roi.height)
        changes |= {"x_mask": mask.x_mask(), "y_mask": mask.y_mask()}
    elif hasattr(module, "RegionOfInterest"):
        changes["region_of_interest"] = module.RegionOfInterest(roi.x, roi.y, roi.width, roi.height)
    else:
        yield "neuromorphic.roi: this camera has no regions"


def _set_rate(module: Any, settings: NeuromorphicSettings, changes: dict[str, Any]) -> Iterator[str]:
    if settings.events_per_s is None:
        return
    if not hasattr(module, "RateLimiter"):
        yield "neuromorphic.events_per_s: this camera has no event rate control"
        return
    events = settings.events_per_s * RATE_PERIOD_US // 1_000_000
    if events > RATE_TOP:
        yield f"neuromorphic.events_per_s: at most {RATE_TOP * (1_000_000 // RATE_PERIOD_US)}"
    changes["rate_limiter"] = module.RateLimiter(RATE_PERIOD_US, events)


def _set_trigger(module: Any, settings: NeuromorphicSettings, changes: dict[str, Any]) -> Iterator[str]:
    if hasattr(module.Configuration, "enable_external_trigger"):
        changes["enable_external_trigger"] = settings.trigger_in
    elif not settings.trigger_in:
        yield "neuromorphic.trigger_in: this camera's input cannot be switched off"


def _set_others(module: Any, settings: NeuromorphicSettings, changes: dict[str, Any]) -> Iterator[str]:
    """Other fields: numbers and switches as they are, choices by their name."""
    default = module.Configuration()
    known = {field.name for field in dataclasses.fields(default)} - _NOT_OTHERS
    for name, value in settings.settings.items():
        choices = type(getattr(default, name)) if name in known else None
        if choices is None:
            yield f"neuromorphic.settings.{name}: this camera has {', '.join(sorted(known)) or 'none'}"
        elif hasattr(choices, "__members__") and str(value).upper() not in choices.__members__:
            yield f"neuromorphic.settings.{name}: expected {', '.join(choices.__members__)}, got {value!r}"
        elif hasattr(choices, "__members__"):
            changes[name] = choices[str(value).upper()]
        elif reason := _misfit(dataclasses.replace(default, **{name: value})):
            yield f"neuromorphic.settings.{name}: {value!r} is refused: {reason}"
        else:
            changes[name] = value


def _misfit(part: Any) -> str:
    """Why a part of a configuration cannot be sent; empty where it can."""
    try:
        part.serialize()
    except (OverflowError, ValueError, TypeError, AttributeError) as error:
        return str(error)
    return ""


def check_bounds(bounds: Any, settings: NeuromorphicSettings) -> None:
    """Hold the biases against the ranges that the camera tells, which depend on its calibration.

    Raises:
        ConfigError: with every bias that is outside.
    """
    problems = []
    for given, value in settings.biases.items():
        span = getattr(bounds, given.removeprefix("bias_"), None)
        if span is not None and not span.minimum <= value <= span.maximum:
            takes = f"this camera takes {span.minimum} to {span.maximum}"
            problems.append(f"neuromorphic.biases.{given}: {value} is refused: {takes}")
    if problems:
        raise ConfigError(problems)
