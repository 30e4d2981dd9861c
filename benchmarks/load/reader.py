"""What comes on a connection, checked: each event exactly once and in order.

Theory. All who subscribe to the same get the same bytes. What the first of them got is read unit by unit and kept, as
the transcript; what the others get is compared with it, in portions of any size, which costs next to nothing. So one
process keeps up with servers that write millions of events a second. Whoever gets anything else, such as a ping, is
read unit by unit until that is over.

Compressed messages may refer to those before them, which are the same for all. So they are inflated once, by whoever
gets them first, and what the others get must be the same bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter

from benchmarks.load.dialects import DIALECTS, Subscriber
from benchmarks.load.frames import CLOSE, COMPRESSED, PING, PONG, Inflater, client_frame, next_frame
from benchmarks.load.payload import EVENT

_MOST_LATENCIES = 500_000


class WrongStream(Exception):
    """A connection got what it must not get, or did not get what it must."""


class Transcript:
    """The stream that everybody gets since `first`, and where in it each event ends.

    inflater: has inflated all that is in it.
    """

    def __init__(self) -> None:
        self.inflater = Inflater()
        self.clear(0)

    def clear(self, first: int) -> None:
        """Begin anew with this event; nothing may be under way."""
        self.first = first
        self.stream = bytearray()
        self.ends = [0]

    def add(self, number: int, unit: bytes) -> None:
        """Remember the unit of an event, unless it is known."""
        if number == self.first + len(self.ends) - 1:
            self.stream += unit
            self.ends.append(len(self.stream))

    def unit(self, number: int) -> bytes | None:
        """The unit of this event; None: nobody has got it yet."""
        place = number - self.first
        return bytes(self.stream[self.ends[place] : self.ends[place + 1]]) if place < len(self.ends) - 1 else None


class Latencies:
    """When events were sent, and when they came."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.sent_at: dict[int, int] = {}
        self._came = array("q")

    def add(self, events: range, now: int) -> None:
        """These have come to somebody."""
        self._came.extend((events.start, events.stop, events.step, now))

    def count(self) -> Counter[int]:
        """How many took how many microseconds; of very many events a sample."""
        came = self._came
        total = sum(len(range(*came[at : at + 3])) for at in range(0, len(came), 4))
        step = 4 * (total // _MOST_LATENCIES + 1)
        return Counter(
            (came[at + 3] - self.sent_at[number]) // 1000
            for at in range(0, len(came), step)
            for number in range(*came[at : at + 3])
        )


class Reader:
    """Reads one connection. `count`: how many events have come."""

    __slots__ = (
        "_answers",
        "_dialect",
        "_frames",
        "_latencies",
        "_offset",
        "_rest",
        "_subscriber",
        "_transcript",
        "count",
    )

    def __init__(self, dialect: str, subscriber: Subscriber, transcript: Transcript, latencies: Latencies) -> None:
        self._dialect = DIALECTS[dialect]
        self._subscriber = subscriber
        self._transcript = transcript
        self._latencies = latencies
        self._offset = 0  # in the transcript
        self._rest = b""  # what has come of a unit that is not all there
        self._frames = b""  # and of a frame
        self._answers: list[bytes] = []
        self.count = 0

    def clear(self) -> None:
        """The transcript begins anew."""
        self._offset = 0

    def feed(self, data: memoryview | bytes, now: int) -> bytes:
        """Take what has come; returns what is to be answered.

        Raises WrongStream.
        """
        before = self.count
        if self._dialect.wrapped:
            data = self._unwrap(self._frames + data)
        if self._rest or not self._follow(data):
            self._read(self._unfinished() + data)
        if self.count > before:
            first, stride = self._subscriber.first, self._subscriber.stride
            self._latencies.add(range(first + before * stride, first + self.count * stride, stride), now)
        answers, self._answers = b"".join(self._answers), []
        return answers

    def _follow(self, data: memoryview | bytes) -> bool:
        """Whether this is what others got before."""
        transcript = self._transcript
        end = self._offset + len(data)
        if end > len(transcript.stream) or not transcript.stream.startswith(data, self._offset):
            return False
        self._offset = end
        self.count = transcript.first + bisect_right(transcript.ends, end) - 1
        return True

    def _unfinished(self) -> bytes:
        """What has come of the unit that is under way."""
        transcript = self._transcript
        if self._rest or self._subscriber.stride != 1:
            return self._rest
        return bytes(transcript.stream[transcript.ends[self.count - transcript.first] : self._offset])

    def _read(self, stream: bytes) -> None:
        at = 0
        while (unit := self._dialect.next_unit(stream, at)) is not None:
            kind, content, end = unit
            if kind & COMPRESSED and (known := self._transcript.unit(self.count)) is not None:
                self._take_again(known, stream[at:end])
                at = end
                continue
            if kind & COMPRESSED:
                content = self._transcript.inflater.inflate(content)
            event = EVENT.search(content)
            if event is None:
                self._answers.append(self._answer(kind, content))
            else:
                self._take(int(event[1]), int(event[2]), stream[at:end])
            at = end
        self._rest = stream[at:]

    def _take(self, number: int, sent_at: int, unit: bytes) -> None:
        subscriber, transcript = self._subscriber, self._transcript
        expected = subscriber.first + self.count * subscriber.stride
        if number != expected:
            raise WrongStream(f"event {number} came where {expected} was to come")
        self.count += 1
        self._latencies.sent_at[number] = sent_at
        if subscriber.stride == 1:
            transcript.add(number, unit)
            self._offset = transcript.ends[self.count - transcript.first]

    def _take_again(self, known: bytes, unit: bytes) -> None:
        """Somebody else has got this event before, and it was compressed."""
        if known != unit:
            raise WrongStream(f"event {self.count} is compressed in another way than for others")
        self._take(self.count, self._latencies.sent_at[self.count], unit)

    def _unwrap(self, data: bytes) -> bytes:
        contents = []
        at = 0
        while (frame := next_frame(data, at)) is not None:
            opcode, begin, at = frame
            if opcode >= CLOSE:
                self._answers.append(self._answer(opcode, data[begin:at]))
            else:
                contents.append(data[begin:at])
        self._frames = data[at:]
        return b"".join(contents)

    def _answer(self, kind: int, content: bytes) -> bytes:
        if kind == CLOSE:
            raise WrongStream(f"the server closed the connection: {content!r}")
        if kind == PING:
            return client_frame(content, PONG)
        return self._dialect.answer(content)
