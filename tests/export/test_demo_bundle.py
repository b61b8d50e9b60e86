"""The bundle that comes with the package."""

from __future__ import annotations

import torch
from velora_export.evaluation.sessions import Sessions, random_clips, stream_clip
from velora_export.report import ABSOLUTE

from velora_edge.bundle import find_model, open_bundle
from velora_edge.data.synthetic.synthetic import LABELS
from velora_edge.model.config import ModelConfig

torch.set_num_threads(2)


def test_the_packaged_bundle_is_whole_small_and_of_the_demo_s_labels() -> None:
    bundle = open_bundle("demo")
    size = sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file())
    assert size < 12_000_000
    assert sorted(bundle.manifest.labels) == sorted(LABELS)
    assert bundle.manifest.weights.trained
    assert len(set(LABELS)) == 12
    report = bundle.manifest.report
    assert report is not None
    assert max(report.merged, report.onnx, report.streaming) < ABSOLUTE


def test_its_graphs_run_and_streaming_equals_the_clip() -> None:
    import numpy as np

    bundle = open_bundle("demo")
    sessions = Sessions(find_model("demo"), threads=2)
    manifest = bundle.manifest
    config = ModelConfig(labels=LABELS, clip_length=manifest.clip_length, image_size=manifest.image_size)
    clips = random_clips(config, count=1)
    flags = {f"{m}_present": np.ones((1, bundle.manifest.clip_length), np.float32) for m in ("rgb", "event")}
    whole = sessions.run("clip", {"rgb": clips.rgb, "event": clips.event, **flags})
    streamed = stream_clip(sessions, clips.rgb[0], clips.event[0], flags)
    np.testing.assert_allclose(streamed, whole, atol=ABSOLUTE, rtol=0)
