from __future__ import annotations

import numpy as np
import pytest

from tests.recordings import write_events
from tests.videos import write_video
from velora_cli.main import velora
from velora_cli.recordings.convert import is_pictures
from velora_edge import open_events
from velora_edge.console import run
from velora_edge.events.geometry.calibration_files import write_mask
from velora_edge.events.writers import WRITERS

ENDINGS = {"EVT3": "raw", "EVT2": "raw", "EVT2.1": "raw", "HDF5": "h5", "AEDAT4": "aedat4", "CSV": "csv"}


@pytest.fixture
def convert(capsys, tmp_path):
    """Runs `velora convert --quiet` in the folder of the test: exit code, what it printed, its errors."""

    def convert(source: str, target: str, *options: str) -> tuple[int, str, str]:
        code = run(velora, ["convert", str(tmp_path / source), str(tmp_path / target), "--quiet", *options])
        out, err = capsys.readouterr()
        return code, out.replace(str(tmp_path), "DIR"), err.replace(str(tmp_path), "DIR")

    return convert


def columns(batch):
    return [batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist()]


@pytest.mark.parametrize("kind", WRITERS)
def test_events_are_the_same_in_every_format(convert, tmp_path, kind):
    if kind == "AEDAT4":
        pytest.importorskip("dv_processing", reason="needs dv-processing (the extra inivation)")
    batch = write_events(tmp_path / "in.raw", count=500)
    target = f"out.{ENDINGS[kind]}"
    code, out, err = convert("in.raw", target, "--format", kind)
    assert (code, out, err) == (0, f"DIR/{target}: {kind}, 64x48, 500 events\n", "")
    assert columns(open_events(tmp_path / target, sensor=(64, 48)).read()) == columns(batch)


def test_trigger_edges_are_kept_where_the_format_has_them(convert, tmp_path):
    write_events(tmp_path / "in.raw", count=500, triggers_us=[6_999_000, 7_100_000, 7_500_000])
    code, out, _ = convert("in.raw", "out.raw", "--format", "evt2")
    assert (code, out) == (0, "DIR/out.raw: EVT2, 64x48, 500 events, 3 trigger edges\n")
    assert open_events(tmp_path / "out.raw").triggers().t_us.tolist() == [6_999_000, 7_100_000, 7_500_000]


def test_trigger_edges_that_are_lost_are_told(convert, tmp_path):
    write_events(tmp_path / "in.raw", count=500, triggers_us=[7_100_000])
    code, _, err = convert("in.raw", "out.h5")
    assert (code, err) == (0, "warning: 1 trigger edges left out: HDF5 has no place for them\n")


def test_a_cut_counts_from_the_first_event_and_is_half_open(convert, tmp_path):
    # 4,000 events, one each 100 us from 7 s on.
    batch = write_events(tmp_path / "in.raw", triggers_us=[7_049_999, 7_050_000, 7_149_999, 7_150_000])
    code, out, _ = convert("in.raw", "out.raw", "--start", "0.05", "--duration", "0.1")
    assert (code, out) == (0, "DIR/out.raw: EVT3, 64x48, 1,000 events, 2 trigger edges\n")
    kept = open_events(tmp_path / "out.raw")
    assert columns(kept.read()) == columns(batch[500:1500])
    assert kept.triggers().t_us.tolist() == [7_050_000, 7_149_999]


@pytest.mark.parametrize(
    ("options", "first_us", "edges"),
    [((), 1000, [0, 101_000]), (("--start", "0.05"), 0, [50_000])],
)
def test_rebased_times_begin_at_zero(convert, tmp_path, options, first_us, edges):
    write_events(tmp_path / "in.raw", triggers_us=[6_999_000, 7_100_000])
    assert convert("in.raw", "out.raw", "--rebase", *options)[0] == 0
    kept = open_events(tmp_path / "out.raw")
    assert kept.read().t_us[0] == first_us
    assert kept.triggers().t_us.tolist() == edges


def test_a_cut_without_events_keeps_neither_events_nor_edges_of_other_times(convert, tmp_path):
    write_events(tmp_path / "in.raw", count=500, triggers_us=[7_000_100])
    code, out, err = convert("in.raw", "out.raw", "--start", "5")
    assert (code, out, err) == (0, "DIR/out.raw: EVT3, 64x48, 0 events\n", "")


@pytest.mark.parametrize("kind", ["raw", "h5", "csv"])
def test_a_cut_of_any_format_is_the_same(convert, tmp_path, kind):
    batch = write_events(tmp_path / "in.raw")
    convert("in.raw", f"whole.{kind}")
    span = ("--start", "0.0501", "--duration", "0.1", "--sensor", "64x48")
    assert convert(f"whole.{kind}", "out.csv", *span)[0] == 0
    assert columns(open_events(tmp_path / "out.csv", sensor=(64, 48)).read()) == columns(batch[501:1501])


