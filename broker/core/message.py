"""What an application sends to its clients: a text, bytes, or anything that JSON can say."""

from __future__ import annotations

import json
from typing import Any

from broker.core.forms import Form


class Message:
    """One message on its way out, encoded once for each form and shared by all who get it.

    content: str goes as a text, bytes as binary, everything else as JSON.

    Raises TypeError or ValueError for what JSON can't say.
    """

    __slots__ = ("_data", "_encoded", "content")

    def __init__(self, content: Any) -> None:
        self.content = content
        self._data = content if isinstance(content, bytes) else _text(content)
        self._encoded: dict[Form, bytes] = {}

    def encoded(self, form: Form) -> bytes:
        """Its bytes in this form; none where the form has no way to say it."""
        data = self._encoded.get(form)
        if data is None:
            binary = isinstance(self.content, bytes)
            data = self._encoded[form] = form.binary(self._data) if binary else form.text(self._data)
        return data


def _text(content: Any) -> bytes:
    if not isinstance(content, str):
        content = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        text: bytes = content.encode()
    except UnicodeEncodeError:
        raise ValueError("a text must be valid Unicode: a lone surrogate can't be sent") from None
    return text
