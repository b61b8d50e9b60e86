from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events import words as w
from tests.events.digests import digests
from velora_edge import open_events
from velora_edge.bundle import EventInput
from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError
from velora_edge.events.accumulate.representations import REPRESENTATIONS, RegistrationMap, make_accumulator
from velora_edge.events.formats.raw.raw_header import parse_header
from velora_edge.events.formats.raw.raw_walker import RawDecoder

HEADER = b"% evt 3.0\n% geometry 40x8\n% end\n"


@pytest.fixture
def write(tmp_path):
    def write(payload: bytes, header: bytes = HEADER):
        path = tmp_path / "recording.raw"
        path.write_bytes(header + payload)
        return path

    return write


RECORDINGS = {
    "ecpy_test1_evt3_triggers.raw": (
        "EVT3", 640, 480, 343_474, 125_183, 7_139_845, 9_218_023, 4157,
        "dac2ac92549d5540", "e88c6492bd68acfb", "d4dda6730e928342", "2416b1ba339a82fa",
    ),
    "expelliarmus_evt3_sample.raw": (
        "EVT3", 1280, 720, 219_596, 115_532, 11_718_656, 11_727_457, 0,
        "41a62d1aeed53a5b", "1014ebcc18dcc912", "81f935a5e5fb7398", "a8c5419384b9b052",
    ),
    "expelliarmus_evt2_sample.raw": (
        "EVT2", 640, 480, 539_481, 367_855, 1_317_888, 1_367_888, 0,
        "64fec5ce1b270d80", "02dc735a94fdf0bd", "f6e0390bc6cb7a40", "47f9cd2ed9562c78",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recordings_decode_to_their_digests(shared_events, name):
    kind, width, height, events, on, first, last, triggers, *expected = RECORDINGS[name]
    with open_events(shared_events / name) as reader:
        batch = reader.read()
        assert (reader.format, reader.width, reader.height) == (kind, width, height)
        assert (len(batch), int(batch.p.sum()), len(reader.triggers())) == (events, on, triggers)
        assert (int(batch.t_us[0]), int(batch.t_us[-1])) == (first, last)
        assert list(digests(batch).values()) == expected
        assert reader.warnings == []


def test_trigger_times_of_a_real_recording(shared_events):
    reader = open_events(shared_events / "ecpy_test1_evt3_triggers.raw")
    edges = reader.triggers()
    assert int(reader.read().t_us.sum() + edges.t_us.sum()) == 2_885_601_049_874
    assert set(edges.id.tolist()) == {6}
    assert np.bincount(edges.p).tolist() == [2078, 2079]


def test_the_evt21_recording_holds_the_events_of_its_dsec_twin(shared_events):
    one = open_events(shared_events / "derived_faery_evt21.raw").read()
    other = open_events(shared_events / "derived_faery_dsec.h5").read()
    assert len(one) == 521_252
    assert digests(one) == digests(other)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("name", [*RECORDINGS, "derived_faery_evt21.raw"])
def test_decoding_in_pieces_equals_decoding_at_once(shared_events, name, piece):
    reader = open_events(shared_events / name)
    payload = (shared_events / name).read_bytes()[reader.payload_at :][: 12_000 if piece < 1000 else 300_000]
    whole = RawDecoder(reader.encoding, (reader.width, reader.height), reader.is_legacy)
    expected, edges = whole.feed(payload), whole.take_triggers()
    split = RawDecoder(reader.encoding, (reader.width, reader.height), reader.is_legacy)
    batches = [split.feed(payload[at : at + piece]) for at in range(0, len(payload), piece)]
    assert len(expected) > 1000
    assert digests(EventBatch.concatenate(batches)) == digests(expected)
    assert w.edge_rows(split.take_triggers()) == w.edge_rows(edges)
    assert split.warnings() == whole.warnings()


@pytest.mark.parametrize("name", [*RECORDINGS, "derived_faery_evt21.raw"])
def test_reading_whole_equals_reading_in_batches(shared_events, name):
    reader = open_events(shared_events / name)
    batches = list(reader)
    assert len(batches) > 1
    assert digests(reader.read()) == digests(EventBatch.concatenate(batches))


def test_a_recording_that_grew_while_it_was_read_is_read_to_its_end(write, monkeypatch):
    monkeypatch.setattr("velora_edge.events.formats.raw.raw.count_at_most", lambda reader: 1)
    words = [w.time_high(0), w.addr_y(0), *(w.addr_x(x % 40) for x in range(50_000))]
    batch = open_events(write(w.evt3(*words))).read()
    assert batch.x.tolist() == [x % 40 for x in range(50_000)]


@pytest.mark.parametrize("name", [*RECORDINGS, "derived_faery_evt21.raw"])
def test_a_stream_from_a_time_begins_with_its_first_event(shared_events, name):
    reader = open_events(shared_events / name)
    batch = reader.read()
    for share in (0.0, 0.3, 0.99):
        t_us = int(batch.t_us[int(len(batch) * share)])
        first = int(np.argmax(batch.t_us >= t_us))
        with reader.stream_from(t_us) as stream:
            found = stream.read_batch(5000)
        assert w.rows(found[:5000]) == w.rows(batch[first : first + len(found)][:5000])
    with reader.stream_from(int(batch.t_us[-1]) + 1) as stream:
        assert stream.t_next_us is None


def _windows(reader, representation, edges_us, table=False):
    registration = RegistrationMap.from_fit((reader.height, reader.width), (24, 32), "letterbox")
    if table:
        registration = RegistrationMap.from_table(registration.as_table(), (24, 32))
    frame = make_accumulator(EventInput(representation=representation), registration)
    stream, images = reader.stream(), []
    for t0_us, t1_us in itertools.pairwise(edges_us):
        frame.begin(t0_us, t1_us)
        walked = stream.accumulate_until(t1_us, frame)
        image = np.empty((24, 32, 3), np.uint8)
        frame.render_into(image)
        images.append((walked, frame.events, image.tobytes()))
    assert stream.t_next_us is None
    return images, w.edge_rows(stream.take_triggers())


@pytest.mark.parametrize("representation", [known.name for known in REPRESENTATIONS])
@pytest.mark.parametrize("name", ["expelliarmus_evt3_sample.raw", "expelliarmus_evt2_sample.raw"])
def test_frames_from_words_equal_frames_from_arrays(shared_events, name, representation):
    from velora_edge.events.formats.arrays import ArrayReader

    reader = open_events(shared_events / name)
    batch = reader.read()

    class Arrays(ArrayReader):
        def batches(self):
            yield from (batch[at : at + 5000] for at in range(0, len(batch), 5000))

    twin = Arrays(reader.path, "arrays", (reader.width, reader.height))
    start, end = int(batch.t_us[0]), int(batch.t_us[-1])
    edges_us = [*np.linspace(start, end, 9).astype(int).tolist(), end + 1]
    assert _windows(reader, representation, edges_us) == _windows(twin, representation, edges_us)
    assert _windows(reader, representation, edges_us, table=True) == _windows(
        reader, representation, edges_us
    )


def test_windows_resume_inside_a_chunk_and_inside_a_run_of_vectors(write):
    path = write(
        w.evt3(
            w.time_high(0), w.time_low(10), w.addr_y(1), w.base_x(0), w.vect_12(1), w.time_low(20),
            w.vect_12(1), w.edge(2, 1), w.vect_8(1), w.time_low(30), w.addr_x(39),
        )
    )  # fmt: skip
    frame = make_accumulator(EventInput(), RegistrationMap.from_fit((8, 40), (8, 40), "stretch"))
    image = np.empty((8, 40, 3), np.uint8)
    stream = open_events(path).stream()
    found = []
    for t0_us, t1_us in itertools.pairwise((0, 15, 25, 100, 200)):
        frame.begin(t0_us, t1_us)
        next_us = stream.t_next_us
        walked = stream.accumulate_until(t1_us, frame)
        frame.render_into(image)
        found.append((next_us, walked, frame.events, np.argwhere(image[:, :, 1] == 0).tolist()))
    assert found == [
        (10, 1, 1, [[1, 0]]),
        (20, 2, 2, [[1, 12], [1, 24]]),
        (30, 1, 1, [[1, 39]]),
        (None, 0, 0, []),
    ]
    assert w.edge_rows(stream.take_triggers()) == [(20, 2, 1)]


def test_skipping_counts_the_events_and_leaves_the_next(write):
    words = [w.time_high(0), w.addr_y(0)]
    for low in range(10):
        words += [w.time_low(low), w.addr_x(low), w.addr_x(low + 1)]
    stream = open_events(write(w.evt3(*words))).stream()
    assert (stream.skip_until(4), stream.t_next_us, stream.skip_until(4)) == (8, 4, 0)
    assert (stream.skip_until(1000), stream.t_next_us, stream.skip_until(2000)) == (12, None, 0)


def test_a_frame_for_another_sensor_is_refused(write):
    frame = make_accumulator(EventInput(), RegistrationMap.from_fit((8, 39), (8, 40)))
    with (
        open_events(write(w.evt3(w.time_high(0)))).stream() as stream,
        pytest.raises(
            ValueError, match="expected a registration map for the sensor of 40x8, got one for 39x8"
        ),
    ):
        stream.accumulate_until(1, frame)


def test_a_recording_cut_within_a_word_is_used_as_far_as_it_goes(write):
    reader = open_events(write(w.evt3(w.time_high(1), w.addr_y(0), w.addr_x(3)) + b"\x20"))
    assert w.rows(reader.read()) == [(4096, 3, 0, 1)]
    assert reader.warnings == [
        "the recording was cut off within a word: dropped 1 of the 2 bytes of its last one"
    ]


def test_reading_twice_gives_the_same_and_warns_once(write):
    reader = open_events(write(w.evt3(w.addr_y(0), w.addr_x(3), w.time_high(1), w.edge(0, 1), w.addr_x(4))))
    assert w.rows(reader.read()) == w.rows(reader.read()) == [(4096, 4, 0, 1)]
    assert w.edge_rows(reader.triggers()) == [(4096, 0, 1)]
    assert reader.warnings == ["1 event comes before the first time word; it has no time and was dropped"]


def test_a_payload_of_several_chunks_is_read_whole(write):
    words = [w.time_high(0)]
    for low in range(4096):
        words += [w.time_low(low), w.addr_y(low % 8), *(w.addr_x(x % 40, x % 2) for x in range(80))]
    batches = list(open_events(write(w.evt3(*words))))
    assert len(batches) > 1
    whole = EventBatch.concatenate(batches)
    assert whole.t_us.tolist() == np.repeat(np.arange(4096), 80).tolist()
    assert whole.x.tolist() == np.tile(np.arange(80) % 40, 4096).tolist()
    assert whole.y.tolist() == np.repeat(np.arange(4096) % 8, 80).tolist()
    assert whole.p.tolist() == np.tile(np.arange(80) % 2, 4096).tolist()


@pytest.mark.parametrize("encoding", ["2.0", "2.1", "3.0"])
@given(data=st.binary(max_size=4000))
@settings(max_examples=60, deadline=None)
def test_random_bytes_never_crash_and_never_leave_the_sensor(tmp_path_factory, encoding, data):
    path = tmp_path_factory.mktemp("random") / "random.raw"
    path.write_bytes(f"% evt {encoding}\n% geometry 300x200\n% end\n".encode() + data)
    reader = open_events(path)
    batch = reader.read()
    assert len(batch) == reader.stream().skip_until(2**62)
    assert (batch.x < 300).all()
    assert (batch.y < 200).all()
    assert (batch.p < 2).all()
    frame = make_accumulator(EventInput(), RegistrationMap.from_fit((200, 300), (20, 20)))
    frame.begin(0, 2**62)
    assert reader.stream().accumulate_until(2**62, frame) == len(batch)


@pytest.mark.parametrize(
    ("header", "encoding", "sensor", "legacy"),
    [
        (b"% evt 3.0\n% geometry 1280x720\n", "EVT3", (1280, 720), None),
        (b"% format EVT21;height=480;width=640\n% endianness legacy\n% end\n", "EVT2.1", (640, 480), True),
        (b"% evt 2.1\n% endianness little\n% width 320\n% height 240\n% end\n", "EVT2.1", (320, 240), False),
        (b"% evt 2.0\r\n% plugin_name hal_plugin_gen31_fx3\r\n", "EVT2", (640, 480), None),
        (b"% evt 3.0\n% plugin_name hal_plugin_imx636_evk4\n", "EVT3", (1280, 720), None),
        (b"% evt 3.0\n% plugin_name hal_plugin_genx320\n", "EVT3", (320, 320), None),
        (b"% evt 3.0\n% system_ID 48\n", "EVT3", (1280, 720), None),
        (b"% evt 3.0\n%\n% end\n", "EVT3", None, None),
        (b"", None, None, None),
    ],
)
def test_headers_old_and_new(header, encoding, sensor, legacy):
    found = parse_header(header + b"%\x20\x80\x61\n")
    assert (found.encoding, found.sensor, found.is_legacy) == (encoding, sensor, legacy)
    assert found.payload_at == len(header)


def test_the_payload_may_look_like_a_header_line_after_the_end():
    header = b"% evt 3.0\n% geometry 4x2\n% end\n"
    assert parse_header(header + b"% words that are printable\n").payload_at == len(header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"% evt 3.0\n% Date x\n", "the header does not tell the sensor's size; pass --sensor WxH"),
        (b"% evt 4.0\n% geometry 4x2\n", "expected events of EVT2, EVT2.1 or EVT3, got '4.0'; convert"),
        (b"% geometry 4x2\n", "the header does not tell the encoding; pass --format EVT2, EVT2.1 or EVT3"),
        (
            b"% evt 3.0\n% geometry wide\n",
            "expected a sensor size such as 1280x720, got 'wide'; pass --sensor",
        ),
        (b"% evt 3.0\n% geometry 0x8\n", "expected a sensor size such as 1280x720, got '0x8'; pass --sensor"),
    ],
)
def test_an_unusable_header_names_file_place_and_remedy(write, header, message):
    path = write(b"\x00\x80", header)
    with pytest.raises(RecordingError) as error:
        open_events(path)
    assert str(error.value).startswith(f"{path}, header")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_the_user_says_comes_before_the_header(write):
    path = write(w.evt3(w.time_high(0), w.addr_y(0), w.addr_x(39)), b"% evt 2.0\n% geometry wide\n% end\n")
    reader = open_events(path, format="evt3", sensor=(40, 8))
    assert (reader.format, reader.width, reader.height) == ("EVT3", 40, 8)
    assert w.rows(reader.read()) == [(0, 39, 0, 1)]


@pytest.mark.parametrize("legacy", [True, False])
def test_evt21_word_order_is_found_in_the_words_where_the_header_is_silent(write, legacy):
    pairs = [(w.time_2(0), 0), *((w.event_2(0, 32, 3), 1 << k) for k in range(8))]
    reader = open_events(write(w.evt21(*pairs, legacy=legacy), b"% evt 2.1\n% geometry 40x8\n% end\n"))
    assert w.rows(reader.read()) == [(0, 32 + k, 3, 1) for k in range(8)]
