"""The file that sockets share: what was put stays as it was for whoever holds it, and the file stays short."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from broker.runtime.shared_file import LONG, MANY, WORTH_IT, SharedFile


@pytest.fixture
def shared() -> Iterator[SharedFile]:
    with closing(SharedFile()) as file:
        yield file


def put(shared: SharedFile, data: bytes) -> int:
    place = shared.put(data, MANY)
    assert place is not None
    return place


def held(shared: SharedFile, place: int, size: int) -> bytes:
    return os.pread(shared.descriptor, size, place)


def test_what_was_put_is_where_it_is_said_to_be(shared: SharedFile) -> None:
    sizes = (WORTH_IT, WORTH_IT + 1, 100_000)
    places = [put(shared, bytes([number]) * size) for number, size in enumerate(sizes)]
    for number, (place, size) in enumerate(zip(places, sizes, strict=True)):
        assert held(shared, place, size) == bytes([number]) * size


@pytest.mark.parametrize(("size", "sockets"), [(WORTH_IT - 1, 1_000), (1_000_000, MANY - 1), (0, 0)])
def test_what_is_short_or_for_few_had_better_be_copied(shared: SharedFile, size: int, sockets: int) -> None:
    assert shared.put(b"1" * size, sockets) is None
    assert shared.descriptor < 0  # and there is no file


def test_what_a_socket_holds_stays_as_it_was_when_the_file_begins_anew(shared: SharedFile) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        sent = []
        for number in range(10):
            shared.clear()
            data = bytes([number]) * WORTH_IT
            place = put(shared, data)
            assert os.sendfile(server.fileno(), shared.descriptor, place, len(data)) == len(data)
            sent.append(data)
            for _ in range(LONG // WORTH_IT):
                shared.put(b"\xff" * WORTH_IT, MANY)
        with client.makefile("rb") as reading:
            assert reading.read(10 * WORTH_IT) == b"".join(sent)


def test_it_begins_anew_only_when_it_has_become_long(shared: SharedFile) -> None:
    places = []
    for _ in range(3 * LONG // 32_768):
        shared.clear()
        places.append(put(shared, b"1" * 32_768))
        assert os.fstat(shared.descriptor).st_size <= LONG
    assert places == 3 * [*range(0, LONG, 32_768)]


def test_between_two_bundles_it_takes_whatever_there_is(shared: SharedFile) -> None:
    places = [put(shared, bytes([number]) * LONG) for number in range(3)]
    assert [held(shared, place, LONG)[:1] for place in places] == [b"\x00", b"\x01", b"\x02"]


def test_where_there_is_no_such_thing_everybody_copies(shared: SharedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert shared.put(b"1" * WORTH_IT, MANY) is None
    shared.clear()


@pytest.mark.parametrize("refused", ["memfd_create", "pwrite"])
def test_where_it_is_refused_everybody_copies(
    shared: SharedFile, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(os, refused, refuse)
    assert shared.put(b"1" * WORTH_IT, MANY) is None
    monkeypatch.undo()
    assert shared.put(b"1" * WORTH_IT, MANY) is None  # it is not asked for again


def test_of_what_finds_no_room_nothing_is_sent(shared: SharedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 100)
    assert shared.put(b"1" * WORTH_IT, MANY) is None
    monkeypatch.undo()
    place = put(shared, b"2" * WORTH_IT)
    assert held(shared, place, WORTH_IT) == b"2" * WORTH_IT


def test_once_closed_everybody_copies_and_no_descriptor_is_left(shared: SharedFile) -> None:
    shared.put(b"1" * WORTH_IT, MANY)
    descriptor = shared.descriptor
    for _ in range(2):
        shared.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert shared.put(b"1" * WORTH_IT, MANY) is None