def test_filters_and_the_cap_drop_events_and_say_so(convert, tmp_path):
    batch = write_events(tmp_path / "in.raw")
    options = ("--filter", "refractory=200000", "--filter", "background", "--event-rate-cap", "1k")
    code, _, err = convert("in.raw", "out.raw", *options)
    assert code == 0
    kept = open_events(tmp_path / "out.raw").read()
    dropped = [int(line.split()[-3].replace(",", "")) for line in err.splitlines()]
    assert [line.partition(": ")[2].partition(":")[0] for line in err.splitlines()] == [
        "refractory", "background", "rate cap",
    ]  # fmt: skip
    assert len(kept) + sum(dropped) == len(batch)
    assert 0 < len(kept) <= 400


def test_hot_pixels_are_left_out(convert, tmp_path):
    batch = write_events(tmp_path / "in.raw", count=500)
    hot = np.zeros((48, 64), np.bool_)
    hot[batch.y[7], batch.x[7]] = True
    write_mask(tmp_path / "hot.json", hot)
    code, _, err = convert("in.raw", "out.raw", "--hot-pixels", str(tmp_path / "hot.json"))
    is_hot = (batch.x == batch.x[7]) & (batch.y == batch.y[7])
    assert (code, err) == (0, f"warning: hot pixels: {is_hot.sum()} events dropped\n")
    assert columns(open_events(tmp_path / "out.raw").read()) == columns(batch[~is_hot])


def test_events_are_turned_and_flipped(convert, tmp_path):
    batch = write_events(tmp_path / "in.raw", count=500)
    assert convert("in.raw", "out.raw", "--flip", "horizontal", "--rotate", "90")[0] == 0
    turned = open_events(tmp_path / "out.raw")
    assert (turned.width, turned.height) == (48, 64)
    events = turned.read()
    assert events.x.tolist() == (47 - batch.y.astype(int)).tolist()
    assert events.y.tolist() == (63 - batch.x.astype(int)).tolist()


def test_events_are_laid_onto_another_cameras_picture(convert, tmp_path):
    batch = write_events(tmp_path / "in.raw", count=500)
    (tmp_path / "c.yaml").write_text("homography: [2, 0, 0, 0, 2, 0, 0, 0, 1]\nresolution: [100, 90]\n")
    code, out, err = convert("in.raw", "out.csv", "--calibration", str(tmp_path / "c.yaml"))
    inside = (batch.x < 50) & (batch.y < 45)
    assert (code, out) == (0, f"DIR/out.csv: CSV, 100x90, {inside.sum()} events\n")
    assert err == f"warning: calibration: {(~inside).sum()} events dropped\n"
    assert (
        open_events(tmp_path / "out.csv", sensor=(100, 90)).read().x.tolist()
        == (2 * batch.x[inside].astype(int)).tolist()
    )


def test_a_file_that_exists_is_replaced_only_where_that_is_asked_for(convert, tmp_path):
    write_events(tmp_path / "in.raw", count=500)
    (tmp_path / "out.csv").write_text("mine")
    code, out, err = convert("in.raw", "out.csv")
    assert (code, out) == (2, "")
    assert err == "error: DIR/out.csv: exists already; give another name, or --overwrite to replace it\n"
    assert (tmp_path / "out.csv").read_text() == "mine"
    assert convert("in.raw", "out.csv", "--overwrite")[0] == 0
    assert (tmp_path / "out.csv").read_text().startswith("t,x,y,p\n7000000,")


def test_a_recording_can_replace_itself(convert, tmp_path):
    batch = write_events(tmp_path / "in.raw", count=500)
    assert convert("in.raw", "in.raw", "--force", "--start", "0.1")[0] == 0
    assert columns(open_events(tmp_path / "in.raw").read()) == columns(batch[125:])


