from __future__ import annotations

import numpy as np
import pytest

from tests.events.words import rows
from velora_edge import open_events
from velora_edge.bundle import EventInput
from velora_edge.datatypes import EventBatch
from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
from velora_edge.events.base import EventStream
from velora_edge.events.filters.event_preprocessing import FilteredStream
from velora_edge.events.filters.filters import FilterChain, RateCap, make_filter

FORMATS = ["expelliarmus_evt2_sample.raw", "expelliarmus_evt3_sample.raw", "derived_faery_dsec.h5"]


def new_frame(reader, representation="counts"):
    registration = RegistrationMap.from_fit((reader.height, reader.width), (32, 32))
    return make_accumulator(EventInput(representation=representation), registration)


def windows(stream, frame, step_us=5000, most=8):
    """Images, events that were walked over, and the time after each window."""
    t_us, found = stream.t_next_us, []
    while t_us is not None and len(found) < most:
        frame.begin(t_us, t_us + step_us)
        walked = stream.accumulate_until(t_us + step_us, frame)
        image = np.empty((32, 32, 3), np.uint8)
        frame.render_into(image)
        found.append((walked, frame.events, image.tobytes()))
        t_us = t_us + step_us if stream.t_next_us is not None else None
    stream.skip_until(2**62)
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_without_filters_makes_the_same_frames(shared_events, name):
    reader = open_events(shared_events / name)
    expected = windows(reader.stream(), new_frame(reader))
    assert windows(FilteredStream(reader.stream(), FilterChain([])), new_frame(reader)) == expected
    assert len(expected) > 1


@pytest.mark.parametrize("name", FORMATS)
def test_the_events_that_pass_are_those_of_the_filters_alone(shared_events, name):
    reader = open_events(shared_events / name)
    sensor = (reader.width, reader.height)

    def chain():
        return FilterChain([make_filter("background=2000", sensor), make_filter("refractory=300", sensor)])

    expected = EventBatch.concatenate(list(chain().filtered(reader)))
    with FilteredStream(reader.stream(), chain()) as stream:
        parts, t_us = [], stream.t_next_us
        while stream.t_next_us is not None:
            t_us += 7000
            while len(part := stream.read_batch(10_000, t_us)):
                parts.append(part)
    assert rows(EventBatch.concatenate(parts)) == rows(expected)


def test_what_is_skipped_goes_through_the_filters_too(shared_events):
    reader = open_events(shared_events / FORMATS[0])
    sensor = (reader.width, reader.height)
    skipping = FilteredStream(reader.stream(), FilterChain([make_filter("refractory=300", sensor)]))
    walking = FilteredStream(reader.stream(), FilterChain([make_filter("refractory=300", sensor)]))
    t1_us = skipping.t_next_us + 20_000
    assert skipping.skip_until(t1_us) == walking.accumulate_until(t1_us, new_frame(reader))
    frames = new_frame(reader), new_frame(reader)
    assert skipping.accumulate_until(2**62, frames[0]) == walking.accumulate_until(2**62, frames[1])
    assert skipping.chain.dropped == walking.chain.dropped


def test_the_rate_cap_gives_its_share_to_each_window_and_counts_the_rest(shared_events):
    reader = open_events(shared_events / FORMATS[1])
    stream = FilteredStream(reader.stream(), FilterChain([RateCap(1_000_000)]))
    counts = [walked for walked, _, _ in windows(stream, new_frame(reader), step_us=2500)]
    assert counts == [2500, 2500, 2500, 1844]
    assert sum(counts) + stream.chain.dropped["rate cap"] == 219_596


def test_trigger_edges_are_not_filtered(shared_events):
    reader = open_events(shared_events / "ecpy_test1_evt3_triggers.raw")
    stream = FilteredStream(reader.stream(), FilterChain([RateCap(1000)]))
    stream.skip_until(2**62)
    assert len(stream.take_triggers()) == 4157


def test_a_listener_gets_everything(shared_events):
    class Listener:
        def __init__(self):
            self.words = 0

        def take_words(self, words, walker):
            self.words += words.nbytes

    reader = open_events(shared_events / FORMATS[1])
    listener, stream = Listener(), FilteredStream(reader.stream(), FilterChain([RateCap(1000)]))
    stream.listen(listener)
    stream.skip_until(2**62)
    assert listener.words == reader.path.stat().st_size - reader.payload_at


def test_closing_closes_the_other_stream(shared_events):
    reader = open_events(shared_events / FORMATS[0])
    with FilteredStream(reader.stream(), FilterChain([])) as stream:
        assert stream.t_next_us is not None
    assert stream._stream._file.is_closed


def test_a_stream_that_gives_no_arrays_cannot_be_filtered():
    class FramesOnly(EventStream):
        width = height = 4
        t_next_us = 0

        def skip_until(self, t_us):
            return 0

        def accumulate_until(self, t1_us, frame):
            return 0

        def take_triggers(self):
            return None

    with pytest.raises(TypeError, match="FramesOnly gives its events to frames only"):
        FilteredStream(FramesOnly(), FilterChain([])).skip_until(5)
