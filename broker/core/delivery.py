"""Events on their way out: encoded when the first connection needs them, once for each form, and shared by all."""

from __future__ import annotations

from collections.abc import Sequence

from broker.core.event import Record
from broker.core.forms import PLAIN, Form


class Delivery:
    """One record on its way out. `size`: bytes of what it carries, in whatever form."""

    __slots__ = ("_encoded", "record", "size")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.size = len(record.event.name) + len(record.event.data)
        self._encoded: dict[Form, bytes] | None = None

    def encoded(self, form: Form = PLAIN) -> bytes:
        """Its bytes in this form."""
        if self._encoded is None:
            self._encoded = {}
        data = self._encoded.get(form)
        if data is None:
            data = self._encoded[form] = form.event(self.record)
        return data


class Joined:
    """Events in one form, one behind the other. alone: nobody else is likely to need any of them in this form.

    place: where they are in the file that many sockets are sent them from, if somebody has put them there.
    """

    __slots__ = ("_form", "count", "data", "deliveries", "place", "size")

    def __init__(self, deliveries: Sequence[Delivery], form: Form, *, alone: bool = False) -> None:
        self.deliveries = deliveries
        self.count = len(deliveries)
        self._form = form
        if self.count == 1:
            self.data = deliveries[0].encoded(form)
        elif alone:
            self.data = form.events([each.record for each in deliveries])
        else:
            self.data = b"".join([each.encoded(form) for each in deliveries])
        self.size = len(self.data)
        self.place: int | None = None

    def cut(self, sent: int) -> tuple[int, bytes]:
        """Where `sent` bytes are gone: how many events have at least begun, and what is missing of the last of them."""
        end = 0
        for begun, delivery in enumerate(self.deliveries, start=1):
            end += len(delivery.encoded(self._form))
            if end >= sent:
                return begun, self.data[sent:end]
        raise ValueError(f"{sent} bytes are more than there were")


class Bundle:
    """Deliveries that go to the same connections, in order, joined once for all of them that want the same form.

    size: how many bytes they carry, for whoever has to know how much work it is to join them.
    alone: nobody else gets any of them in this turn.
    """

    __slots__ = ("_alone", "_joined", "deliveries", "size")

    def __init__(self, deliveries: Sequence[Delivery], size: int = 0, *, alone: bool = False) -> None:
        self.deliveries = deliveries
        self.size = size
        self._alone = alone
        self._joined: dict[Form, Joined] = {}

    def joined(self, form: Form = PLAIN) -> Joined:
        """All of them in this form."""
        joined = self._joined.get(form)
        if joined is None:
            joined = self._joined[form] = Joined(self.deliveries, form, alone=self._alone)
        return joined
