"""From the first line to the exit status: starting, reading the policy anew, stopping, and refusing to start."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.system.client import connected
from tests.system.harness import OPEN_POLICY, Brokers, command, eventually
from tests.system.raw import CLOSE, TEXT, Raw, dial, frame, raw_websocket

pytestmark = pytest.mark.system

BOTH_SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


async def test_the_ready_file_says_where_and_who_and_the_port_is_printed(brokers: Brokers) -> None:
    broker = brokers.start()
    ready = json.loads(broker.ready_file.read_text())
    assert ready == {"url": f"http://127.0.0.1:{ready['port']}", "port": ready["port"], "pid": broker.process.pid}
    assert str(ready["port"]) in broker.output()
    assert broker.output().count("\n") == 1
    assert broker.request("GET", "/readyz").status == 200


async def test_the_secret_is_made_once_and_for_us_alone(brokers: Brokers) -> None:
    broker = brokers.start()
    file = broker.folder / ".broker/jwt.secret"
    assert file.stat().st_mode & 0o077 == 0
    assert broker.secret not in broker.errors() + broker.output()


@BOTH_SIGNALS
async def test_on_a_signal_what_waits_is_delivered_before_1001_and_the_status_is_0(
    brokers: Brokers, number: signal.Signals
) -> None:
    broker = brokers.start("[websocket]\nqueue_size = 1000\nqueue_bytes = 100000000\n")
    large = b'"%b"' % (b"x" * 60_000)
    async with raw_websocket(broker, "ada", "large", receive_buffer=4096) as raw:
        for _ in range(20):
            await trio.to_thread.run_sync(broker.publish_all, [("large", large)] * 15)
        broker.signal(number)
        broker.wait_logged("broker.stopping")
        code, texts = await raw.until_close()
        assert (code, len(texts)) == (1001, 300)
        await raw.send(frame(CLOSE, b"\x03\xe9"))
        assert await raw.rest() == b""
        assert broker.wait_ended() == 0
    assert broker.logged("broker.stopped")


@BOTH_SIGNALS
async def test_a_broker_with_idle_clients_stops_soon(brokers: Brokers, number: signal.Signals) -> None:
    broker = brokers.start()
    async with connected(broker, "ada") as client, dial(broker) as idle:
        await client.subscribe("**")
        broker.signal(number)
        assert await client.closed() == 1001
        assert await idle.rest() == b""
        assert broker.wait_ended(8) == 0  # and not after the grace, which is 10 seconds


async def test_while_it_stops_nobody_new_is_served(brokers: Brokers) -> None:
    broker = brokers.start()
    async with raw_websocket(broker, "stubborn"):
        broker.signal(signal.SIGTERM)
        broker.wait_logged("broker.stopping")
        with suppress(OSError):  # to be refused is best
            async with dial(broker) as raw:
                assert await raw.rest() == b""
        broker.signal(signal.SIGTERM)
        assert broker.wait_ended() == 0


async def test_a_second_signal_ends_it_at_once(brokers: Brokers) -> None:
    broker = brokers.start()
    async with raw_websocket(broker, "stubborn") as raw:
        broker.signal(signal.SIGTERM)
        assert (await raw.until_close())[0] == 1001  # and this client does not answer
        await trio.sleep(0.3)
        assert broker.process.poll() is None
        broker.signal(signal.SIGINT)
        assert broker.wait_ended() == 0
    assert broker.logged("broker.stopped_at_once")


async def test_a_signal_after_the_end_does_not_change_the_status(brokers: Brokers) -> None:
    broker = brokers.start()
    broker.signal(signal.SIGTERM)
    broker.wait_logged("broker.stopped")
    await trio.sleep(0.02)  # Python takes itself apart now
    broker.signal(signal.SIGTERM)
    assert broker.wait_ended() == 0


async def test_the_grace_is_the_longest_that_a_stubborn_client_holds_it_up(brokers: Brokers) -> None:
    broker = brokers.start("[server]\nshutdown_grace = 0.5\n")
    async with raw_websocket(broker, "stubborn"):
        broker.signal(signal.SIGTERM)
        assert broker.wait_ended(5) == 0


async def test_whoever_goes_on_talking_does_not_hold_it_up(brokers: Brokers) -> None:
    broker = brokers.start("[server]\nshutdown_grace = 1\n")
    async with raw_websocket(broker, "mallory") as raw, trio.open_nursery() as nursery:
        nursery.start_soon(talk, raw)
        broker.signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(broker.wait_ended, 5) == 0


async def talk(raw: Raw) -> None:
    with suppress(trio.BrokenResourceError):
        while True:
            await raw.send(frame(TEXT, b'{"event":"unsubscribe","data":"a"}') * 100)


async def test_a_publisher_in_mid_request_gets_its_answer_before_the_end(brokers: Brokers) -> None:
    broker = brokers.start()
    body = b'{"event":"a.1"}'
    head = (
        b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
    ) % (broker.token(publish=["**"]).encode(), len(body))
    async with dial(broker) as raw:
        await raw.send(head)
        assert broker.request("GET", "/healthz").status == 200  # by now the head has been read
        broker.signal(signal.SIGTERM)
        broker.wait_logged("broker.stopping")
        await raw.send(body)
        answer, _ = await raw.answer()
        assert answer.status in (202, 503)
        assert await raw.rest() == b""
    assert broker.wait_ended() == 0


ONLY_ADA = '[[rules]]\nevents = "news.**"\nvisible_to = { claim = "sub", equals = "ada" }\n'
MARKS = '[[rules]]\nevents = "users.*.online"\nvisible_to = "everyone"\n'


async def test_sighup_reads_the_policy_anew_for_those_who_are_connected(brokers: Brokers) -> None:
    broker = brokers.start(policy=MARKS)
    async with connected(broker, "ada") as ada, connected(broker, "bob") as bob:
        for client in (ada, bob):
            await client.subscribe("news.**")
        broker.publish("news.first")
        assert [await ada.names(), await bob.names()] == [[], []]

        (broker.folder / "policy.toml").write_text(MARKS + ONLY_ADA)
        broker.signal(signal.SIGHUP)
        broker.wait_logged("policy.reloaded")
        broker.publish("news.second")
        assert [await ada.names(), await bob.names()] == [["news.second"], []]

        (broker.folder / "policy.toml").write_text(OPEN_POLICY)
        broker.signal(signal.SIGHUP)
        eventually(lambda: len(broker.logged("policy.reloaded")) == 2, "second reload")
        broker.publish("news.third")
        assert [await ada.names(), await bob.names()] == [["news.third"], ["news.third"]]
        assert broker.metric("broker_policy_reloads_total") == 2


BAD_POLICY = """default = "everybody"

