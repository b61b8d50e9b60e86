"""Exceptions that VELoRA-edge raises on purpose.

    VeloraError                     exit code 1
    ├── InputError (ValueError)     exit code 2: what the user gave is wrong
    │   ├── RecordingError          an event file, a video, an image folder
    │   ├── SourceError             a source that does not exist or that nobody can open
    │   ├── BundleError             a model bundle or a checkpoint
    │   ├── DatasetError            a data set; lists every problem, each with its place
    │   └── ConfigError             a configuration; lists every problem, each with its key
    ├── EngineError (RuntimeError)  an inference backend that cannot be had, or that failed
    ├── CameraError (OSError)       a device that was there and is gone
    ├── MissingExtraError (ImportError)  an optional library; names the extra to install
    └── PluginError             a package that extends VELoRA-edge, and cannot be used

A message is one line: what was found, where, and what to do about it. It names cameras and brokers by their
`Address`, which as text is without passwords.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike


HIDDEN = "***"
_USER = re.compile(r"(?<=://)[^\s'\"<>]*@")
"""Up to the last @ of the word: whoever forgot to escape a / or @ in a password is covered, too."""
_QUERY = re.compile(r"(://[^\s?'\"<>]*\?)[^\s'\"<>]*")
_PROPERTY = re.compile(
    r"(?i)\b([\w-]*(?:passwor[dt]|passwd|passphrase|pass|pwd|user-pw|-pw|user-id|secret|token|key))(\s*=\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s!,;&]+)"
)
"""Of a GStreamer element, or of a program's words about one."""


class Address(str):
    """An address as the user gave it; as text, without what is secret in it.

    Args:
        text: the whole address; an `Address` is taken with its secret.

    Attributes:
        secret: the whole address. Give it to what connects, and to nothing that writes.
    """

    secret: str

    def __new__(cls, text: str) -> Address:
        """The address."""
        whole = text.secret if isinstance(text, Address) else text
        made = super().__new__(cls, _redact_one(whole))
        made.secret = whole
        return made

    def __reduce_ex__(self, protocol: object) -> tuple[type[str], tuple[str]]:
        """Copied or pickled, it is the redacted text alone."""
        return (str, (str(self),))


def redact(text: str) -> str:
    """Any text with the secrets of the addresses in it hidden: users, passwords, the values of a query.

    For what other programs say: FFmpeg and GStreamer quote the address that they could not open.
    """
    text = _USER.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    return _PROPERTY.sub(rf"\1\2{HIDDEN}", text)


def _redact_one(address: str) -> str:
    """One address, whatever a password of it consists of."""
    scheme, separator, rest = address.partition("://")
    if not separator or any(space in scheme for space in " \t!") or scheme.lower() == "gst":
        return redact(address)
    _, at, place = rest.rpartition("@")
    place, query, _ = place.partition("?")
    return f"{scheme}://{f'{HIDDEN}@' if at else ''}{place}{f'?{HIDDEN}' if query else ''}"


LONGEST_PROBLEM = 2000
"""Characters of a message; what a file holds may be quoted in one."""


def printable(text: str, most: int = LONGEST_PROBLEM) -> str:
    """A text from a file as people may be shown it: on one line, without what a terminal would obey."""
    shown = text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
    return shown if len(shown) <= most else shown[:most] + "..."


class VeloraError(Exception):
    """Anything that VELoRA-edge raises on purpose; another process gets it as it was, message and fields."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without a second call of `__init__`, which takes other arguments than the message."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[VeloraError], args: tuple[Any, ...], fields: dict[str, Any]) -> VeloraError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class InputError(VeloraError, ValueError):
    """What the user gave is wrong: one line that names the file, the place in it and the remedy.

    Args:
        problem: what was expected and what came.
        path: the file, folder or source string, as the user wrote it; shown without what is secret in it.
        place: where in it: a byte offset, a line, a key, a dataset.
        remedy: what to do about it.
    """

    exit_code = 2

    def __init__(
        self, problem: str, *, path: str | PathLike[str] | None = None, place: str = "", remedy: str = ""
    ) -> None:
        self.problem, self.path, self.place, self.remedy = problem, path, place, remedy
        whole = Address(path) if isinstance(path, str) else path
        shown = "" if whole is None else printable(str(whole), LONGEST_PROBLEM // 2)
        where = ", ".join(part for part in (shown, place) if part)
        text = f"{where}: {printable(problem)}" if where else printable(problem)
        super().__init__(printable(f"{text}; {remedy}" if remedy else text, 2 * LONGEST_PROBLEM))


class RecordingError(InputError):
    """An event file, a video or an image folder that cannot be used."""


class SourceError(InputError):
    """A source that does not exist, or of a kind that nobody here can open."""


class BundleError(InputError):
    """A model bundle or a checkpoint that is missing, damaged or of another kind."""


class ConfigError(InputError):
    """A configuration with one or more problems, all of them listed.

    Args:
        problems: one sentence each, beginning with the key that it speaks of.
        path: the file that was read.
    """

    def __init__(self, problems: Sequence[str], *, path: str | PathLike[str] | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems), path=path)


class DatasetError(InputError):
    """A data set with one or more problems, all of them listed; the message names the first ones.

    Args:
        problems: one sentence each, beginning with the place in the set.
        path: the set's folder or file.
        remedy: what to do about it.
    """

    SHOWN = 20

    def __init__(
        self, problems: Sequence[str], *, path: str | PathLike[str] | None = None, remedy: str = ""
    ) -> None:
        self.problems = tuple(problems)
        hidden = len(self.problems) - self.SHOWN
        shown = [*self.problems[: self.SHOWN], *([f"and {hidden} more problems"] if hidden > 0 else [])]
        super().__init__("; ".join(shown), path=path, remedy=remedy)


class EngineError(VeloraError, RuntimeError):
    """An inference backend that cannot be had on this machine, or that failed."""


class CameraError(VeloraError, OSError):
    """A device that was there and is gone."""


class MissingExtraError(VeloraError, ImportError):
    """An optional library is not installed, or does not load.

    Args:
        module: the module that was wanted.
        extra: the extra of velora-edge that brings it.
        purpose: what it is wanted for.
        error: what importing it said, where the library may be there and lack another of the system.
    """

    def __init__(self, module: str, extra: str, purpose: str, error: ImportError | None = None) -> None:
        words = f"{purpose} needs {module}: {install_line(extra)}"
        if error is not None and not isinstance(error, ModuleNotFoundError):
            words = (
                f"{purpose} needs {module}, which is installed and does not load: {error}; install what it "
                "lacks (libatomic.so.1: sudo apt-get install libatomic1)"
            )
        super().__init__(words, name=module)


class PluginError(VeloraError):
    """A package that extends VELoRA-edge, and cannot be used; names the package."""


UPDATE_LINE = "git pull in the checkout of velora-edge"
"""How to get a newer one: the package is on no index."""


def install_line(extra: str) -> str:
    """How to install an extra of velora-edge, likewise."""
    return f"pip install -e '.[{extra}]' in a checkout"
