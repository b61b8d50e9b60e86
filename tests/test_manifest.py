"""What a manifest may say, and how older ones are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from velora_cli.main import velora
from velora_edge.bundle import open_bundle, read_manifest, write_manifest
from velora_edge.console import run
from velora_edge.errors import BundleError
from velora_edge.manifest import SCHEMA_VERSION, STEPS, Manifest, Report, json_schema, migrate

PUBLISHED = Path(__file__).parents[1] / "docs" / "manifest.schema.json"

FIGURES: dict[str, Any] = {
    "source": "random, seed 0", "clips": 4, "merged": 6e-07, "onnx": 8e-07, "streaming": 5e-07,
    "top1_agreement": 1.0, "tolerance": 1e-4,
}  # fmt: skip
FIRST: dict[str, Any] = {
    "schema_version": 1, "name": "old", "version": "0.1.0", "labels": ["a", "b"], "clip_length": 8,
    "stride": 1, "image_size": [64, 64], "tokens": 65, "token_size": 128,
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    "weights": {"trained": True, "architecture": "vit", "sha256": "0", "run": {}}, "precision": "fp32",
    "opset": 18, "files": {}, "parity": {"fp32": FIGURES}, "accuracy": {}, "engines": [],
}  # fmt: skip


def _write(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(PUBLISHED.read_text()) == json_schema()


def test_the_schema_can_be_printed_without_a_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(velora, ["info", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_every_older_version_has_a_step() -> None:
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))


def test_the_first_version_s_parity_becomes_a_report(tmp_path: Path) -> None:
    manifest = read_manifest(_write(tmp_path, FIRST))
    assert manifest.schema_version == SCHEMA_VERSION
    assert manifest.report == Report(runtime="ONNX Runtime on the CPU", **FIGURES)
    assert manifest.name == "old"


def test_a_first_version_without_parity_has_no_report(tmp_path: Path) -> None:
    assert read_manifest(_write(tmp_path, {**FIRST, "parity": {}})).report is None


def test_migration_leaves_its_input_as_it_was() -> None:
    before = json.dumps(FIRST)
    migrate(FIRST)
    assert json.dumps(FIRST) == before


def test_an_older_manifest_is_written_back_as_the_present_version(tmp_path: Path) -> None:
    manifest = read_manifest(_write(tmp_path, FIRST))
    write_manifest(tmp_path, manifest)
    assert json.loads((tmp_path / "manifest.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert read_manifest(tmp_path) == manifest


def test_a_present_manifest_with_an_older_one_s_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="parity: Extra inputs are not permitted"):
        read_manifest(_write(tmp_path, {**FIRST, "schema_version": SCHEMA_VERSION}))


@pytest.mark.parametrize("version", [0, -1, "1", None, True, 1.0])
def test_a_version_that_is_none_is_refused(tmp_path: Path, version: object) -> None:
    with pytest.raises(BundleError, match=r"expected an object with schema_version, 1 to \d+, got "):
        read_manifest(_write(tmp_path, {**FIRST, "schema_version": version}))


def test_a_newer_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    newer = {**FIRST, "schema_version": SCHEMA_VERSION + 1}
    with pytest.raises(
        BundleError, match=r"is newer than this velora-edge reads .* git pull in the checkout"
    ):
        read_manifest(_write(tmp_path, newer))


def test_the_packaged_bundle_is_read() -> None:
    manifest = open_bundle("demo").manifest
    assert isinstance(manifest, Manifest)
    assert manifest.schema_version == SCHEMA_VERSION
