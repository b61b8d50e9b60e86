from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import pytest
import torch
import yaml
from safetensors.torch import load_file
from toy_runs import LABELS, SIDE, T, toy_config, toy_tree, write_clips

from velora_edge.data.clips.clips import ClipSpec
from velora_edge.data.clips.store import ClipStore
from velora_edge.errors import BundleError, ConfigError, DatasetError, InputError, VeloraError
from velora_edge.model.checkpoint import load_model, read_checkpoint
from velora_edge.train import loop
from velora_edge.train.run import read_metrics
from velora_edge.train.session import choose_precision, train
from velora_edge.train.settings import OptimSection, TrainConfig

if TYPE_CHECKING:
    from pathlib import Path


def tuned(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / which / "tuned.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def losses(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run) if line["part"] == "train"]


def test_a_run_learns_and_leaves_its_results(tmp_path: Path, toy_clips: Path) -> None:
    outcome = train(toy_config(tmp_path, toy_clips, epochs=12, lr=5e-3, ema=0.9, drop_rgb=0, drop_event=0))
    run = tmp_path / "toy"
    assert outcome.folder == run
    assert outcome.best["top1"] > 0.7
    assert {entry.name for entry in run.iterdir()} == {
        "best", "last", "config.yaml", "metrics.jsonl", "state.pt", "tensorboard",
    }  # fmt: skip
    parts = [line["part"] for line in read_metrics(run)]
    assert parts.count("val") == 12
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["lr"] == 5e-3
    assert list((run / "tensorboard").glob("events.out.*"))


def test_a_checkpoint_says_what_made_it(tmp_path: Path, toy_clips: Path) -> None:
    train(toy_config(tmp_path, toy_clips, epochs=1))
    checkpoint = read_checkpoint(tmp_path / "toy" / "best")
    assert checkpoint.model.labels == LABELS
    assert checkpoint.trained
    assert checkpoint.run["name"] == "toy"
    assert checkpoint.run["data"]["cameras"] == ["rgb", "event"]
    assert checkpoint.run["data"]["sampling"] == "spread"
    assert checkpoint.run["parameters"]["trained"] > 0
    assert (checkpoint.inputs.span_s, checkpoint.inputs.rate_hz) == (None, None)
    assert checkpoint.accuracy["validation"]["epoch"] == 1
    logits = load_model(tmp_path / "toy" / "best")(*torch.zeros(2, 1, T, 3, SIDE, SIDE))
    assert logits.shape == (1, 4)


@pytest.mark.parametrize(("sampling", "span_s"), [("spread", 0.3), ("stride", 0.4)])
def test_a_checkpoint_says_what_time_a_clip_covers(
    sampling: str, span_s: float, tmp_path: Path, toy_clips: Path
) -> None:
    tree = toy_tree(tmp_path, toy_clips, epochs=1)
    tree["clip"] = {"rate_hz": 10.0, "sampling": sampling, "stride": 2}
    train(TrainConfig.model_validate(tree))
    inputs = read_checkpoint(tmp_path / "toy" / "best").inputs
    assert inputs.rate_hz == 10.0
    assert inputs.span_s == pytest.approx(span_s)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, toy_clips: Path) -> None:
    for name in ("a", "b"):
        train(toy_config(tmp_path / name, toy_clips, epochs=1))
    train(toy_config(tmp_path / "c", toy_clips, epochs=1, seed=1))
    a, b, c = (tuned(tmp_path / name / "toy") for name in "abc")
    assert same(a, b)
    assert not same(a, c)


