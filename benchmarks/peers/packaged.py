"""Peers that distributions package: nats-server over WebSocket, and nginx with nchan. Each in a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.load.dialects import SUBJECT, Subscriber
from benchmarks.load.frames import BINARY, client_frame
from benchmarks.load.publishers import WebSocketPublisher
from benchmarks.peers import Running

# Where Debian puts servers, which is not on everybody's PATH.
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
_NCHAN = (Path("/usr/lib/nginx/modules/ngx_nchan_module.so"), Path("/usr/lib64/nginx/modules/ngx_nchan_module.so"))

_CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"protocol":1}\r\n'

_NATS_CONFIGURATION = """\
listen: "127.0.0.1:-1"
websocket {{
  listen: "127.0.0.1:{port}"
  no_tls: true
}}
"""

_NGINX_CONFIGURATION = """\
load_module {module};
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  scgi_temp_path scgi;
  uwsgi_temp_path uwsgi;
  nchan_shared_memory_size 128M;
  server {{
    listen 127.0.0.1:{port};
    location = /sub {{
      nchan_subscriber websocket;
      nchan_channel_id bench;
      nchan_subscriber_first_message oldest;
    }}
    location = /pub {{
      nchan_publisher websocket;
      nchan_channel_id bench;
      nchan_message_buffer_length 1000;
      nchan_message_timeout 20s;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Nats:
    """nats-server, spoken to over WebSocket."""

    name: str = "nats-server"

    def why_not(self) -> str | None:
        """See `Peer`."""
        return None if _program("nats-server") else "not installed (on Debian: apt-get install nats-server)"

    @contextmanager
    def running(self) -> Iterator[Running]:
        """See `Peer`."""
        port = processes.free_port()
        with tempfile.TemporaryDirectory(prefix="broker-nats-") as name:
            folder = Path(name)
            (folder / "nats.conf").write_text(_NATS_CONFIGURATION.format(port=port))
            command = [_program("nats-server") or "", "--config", str(folder / "nats.conf")]
            with processes.started(command, folder, port) as pid:
                subscriber = Subscriber("/", (_says(_CONNECT + b"SUB %b 1\r\nPING\r\n" % SUBJECT.encode()),))
                publisher = Subscriber("/", (_says(_CONNECT + b"PING\r\n"),))
                yield Running(
                    pid,
                    port,
                    "nats",
                    lambda number: [subscriber] * number,
                    lambda: WebSocketPublisher(port, "nats", publisher),
                )


@dataclass(frozen=True)
class Nchan:
    """nginx with nchan, one worker process."""

    name: str = "nginx nchan"

    def why_not(self) -> str | None:
        """See `Peer`."""
        if _program("nginx") and _nchan():
            return None
        return "not installed (on Debian: apt-get install nginx-light libnginx-mod-nchan)"

    @contextmanager
    def running(self) -> Iterator[Running]:
        """See `Peer`."""
        port = processes.free_port()
        with tempfile.TemporaryDirectory(prefix="broker-nginx-") as name:
            folder = Path(name)
            (folder / "nginx.conf").write_text(_NGINX_CONFIGURATION.format(port=port, module=_nchan()))
            command = [_program("nginx") or "", "-p", name, "-e", "stderr", "-c", str(folder / "nginx.conf")]
            with processes.started(command, folder, port) as pid:
                yield Running(
                    pid,
                    port,
                    "plain",
                    lambda number: [Subscriber("/sub")] * number,
                    lambda: WebSocketPublisher(port, "plain", Subscriber("/pub")),
                )


def _says(text: bytes) -> tuple[bytes, bytes]:
    return client_frame(text, BINARY), b"PONG"


def _program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def _nchan() -> Path | None:
    return next((module for module in _NCHAN if module.exists()), None)
