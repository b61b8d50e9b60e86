"""Settings that an ONNX Runtime session gets from us."""

from __future__ import annotations

import onnxruntime
import pytest

from velora_edge.ort import session_options

WAITING = ("intra_op.allow_spinning", "intra_op.spin_duration_us", "force_spinning_stop")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.18.0", ["0", None, None]),
        ("1.25.2", ["0", None, None]),
        ("1.26.0", [None, "50", "1"]),
        ("2.0.0.dev20270101", [None, "50", "1"]),
    ],
)
def test_threads_spin_for_a_moment_where_that_can_be_bounded_and_else_not_at_all(
    monkeypatch: pytest.MonkeyPatch, version: str, expected: list[str | None]
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    options = session_options(1)
    assert [_entry(options, f"session.{key}") for key in WAITING] == expected


def _entry(options: onnxruntime.SessionOptions, key: str) -> str | None:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:
        return None
