"""`velora init`: the configuration that it writes fits the set, says why, and trains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from recordings import write_events
from videos import write_video

from velora_cli.main import velora
from velora_cli.training.init import TOWERS, SetFacts, propose, read_facts
from velora_edge.console import run

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path += [str(Path(__file__).parents[1] / name) for name in ("data", "train")]
from toy_runs import write_clips
from written_sets import write_published_poker

CPU = TOWERS["cpu"]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = run(velora, [str(arg) for arg in args], name="velora")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def write_takes(root: Path, takes: int, period_us: int = 40_000, frames: int = 20) -> Path:
    """Two classes by both cameras, `frames` pictures a take."""
    for label in ("wave", "rest"):
        (root / label).mkdir(parents=True)
        for k in range(takes):
            length_us = period_us * frames
            write_events(
                root / label / f"{k}.raw", start_us=0, duration_us=length_us, sensor=(128, 96), seed=k
            )
            write_video(root / label / f"{k}.mp4", [period_us * (i + 1) for i in range(frames)])
    return root


def facts(lengths_s: Sequence[float] = (2.0,), *, takes: int = 20, **changes: object) -> SetFacts:
    values: dict[str, object] = {
        "kind": "recordings", "path": "set", "cameras": ("rgb", "event"),
        "takes": {"a": takes, "b": takes + 9},
        "listed": 0, "lengths_s": tuple(lengths_s), "rate_hz": 30.0, "window_us": 33_333,
    }  # fmt: skip
    return SetFacts(**{**values, **changes})  # type: ignore[arg-type]


def clip_of(found: SetFacts) -> tuple[int, int]:
    tree, _ = propose(found, "x", CPU)
    return tree["model"]["clip_length"], tree["clip"]["stride"]


def test_recordings_are_measured_by_their_pictures(tmp_path: Path) -> None:
    found = read_facts(str(write_takes(tmp_path / "set", 2)))
    assert found.takes == {"rest": 2, "wave": 2}
    assert found.lengths_s == pytest.approx([0.8] * 4, abs=1e-3)
    assert (round(found.rate_hz or 0), found.window_us, found.sensor) == (25, 40_000, (96, 128))


def test_short_recordings_of_events_are_cut_into_enough_windows(tmp_path: Path) -> None:
    (tmp_path / "wave").mkdir()
    write_events(tmp_path / "wave" / "a.raw", duration_us=160_000, count=16_000)
    found = read_facts(str(tmp_path))
    assert found.cameras == ("event",)
    assert found.window_us == 19_000
    assert clip_of(found) == (8, 1)


@pytest.mark.parametrize(
    ("lengths_s", "clip"),
    [
        ([2.0], (8, 8)),
        ([1.0], (8, 4)),
        ([60.0], (8, 8)),
        ([0.3], (8, 1)),
        ([0.1], (3, 1)),
        ([1.0, 1.0, 1.0, 9.0], (8, 4)),
    ],
    ids=[
        "as long as a clip may be",
        "half of it",
        "longer",
        "just enough",
        "too short",
        "the most are short",
    ],
)
def test_a_clip_spans_what_three_quarters_of_the_recordings_last(
    lengths_s: list[float], clip: tuple[int, int]
) -> None:
    assert clip_of(facts(lengths_s)) == clip


@pytest.mark.parametrize(
    ("takes", "split"), [(20, (0.1, 0.2)), (5, (0.2, 0.2)), (4, (0.25, 0.25)), (3, (0.34, 0.34))]
)
def test_each_part_gets_a_recording_of_each_class(takes: int, split: tuple[float, float]) -> None:
    from velora_edge.data.clips.clips import Item, SplitConfig, split_items

    found = facts(takes=takes)
    tree, _ = propose(found, "x", CPU)
    assert tuple(tree["data"]["split"].values()) == split
    labels = [0] * takes + [1] * (takes + 9)
    items = [Item(f"{k}", label) for k, label in enumerate(labels)]
    parts = split_items(items, SplitConfig(**tree["data"]["split"]))
    assert all({labels[i] for i in part} == {0, 1} for part in parts.values())
    assert found.problems() == []


def test_classes_with_too_few_recordings_are_named() -> None:
    assert facts(takes=2).problems() == [
        "too few recordings to train, validate and test: a (2); 3 are the least"
    ]


@pytest.mark.parametrize(
    ("sensor", "size", "patch"),
    [((480, 640), 112, None), ((34, 34), 32, 4), ((64, 80), 64, 8), (None, 112, None)],
)
def test_images_are_no_larger_than_the_sensor_sees(
    sensor: tuple[int, int] | None, size: int, patch: int | None
) -> None:
    model = propose(facts(sensor=sensor), "x", CPU)[0]["model"]
    assert model["image_size"] == [size, size]
    assert model["backbone"].get("args") == (None if patch is None else {"patch_size": patch})


def test_a_store_keeps_the_form_in_which_it_was_packed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_clips(tmp_path / "clips.h5")
    code, out, err = call(capsys, "init", store, tmp_path / "c.yaml")
    assert code == 0, err
    tree = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert tree["model"]["image_size"] == [16, 16]
    assert tree["clip"]["event"]["fit"] == "crop"
    assert out.splitlines()[-1] == f"next: velora train {tmp_path}/c.yaml"


def test_published_lists_divide_the_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = write_published_poker(tmp_path, classes=2, copies=3)
    code, _, err = call(capsys, "init", home, tmp_path / "c.yaml", "--for", "gpu")
    assert code == 0, err
    tree = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert tree["data"] == {"path": str(home), "augment": tree["data"]["augment"]}
    assert tree["model"]["image_size"] == [224, 224]
    assert tree["model"]["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])


def test_what_is_there_is_replaced_by_force_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_clips(tmp_path / "clips.h5", 12)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips.yaml").write_text("mine")
    code, _, err = call(capsys, "init", store)
    assert (code, (tmp_path / "clips.yaml").read_text()) == (2, "mine")
    assert err == "error: clips.yaml: exists already; give another name, or --overwrite to replace it\n"
    assert call(capsys, "init", store, "--overwrite")[0] == 0
    assert (tmp_path / "clips.yaml").read_text().startswith("# velora train clips.yaml\n")


def test_every_key_that_is_written_has_its_meaning_above_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "init", write_clips(tmp_path / "clips.h5"), tmp_path / "c.yaml")[0] == 0
    lines = (tmp_path / "c.yaml").read_text().splitlines()
    keys = [k for k, line in enumerate(lines) if line and not line.lstrip().startswith("#")]
    assert len(keys) > 20
    assert [lines[k] for k in keys if not lines[k - 1].lstrip().startswith("#")] == []


@pytest.mark.slow
def test_recordings_train_by_the_command_that_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_takes(tmp_path / "recordings", 5)
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "init", "recordings", "--for", "cpu")
    assert code == 0, err
    train = out.splitlines()[-1].split()[2:]
    assert train == ["train", "recordings.yaml"]
    # No weights can be fetched here, and two steps are enough; all else is as it was written.
    code, out, err = call(
        capsys, *train, "model.backbone.pretrained=false", "train.epochs=2", "train.device=cpu"
    )
    assert code == 0, err
    assert "runs/recordings/best: validation top-1" in out
    assert (tmp_path / "runs/recordings/best").is_dir()
    (packed,) = Path("runs/packed").iterdir()
    assert f"recordings: packing 10 recordings into {packed}" in err
    assert f"next: velora eval runs/recordings --data {packed} --ablate" in out