[[rules]]
events = "news.**"
visibel_to = "everyone"
"""


@pytest.mark.parametrize("bad", [BAD_POLICY, None], ids=["faults", "no file"])
async def test_sighup_with_a_bad_policy_changes_nothing_and_is_logged_and_counted(
    brokers: Brokers, bad: str | None
) -> None:
    broker = brokers.start(policy=MARKS + ONLY_ADA)
    async with connected(broker, "ada") as ada, connected(broker, "bob") as bob:
        for client in (ada, bob):
            await client.subscribe("news.**")
        file = broker.folder / "policy.toml"
        file.unlink() if bad is None else file.write_text(bad)
        broker.signal(signal.SIGHUP)
        faults = broker.wait_logged("policy.refused")["faults"]
        if bad is not None:
            assert any("line 1" in fault and "default" in fault for fault in faults)
            assert any("line 5" in fault and "visibel_to" in fault and "visible_to" in fault for fault in faults)
        broker.publish("news.first")
        assert [await ada.names(), await bob.names()] == [["news.first"], []]
        assert broker.metric("broker_policy_reloads_failed_total") == 1


async def test_facts_survive_a_reload(brokers: Brokers) -> None:
    policy = MARKS + (
        '[relations.room]\nadd = "rooms.<room>.<user>.in"\nkey = "<room>"\nusers = "<user>"\n'
        '[[rules]]\nevents = "rooms.<room>.said"\nvisible_to = { relation = "room", key = "<room>" }\n'
    )
    broker = brokers.start(policy=policy)
    async with connected(broker, "ada") as ada:
        await ada.subscribe("rooms.*.said")
        broker.publish("rooms.7.ada.in")
        broker.signal(signal.SIGHUP)
        broker.wait_logged("policy.reloaded")
        broker.publish("rooms.7.said")
        assert await ada.names() == ["rooms.7.said"]


def refused(folder: Path, port: str = "0") -> str:
    """What a broker says that refuses to start, with status 2."""
    ended = command("run", folder=folder, BROKER_SERVER__PORT=port)
    assert ended.returncode == 2
    assert ended.stdout == b""
    said = ended.stderr.decode()
    assert "Traceback" not in said
    return said


async def test_a_port_in_use_is_named_and_the_status_is_2(brokers: Brokers, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(OPEN_POLICY)
    (tmp_path / "config.toml").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(tmp_path, port)
    assert f"127.0.0.1:{port}" in said
    assert "in use" in said


async def test_every_fault_of_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[server]\nprot = 1\n\n[websocket]\nqueue_size = "many"\noverflow = "drop"\n')
    said = refused(tmp_path, "high")
    for line, key in (("line 2", "server.prot"), ("line 5", "websocket.queue_size"), ("line 6", "websocket.overflow")):
        assert any(line in fault and key in fault for fault in said.splitlines())
    assert "BROKER_SERVER__PORT" in said
    assert "did you mean" in said or "port" in said.partition("server.prot")[2].splitlines()[0]


async def test_every_fault_of_a_policy_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "policy.toml").write_text(BAD_POLICY)
    said = refused(tmp_path)
    assert "line 1" in said
    assert "line 5" in said


@pytest.mark.parametrize("missing", ["config.toml", "policy.toml"])
async def test_a_missing_file_is_named_and_the_status_is_2(tmp_path: Path, missing: str) -> None:
    for name, text in (("config.toml", ""), ("policy.toml", OPEN_POLICY)):
        if name != missing:
            (tmp_path / name).write_text(text)
    assert missing in refused(tmp_path)


async def test_a_file_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\nport = = 1\n")
    assert "line 2" in refused(tmp_path)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that signs itself, for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


async def test_with_a_certificate_everything_is_served_over_tls(brokers: Brokers, tmp_path: Path) -> None:
    chain, private = make_certificate(tmp_path)
    broker = brokers.start(f'[server.tls]\ncertificate = "{chain}"\nprivate_key = "{private}"\n')
    assert json.loads(broker.ready_file.read_text())["url"].startswith("https://127.0.0.1:")
    trusted = ssl.create_default_context(cafile=str(chain))
    async with connected(broker, "ada", tls=trusted) as client:
        await client.subscribe("a.*")
        published = command(
            "publish",
            "a.1",
            '{"over": "TLS"}',
            folder=broker.folder,
            BROKER_URL=broker.url.replace("http", "https"),
            SSL_CERT_FILE=str(chain),
        )
        assert published.returncode == 0, published.stderr
        assert (await client.frame())["data"] == {"over": "TLS"}
        # Whoever speaks no TLS, or trusts nobody, gets no answer and does no harm.
        async with dial(broker) as raw:
            await raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not (await raw.rest()).startswith(b"HTTP")
        untrusting = command("publish", "a.2", folder=broker.folder, BROKER_URL=broker.url.replace("http", "https"))
        assert untrusting.returncode == 1
        assert b"Traceback" not in untrusting.stderr
        await client.subscribe("b.*")
        broker.signal(signal.SIGTERM)
        assert await client.closed() == 1001
    assert broker.wait_ended() == 0


async def test_a_certificate_that_is_none_is_named_and_the_status_is_2(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(OPEN_POLICY)
    (tmp_path / "chain.pem").write_text("nonsense")
    (tmp_path / "config.toml").write_text('[server.tls]\ncertificate = "chain.pem"\nprivate_key = "chain.pem"\n')
    assert "chain.pem" in refused(tmp_path)
