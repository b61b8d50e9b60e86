"""Addresses of cameras and brokers: safe to show as they are, whole only for whoever connects.

An address may hold what nobody but the other side is to know: `rtsp://USER:PASSWORD@HOST/...`, a key among
the query's values, a pipeline's `user-pw=...`. It is shown in errors and notes, on the page, in a recording's
facts, in reports and thread names. So the text of an `Address` is the redacted one, and everything that
formats, compares or serialises it gets that; `secret` gives the whole one to the driver that opens it.
"""

from __future__ import annotations

import re

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
