"""How many patches of a vision transformer see an event: every real recording, window by window.

    python benchmarks/active_patches.py             # recordings in ../shared/data, about a minute
    python benchmarks/active_patches.py --data /data/events --quick

Windows of 33 ms follow each other from the first event on; one that the recording's end cuts off counts only
where there is no other. Events are laid onto an image of 224x224 by the registration map of the runtime,
the square in the middle of the sensor; an event counts for the patch that its pixel of the image falls in.
Cells are the 10th, 50th and 90th percentile over windows, of the share of patches that are active:

- with one event or more, or three or more;
- by the image: a patch is active where a pixel differs from the image of a window without events. That is
  all that a recogniser has. Each event leaves its mark in a polarity image; in a voxel grid events of both
  polarities on one pixel can cancel.

`background` are the same windows through the filter of background activity, at its default.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

import velora_edge
from velora_edge.bundle import EventInput
from velora_edge.events.accumulate.representations import (
    Accumulator,
    CountPlanes,
    RegistrationMap,
    make_accumulator,
)
from velora_edge.events.filters.event_preprocessing import FilteredStream
from velora_edge.events.filters.filters import FilterChain, make_filter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from velora_edge.events.base import EventReader, EventStream

    Shares = dict[tuple[int, str], list[float]]
    """By side of a patch, pixels, and by what makes it active."""

DATA = Path(os.environ.get("VELORA_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "events"
NMNIST = "../nmnist/train_1000.h5"
RECORDINGS = {
    **{
        f"DVS128, {name.replace('_', ' ')} in a hand": f"../dvs128_objects/{name}.aedat"
        for name in ("box", "box_cutter", "mouse", "mug", "pencil", "phone", "scissors")
    },
    "DAVIS346, frames beside (shiba24)": "../paired/shiba24_davis346.aedat4",
    "DAVIS240C, slider_depth": "../paired/slider_depth/events_chunk.txt",
    "DVXplorer, AEDAT4 (tonic)": "tonic_sample.aedat4",
    "DVS, Event Stream (faery)": "faery_dvs.es",
    "ATIS, Event Stream (faery)": "faery_color.es",
    "EVT2 (expelliarmus)": "expelliarmus_evt2_sample.raw",
    "EVT2.1 (faery)": "derived_faery_evt21.raw",
    "EVT3 with triggers (event_camera_py)": "ecpy_test1_evt3_triggers.raw",
    "EVT3, dense (expelliarmus)": "expelliarmus_evt3_sample.raw",
    "EVT3 in a ROS bag": "ros_test_data_evt3_trigger_0.db3",
    "libcaer in a ROS bag": "ros_libcaer_rollover_0.db3",
    "mono in a ROS bag": "ros_test_data_mono_cd_0.db3",
    "ATIS, N-CARS (tonic)": "tonic_sample_ncars.dat",
    "ATIS, N-MNIST": NMNIST,
}
"""By the table's name; the derived files that hold the same events in another format are left out."""
WINDOW_US = 33_333
SIDE = 224
PATCHES = (16, 14)
EVENTS = {"1+ events": 1, "3+ events": 3}
IMAGES = {"polarity image": "polarity", "voxel grid": "voxel_grid"}
FILTERS: dict[str, tuple[str, ...]] = {"none": (), "background": ("background",)}


def windows_of(stream: EventStream, frame: Accumulator) -> Iterator[Accumulator]:
    """The frame, filled with one window after the other; the stream is left open."""
    start_us, is_first = stream.t_next_us, True
    while start_us is not None and stream.t_next_us is not None:
        frame.begin(start_us, start_us + WINDOW_US)
        stream.accumulate_until(start_us + WINDOW_US, frame)
        if is_first or stream.t_next_us is not None:
            yield frame
        start_us, is_first = start_us + WINDOW_US, False


def count_events(stream: EventStream, registration: RegistrationMap) -> Iterator[NDArray[np.int64]]:
    """Events of each window by pixel of the model's image, both polarities, int64[H, W]."""
    height, width = registration.target_hw
    frame = Accumulator(CountPlanes(height * width), registration)
    for filled in windows_of(stream, frame):
        planes = filled.state.counts.reshape(2, -1)[:, 1:]
        yield planes.sum(axis=0, dtype=np.int64).reshape(height, width)


def mark_pixels(
    stream: EventStream, registration: RegistrationMap, representation: str
) -> Iterator[NDArray[np.bool_]]:
    """Of each window, which pixels of the model's image differ from those of an empty one, bool[H, W]."""
    event_input = EventInput(representation=representation, window_us=WINDOW_US)
    frame = make_accumulator(event_input, registration)
    frame.begin(0, WINDOW_US)
    blank = np.empty((*registration.target_hw, 3), np.uint8)
    frame.render_into(blank)
    image = np.empty_like(blank)
    for filled in windows_of(stream, frame):
        filled.render_into(image)
        yield (image != blank).any(axis=2)


def active_share(pixels: NDArray[np.generic], patch: int, least: int = 1) -> float:
    """Share of the image's patches whose pixels, [H, W], sum up to `least` or more."""
    height, width = pixels.shape
    blocks = pixels.reshape(height // patch, patch, width // patch, patch)
    return float((blocks.sum(axis=(1, 3), dtype=np.int64) >= least).mean())


def add_shares(shares: Shares, reader: EventReader, filters: Iterable[str]) -> None:
    """Add each window of a recording to the lists of shares."""
    sensor = reader.width, reader.height
    registration = RegistrationMap.from_fit(sensor[::-1], (SIDE, SIDE), "crop")

    def begin() -> EventStream:
        wanted = [make_filter(text, sensor) for text in filters]
        return FilteredStream(reader.stream(), FilterChain(wanted)) if wanted else reader.stream()

    with begin() as stream:
        for counts in count_events(stream, registration):
            for patch, (name, least) in itertools.product(PATCHES, EVENTS.items()):
                shares[patch, name].append(active_share(counts, patch, least))
    for name, representation in IMAGES.items():
        with begin() as stream:
            for marked in mark_pixels(stream, registration, representation):
                for patch in PATCHES:
                    shares[patch, name].append(active_share(marked, patch))


def parts_of(path: Path, *, quick: bool) -> list[str]:
    """The recordings of a file: N-MNIST's holds a thousand."""
    if path.suffix != ".h5":
        return [str(path)]
    with h5py.File(path) as file:
        count = len(file["label"])
    return [f"{path}#{number}" for number in range(10 if quick else count)]


def show(percentiles: NDArray[np.float64]) -> str:
    return " / ".join(f"{100 * value:.0f}" for value in percentiles)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder of the event files; the others lie beside it"
    )
    parser.add_argument("--quick", action="store_true", help="ten recordings of N-MNIST")
    given = parser.parse_args()
    columns = list(itertools.product(PATCHES, (*EVENTS, *IMAGES)))
    print("Share of active patches, percent: 10th / 50th / 90th percentile over windows.\n")
    heads = ("recording", "filter", "windows", *(f"{patch} px: {name}" for patch, name in columns))
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for (name, file), (filter_name, filters) in itertools.product(RECORDINGS.items(), FILTERS.items()):
        shares: Shares = defaultdict(list)
        for part in parts_of(given.data / file, quick=given.quick):
            with velora_edge.open_events(part) as reader:
                add_shares(shares, reader, filters)
        cells = [show(np.percentile(shares[column], (10, 50, 90))) for column in columns]
        windows = len(shares[columns[0]])
        print(f"| {name} | {filter_name} | {windows} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