def test_base_weights_that_are_named_are_not_copied(tmp_path: Path, toy_clips: Path) -> None:
    from velora_edge.model.tower import create_tower

    config = toy_config(tmp_path, toy_clips, epochs=1)
    torch.manual_seed(9)
    tower = create_tower(config.model.model_copy(update={"labels": LABELS}))
    torch.save(tower.vit.state_dict(), tmp_path / "tower.pth")
    tree = toy_tree(tmp_path, toy_clips, epochs=1)
    tree["model"]["backbone"]["weights"] = str(tmp_path / "tower.pth")
    train(type(config).model_validate(tree))
    checkpoint = read_checkpoint(tmp_path / "toy" / "best")
    assert not checkpoint.base.stored
    assert not (tmp_path / "toy" / "best" / "base.safetensors").exists()
    blocks = load_model(tmp_path / "toy" / "best").tower("event").vit.blocks
    base = blocks[0].mlp.fc1.get_base_layer().weight  # type: ignore[union-attr,operator,index]
    torch.testing.assert_close(base, tower.vit.blocks[0].mlp.fc1.weight)


@pytest.mark.parametrize("tuning", ["full", "linear"])
def test_tuning_is_one_switch(tuning: str, tmp_path: Path, toy_clips: Path) -> None:
    tree = toy_tree(tmp_path, toy_clips, epochs=1)
    tree["model"]["tuning"] = tuning
    outcome = train(type(toy_config(tmp_path, toy_clips)).model_validate(tree))
    counts = outcome.parameters
    assert (counts.frozen == 0) == (tuning == "full")
    assert (counts.lora == 0) == (tuning == "linear")


def test_events_alone_are_enough(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "events.h5", cameras=("event",))
    outcome = train(toy_config(tmp_path, data, epochs=1))
    assert read_checkpoint(outcome.folder / "best").run["data"]["cameras"] == ["event"]


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"gradient_checkpointing": True}])
def test_ways_to_save_memory_give_the_same_losses(
    changes: dict[str, Any], tmp_path: Path, toy_clips: Path
) -> None:
    settings: dict[str, Any] = {"epochs": 1, "drop_rgb": 0.3, "drop_event": 0.3}
    for name, more in (("plain", {}), ("saving", changes)):
        tree = toy_tree(tmp_path / name, toy_clips, **settings, **more)
        tree["model"]["lora"]["dropout"] = 0.0
        train(type(toy_config(tmp_path, toy_clips)).model_validate(tree))
    plain, saving = (losses(tmp_path / name / "toy") for name in ("plain", "saving"))
    assert [step for step, _ in plain] == [step for step, _ in saving]
    assert [loss for _, loss in saving] == pytest.approx([loss for _, loss in plain], abs=1e-5)


def test_bf16_trains_and_keeps_fp32_weights(tmp_path: Path, toy_clips: Path) -> None:
    train(toy_config(tmp_path, toy_clips, epochs=1, precision="bf16"))
    assert {value.dtype for value in tuned(tmp_path / "toy").values()} == {torch.float32}


def test_a_run_tells_its_throughput(tmp_path: Path, toy_clips: Path) -> None:
    lines: list[str] = []
    outcome = train(toy_config(tmp_path, toy_clips, epochs=2), say=lines.append)
    logged = [line for line in read_metrics(tmp_path / "toy") if line["part"] == "train"]
    assert [line["step"] for line in logged] == [7, 10, 14]
    assert all(line["clips_per_s"] > 0 and 0 < line["data_wait"] < 1 for line in logged)
    assert lines[-2] == "on CPU in fp32, workers: 0"
    assert lines[-1] == f"trained at {outcome.throughput}"


def test_a_run_that_is_done_trains_at_no_rate(tmp_path: Path, toy_clips: Path) -> None:
    config = toy_config(tmp_path, toy_clips, epochs=1)
    first = train(config)
    again = train(config, resume=True)
    assert (again.throughput, again.best) == (None, first.best)


