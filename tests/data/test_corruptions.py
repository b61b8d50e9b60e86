"""Noise, lost events, stalls and other rates of clips that are packed already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from velora_edge.bundle import EventInput
from velora_edge.data.clips.clips import ClipSource, ClipSpec, Item, Modality, Pairs, pack_windows
from velora_edge.data.clips.corruptions import (
    CorruptedSource,
    Corruption,
    event_images,
    read_corrupted,
    warp_pairs,
)
from velora_edge.datatypes import EventBatch
from velora_edge.errors import ConfigError
from velora_edge.events.accumulate.representations import RegistrationMap

REPRESENTATIONS = ["polarity", "counts", "time_surface", "voxel_grid"]
WHITE, BLUE, RED = (255, 255, 255), (0, 0, 255), (255, 0, 0)
T = 4


class Numbered(ClipSource):
    """One recording whose picture k is k and whose event image k has an ON event at its k-th pixel alone."""

    kind, path, labels, items = "numbered", Path("numbered"), ("a",), (Item("a", 0),)

    def __init__(
        self, count: int = 8, spec: ClipSpec | None = None, cameras: tuple[Modality, ...] = ("rgb", "event")
    ) -> None:
        self.spec = spec or ClipSpec(T, (2, 4), "stride")
        self.cameras = cameras
        self._rgb = np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 4, 3), np.uint8)
        self._event = np.full((count, 2, 4, 3), 255, np.uint8)
        for k in range(min(count, 8)):
            self._event[k, k // 4, k % 4] = RED

    def pairs(self, index: int) -> int:
        return len(self._rgb)

    def read(self, index: int, which: np.ndarray) -> Pairs:
        assert (np.diff(which) >= 0).all()
        images = {"rgb": self._rgb[which], "event": self._event[which]}
        return Pairs(*(images[c] if c in self.cameras else None for c in ("rgb", "event")))

    def problems(self, index: int, *, deep: bool) -> list[str]:
        return []


def corrupted(corruption: Corruption, source: ClipSource | None = None, seed: int = 0) -> Pairs:
    return read_corrupted(source or Numbered(), 0, corruption, np.random.default_rng(seed))


def pictures(pairs: Pairs) -> list[int]:
    assert pairs.rgb is not None
    return [int(image[0, 0, 0]) for image in pairs.rgb]


def fired(pairs: Pairs) -> list[list[int]]:
    """Numbers of the pixels with events, by image."""
    assert pairs.event is not None
    return [np.flatnonzero((image != 255).any(axis=-1)).tolist() for image in pairs.event]


def test_the_default_changes_nothing() -> None:
    clip = corrupted(Corruption())
    assert pictures(clip) == [2, 3, 4, 5]
    assert fired(clip) == [[2], [3], [4], [5]]


def test_a_stall_repeats_the_picture_before_it_and_spares_the_events() -> None:
    clip = corrupted(Corruption(stale=(2, 4)))
    assert pictures(clip) == [2, 3, 3, 3]
    assert fired(clip) == [[2], [3], [4], [5]]


def test_a_stall_of_the_whole_clip_shows_its_first_picture() -> None:
    assert pictures(corrupted(Corruption(stale=(0, 4)))) == [2, 2, 2, 2]


def test_pictures_come_late_by_pairs_and_early_by_negative_ones() -> None:
    assert pictures(corrupted(Corruption(delay_pairs=2))) == [0, 1, 2, 3]
    assert pictures(corrupted(Corruption(delay_pairs=-2))) == [4, 5, 6, 7]
    assert fired(corrupted(Corruption(delay_pairs=2))) == [[2], [3], [4], [5]]


def test_a_delay_beyond_the_recording_shows_its_first_picture() -> None:
    assert pictures(corrupted(Corruption(delay_pairs=4))) == [0, 0, 0, 1]


def test_lost_pictures_are_absent_but_never_the_only_camera() -> None:
    assert corrupted(Corruption(rgb_lost=True)).rgb is None
    assert pictures(corrupted(Corruption(rgb_lost=True), Numbered(cameras=("rgb",)))) == [2, 3, 4, 5]


def test_half_the_rate_takes_every_second_pair_with_the_events_of_both_windows() -> None:
    clip = corrupted(Corruption(rate=0.5, window=2.0))
    assert pictures(clip) == [0, 2, 4, 6]
    assert fired(clip) == [[0], [1, 2], [3, 4], [5, 6]]


def test_twice_the_rate_covers_half_the_time() -> None:
    assert pictures(corrupted(Corruption(rate=2.0))) == [3, 3, 4, 4]


def test_all_events_can_be_dropped_and_none() -> None:
    assert fired(corrupted(Corruption(drop_events=1.0))) == [[], [], [], []]
    assert fired(corrupted(Corruption(drop_events=1e-12))) == [[2], [3], [4], [5]]


def test_hot_pixels_fire_in_every_image_with_one_polarity() -> None:
    clip = corrupted(Corruption(hot_pixels=0.5, drop_events=1.0), seed=3)
    assert clip.event is not None
    assert fired(clip)[0] == fired(clip)[3]
    assert 0 < len(fired(clip)[0]) < 8
    assert (clip.event == clip.event[0]).all()


def test_noise_falls_anew_in_every_image_in_both_colours() -> None:
    clip = corrupted(Corruption(noise=0.5, drop_events=1.0))
    assert clip.event is not None
    assert len({tuple(pixels) for pixels in fired(clip)}) > 1
    assert {tuple(colour) for colour in clip.event.reshape(-1, 3).tolist()} == {WHITE, BLUE, RED}


def test_more_noise_adds_to_less_of_it() -> None:
    few, many = (fired(corrupted(Corruption(noise=level))) for level in (0.1, 0.4))
    assert all(set(some) <= set(more) for some, more in zip(few, many, strict=True))


def test_picture_noise_has_the_spread_that_is_asked_for() -> None:
    source = Numbered()
    source._rgb = np.full((8, 64, 64, 3), 128, np.uint8)
    source._event = np.zeros((8, 64, 64, 3), np.uint8)
    noisy = corrupted(Corruption(rgb_noise=0.1), source).rgb
    assert noisy is not None
    assert float(noisy.std()) == pytest.approx(25.5, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(128, abs=0.5)


def test_the_sources_own_images_are_not_changed() -> None:
    source = Numbered()
    before = source._rgb.copy(), source._event.copy()
    corrupted(Corruption(0.5, 0.5, 0.5, 0.5, (0, 2), delay_pairs=1, window=1.5, warp=0.5), source)
    np.testing.assert_array_equal(source._rgb, before[0])
    np.testing.assert_array_equal(source._event, before[1])


def test_a_warped_clip_stays_in_order_in_the_recording_and_about_its_middle() -> None:
    dice = np.random.default_rng(0)
    which = np.array([20, 25, 30, 35, 40])
    spans = []
    for _ in range(300):
        warped = warp_pairs(which, 61, 1.0, dice)
        assert (np.diff(warped) >= 0).all()
        assert abs(warped[0] + warped[-1] - 60) <= 2
        spans.append(warped[-1] - warped[0])
    assert min(spans) >= 10
    assert max(spans) <= 40
    assert min(spans) < 15
    assert max(spans) > 30


def test_a_warp_that_leaves_the_recording_is_made_to_fit() -> None:
    dice = np.random.default_rng(1)
    for _ in range(100):
        warped = warp_pairs(np.arange(8), 8, 3.0, dice)
        assert warped[0] >= 0
        assert warped[-1] <= 7


def draw_windows(representation: str, lengths: list[int]) -> np.ndarray:
    """Images of windows of these lengths, us, one after the other from 0: always of the same 40 events."""
    rng = np.random.default_rng(5)
    t_us = np.sort(rng.integers(0, 2000, 40))
    events = EventBatch(
        t_us,
        *(rng.integers(0, 4, 40).astype(np.uint16) for _ in "xy"),
        rng.integers(0, 2, 40).astype(np.uint8),
    )
    windows, start = [], 0
    for length in lengths:
        windows.append((start, start + length))
        start += length
    event = EventInput(representation=representation, window_us=1000)
    return pack_windows(events, windows, RegistrationMap.identity((4, 4)), event)


@pytest.mark.parametrize(("representation", "off"), [*zip(REPRESENTATIONS, (0, 0, 1, 2), strict=True)])
def test_two_windows_joined_are_the_window_of_both(representation: str, off: int) -> None:
    older, newer = draw_windows(representation, [1000, 1000])
    (whole,) = draw_windows(representation, [2000])
    images = event_images(EventInput(representation=representation))
    joined = images.stretch(newer[None], older[None].copy(), 2.0, np.random.default_rng(0))[0]
    assert np.abs(joined.astype(int) - whole.astype(int)).max() <= off
    np.testing.assert_array_equal(images.join(older[None], newer[None])[0], joined)


def test_a_time_surface_tells_the_events_of_a_shorter_window() -> None:
    (whole,) = draw_windows("time_surface", [2000])
    (_, half) = draw_windows("time_surface", [1000, 1000])
    images = event_images(EventInput(representation="time_surface"))
    shorter = images.stretch(whole[None], None, 0.5, np.random.default_rng(0))[0]
    assert np.abs(shorter.astype(int) - half.astype(int)).max() <= 3


@pytest.mark.parametrize("representation", ["polarity", "counts", "voxel_grid"])
def test_a_shorter_window_keeps_its_share_of_the_events(representation: str) -> None:
    images = event_images(EventInput(representation=representation))
    full = np.broadcast_to(images.blank, (1, 100, 100, 3)).copy()
    dice = np.random.default_rng(0)
    images.add(full, np.ones((1, 100, 100), bool), np.ones((1, 100, 100), bool), dice)
    half = images.stretch(full, None, 0.5, dice)
    share = float((half != images.blank).any(axis=-1).mean())
    assert share == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("representation", "colours"),
    [
        ("polarity", {BLUE, RED}),
        ("counts", {(1, 0, 0), (0, 1, 0)}),
        (
            "voxel_grid",
            {
                (112, 128, 128),
                (128, 112, 128),
                (128, 128, 112),
                (144, 128, 128),
                (128, 144, 128),
                (128, 128, 144),
            },
        ),
    ],
)
def test_an_event_of_noise_looks_as_an_event_does(representation: str, colours: set[tuple[int, ...]]) -> None:
    images = event_images(EventInput(representation=representation))
    blank = np.broadcast_to(images.blank, (1, 16, 16, 3)).copy()
    dice = np.random.default_rng(0)
    images.add(blank, np.ones((1, 16, 16), bool), dice.random((1, 16, 16)) < 0.5, dice)
    assert {tuple(colour) for colour in blank.reshape(-1, 3).tolist()} == colours


def test_counts_of_noise_saturate() -> None:
    images = event_images(EventInput(representation="counts"))
    full = np.full((1, 1, 1, 3), 255, np.uint8)
    where = np.ones((1, 1, 1), bool)
    images.add(full, where, where, np.random.default_rng(0))
    assert full[0, 0, 0].tolist() == [255, 255, 255]
    assert images.join(full, full)[0, 0, 0].tolist() == [255, 255, 255]


def test_a_plugins_representation_is_refused_where_events_are_touched() -> None:
    source = Numbered(spec=ClipSpec(T, (2, 4), "stride", event=EventInput(representation="mine")))
    with pytest.raises(ConfigError, match=r"are known for polarity, .*, not for 'mine'"):
        corrupted(Corruption(noise=0.1), source)


def test_a_corrupted_set_gives_the_same_clip_each_time_and_another_by_another_seed() -> None:
    first, again, other = (CorruptedSource(Numbered(), Corruption(noise=0.5), seed) for seed in (1, 1, 2))
    assert fired(first.clip(0)) == fired(first.clip(0)) == fired(again.clip(0))
    assert fired(first.clip(0)) != fired(other.clip(0))
    assert fired(Pairs(None, first.read(0, np.array([3])).event)) == [[3]]
