"""Videos, image folders, and what opens a user's string."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from tests.recordings import write_events
from tests.videos import write_video
from velora_edge.errors import RecordingError, SourceError
from velora_edge.preprocessing.pictures import ImageFolder
from velora_edge.preprocessing.registry import open_event_source, open_rgb_source
from velora_edge.preprocessing.video_file import VideoFile

if TYPE_CHECKING:
    from pathlib import Path


def write_images(folder: Path, names: list[str], times: str | None) -> Path:
    folder.mkdir(exist_ok=True)
    for k, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((4, 6, 3), (10, 20, 30 + k), np.uint8))
    if times is not None:
        (folder / "timestamps.txt").write_text(times)
    return folder


def test_video_gives_frames_at_their_own_times(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [0, 33_333, 100_000, 133_333])
    video = VideoFile(str(tmp_path / "v.mp4"))
    frames = list(video)
    assert [(f.seq, f.t_us) for f in frames] == [(0, 0), (1, 33_333), (2, 100_000), (3, 133_333)]
    assert [f.image.shape for f in frames] == [(32, 48, 3)] * 4
    assert [abs(int(f.image[16, 24, 0]) - 10 * k) <= 3 for k, f in enumerate(frames)] == [True] * 4
    assert (video.height, video.width, video.is_on_event_clock, video.warnings) == (32, 48, False, [])


def test_video_times_need_no_decoding_and_start_where_the_file_says(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [66_667, 100_000, 200_000])
    video = VideoFile(str(tmp_path / "v.mp4"))
    assert video.times_us().tolist() == [66_667, 100_000, 200_000]
    assert [f.t_us for f in video] == [66_667, 100_000, 200_000]


def test_frames_without_times_follow_each_other_at_the_nominal_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "v.h264", [0, 33_333, 66_667])
    video = VideoFile(str(tmp_path / "v.h264"))
    times = [f.t_us for f in video]
    assert len(times) == 3
    assert len(set(np.diff(times).tolist())) == 1
    assert video.times_us().tolist() == times


def test_video_can_be_read_twice(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [0, 40_000])
    video = VideoFile(str(tmp_path / "v.mp4"))
    assert [f.t_us for f in video] == [f.t_us for f in video] == [0, 40_000]


def test_video_without_frames_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "empty.mp4", [])
    with pytest.raises(RecordingError, match=r"empty\.mp4: (holds no video|cannot be read as a video)"):
        VideoFile(str(tmp_path / "empty.mp4"))


@pytest.mark.parametrize("content", [b"", b"not a video at all " * 50])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(RecordingError, match=r"x\.mp4: cannot be read as a video: .*; give a video"):
        VideoFile(str(tmp_path / "x.mp4"))


def test_a_video_cut_short_is_used_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", [40_000 * k for k in range(50)], hw=(64, 64))
    whole = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "v.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    video = VideoFile(str(tmp_path / "v.mkv"))
    frames = list(video)
    assert video.warnings == [f"ends after {frames[-1].t_us / 1e6:.2f} s of 1.99 s: it was cut short"]
    assert 10 < len(frames) < 50
    assert [f.t_us for f in frames] == [40_000 * k for k in range(len(frames))]


def test_folder_gives_images_as_rgb_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_images(tmp_path, ["f10.png", "f9.png"], "# us\n100\n\n250\n")
    frames = list(ImageFolder(str(tmp_path)))
    assert [(f.seq, f.t_us, f.image[0, 0].tolist()) for f in frames] == [
        (0, 100, [31, 20, 10]),
        (1, 250, [30, 20, 10]),
    ]


@pytest.mark.parametrize("times", ["a.png 7\nb.png 9\n", "a.png,7\nb.png,9", "a.png\t7\nb.png\t9\n"])
def test_folder_takes_names_beside_times(tmp_path: Path, times: str) -> None:
    write_images(tmp_path, ["a.png", "b.png", "not_listed.png"], times)
    folder = ImageFolder(str(tmp_path))
    assert (folder.times_us().tolist(), [f.t_us for f in folder]) == ([7, 9], [7, 9])
    assert (folder.height, folder.width, folder.is_on_event_clock) == (4, 6, True)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (None, "the folder holds 2 images and no timestamps.txt; write timestamps.txt: one line an image"),
        ("", "timestamps.txt: holds no times"),
        ("1\n", "timestamps.txt: expected 2 lines, one an image, got 1"),
        ("1\n2.5\n", "timestamps.txt, line 2: expected a time in whole microseconds, got '2.5'"),
        ("5\n\n5\n", "timestamps.txt, line 3: expected a time after 5 us, got 5 us"),
        ("a.png 1\n2\n", "timestamps.txt: some lines have a name and some have none"),
        ("a.png 1\nc.png 2\n", "timestamps.txt, line 2: there is no image c.png"),
    ],
)
def test_folder_says_what_is_wrong_with_its_times(tmp_path: Path, times: str | None, message: str) -> None:
    write_images(tmp_path, ["a.png", "b.png"], times)
    with pytest.raises(RecordingError) as caught:
        ImageFolder(str(tmp_path))
    assert message in str(caught.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="the folder holds no images"):
        ImageFolder(str(tmp_path))


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png"], "1\n2\n")
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(RecordingError, match=r"b\.png: is no image that can be read"):
        list(ImageFolder(str(tmp_path)))


def test_none_is_no_camera() -> None:
    assert (open_rgb_source("none"), open_event_source("none")) == (None, None)


def test_strings_open_what_they_name(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [0])
    write_images(tmp_path / "folder", ["a.png"], "1")
    assert isinstance(open_rgb_source(str(tmp_path / "v.mp4")), VideoFile)
    assert isinstance(open_rgb_source(str(tmp_path / "folder")), ImageFolder)


@pytest.mark.parametrize("text", ["missing.mp4", "nowhere/missing.raw"])
def test_a_missing_file_is_a_source_error(text: str) -> None:
    with pytest.raises(SourceError, match=f"{text}: no such file or folder; an RGB source is a video file"):
        open_rgb_source(text)
    with pytest.raises(SourceError, match=f"{text}: no such file or folder; an event source is a recording"):
        open_event_source(text)


@pytest.mark.parametrize("text", ["rtsp://camera/1", "prophesee://", "-", "0"])
def test_a_kind_of_source_that_there_is_not_is_a_source_error(text: str) -> None:
    with pytest.raises(SourceError, match="no RGB source of this kind; there are: a video file"):
        open_rgb_source(text)
    with pytest.raises(SourceError, match="no event source of this kind; there are: a recording"):
        open_event_source(text)


def test_a_video_that_is_given_for_events_is_told_by_what_it_is(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [0])
    with pytest.raises(
        SourceError, match=r"v\.mp4: is a video, and was given with --events; give it with --rgb$"
    ):
        open_event_source(str(tmp_path / "v.mp4"))


def test_events_that_are_given_for_a_video_are_told_by_what_they_are(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw", count=100)
    message = r"e\.raw: is a recording of events, and was given with --rgb; give it with --events$"
    with pytest.raises(SourceError, match=message):
        open_rgb_source(str(tmp_path / "e.raw"))


def test_a_file_of_neither_camera_keeps_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00nothing" * 9)
    with pytest.raises(RecordingError, match="not a recording of any known format"):
        open_event_source(str(tmp_path / "x"))
    with pytest.raises(RecordingError, match="cannot be read as a video"):
        open_rgb_source(str(tmp_path / "x"))
