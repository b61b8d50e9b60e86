"""Sets up the GPU check on a machine with Python, torch and an NVIDIA driver; needs nothing but Python.

    python benchmarks/gpu_setup.py .venv-gpu [--wheels DIR]    # what `make gpu-check` does first
    .venv/bin/python benchmarks/gpu_setup.py --pack-wheels DIR # before: after make setup, the same Python

The virtual environment sees this Python's own packages, so that the machine's torch is used and none is
installed. `--wheels DIR` holds wheels brought along; then no index is asked. A large one may lie there in
parts (`NAME.whl.part-000` and on), which are joined and compared with `SHA256SUMS` where that is there. What
cannot be installed is told and left out, but for the base: the report says what that costs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import site
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PART_BYTES = 55_000_000
SUMS = "SHA256SUMS"
OPTIONAL = {
    "CUDA for TensorRT": ("cuda-python",),
    "TensorRT for RTX": ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings"),
    "ONNX Runtime on a GPU": ("onnxruntime-gpu",),
    "models in torch": ("timm", "peft", "safetensors", "onnxscript"),
}
TESTS = ("onnx", "onnx-ir", "pytest", "pytest-timeout")
BROUGHT_BY_TORCH = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-toolkit)$")
"""Never packed: they are large, and the machine has its own."""


def base_requirements() -> list[str]:
    """The project's own dependencies, as pyproject.toml lists them, and what its tests on a GPU need."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    return [*re.findall(r'^\s*"([^"]+)",', listed, re.M), *TESTS]


def set_up(folder: Path, wheels: Path | None) -> list[str]:
    """Make the environment; what was left out, for people.

    Raises:
        SystemExit: if the base cannot be installed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", folder], check=True)
    lent = sorted((folder / "lib").glob("python*/site-packages"))[0]
    paths = [*(str(ROOT / part) for part in (".", "export", "runtime")), *site.getsitepackages()]
    (lent / "velora.pth").write_text("\n".join(paths) + "\n")
    pins = folder / "constraints.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in installed_torch().items()))
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(pins)]
    if wheels is not None:
        joined = join_wheels(wheels, folder / "wheels")
        pip += ["--no-index", "--find-links", str(wheels), "--find-links", str(joined)]
    if subprocess.run([*pip, *base_requirements()], check=False).returncode != 0:
        raise SystemExit("gpu-check: the base cannot be installed; bring its wheels along: WHEELS=DIR")
    failed = []
    for title, names in OPTIONAL.items():
        if subprocess.run([*pip, *choose(names)], check=False).returncode != 0:
            failed.append(f"{title} ({', '.join(names)})")
    return failed


def installed_torch() -> dict[str, str]:
    """Versions of torch and torchvision here, which are to stay."""
    found = {}
    for name in ("torch", "torchvision"):
        if importlib.util.find_spec(name) is not None:
            found[name] = metadata.version(name)
    return found


def choose(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same names, cuda-python of the CUDA that torch was built for."""
    if names != ("cuda-python",) or importlib.util.find_spec("torch") is None:
        return names
    said = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.version.cuda)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return ("cuda-python<13",) if said.startswith("12.") else ("cuda-python>=13,<14",)


def join_wheels(source: Path, target: Path) -> Path:
    """Join wheels that lie in parts in `source`, into `target`.

    Raises:
        SystemExit: naming the wheel whose SHA-256 is not the listed one.
    """
    target.mkdir(parents=True, exist_ok=True)
    listed = read_sums(source / SUMS)
    for first in sorted(source.glob("*.whl.part-000")):
        name = first.name.removesuffix(".part-000")
        digest = hashlib.sha256()
        with (target / name).open("wb") as file:
            for part in sorted(source.glob(f"{name}.part-*")):
                data = part.read_bytes()
                digest.update(data)
                file.write(data)
        if listed.get(name, digest.hexdigest()) != digest.hexdigest():
            (target / name).unlink()
            raise SystemExit(f"{name}: its parts are not the wheel that {SUMS} lists; copy them again")
    return target


def split_wheels(folder: Path, part_bytes: int = PART_BYTES) -> None:
    """Write `SHA256SUMS` of all wheels in `folder`, and replace large ones by parts."""
    lines = []
    for wheel in sorted(folder.glob("*.whl")):
        data = wheel.read_bytes()
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {wheel.name}\n")
        if len(data) <= part_bytes:
            continue
        for number, begin in enumerate(range(0, len(data), part_bytes)):
            part = folder / f"{wheel.name}.part-{number:03}"
            part.write_bytes(data[begin : begin + part_bytes])
        wheel.unlink()
    (folder / SUMS).write_text("".join(lines))


def read_sums(path: Path) -> dict[str, str]:
    """SHA-256 by file name, of a list as sha256sum writes it; empty where there is none."""
    if not path.is_file():
        return {}
    pairs = (line.split() for line in path.read_text().splitlines() if line.strip())
    return {name.lstrip("*"): digest for digest, name in pairs}


def pack_wheels(folder: Path) -> None:
    """Download every wheel that `set_up` asks for, in the versions installed here, and split them."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [*base_requirements(), *(name for names in OPTIONAL.values() for name in names)]
    found = closure([*wanted, "onnxruntime"])
    pinned = [f"{name}=={version}" for name, version in sorted(found.items()) if name != "onnxruntime"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "-d", str(folder), *pinned, "onnxruntime-gpu"], check=True)
    split_wheels(folder)


def closure(wanted: list[str]) -> dict[str, str]:
    """Versions of the packages that these need and that are installed here, torch's own left out."""
    found: dict[str, str] = {}
    todo = list(wanted)
    while todo:
        requirement, _, marker = todo.pop().partition(";")
        name = re.split(r"[\s\[<>=!~(]", requirement.strip())[0].lower().replace("_", "-")
        if name in found or "extra" in marker:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # of another platform or Python, or not there
            continue
        todo += metadata.requires(name) or []  # torch's too: pip looks at them when it meets torch
    return {name: version for name, version in found.items() if not BROUGHT_BY_TORCH.match(name)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of the virtual environment")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="wheels brought along")
    parser.add_argument("--pack-wheels", type=Path, metavar="DIR", help="download and split them, and stop")
    given = parser.parse_args()
    if given.pack_wheels is not None:
        pack_wheels(given.pack_wheels)
        return
    if given.folder is None:
        parser.error("expected the folder of the virtual environment, such as .venv-gpu")
    for left_out in set_up(given.folder, given.wheels):
        print(f"gpu-check: left out, as it cannot be installed: {left_out}", file=sys.stderr)


if __name__ == "__main__":
    main()