def test_events_that_cannot_be_written_leave_no_file(convert, tmp_path):
    (tmp_path / "in.csv").write_text("t,x,y,p\n10,1,1,1\n5,1,1,1\n")
    code, out, err = convert("in.csv", "out.raw", "--sensor", "8x8")
    assert (code, out) == (2, "")
    assert "DIR/out.raw, event 1: t=5 us is earlier than the event before it (10 us)" in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("none.raw", "out.raw", (), "DIR/none.raw: no such file"),
        ("none.mp4", "out.raw", (), "DIR/none.mp4: no such file"),
        ("in.raw", "out.dat", (), "DIR/out.dat: expected a name that ends in .raw"),
        ("in.raw", "out.dat", ("--format", "DAT"), "is called 'DAT'; there are EVT3"),
        ("in.raw", "nowhere/out.raw", (), "DIR/nowhere/out.raw: cannot be written"),
        ("in.raw", "out.raw", ("--start", "-1"), "--start: expected 0 or more seconds"),
        ("in.raw", "out.raw", ("--sensor", "big"), "--sensor: expected WxH"),
        ("in.raw", "out.raw", ("--filter", "fog"), "no filter is called 'fog'"),
        ("in.raw", "out.raw", ("--event-rate-cap", "fast"), "expected events a second, such as 5M"),
        ("in.raw", "out.raw", ("--calibration", "none.yaml"), "none.yaml: cannot be read"),
        ("in.raw", "out.raw", ("--hot-pixels", "none.json"), "none.json: cannot be read"),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line_and_exit_code_2(convert, tmp_path, source, target, options, message):
    write_events(tmp_path / "in.raw", count=10)
    code, out, err = convert(source, target, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.raw"]


def test_a_video_is_shown_to_the_simulated_sensor(convert, tmp_path):
    # Frame k is of grey 10 k: each step but the darkest crosses a threshold or a few, upwards.
    write_video(tmp_path / "in.mp4", [0, 40_000, 80_000, 120_000, 160_000], hw=(32, 48))
    options = ("--threshold", "0.1", "--noise", "0")
    code, out, err = convert("in.mp4", "out.raw", *options)
    assert (code, err) == (0, "")
    events = open_events(tmp_path / "out.raw")
    assert (events.width, events.height) == (48, 32)
    batch = events.read()
    assert out == f"DIR/out.raw: EVT3, 48x32, {len(batch):,} events\n"
    assert len(batch) > 10 * 48 * 32
    assert batch.p.all()
    assert batch.t_us.max() < 160_000
    assert len(np.unique(batch.t_us)) > 50


def test_the_simulated_sensor_has_the_size_asked_for_and_a_seed(convert, tmp_path):
    write_video(tmp_path / "in.mp4", [0, 40_000, 80_000], hw=(32, 48))
    for name, seed in (("a.raw", "1"), ("b.raw", "1"), ("c.raw", "2")):
        code, out, _ = convert("in.mp4", name, "--sensor", "20x20", "--seed", seed)
        assert code == 0
        assert "20x20" in out
    a, b, c = (columns(open_events(tmp_path / name).read()) for name in ("a.raw", "b.raw", "c.raw"))
    assert a == b
    assert a != c


def test_videos_and_folders_are_pictures_but_not_a_ros_bag(tmp_path):
    bag = tmp_path / "bag"
    bag.mkdir()
    (bag / "metadata.yaml").write_text("")
    paths = [tmp_path, bag, tmp_path / "a.MP4", tmp_path / "a.raw", tmp_path / "a.hdf5"]
    assert [is_pictures(str(path)) for path in paths] == [True, False, True, False, False]


def test_a_pattern_is_converted_file_by_file_to_the_same_places(capsys, tmp_path):
    for name in ("day/a.raw", "day/deep/b.raw", "other/c.raw"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_events(tmp_path / name, count=100)
    (tmp_path / "day" / "damaged.raw").write_bytes(b"% evt 3.0\n% geometry 0x0\n% end\n")
    arguments = ["convert", f"{tmp_path}/day/**/*.raw", str(tmp_path / "out"), "--format", "evt2", "--quiet"]
    assert run(velora, arguments) == 1
    out, err = (text.replace(str(tmp_path), "DIR") for text in capsys.readouterr())
    assert out.splitlines() == [
        f"DIR/out/{name}: EVT2, 64x48, 100 events" for name in ("a.raw", "deep/b.raw")
    ]
    first, last = err.splitlines()
    assert first.startswith("failed: DIR/day/damaged.raw, header, geometry: expected a sensor size")
    assert last == "error: 1 of 3 files could not be converted"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.raw", "b.raw"]


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("*.raw", (), "a pattern needs --format, one of EVT3, "),
        ("*.h5", ("--format", "HDF5"), "matches no file; check the pattern; keep it in quotes"),
        ("*.*", ("--format", "HDF5"), "several files would become DIR/out/a.h5; narrow the pattern"),
        ("b.*", ("--format", "EVT3"), "DIR/out/b.raw: exists already; give another name, or --overwrite"),
    ],
)
def test_a_pattern_that_cannot_be_converted_writes_nothing(convert, tmp_path, pattern, options, message):
    for name in ("a.raw", "a.csv", "b.raw"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.raw").write_bytes(b"mine")
    code, out, err = convert(pattern, "out", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert (tmp_path / "out" / "b.raw").read_bytes() == b"mine"


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(convert, tmp_path):
    write_events(tmp_path / "a[1].raw", count=100)
    assert convert("a[1].raw", "out.raw")[:2] == (0, "DIR/out.raw: EVT3, 64x48, 100 events\n")
