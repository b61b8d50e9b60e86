"""One target with atheris: libFuzzer changes files, and keeps those that reach new lines of ours.

    python -m tests.fuzz.guided evt3 --seconds 60 --corpus fuzz-corpus/evt3 --keep fuzz-failures

Code that numba compiles is left as it is: what runs there is machine code, which cannot be counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
import tempfile
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.registry import Target

LONGEST = 1 << 16
PATIENCE_S, MOST_MEMORY_MB = 30, 4096
PACKAGES = ("velora_edge", "velora_runtime", "yaml", "h11", "uvicorn", "starlette", "rosbags")


def is_there() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def compiled_modules(package: str) -> Iterator[str]:
    """Modules of a package that numba compiles something of."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in Path(place).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path.stem.startswith("_") or any(
                sign in text for sign in ("@kernel", "njit", "events.kernels")
            ):
                yield ".".join((package, *path.relative_to(place).with_suffix("").parts))


def load(name: str) -> Target:
    """The target, its code made to tell which of its lines are reached."""
    import atheris

    compiled = [module for package in PACKAGES for module in compiled_modules(package)]
    with atheris.instrument_imports(include=list(PACKAGES), exclude=compiled):
        from tests.fuzz.registry import load_targets

        target = load_targets()[name]
        with tempfile.TemporaryDirectory() as folder:  # what is imported only once it is used
            path = Path(folder) / f"{name}.current"
            for data in target.samples():
                path.write_bytes(data)
                target.warm_up(path, random.Random(0))
    return target


def fuzz(target: Target, seconds: int, corpus: Path, keep: Path, seed: int) -> None:
    """Never returns; the exit code is not 0 where a file went wrong, which is kept then."""
    import atheris

    folder = Path(tempfile.mkdtemp(prefix="velora-fuzz-", dir=_memory()))
    path = folder / f"{target.name}.current"
    for number, data in enumerate(target.samples()):
        (corpus / f"sample-{number}").write_bytes(data[:LONGEST])

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            target.run(path)
        except BaseException:
            name = f"{target.name}-{zlib.crc32(data):08x}"
            (keep / f"{name}.bin").write_bytes(data)
            (keep / f"{name}.txt").write_text(traceback.format_exc())
            raise

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-timeout={PATIENCE_S}",
        f"-seed={seed or 1}",
    ]
    options += [f"-rss_limit_mb={MOST_MEMORY_MB}", f"-artifact_prefix={keep}/{target.name}-", "-verbosity=0"]
    atheris.Setup([sys.argv[0], str(corpus), *options, "-print_final_stats=1"], read)
    atheris.Fuzz()


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.guided", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for place in (options.corpus, options.keep):
        place.mkdir(parents=True, exist_ok=True)
    fuzz(load(options.target), options.seconds, options.corpus, options.keep, options.seed)


if __name__ == "__main__":
    main()