def test_a_damaged_clip_ends_a_run_with_the_line_that_names_it(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "c.h5")
    with h5py.File(data, "r") as file:
        chunks = [file["event"].id.get_chunk_info(k) for k in range(file["event"].id.get_num_chunks())]
    content = bytearray(data.read_bytes())
    for chunk in chunks[len(chunks) // 2 :]:
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    data.write_bytes(content)
    tree = toy_tree(tmp_path, data, epochs=1)
    tree["data"]["workers"] = 1
    with pytest.raises(DatasetError, match=r"c\.h5: clip0\d\d: ") as caught:
        train(TrainConfig.model_validate(tree))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "device", "has_gpu", "has_bf16", "chosen"),
    [
        ("auto", "auto", True, True, "bf16"),
        ("auto", "auto", True, False, "fp32"),
        ("auto", "auto", False, False, "fp32"),
        ("auto", "cpu", True, True, "fp32"),
        ("tf32", "auto", True, True, "tf32"),
        ("fp16", "auto", True, True, "fp16"),
    ],
)
def test_the_precision_is_what_the_device_does_best_unless_asked_for(
    wanted: Any, device: Any, has_gpu: bool, has_bf16: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert choose_precision(OptimSection(precision=wanted, device=device)) == chosen


def test_a_run_keeps_the_precision_that_it_began_with(tmp_path: Path, toy_clips: Path) -> None:
    train(toy_config(tmp_path, toy_clips, epochs=1))
    assert yaml.safe_load((tmp_path / "toy" / "config.yaml").read_text())["train"]["precision"] == "fp32"
    with pytest.raises(ConfigError, match=r"train\.precision: differs from the run that is to be resumed"):
        train(toy_config(tmp_path, toy_clips, epochs=1, precision="bf16"), resume=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler hides warnings of its own that "error" sees first
def test_compiled_blocks_give_the_losses_of_plain_ones(tmp_path: Path, toy_clips: Path) -> None:
    for name, compiled in (("plain", False), ("compiled", True)):
        tree = toy_tree(tmp_path / name, toy_clips, epochs=1, compile=compiled, drop_rgb=0.2)
        tree["model"]["lora"]["dropout"] = 0.0
        train(TrainConfig.model_validate(tree))
    plain, compiled = (losses(tmp_path / name / "toy") for name in ("plain", "compiled"))
    assert [loss for _, loss in compiled] == pytest.approx([loss for _, loss in plain], abs=1e-4)
    assert tuned(tmp_path / "plain" / "toy").keys() == tuned(tmp_path / "compiled" / "toy").keys()


def test_compiling_without_a_compiler_is_refused(
    tmp_path: Path, toy_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"train\.compile: needs a C\+\+ compiler"):
        train(toy_config(tmp_path, toy_clips, compile=True))
    assert not (tmp_path / "toy").exists()


class _KilledError(Exception):
    pass


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the run die right after a step, as if its process were killed there."""
    whole = loop.Trainer._step

    def deadly(self: loop.Trainer, batch: Any) -> torch.Tensor:
        result = whole(self, batch)
        if self.progress.step + 1 == step:
            raise _KilledError
        return result

    monkeypatch.setattr(loop.Trainer, "_step", deadly)


@pytest.mark.parametrize(("died_at", "workers"), [(2, 0), (5, 0), (7, 0), (9, 0), (14, 0), (5, 2), (9, 2)])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    died_at: int, workers: int, tmp_path: Path, toy_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 28 training clips: 7 steps an epoch; states at steps 3, 6, 7, 10, 13, 14.
    settings: dict[str, Any] = {"epochs": 2, "save_every": 3, "drop_rgb": 0.2, "drop_event": 0.2}
    train(toy_config(tmp_path / "whole", toy_clips, **settings))
    tree = toy_tree(tmp_path / "broken", toy_clips, **settings)
    tree["data"]["workers"] = workers
    broken = TrainConfig.model_validate(tree)
    with monkeypatch.context() as patch:
        stop_at(died_at, patch)
        with pytest.raises(_KilledError):
            train(broken)
    outcome = train(broken, resume=True)
    whole, resumed = tmp_path / "whole" / "toy", tmp_path / "broken" / "toy"
    assert same(tuned(whole), tuned(resumed))
    assert same(tuned(whole, "best"), tuned(resumed, "best"))
    assert losses(whole) == losses(resumed)
    assert outcome.best == read_checkpoint(whole / "best").accuracy["validation"]


def test_a_run_is_not_replaced_unasked(tmp_path: Path, toy_clips: Path) -> None:
    config = toy_config(tmp_path, toy_clips, epochs=1)
    train(config)
    before = tuned(tmp_path / "toy")
    with pytest.raises(
        InputError, match="holds a run already; go on with it by --resume, replace it by --over"
    ):
        train(config)
    assert same(before, tuned(tmp_path / "toy"))
    (tmp_path / "toy" / "notes.txt").write_text("mine")
    train(config, overwrite=True)
    assert (tmp_path / "toy" / "notes.txt").read_text() == "mine"
    assert len(losses(tmp_path / "toy")) == 1


def test_another_configuration_does_not_resume_a_run(tmp_path: Path, toy_clips: Path) -> None:
    train(toy_config(tmp_path, toy_clips, epochs=1))
    tree = toy_tree(tmp_path, toy_clips, epochs=3, lr=1e-3)
    tree["model"]["lora"]["rank"] = 3
    with pytest.raises(ConfigError) as caught:
        train(type(toy_config(tmp_path, toy_clips)).model_validate(tree), resume=True)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "model.lora.rank", "train.epochs", "train.lr",
    ]  # fmt: skip


def test_a_damaged_state_is_named(tmp_path: Path, toy_clips: Path) -> None:
    config = toy_config(tmp_path, toy_clips, epochs=1)
    train(config)
    state = tmp_path / "toy" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"state\.pt: cannot be read"):
        train(config, resume=True)


def test_labels_of_another_set_are_refused(tmp_path: Path, toy_clips: Path) -> None:
    tree = toy_tree(tmp_path, toy_clips)
    tree["model"]["labels"] = ["a", "b"]
    with pytest.raises(ConfigError, match=r"model\.labels: the data set's are red-on, red-off"):
        train(type(toy_config(tmp_path, toy_clips)).model_validate(tree))
    assert not (tmp_path / "toy").exists()


def test_a_batch_larger_than_the_set_is_refused(tmp_path: Path, toy_clips: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size: a step takes 64 clips and there are 28"):
        train(toy_config(tmp_path, toy_clips, batch_size=64))
    assert not (tmp_path / "toy").exists()


def test_a_set_without_validation_is_refused(tmp_path: Path, toy_clips: Path) -> None:
    tree = toy_tree(tmp_path, toy_clips)
    tree["data"]["split"] = {"val": 0.0}
    with pytest.raises(DatasetError, match=r"set data\.split\.val"):
        train(type(toy_config(tmp_path, toy_clips)).model_validate(tree))
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_a_precision_of_gpus_is_refused_on_a_cpu(precision: str, tmp_path: Path, toy_clips: Path) -> None:
    with pytest.raises(ConfigError, match=rf"train\.precision: {precision} needs a GPU"):
        train(toy_config(tmp_path, toy_clips, precision=precision))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, toy_clips: Path) -> None:
    with pytest.raises(VeloraError, match="the loss is nan"):
        train(toy_config(tmp_path, toy_clips, lr=1e30, clip_norm=0, warmup=0, epochs=3))


def test_lines_of_the_record_are_whole_json(tmp_path: Path, toy_clips: Path) -> None:
    train(toy_config(tmp_path, toy_clips, epochs=1))
    lines = (tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()
    assert all({"step", "epoch", "part"} <= json.loads(line).keys() for line in lines)
    with (tmp_path / "toy" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')
    assert len(read_metrics(tmp_path / "toy")) == len(lines)


def test_the_set_is_read_in_the_form_that_the_model_takes(toy_clips: Path) -> None:
    with pytest.raises(DatasetError, match="images are 16x16, the model takes 32x32"):
        ClipStore(toy_clips, ClipSpec(length=T, image_size=(32, 32)))
