"""Probes of ONNX Runtime: its list of providers says what was compiled in, so each is tried by a session."""

from __future__ import annotations

from typing import Any

import numpy as np

# ModelProto of y = x + x, float32[1], opset 13, IR 8 (onnx.proto): small enough to be kept here as it is.
DOUBLE = (
    b'\x08\x08:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def versions() -> dict[str, Any]:
    """ONNX Runtime's version and the providers that it was built with."""
    import onnxruntime

    return {
        "version": onnxruntime.__version__,
        "device": onnxruntime.get_device(),
        "built_with": onnxruntime.get_available_providers(),
    }


def provider(name: str) -> dict[str, Any]:
    """Whether a session really runs on a provider, and computes there."""
    import onnxruntime

    if name not in onnxruntime.get_available_providers():
        return {"provider": name, "usable": False, "reason": "not in this build of onnxruntime"}
    session = onnxruntime.InferenceSession(DOUBLE, providers=[name])
    first = session.get_providers()[0]
    if first != name:
        return {"provider": name, "usable": False, "reason": f"onnxruntime fell back to {first}"}
    (doubled,) = session.run(None, {"x": np.array([21], np.float32)})
    is_right = doubled.tolist() == [42.0]
    return {
        "provider": name,
        "usable": is_right,
        **({} if is_right else {"reason": f"21 + 21 gave {doubled[0]}"}),
    }
