"""The load generator notices whatever is wrong with a stream, however it is cut; and reports are legible."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.charts import write_chart
from benchmarks.load.dialects import Subscriber
from benchmarks.load.frames import PONG, client_frame
from benchmarks.load.payload import DOCUMENT_SIZE, EVENT, SIZE, Payload, document, payload
from benchmarks.load.reader import Latencies, Reader, Transcript, WrongStream
from benchmarks.load.session import Outcome, Rounds
from benchmarks.profile import step_of
from benchmarks.report import Report
from broker.core import frames
from broker.core.forms import PLAIN
from broker.core.frames import COMPRESSED, FINAL, PING, TEXT, close_frame

ALL = Subscriber("/")
CUTS = (1, 2, 7, 100, 250, 10_000)


def frame(number: int) -> bytes:
    return PLAIN.frame(b'{"event":"games.42.created","data":%b}' % payload(number, 1000 * number))


def line(number: int) -> bytes:
    return b"MSG bench 1 %d\r\n%b\r\n" % (SIZE, payload(number, 1000 * number))


class Crowd:
    """Two readers with the same transcript."""

    def __init__(self, dialect: str = "ours", subscriber: Subscriber = ALL) -> None:
        self.transcript, self.latencies = Transcript(), Latencies()
        self.readers = [Reader(dialect, subscriber, self.transcript, self.latencies) for _ in range(2)]

    def feed(self, stream: bytes, size: int = 10_000, reader: int = 0) -> bytes:
        pieces = (stream[at : at + size] for at in range(0, len(stream), size))
        return b"".join(self.readers[reader].feed(memoryview(piece), 1_000_000) for piece in pieces)

    @property
    def counts(self) -> list[int]:
        return [reader.count for reader in self.readers]


@pytest.mark.parametrize(("make", "size"), [(payload, SIZE), (document, DOCUMENT_SIZE)])
def test_a_payload_has_its_size_and_can_be_found(make: Payload, size: int) -> None:
    data = make(7, 8)
    found = EVENT.fullmatch(data)
    assert found is not None
    assert (len(data), int(found[1]), int(found[2])) == (size, 7, 8)


def test_documents_are_json_that_compresses_as_json_does() -> None:
    documents = [document(number, 0) for number in range(600)]
    assert all(json.loads(each)["of"] for each in documents)
    assert len({each[60:] for each in documents}) == 512
    assert all(0.4 < len(zlib.compress(each)) / DOCUMENT_SIZE < 0.6 for each in documents)


@pytest.mark.parametrize("first", CUTS)
@pytest.mark.parametrize("second", CUTS)
def test_events_are_counted_however_the_stream_is_cut(first: int, second: int) -> None:
    crowd = Crowd()
    stream = b"".join(map(frame, range(5)))
    crowd.feed(stream, first, 0)
    crowd.feed(stream, second, 1)
    assert crowd.counts == [5, 5]
    assert crowd.latencies.count().total() == 10


@pytest.mark.parametrize("first", CUTS)
@pytest.mark.parametrize("second", CUTS)
def test_frames_may_begin_and_end_anywhere_in_what_nats_says(first: int, second: int) -> None:
    crowd = Crowd("nats")
    stream = b"INFO {}\r\n" + b"".join(map(line, range(5)))
    for reader, size in enumerate((first, second)):
        frames = b"".join(PLAIN.frame(stream[at : at + size]) for at in range(0, len(stream), size))
        crowd.feed(frames, 77, reader)
    assert crowd.counts == [5, 5]


@pytest.mark.parametrize(
    "numbers", [(0, 2), (0, 0), (1,), (0, 2, 1)], ids=["missing", "twice", "missing at first", "out of order"]
)
def test_what_is_wrong_with_a_stream_is_an_error(numbers: tuple[int, ...]) -> None:
    for known in ((), range(3)):
        crowd = Crowd()
        crowd.feed(b"".join(map(frame, known)), reader=0)
        with pytest.raises(WrongStream):
            crowd.feed(b"".join(map(frame, numbers)), reader=1)


def test_an_event_that_another_got_with_other_bytes_is_read_as_well() -> None:
    crowd = Crowd()
    crowd.feed(frame(0) + frame(1), reader=0)
    crowd.feed(PLAIN.frame(payload(0, 0)) + frame(1), reader=1)
    assert crowd.counts == [2, 2]


@pytest.mark.parametrize("size", CUTS)
def test_a_ping_between_events_is_answered_and_the_rest_followed(size: int) -> None:
    crowd = Crowd()
    crowd.feed(b"".join(map(frame, range(4))), reader=0)
    answer = crowd.feed(frame(0) + PING + frame(1) + frame(2) + frame(3), size, reader=1)
    assert answer == client_frame(b"", PONG)
    assert crowd.counts == [4, 4]


def test_servers_that_ask_in_their_own_words_are_answered_in_these() -> None:
    assert Crowd("socketio").feed(PLAIN.frame(b"2")) == client_frame(b"3")
    assert Crowd("nats").feed(PLAIN.frame(b"PING\r\n")).endswith(b"PONG\r\n")


class Compressing:
    """Compresses as a server does that remembers the messages before."""

    def __init__(self) -> None:
        self._packing = zlib.compressobj(wbits=-12)

    def frame(self, number: int) -> bytes:
        data = self._packing.compress(document(number, 1000 * number)) + self._packing.flush(zlib.Z_SYNC_FLUSH)
        return frames.frame(FINAL | COMPRESSED | TEXT, data[:-4])


@pytest.mark.parametrize("first", CUTS)
@pytest.mark.parametrize("second", CUTS)
def test_compressed_events_are_inflated_once_however_the_stream_is_cut(first: int, second: int) -> None:
    crowd, server = Crowd(), Compressing()
    for begin in (0, 5):  # the server goes on remembering
        crowd.transcript.clear(begin)
        for reader in crowd.readers:
            reader.clear()
        stream = b"".join(map(server.frame, range(begin, begin + 5)))
        half = len(stream) // 2
        crowd.feed(stream[:half], first, 0)
        crowd.feed(stream, second, 1)
        crowd.feed(stream[half:], first, 0)
    assert crowd.counts == [10, 10]
    assert crowd.latencies.count().total() == 20


def test_compressed_events_around_a_ping_are_followed() -> None:
    crowd, server = Crowd(), Compressing()
    one, two, three = map(server.frame, range(3))
    crowd.feed(one + two + three)
    assert crowd.feed(one + PING + two + three, reader=1) == client_frame(b"", PONG)
    assert crowd.counts == [3, 3]


def test_an_event_that_is_compressed_in_another_way_than_for_others_is_an_error() -> None:
    crowd, server = Crowd(), Compressing()
    one, two = server.frame(0), server.frame(1)
    crowd.feed(one + two)
    with pytest.raises(WrongStream, match="event 1 is compressed in another way"):
        crowd.feed(one + Compressing().frame(1), reader=1)


def test_a_compressed_event_that_is_missing_is_an_error() -> None:
    server = Compressing()
    with pytest.raises(WrongStream, match="event 1 came where 0 was to come"):
        Crowd().feed(server.frame(1))


def test_a_close_frame_is_an_error() -> None:
    with pytest.raises(WrongStream, match="closed"):
        Crowd().feed(close_frame(1001, "going away"))


def test_each_user_has_its_own_events() -> None:
    crowd = Crowd(subscriber=Subscriber("/", first=3, stride=10))
    crowd.feed(frame(3) + frame(13))
    assert crowd.counts == [2, 0]
    with pytest.raises(WrongStream):
        crowd.feed(frame(14))


def test_a_measurement_begins_anew() -> None:
    crowd = Crowd()
    for begin in (0, 3):
        crowd.transcript.clear(begin)
        crowd.latencies.clear()
        for number, reader in enumerate(crowd.readers):
            reader.clear()
            crowd.feed(b"".join(map(frame, range(begin, begin + 3))), reader=number)
    assert crowd.counts == [6, 6]
    assert crowd.latencies.count() == Counter({997: 2, 996: 2, 995: 2})


def test_of_rounds_the_median_counts() -> None:
    outcomes = [Outcome(10, 100, cpu, Counter({1000: 99, 9000: 1})) for cpu in (1.0, 2.0, 9.0)]
    rounds = Rounds(outcomes)
    assert rounds.cpu_per_event == pytest.approx(0.2)
    assert rounds.deliveries_per_cpu_second == pytest.approx(50)
    assert (rounds.percentile(0.5), rounds.percentile(0.99), rounds.percentile(1)) == (1, 1, 9)


def test_a_step_is_the_innermost_one_that_is_known() -> None:
    stack = [("/usr/lib/os.py", "write"), ("broker/runtime/dispatcher.py", "Dispatcher._offer")]
    assert step_of([*stack, ("broker/runtime/dispatcher.py", "Dispatcher.run")]) == "write to the sockets"
    assert step_of([("broker/runtime/dispatcher.py", "Dispatcher.run")]) == "dispatch"
    assert step_of([("/site-packages/trio/_core/_run.py", "unrolled_run")]) == "Trio: tasks and waiting"
    assert step_of([("/usr/lib/json.py", "dumps")]) == "anything else"


def test_a_report_is_a_table() -> None:
    report = Report("name", "what it is about", ("size", "ratio"), [(10, 1.0), (1_000_000, 1.234)], ["And this."])
    table = "       size  ratio\n         10   1.00\n  1,000,000   1.23"
    assert report.text() == f"name: what it is about\n{table}\n  And this."
    assert report.markdown() == ("| size | ratio |\n| --- | --- |\n| 10 | 1.00 |\n| 1,000,000 | 1.23 |\n\nAnd this.")


def test_a_chart_has_a_bar_for_each_number(tmp_path: Path) -> None:
    rows: list[tuple[float | str, ...]] = [
        (100, "ours", 4.0),
        (100, "a < b", 2.0),
        (100, "absent", "-"),
        (1_000, "ours", 8.0),
    ]
    path = write_chart(Report("name", "about", ("users", "server", "speed"), rows, chart="speed"), "ours", tmp_path)
    assert path is not None
    svg = ET.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    bars = [(bar.get("class"), float(bar.get("width", "0"))) for bar in svg.iter(f"{space}rect")]
    assert [kind for kind, _ in bars] == ["ours", "other", "ours"]
    assert bars[0][1] == bars[2][1] == pytest.approx(2 * bars[1][1], abs=0.1)
    assert "a < b" in [text.text for text in svg.iter(f"{space}text")]


def test_a_report_without_a_chart_writes_none(tmp_path: Path) -> None:
    assert write_chart(Report("name", "about", ("users",), []), "ours", tmp_path) is None
    assert list(tmp_path.iterdir()) == []
