"""A private RabbitMQ: one node in a folder of its own, on ports of loopback; it ends with the process that started it.

It runs without epmd, Erlang's port mapper, which would be a daemon on all interfaces and outlive the node: the node
listens for `rabbitmqctl` on a port that both are told. A node lives and dies by these rules:

    start()   the same folder and the same ports every time, so what is durable is there again after a stop or a kill
    stop()    SIGTERM: it closes its connections and writes down what it has to
    kill()    SIGKILL: it has no time for either

Nothing here needs pytest; benchmarks and examples use it as well.
"""

from __future__ import annotations

import json
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlencode

from examples.rabbitmq import environment, script, speaks_amqp
from tests.system.certificates import Certificates

PATIENCE = 60.0  # seconds for a start or a stop; only a fault makes anybody wait that long
HOST = "127.0.0.1"

# Who may do what; `limited` may enter the vhost `other`, but not touch anything in it.
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
NOTHING = {"configure": "^$", "write": "^$", "read": "^$"}
DEFINITIONS = {
    "vhosts": [{"name": "/"}, {"name": "other"}],
    "users": [
        {"name": "guest", "password": "guest", "tags": "administrator"},
        {"name": "limited", "password": "limited", "tags": ""},
        {"name": "client", "password_hash": "", "tags": ""},  # no password: comes with a certificate
    ],
    "permissions": [
        {"user": "guest", "vhost": "/", **EVERYTHING},
        {"user": "guest", "vhost": "other", **EVERYTHING},
        {"user": "limited", "vhost": "other", **NOTHING},
        {"user": "client", "vhost": "/", **EVERYTHING},
    ],
}

CONFIGURATION = """\
listeners.tcp.1 = {host}:{port}
listeners.ssl.1 = {host}:{tls_port}
ssl_options.cacertfile = {certificates.ca}
ssl_options.certfile = {certificates.server}
ssl_options.keyfile = {certificates.server_key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = EXTERNAL
load_definitions = {folder}/definitions.json
log.console = false
log.file = node.log
log.file.level = info
vm_memory_high_watermark.relative = 0.8
disk_free_limit.absolute = 50MB
"""

# Below what Linux gives to outgoing connections: while a node is down, nobody gets its port by chance.
_PORTS = range(10_000, 32_768)

# What has PR_SET_PDEATHSIG ends with the *thread* that started it, so this one stays for as long as the process does.
_launcher = ThreadPoolExecutor(1, thread_name_prefix="rabbitmq")


class NodeFailed(Exception):
    """RabbitMQ did not do what it was asked to; says what it says about that."""


def why_not() -> str | None:
    """Say why there can be no RabbitMQ on this machine; None if there can."""
    if script("rabbitmq-server") is None or script("rabbitmqctl") is None:
        return "RabbitMQ is not installed (on Debian: apt-get install rabbitmq-server)"
    if shutil.which("setpriv") is None:
        return "there is no setpriv (of util-linux), and without it a RabbitMQ might outlive the tests"
    return None


class RabbitMQ:
    """One node; `folder` is made if it is not there, and is its alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.port, self.tls_port, self._control_port = islice(_free_ports(), 3)
        self.name = f"broker{self.port}@localhost"
        self._certificates = Certificates(self.folder / "certificates")
        self._process: subprocess.Popen[bytes] | None = None
        self._lay_out()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- its life

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the node itself, not of a script around it."""
        assert self._process is not None, "the node was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers; at once if it runs.

        Raises NodeFailed, with the end of its log.
        """
        if self.running:
            return
        self._process = _launcher.submit(self._launch).result()
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in good order; does nothing if it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NodeFailed(f"RabbitMQ did not end by SIGTERM in {PATIENCE:g} seconds:\n{self._log_end()}") from None

    def kill(self) -> None:
        """End it as a power cut would; does nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    # -- how it is reached

    def url(self, user: str = "guest", password: str = "guest", vhost: str = "/", **parameters: object) -> str:
        """Where clients connect; `parameters` go to the end of the URL."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"amqp://{_quoted(user)}:{_quoted(password)}@{HOST}:{self.port}/{_quoted(vhost)}{query}"

    def tls_url(self, user: str = "guest", password: str = "guest", vhost: str = "/", **parameters: object) -> str:
        """Where clients connect by TLS; the URL names whom to trust, unless `parameters` have a `cacertfile` too."""
        query = urlencode({"cacertfile": self.ca_certificate, **parameters})
        return f"amqps://{_quoted(user)}:{_quoted(password)}@{HOST}:{self.tls_port}/{_quoted(vhost)}?{query}"

    def external_url(self, vhost: str = "/") -> str:
        """Where the user `client` connects by its certificate, without a password."""
        return self.tls_url(
            "client", "", vhost, certfile=self.client_certificate, keyfile=self.client_key, auth_mechanism="external"
        )

    @property
    def ca_certificate(self) -> Path:
        return self._certificates.ca

    @property
    def client_certificate(self) -> Path:
        """The user `client` by name."""
        return self._certificates.client

    @property
    def client_key(self) -> Path:
        return self._certificates.client_key

    # -- a look inside

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on it; returns what that says.

        Raises NodeFailed.
        """
        done = subprocess.run(
            [_needed("rabbitmqctl"), "--quiet", *arguments],
            cwd=self.folder,
            env=environment(self.folder, self.name, self._control_port),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise NodeFailed(f"rabbitmqctl {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def log(self) -> str:
        """All it has logged, and before that what it said while it could not log yet."""
        files = (self.folder / "output", self.folder / "log" / "node.log")
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())

    # -- the process

    def _lay_out(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._certificates.make(client="client")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        configuration = CONFIGURATION.format(
            host=HOST, port=self.port, tls_port=self.tls_port, folder=self.folder, certificates=self._certificates
        )
        (self.folder / "rabbitmq.conf").write_text(configuration)
        (self.folder / "definitions.json").write_text(json.dumps(DEFINITIONS))
        (self.folder / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
        (self.folder / "environment").touch()

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", _needed("rabbitmq-server")],
                cwd=self.folder,
                env=environment(self.folder, self.name, self._control_port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C at the terminal is for the tests, which then stop it
            )

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if not self.running:
                raise NodeFailed(f"RabbitMQ ended by itself:\n{self._log_end()}")
            if time.monotonic() > deadline:
                raise NodeFailed(f"RabbitMQ did not answer in {PATIENCE:g} seconds:\n{self._log_end()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Whether it begins a conversation, and listens on its other port as well."""
        try:
            return speaks_amqp(self.port) and _listens(self.tls_port)
        except OSError:
            return False

    def _log_end(self) -> str:
        return "\n".join(self.log().splitlines()[-100:])


def _listens(port: int) -> bool:
    with socket.create_connection((HOST, port), timeout=5):
        return True


def _free_ports() -> Iterator[int]:
    """Ever different ones."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind((HOST, port))
            yield port


_quoted = partial(quote, safe="")


def _needed(name: str) -> str:
    found = script(name)
    if found is None:
        raise NodeFailed(why_not())
    return found
