"""Processes under measurement: started on a core of their own, looked at from outside (Linux), ended by their id."""

from __future__ import annotations

import os
import random
import resource
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 30.0  # seconds for a start or an end
# Below what Linux gives to outgoing connections: nobody gets one by chance, not even who tries to connect to it.
_PORTS = range(10_000, 32_768)


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def server_cores() -> Collection[int]:
    """The core on which servers run; where there is only one, they share it with the load."""
    return sorted(os.sched_getaffinity(0))[:1]


def load_cores() -> Collection[int]:
    """The cores for everything else."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[1:] or cores


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """What starts inside the block runs on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    port: int,
    environ: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[int]:
    """Run a server for the length of the block, in `folder`; it is ready when something listens at `port`.

    stdin: the descriptor that it reads as its standard input. Gives its process id.
    """
    output = folder / "output"
    with on_cores(server_cores()), output.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environ or {})},
            stdin=stdin,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_it_listens(process, port, output)
        yield process.pid
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End it, in good order if it can."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port at which nobody listens."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("there is no free port")


def cpu_seconds(pid: int) -> float:
    """The processor time that a process and those that it has started have used so far."""
    ticks = sum(sum(map(int, _stat(each)[11:13])) for each in _family(pid))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """The resident memory of a process and of those that it has started."""
    return sum(_status(each, "VmRSS:") for each in _family(pid))


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            pass
        else:
            return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args!r} does not serve: {output.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _status(pid: int, key: str) -> int:
    with Path(f"/proc/{pid}/status").open(encoding="ascii") as opened:
        return next(int(line.split()[1]) for line in opened if line.startswith(key))
