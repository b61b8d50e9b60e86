"""The GPU check's report: facts of the card, and one table, as text and as JSON."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

HEAD = (
    *("model", "precision", "backend", "what", "CUDA graphs", "p50 ms", "p99 ms", "runs", "host ms"),
    *("of bf16 rate", "from fp32", "same label", "compiled layers and remarks"),
)
KEY = ("model", "precision", "backend", "graph", "cuda_graph")
LIBRARIES = (
    *("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    *("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu12-libs", "cuda-python", "cuda-bindings", "numpy"),
)
EXPLAINED = (
    "A step is the newest pair of a stream, from images in host memory to logits in host memory; a clip is a "
    "whole clip at once. Ways of one model and precision took turns in one process. Host ms: the median time "
    "in which the host copied and queued, and did not wait; ONNX Runtime does not tell it. Of bf16 rate: the "
    "graph's arithmetic over the time, by the rate of a large product of bf16 matrices in torch on the same "
    "card. From fp32: the largest difference of a logit from the fp32 graphs on the CPU, by the largest "
    "logit; weights are random, but for the demo's."
)


def card_facts() -> dict[str, Any]:
    """The first GPU's name and memory, the driver, versions of CUDA and of libraries, the date.

    Raises:
        EngineError: if there is no GPU.
    """
    from velora_edge.doctor import host
    from velora_edge.gpu.cuda import Cuda, cuda_versions

    cuda = Cuda()
    try:
        device = cuda.describe()
    finally:
        cuda.close()
    driver, bindings = cuda_versions()
    packages = host.python()["packages"]
    return {
        "gpu": device.name,
        "compute_capability": device.compute_capability,
        "memory_gb": round(device.memory_bytes / 1e9, 1),
        "driver": driver_version(),
        "cuda_driver": driver,
        "cuda_python": bindings,
        "cpu": host.system()["cpu"],
        "libraries": {name: packages[name] for name in LIBRARIES if name in packages},
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def driver_version() -> str:
    """The NVIDIA driver's version by nvidia-smi; empty where that is not there."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.splitlines()[0].strip() if said else ""


def merge_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in their order, of two about the same the later one: a part that died is run again."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        found[tuple(row[key] for key in KEY)] = row
    return list(found.values())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table, as Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def _line(row: dict[str, Any]) -> str:
    remarks = "; ".join(words for words in (row["layers"], row["reason"]) if words)
    cells = (
        *(row[key] for key in ("model", "precision", "backend", "graph")),
        _yes(row["cuda_graph"]),
        *(_number(row[key], "{:.2f}") for key in ("p50_ms", "p99_ms")),
        str(row["runs"] or ""),
        _number(row["host_ms"], "{:.2f}"),
        _number(row["share"], "{:.1%}"),
        _number(row["relative"], "{:.1e}"),
        _yes(row["same_label"]),
        re.sub(r"\s*\|\s*", " / ", remarks),
    )
    return f"| {' | '.join(cells)} |"


def _yes(claim: bool | None) -> str:
    return "" if claim is None else ("yes" if claim else "no")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def report(facts: dict[str, Any], rows: Sequence[dict[str, Any]], tests: str, command: str) -> str:
    """The page that `benchmarks/results/gpu.md` holds."""
    libraries = ", ".join(f"{name} {version}" for name, version in facts.get("libraries", {}).items())
    rate = facts.get("bf16_rate")
    said = f"{rate / 1e12:.0f} TFLOP/s in a product of bf16 matrices" if rate else "bf16 rate not measured"
    about = (
        f"{facts.get('gpu', 'no GPU')}, compute capability {facts.get('compute_capability', 'not known')}, "
        f"{facts.get('memory_gb', '?')} GB, driver {facts.get('driver') or 'not known'} "
        f"(CUDA {facts.get('cuda_driver', 'not known')}), {facts.get('cpu', '')}; {said}; {libraries}; "
        f"{facts.get('date', '')}."
    )
    tests = f"`pytest -m gpu`: {tests}"
    return (
        "\n\n".join(("# GPU", f"`{command}` wrote this page. {about}", EXPLAINED, table(rows), tests)) + "\n"
    )


def write(
    path: Path, facts: dict[str, Any], rows: Sequence[dict[str, Any]], tests: str, command: str
) -> None:
    """The page at `path`, and the same as JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report(facts, rows, tests, command))
    data = {"facts": facts, "rows": list(rows), "tests": tests}
    path.with_suffix(".json").write_text(json.dumps(data, indent=2) + "\n")
