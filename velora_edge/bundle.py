"""Model bundle: a folder `NAME.velora/` with a manifest and the files it names; all that the runtime reads.

A bundle is written once, whole, by export (`BundleWriter`) and checked whole when it is opened
(`open_bundle`): every file's SHA-256 against the manifest, before anything in it is parsed or run.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from velora_edge.errors import UPDATE_LINE, BundleError, RecordingError, printable
from velora_edge.files import PartFolder, replace_file, replace_folder
from velora_edge.limits import check_inside, load_json, read_bytes
from velora_edge.manifest import (
    GRAPHS,
    RGB,
    SCHEMA_VERSION,
    EngineFile,
    EventInput,
    Manifest,
    Palette,
    Precision,
    RGBInput,
    Weights,
    migrate,
)

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = [
    "GRAPHS", "MANIFEST", "RGB", "SCHEMA_VERSION", "Bundle", "BundleWriter", "EngineFile", "EventInput",
    "Manifest", "Palette", "Precision", "RGBInput", "Weights", "file_sha256", "find_model", "open_bundle",
    "read_manifest", "replace_folder", "write_manifest",
]  # fmt: skip

MANIFEST = "manifest.json"
_SHOWN = 5
PACKAGED = "demo"
"""What the model is called that comes with velora-edge."""


class Bundle:
    """A bundle on disk whose files have been checked against its manifest.

    Attributes:
        path: the folder.
        manifest: what it says.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files.

        Raises:
            BundleError: if the manifest does not list it: what is not listed was not checked.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"the manifest does not list {name}", path=self.path, remedy="export the model again"
            )
        return self.path / name

    def read(self, name: str) -> bytes:
        """All of one of the bundle's files, checked again: the bytes that are returned are the ones listed.

        Raises:
            BundleError: if the manifest does not list it, or it differs from its SHA-256.
        """
        path = self.file(name)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"cannot be read: {error.strerror}", path=self.path, place=name, remedy="copy the model again"
            ) from error
        _check_digest(self.path, name, self.manifest.files[name], hashlib.sha256(data).hexdigest())
        return data

    def graph(self, name: str) -> Path:
        """Path of one of the ONNX graphs: rgb, event, diff, head or clip."""
        return self.file(f"{name}.onnx")


def find_model(model: str | os.PathLike[str]) -> Path:
    """The folder that a MODEL on the command line stands for: `demo`, or a path."""
    if os.fspath(model) == PACKAGED:
        return Path(__file__).parent / "assets" / "demo.velora"
    return Path(model)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, validated; the files that it names are not looked at.

    Raises:
        BundleError: if there is no bundle, or its manifest is not one that this version reads.
    """
    if not path.exists():
        raise BundleError("no such model", path=path, remedy="give a bundle's folder (NAME.velora), or demo")
    if not (path / MANIFEST).is_file():
        raise BundleError(
            f"not a model bundle: it holds no {MANIFEST}",
            path=path,
            remedy="give the folder that velora export wrote, or demo",
        )
    try:
        raw = load_json(read_bytes(path / MANIFEST))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"cannot be read: {error}", path=path, place=MANIFEST, remedy="export the model again"
        ) from error
    _check_version(raw, path)
    try:
        return Manifest.model_validate_json(json.dumps(migrate(raw)))
    except (
        TypeError,
        AttributeError,
        KeyError,
    ) as error:  # a value of another type in a step of the migration
        raise BundleError(
            f"a value of another type ({error})", path=path, place=MANIFEST, remedy="export the model again"
        ) from error
    except ValidationError as error:
        problems = "; ".join(
            f"{printable('.'.join(map(str, e['loc'])), 60) or 'manifest'}: {printable(e['msg'])}"
            for e in error.errors(include_url=False)[:_SHOWN]
        )
        raise BundleError(problems, path=path, place=MANIFEST, remedy="export the model again") from error


def _check_version(raw: Any, path: Path) -> None:
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(
            f"expected an object with schema_version, 1 to {SCHEMA_VERSION}, got {version!r}",
            path=path,
            place=MANIFEST,
            remedy="export the model again",
        )
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"schema version {version} is newer than this velora-edge reads (up to {SCHEMA_VERSION})",
            path=path,
            place=MANIFEST,
            remedy=UPDATE_LINE,
        )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Replace the manifest of the bundle at `path`: a reader sees the old one or the new one, whole.

    Raises:
        BundleError: if the bundle cannot be written to.
    """
    try:
        replace_file(path / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode(), mode=0o644)
    except OSError as error:
        raise BundleError(
            f"cannot be written: {error.strerror}",
            path=path,
            place=MANIFEST,
            remedy="copy the bundle to where you may write",
        ) from error


def open_bundle(model: str | os.PathLike[str]) -> Bundle:
    """The bundle that MODEL names, after every file's digest was checked.

    Raises:
        BundleError: if there is none, or if a file is missing or differs from its SHA-256.
    """
    path = find_model(model)
    manifest = read_manifest(path)
    for name, expected in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise BundleError("the file is missing", path=path, place=name, remedy="export the model again")
        _check_place(path, name)
        _check_digest(path, name, expected, file_sha256(file))
    return Bundle(path, manifest)


def _check_place(path: Path, name: str) -> None:
    try:
        check_inside(path / name, path)
    except RecordingError as error:
        raise BundleError(
            error.problem.replace("its folder", "the bundle"), path=path, place=name, remedy=error.remedy
        ) from error


def _check_digest(path: Path, name: str, expected: str, found: str) -> None:
    if found != expected:
        raise BundleError(
            f"expected SHA-256 {expected[:16]}..., got {found[:16]}...: the file was changed or damaged",
            path=path,
            place=name,
            remedy="copy or export the model again",
        )


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def values_sha256(values: Any) -> str:
    """Hexadecimal SHA-256 of plain values, whatever the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class BundleWriter:
    """Writes a bundle beside its place and moves it there whole; a failure leaves what was there before.

    Use as a context manager: write files into `folder`, then call `finish`.

    Args:
        path: where the bundle goes; an existing bundle there is replaced, anything else is refused.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        is_free = not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
        if not is_free and not (self.path / MANIFEST).is_file():
            raise BundleError(
                "exists and is not a model bundle", path=self.path, remedy="choose another name"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._part = PartFolder(self.path)
        self.folder = self._part.path
        return self

    def finish(self, manifest: Manifest) -> Bundle:
        """Complete the manifest with the digests of what lies in `folder`; move the bundle to its place."""
        files = {
            file.relative_to(self.folder).as_posix(): file_sha256(file)
            for file in sorted(self.folder.rglob("*"))
            if file.is_file() and file.name != MANIFEST
        }
        complete = Manifest.model_validate({**manifest.model_dump(), "files": files})
        (self.folder / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n")
        self._part.commit()
        return Bundle(self.path, complete)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._part.discard()
