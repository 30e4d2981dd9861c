"""AMQP URLs: RabbitMQ's own examples, every fault with its words, and passwords that nobody repeats."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.amqp.url import MAX_ADDRESSES, Address, BadUrl, Tls, parse_url, parse_urls

FOLDER = Path("/etc/broker")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)

# RabbitMQ's URI specification, appendix A, as far as it names a host, which we can't do without.
SPECIFIED = [
    ("amqp://user:pass@host:10000/vhost", Address("host", 10000, "user", "pass", "vhost")),
    ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", Address("hoast", 10000, "usera", "apass", "v/host")),
    ("amqp://host", Address("host", 5672, "guest", "guest", "/")),
    ("amqp://host/%2f", Address("host", 5672, "guest", "guest", "/")),
    ("amqp://[::1]", Address("::1", 5672, "guest", "guest", "/")),
]


def refusal(text: str) -> str:
    with pytest.raises(BadUrl) as caught:
        parse_url(text)
    return str(caught.value)


# --- Where, as whom, into which vhost --------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "address"), SPECIFIED)
def test_the_examples_of_the_specification_mean_what_it_says(text: str, address: Address) -> None:
    assert parse_url(text) == address


@given(user=TEXTS, password=TEXTS, vhost=TEXTS)
def test_what_is_percent_encoded_comes_out_as_it_was(user: str, password: str, vhost: str) -> None:
    address = parse_url("amqp://{}:{}@host/{}".format(*(quote(each, safe="") for each in (user, password, vhost))))
    assert (address.user, address.password, address.vhost) == (user, password, vhost)


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        ("amqp://user@host", "user", "guest"),
        ("amqp://user:@host", "user", ""),
        ("amqp://:secret@host", "", "secret"),
        ("amqp://us@er:pass@host", "us@er", "pass"),
        ("amqp://user:pa:ss@host", "user", "pa:ss"),
        ("amqp://user:a+b@host", "user", "a+b"),
    ],
)
def test_absent_is_guest_and_empty_is_empty(text: str, user: str, password: str) -> None:
    address = parse_url(text)
    assert (address.user, address.password, address.host) == (user, password, "host")


@pytest.mark.parametrize("text", ["amqp://host", "amqp://host/", "amqp://host?heartbeat=1", "amqp://host/?heartbeat=1"])
def test_without_a_name_the_vhost_is_rabbitmq_s_own_default(text: str) -> None:
    assert parse_url(text).vhost == "/"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("AMQP://Host", "host", 5672),
        ("amqps://host", "host", 5671),
        ("amqp://host:", "host", 5672),
        ("amqp://host:65535", "host", 65535),
        ("amqp://[2001:db8::1]:5673/", "2001:db8::1", 5673),
        ("amqp://10.0.0.1", "10.0.0.1", 5672),
        ("amqp://bücher.example", "bücher.example", 5672),
    ],
)
def test_host_and_port(text: str, host: str, port: int) -> None:
    address = parse_url(text)
    assert (address.host, address.port) == (host, port)


# --- Parameters ------------------------------------------------------------------------------------------------------


def test_the_defaults_are_plain_with_a_heartbeat_of_20_seconds_and_10_to_connect() -> None:
    address = parse_url("amqp://host")
    assert (address.tls, address.mechanism, address.heartbeat, address.connection_timeout) == (None, "PLAIN", 20, 10)


def test_a_heartbeat_is_in_seconds_and_a_timeout_in_milliseconds_as_rabbitmq_has_it() -> None:
    address = parse_url("amqp://myhost?heartbeat=5&connection_timeout=15000")
    assert (address.heartbeat, address.connection_timeout) == (5.0, 15.0)


def test_a_heartbeat_of_0_is_none_and_a_timeout_of_0_is_the_default() -> None:
    address = parse_url("amqp://host?heartbeat=0&connection_timeout=0")
    assert (address.heartbeat, address.connection_timeout) == (0.0, 10.0)


@pytest.mark.parametrize(
    ("value", "mechanism"), [("plain", "PLAIN"), ("PLAIN", "PLAIN"), ("external", "EXTERNAL"), ("External", "EXTERNAL")]
)
def test_the_mechanism_is_written_in_any_case(value: str, mechanism: str) -> None:
    assert parse_url(f"amqps://host?auth_mechanism={value}").mechanism == mechanism


def test_tls_alone_trusts_the_system_and_checks_the_server() -> None:
    assert parse_url("amqps://host").tls == Tls(ca=None, certificate=None, key=None, server_name=None, verify=True)


def test_tls_files_are_taken_from_the_folder() -> None:
    query = "cacertfile=ca.pem&certfile=/abs/c.pem&keyfile=k%20y.pem&server_name_indication=mq&verify=verify_none"
    assert parse_url(f"amqps://host?{query}", FOLDER).tls == Tls(
        FOLDER / "ca.pem", Path("/abs/c.pem"), FOLDER / "k y.pem", "mq", verify=False
    )


def test_an_empty_file_name_is_none() -> None:
    assert parse_url("amqps://host?cacertfile=&certfile=&keyfile=").tls == Tls()


# --- Several ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["amqp://a amqps://b", " amqp://a,amqps://b,\n", "amqp://a ,, amqps://b\t"])
def test_several_urls_keep_their_order(text: str) -> None:
    assert [address.host for address in parse_urls(text)] == ["a", "b"]


def test_the_folder_holds_for_each_of_them() -> None:
    addresses = parse_urls("amqps://a?cacertfile=x amqps://b?cacertfile=y", FOLDER)
    assert [address.tls for address in addresses] == [Tls(ca=FOLDER / "x"), Tls(ca=FOLDER / "y")]


@pytest.mark.parametrize("text", ["", " ", ",", "\n, \t"])
def test_no_url_at_all_is_a_fault(text: str) -> None:
    with pytest.raises(BadUrl, match=r"there is no AMQP URL; it looks like amqp://user:password@host:5672/vhost"):
        parse_urls(text)


def test_there_may_be_many_but_not_any_number() -> None:
    assert len(parse_urls("amqp://a " * MAX_ADDRESSES)) == MAX_ADDRESSES
    with pytest.raises(BadUrl, match="these are 33 AMQP URLs; at most 32"):
        parse_urls("amqp://a " * (MAX_ADDRESSES + 1))


def test_one_bad_url_among_good_ones_is_a_fault() -> None:
    with pytest.raises(BadUrl, match="begins with amqp://"):
        parse_urls("amqp://a http://b")


# --- Faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://host", "begins with amqp:// or amqps://; it looks like"),
        ("host:5672", "begins with amqp:// or amqps://; it looks like"),
        ("//host", "begins with amqp:// or amqps://; it looks like"),
        ("amqp://", "has no host"),
        ("amqp:host", "has no host"),
        ("amqp://user:pw@", "has no host"),
        ("amqp://:5672", "has no host"),
        ("amqp://host:0", "port 0"),
        ("amqp://host/v#w", "a '#' that is not written as %23"),
        ("amqp://host:many", "this is no AMQP URL; it looks like"),
        ("amqp://host:65536", "this is no AMQP URL"),
        ("amqp://host:-1", "this is no AMQP URL"),
        ("amqp://[::1", "this is no AMQP URL"),
        (f"amqp://{'a' * 64}", "the host in the AMQP URL can't be one"),
        ("amqp://a..b", "the host in the AMQP URL can't be one"),
        ("amqp://a%20b", "the host in the AMQP URL can't be one"),
        ("amqp://a%00b", "the host in the AMQP URL can't be one"),
        ("amqp://%ff@host", "no UTF-8 behind its % signs"),
        ("amqp://u:%ff@host", "no UTF-8 behind its % signs"),
        ("amqp://host/%ff", "no UTF-8 behind its % signs"),
        ("amqp://%ff", "no UTF-8 behind its % signs"),
        (
            "amqp://host//",
            "more than one '/' behind its host; write / ? # @ in a user, password or vhost as %2F %3F %23 %40",
        ),
        (
            "amqp://host/a/b",
            "more than one '/' behind its host; write / ? # @ in a user, password or vhost as %2F %3F %23 %40",
        ),
        ("amqp://host?colour=red", "unknown parameter 'colour'; there are auth_mechanism, cacertfile, "),
        ("amqp://host?auth_mechanism=amqplain", "auth_mechanism in the AMQP URL is plain or external, not 'amqplain'"),
        ("amqps://host?verify=yes", "verify in the AMQP URL is verify_peer or verify_none, not 'yes'"),
        ("amqp://host?cacertfile=ca.pem", "cacertfile in the AMQP URL needs TLS: write amqps://"),
        ("amqp://host?certfile=a&keyfile=b", "certfile in the AMQP URL needs TLS"),
        ("amqp://host?verify=verify_none", "verify in the AMQP URL needs TLS"),
        ("amqp://host?server_name_indication=x", "server_name_indication in the AMQP URL needs TLS"),
        ("amqps://host?certfile=a", "certfile and keyfile in the AMQP URL go together"),
        ("amqps://host?keyfile=a&certfile=", "certfile and keyfile in the AMQP URL go together"),
        ("amqp://host?heartbeat=-1", "heartbeat in the AMQP URL is a number of seconds from 0 to 3600, not '-1'"),
        ("amqp://host?heartbeat=3601", "from 0 to 3600, not '3601'"),
        ("amqp://host?heartbeat=nan", "from 0 to 3600, not 'nan'"),
        ("amqp://host?heartbeat=", "from 0 to 3600, not ''"),
        ("amqp://host?connection_timeout=soon", "a number of milliseconds from 0 to 3600000, not 'soon'"),
        ("amqp://host?connection_timeout=3600001", "a number of milliseconds from 0 to 3600000, not '3600001'"),
    ],
)
def test_a_fault_says_what_is_wrong(text: str, message: str) -> None:
    assert message in refusal(text)


@given(st.one_of(st.text(), st.text("amqps:/@?&=%#[]., 1a\n\x00ü"), st.text("/@?&=%#[]:.1a").map("amqps://".__add__)))
@example("amqp://[::1]]")
@example("amqp://ho%00st")
@example("amqp://%C2%A0")
@example("amqp://a\u2100b")
def test_garbage_is_refused_and_nothing_else_ever_happens(text: str) -> None:
    try:
        addresses = parse_urls(text)
    except BadUrl:
        return
    assert all(address.host and 0 < address.port < 65536 and str(address) for address in addresses)


# --- The password ----------------------------------------------------------------------------------------------------


def test_an_address_says_where_and_as_whom_but_never_the_password() -> None:
    address = parse_url("amqps://us%20er:hunter2@host/v")
    assert str(address) == "amqps://host:5671 (user 'us er', vhost 'v')"
    assert "hunter2" not in f"{address} {address!r}"


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    assert str(parse_url("amqp://[::1]")) == "amqp://[::1]:5672 (user 'guest', vhost '/')"


@pytest.mark.parametrize(
    "text",
    [
        "amqp://user:hunter2@host:0",
        "amqp://user:hunter2@host:many",
        "amqp://user:hunter2@host/a/b",
        "amqp://user:hunter2@host?colour=red",
        "amqp://user:hunter2%ff@host",
        "ampq://user:hunter2@host",
        "user:hunter2@host",
        "amqp:user:hunter2@host",
        "amqp://user:1/hunter2/3@host",
        "amqp://user:1/hunter2@host",
        "amqp://user:/hunter2/@host",
        "amqp://user:1?hunter2@host",
        "amqp://user:1?hunter2=x@host",
        "amqp://user:1?heartbeat=hunter2@host",
        "amqp://user:1#hunter2@host",
        "amqp://user:[hunter2@host",
    ],
)
def test_a_password_stands_in_no_error_even_where_it_spoils_the_url(text: str) -> None:
    assert "hunter2" not in refusal(text)


@pytest.mark.parametrize("sign", "/?#")
def test_who_forgot_to_encode_the_password_is_told_so(sign: str) -> None:
    assert "write / ? # @ in a user, password or vhost as %2F %3F %23 %40" in refusal(f"amqp://user:1{sign}23@host")


@given(TEXTS, st.text("/?#:@[]%1 ", max_size=4))
def test_no_password_is_ever_repeated(rest: str, before: str) -> None:
    assert "hunter2" not in outcome(f"amqp://user:{before}hunter2{rest}@host/a/b")


def outcome(text: str) -> str:
    """All that one gets to see of a URL."""
    try:
        return repr(parse_url(text))
    except BadUrl as error:
        return str(error)
