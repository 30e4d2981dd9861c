"""The configuration: defaults, strictness, every fault at once, the environment, secrets that stay secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import (
    AmqpConfig,
    BindingConfig,
    CompressionConfig,
    Config,
    PresenceConfig,
    SecretSource,
    SourceConfig,
    TlsConfig,
    load_config,
    parse_config,
)
from broker.config.reading import structure
from broker.core.errors import Fault, FaultyFile
from cli.config_toml import render

ROOT = Path(__file__).parents[1]
FOLDER = Path("/etc/broker")
NAMES = {
    "host",
    "port",
    "tls",
    "certificate",
    "secret",
    "file",
    "env",
    "webhook",
    "sources",
    "amqp",
    "compression",
    "x",
}


def read(text: str, environ: Mapping[str, str] | None = None) -> Config:
    return parse_config(text, "config.toml", FOLDER, environ or {})


def faults(text: str, environ: Mapping[str, str] | None = None) -> list[Fault]:
    with pytest.raises(FaultyFile) as caught:
        read(text, environ)
    return caught.value.faults


def fault(text: str, environ: Mapping[str, str] | None = None) -> Fault:
    found = faults(text, environ)
    assert len(found) == 1, found
    return found[0]


def keys_of(value: Any, path: str = "") -> Iterator[str]:
    for field in attrs.fields(type(value)):
        item = getattr(value, field.name)
        inner = attrs.has(type(item)) and not isinstance(item, SecretSource)
        yield from keys_of(item, f"{path}{field.name}.") if inner else [f"{path}{field.name}"]


def test_an_empty_file_is_valid_and_has_the_documented_defaults() -> None:
    config = read("")
    assert (config.server.host, config.server.port, config.server.tls) == ("127.0.0.1", 8080, None)
    assert (config.websocket.path, config.websocket.overflow, config.websocket.queue_bytes) == (
        "/ws",
        "disconnect",
        1_048_576,
    )
    assert config.websocket.compression == CompressionConfig(enabled=True, threshold=1024)
    assert read("[websocket]\ncompression = { threshold = 0 }").websocket.compression == CompressionConfig(threshold=0)
    assert config.auth.secret == SecretSource(file=FOLDER / ".broker/jwt.secret", generate=True)
    assert (config.log.path, config.log.retain_bytes) == (".broker/log.db", 1_073_741_824)
    assert (config.connectors.webhook.enabled, config.connectors.stdin.enabled) == (True, False)


def test_there_are_events_of_presence_where_something_asks_for_them() -> None:
    assert not read("").presence.enabled
    assert read('handlers.modules = ["chat:app"]').presence.enabled
    assert not read('handlers.modules = ["chat:app"]\npresence.enabled = false').presence.enabled
    assert read("[presence]").presence == PresenceConfig()
    assert read("", {"BROKER_PRESENCE__GRACE": "1"}).presence == PresenceConfig(grace=1.0)


def test_several_handlers_of_one_module_are_several_modules() -> None:
    modules = ("chat", "chat:door", "chat.rooms", "chat.rooms:door")
    assert read(f"handlers.modules = {list(modules)}").handlers.modules == modules


def test_the_shipped_file_says_what_holds_without_it() -> None:
    assert load_config(ROOT / "config.toml", {}) == parse_config("", "config.toml", ROOT, {})


def test_the_shipped_file_and_the_documentation_show_every_key() -> None:
    shipped = (ROOT / "config.toml").read_text()
    documented = (ROOT / "docs/configuration.md").read_text()
    names = {path.rpartition(".")[2] for path in keys_of(Config())}
    for cls in (TlsConfig, SourceConfig, AmqpConfig):
        names |= {field.name for field in attrs.fields(cls)}
    for name in names - {"sources", "tls", "amqp"}:
        assert re.search(rf"^(# )?{name} = ", shipped, re.MULTILINE), name
        assert f"| `{name}` |" in documented, name


def test_the_commented_keys_of_the_shipped_file_exist() -> None:
    shipped = (ROOT / "config.toml").read_text()
    uncommented = re.sub(r"^# (\[|\w+ = )", r"\1", shipped, flags=re.MULTILINE)
    found = {each.path for each in faults(uncommented)}
    assert found == {"auth.public_key", "auth.jwks"}


def test_the_templates_are_the_shipped_files() -> None:
    for name in ("config.toml", "policy.toml"):
        assert (ROOT / "cli/templates" / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_configuration_can_not_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        read("").server.port = 1  # type: ignore[misc]


def test_relative_paths_are_taken_from_the_file_s_folder() -> None:
    config = read(
        '[server.tls]\ncertificate = "a.pem"\nprivate_key = "/b.pem"\n[visibility]\npolicy = "p/q.toml"\n'
        '[auth]\nsecret = { file = "s" }\n'
    )
    assert config.server.tls == TlsConfig(certificate=FOLDER / "a.pem", private_key=Path("/b.pem"))
    assert config.visibility.policy == FOLDER / "p/q.toml"
    assert config.auth.secret == SecretSource(file=FOLDER / "s")


def test_a_whole_number_will_do_for_a_fraction() -> None:
    assert read("[server]\nshutdown_grace = 3").server.shutdown_grace == 3.0


def test_an_audience_is_one_or_several() -> None:
    assert read('[auth]\naudience = "a"').auth.audience == "a"
    assert read('[auth]\naudience = ["a", "b"]').auth.audience == ("a", "b")


@pytest.mark.parametrize(
    ("text", "path", "line", "message"),
    [
        ('[server]\nport = "80"', "server.port", 2, "must be a whole number, not a text"),
        ("[server]\nport = true", "server.port", 2, "must be a whole number, not a boolean"),
        ("[server]\nport = 80.0", "server.port", 2, "must be a whole number, not a fraction"),
        ("[server]\nport = 65536", "server.port", 2, "must be from 0 to 65535, not 65536"),
        ("[server]\nport = -1", "server.port", 2, "must be from 0 to 65535, not -1"),
        ("\n[server]\nhost = 1", "server.host", 3, "must be a text, not a whole number"),
        ('[server]\nhost = " "', "server.host", 2, "must not be empty"),
        ("[server]\nshutdown_grace = true", "server.shutdown_grace", 2, "must be a number, not a boolean"),
        ("[server]\nshutdown_grace = inf", "server.shutdown_grace", 2, "must be a finite number"),
        ("[server]\nshutdown_grace = nan", "server.shutdown_grace", 2, "must be a finite number"),
        ("[server]\nshutdown_grace = -0.1", "server.shutdown_grace", 2, "must be 0 or more, not -0.1"),
        ('[server]\nallowed_origins = "*"', "server.allowed_origins", 2, "must be a list, not a text"),
        ('[server]\nallowed_origins = [\n"*",\n"a/"]', "server.allowed_origins[1]", 4, "is no origin"),
        ('[server]\ntls = { certificate = "c" }', "server.tls.private_key", 2, "is missing"),
        ('[server]\ntls = { private_key = "c" }', "server.tls.certificate", 2, "is missing"),
        ('[server]\ntls = { private_key = "c", certificate = "" }', "server.tls.certificate", 2, "no path of a file"),
        ("server = 3", "server", 1, "must be a table, not a whole number"),
        ('[websocket]\noverflow = "drop_oldes"', "websocket.overflow", 2, "must be one of disconnect"),
        ("[websocket]\noverflow = 1", "websocket.overflow", 2, "must be a text"),
        ('[websocket]\npath = "ws"', "websocket.path", 2, 'must begin with "/"'),
        ('[websocket]\npath = "/ws?x"', "websocket.path", 2, 'must begin with "/"'),
        ('[websocket]\npath = "/metrics"', "websocket.path", 2, "is the broker's own"),
        ('[websocket]\npath = "/events"', "connectors.webhook.path", None, "is the path of the WebSocket too"),
        ("[websocket]\nqueue_bytes = 1023", "websocket.queue_bytes", 2, "must be 1024 or more, not 1023"),
        ("[websocket]\nqueue_size = 0", "websocket.queue_size", 2, "must be 1 or more, not 0"),
        ("[websocket]\nheartbeat_timeout = 0", "websocket.heartbeat_timeout", 2, "while there is a heartbeat"),
        ('[websocket]\nsubprotocols = ["a b"]', "websocket.subprotocols[0]", 2, "is no name of a subprotocol"),
        ("[websocket.compression]\nenabled = 1", "websocket.compression.enabled", 2, "must be true or false"),
        ('[auth]\nalgorithms = ["none"]', "auth.algorithms[0]", 2, "must be one of HS256"),
        ("[auth]\nalgorithms = []", "auth.algorithms", 2, "must name at least one algorithm"),
        ('[auth]\nalgorithms = ["HS256", "HS256"]', "auth.algorithms", 2, "names an algorithm twice"),
        ('[auth]\nalgorithms = ["RS256"]', "auth.algorithms", 2, "RS256 needs a public key"),
        ('[auth]\npublic_key = { env = "K" }', "auth.public_key", 2, "none of auth.algorithms uses it"),
        ('[auth]\nuser_claim = ""', "auth.user_claim", 2, "must not be empty"),
        ("[auth]\naudience = []", "auth.audience", 2, "must name at least one audience"),
        ("[auth]\naudience = 3", "auth.audience", 2, "must be a text or a list of texts"),
        ("[auth]\nissuer = 3", "auth.issuer", 2, "must be a text"),
        ("[auth]\nsecret = {}", "auth.secret", 2, 'needs either "file" or "env"'),
        ('[auth]\nsecret = { file = "a", env = "b" }', "auth.secret", 2, 'needs either "file" or "env"'),
        ('[auth]\nsecret = { env = "b", generate = true }', "auth.secret", 2, '"generate" goes only with "file"'),
        ('[auth]\nsecret = { env = "" }', "auth.secret", 2, "is no name of an environment variable"),
        ('[auth]\nsecret = { fil = "b" }', "auth.secret", 2, 'unknown key "fil"'),
        ('[auth]\nsecret = { literal = "b" }', "auth.secret", 2, 'unknown key "literal"'),
        ('[presence]\nonline = "users.online"', "presence.online", 2, "must have <userId> as one of its segments"),
        ('[presence]\noffline = "users..<userId>"', "presence.offline", 2, "is no event name"),
        ('presence.online = "users.<userId>.offline"', "presence.online", 1, "is the same as presence.offline"),
        (
            '[presence]\nonline = "who.<userId>"\noffline = "who.<userId>"',
            "presence.offline",
            3,
            "is the same as presence.online",
        ),
        ('[handlers]\nmodules = ["m:app", "m:"]', "handlers.modules[1]", 2, "names m:app again"),
        ('[handlers]\nmodules = ["m:app", "m:app"]', "handlers.modules[1]", 2, "names m:app again"),
        ('[handlers]\nmodules = [\n"m",\n"n",\n"m:app"]', "handlers.modules[2]", 5, "names m:app again"),
        ("[handlers]\ntimeout = 0", "handlers.timeout", 2, "must be greater than 0, not 0"),
        ("[sever]\nport = 1", "sever", 1, "unknown key"),
        ("[websocket.compression]\ntreshold = 1", "websocket.compression.treshold", 2, "unknown key"),
        ("[server\n", "", 1, "this is no TOML"),
    ],
)
def test_a_fault_tells_key_line_and_reason(text: str, path: str, line: int | None, message: str) -> None:
    found = fault(text)
    assert (found.path, found.line) == (path, line)
    assert message in found.message


def test_a_public_key_is_not_generated() -> None:
    text = '[auth]\nalgorithms = ["RS256"]\npublic_key = { file = "k", generate = true }'
    assert fault(text).message == "a public key can't be generated"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[server]\nprot = 1", 'did you mean "port"?'),
        ("[server]\nxyzzy = 1", "known here: host, port, allowed_origins, shutdown_grace, tls"),
        ('[websocket]\noverflow = "drop_oldes"', 'did you mean "drop_oldest"?'),
        ('[auth]\nalgorithms = ["none"]', "a token without a signature proves nothing"),
        ('[auth]\nsecret = "hunter2"', 'write { file = "…" } or { env = "…" }'),
        ('handlers.modules = ["m", "m:app"]', "name each once"),
        ('presence.online = "users.<userId>.offline"', "who comes and who goes must be told apart"),
    ],
)
def test_a_fault_says_what_to_do(text: str, hint: str) -> None:
    assert fault(text).hint == hint


def test_every_fault_is_reported_at_once_in_the_order_of_lines() -> None:
    found = faults(
        """colour = "red"
[server]
port = "80"
hots = "x"
[websocket]
heartbeat_timeout = 0
overflow = "no"
[auth]
algorithms = ["HS256", "RS256"]
secret = "x"
[ingest]
queue_size = 0
"""
    )
    assert [(each.line, each.path) for each in found] == [
        (1, "colour"),
        (3, "server.port"),
        (4, "server.hots"),
        (6, "websocket.heartbeat_timeout"),
        (7, "websocket.overflow"),
        (9, "auth.algorithms"),
        (10, "auth.secret"),
        (12, "ingest.queue_size"),
    ]


def test_a_rule_over_several_keys_is_silent_while_one_of_them_is_misread() -> None:
    assert fault('[websocket]\nheartbeat = "no"\nheartbeat_timeout = 0').path == "websocket.heartbeat"
    assert fault('[auth]\nalgorithms = ["RS265"]\npublic_key = { env = "K" }').path == "auth.algorithms[0]"


AMQP = '[[connectors.amqp]]\nname = "m"\nqueue = "q"\nurl = { env = "AMQP_URL" }\n'


def test_a_source_at_rabbitmq_needs_a_name_a_url_and_a_queue() -> None:
    assert read(AMQP).connectors.amqp == (AmqpConfig(name="m", queue="q", url=SecretSource(env="AMQP_URL")),)
    missing = {each.path for each in faults("[[connectors.amqp]]\n")}
    assert missing == {f"connectors.amqp[0].{key}" for key in ("name", "queue", "url")}


def test_arguments_and_bindings_are_read() -> None:
    (source,) = read(
        AMQP + 'arguments = { "x-queue-type" = "quorum", "x-delivery-limit" = 5, "x-single-active-consumer" = true }\n'
        'bindings = [{ exchange = "e" }, { exchange = "f", type = "headers", arguments = { tenant = "acme" } }]\n'
    ).connectors.amqp
    assert source.arguments == {"x-queue-type": "quorum", "x-delivery-limit": 5, "x-single-active-consumer": True}
    assert source.bindings == (
        BindingConfig(exchange="e", type="topic", routing_key="#"),
        BindingConfig(exchange="f", type="headers", arguments={"tenant": "acme"}),
    )


@pytest.mark.parametrize(
    ("url", "literal"),
    [
        ('"amqp://u:hunter2@a"', "amqp://u:hunter2@a"),
        ('["amqp://u:hunter2@a", "amqp://b"]', "amqp://u:hunter2@a amqp://b"),
    ],
)
def test_the_url_of_rabbitmq_may_stand_in_the_file_and_is_not_shown(url: str, literal: str) -> None:
    config = read(AMQP.replace('{ env = "AMQP_URL" }', url))
    assert config.connectors.amqp[0].url.literal == literal
    assert "hunter2" not in f"{config!r} {config} {render(config)}"


def test_sources_at_rabbitmq_are_shown_as_they_are_read() -> None:
    config = read(
        AMQP + 'arguments = { "x-expires" = 1 }\n' + AMQP.replace('"m"', '"n"') + 'bindings = [{ exchange = "e" }]'
    )
    assert read(render(config)) == config


@pytest.mark.parametrize(
    ("text", "path", "line", "message"),
    [
        (AMQP + 'prefetch = "many"', "connectors.amqp[0].prefetch", 5, "must be a whole number"),
        (AMQP + "prefetch = 65536", "connectors.amqp[0].prefetch", 5, "must be from 1 to 65535"),
        (AMQP + 'format = "xml"', "connectors.amqp[0].format", 5, "must be one of envelope, routing_key, cloudevents"),
        (AMQP + 'cloudevents_name = "id"', "connectors.amqp[0].cloudevents_name", 5, "must be one of type, subject"),
        (
            AMQP + "arguments = { x = [1] }",
            "connectors.amqp[0].arguments",
            5,
            "must be a text, a number, true or false",
        ),
        (AMQP + "bindings = [{ exchage = 1 }]", "connectors.amqp[0].bindings[0].exchange", 5, "is missing"),
        (AMQP + "queues = 1", "connectors.amqp[0].queues", 5, "unknown key"),
        (AMQP.replace('"m"', '"a b"'), "connectors.amqp[0].name", 2, "must be made of letters, digits, _ and -"),
        (AMQP + AMQP, "connectors.amqp[1].name", 6, "is the name of another source"),
        (AMQP.replace('"m"', '"a_b"') + AMQP.replace('"m"', '"a-b"'), "connectors.amqp[1].name", 6, "another source"),
    ],
)
def test_a_fault_of_a_source_at_rabbitmq_tells_key_line_and_reason(
    text: str, path: str, line: int, message: str
) -> None:
    found = next(each for each in faults(text) if each.path.startswith(path))
    assert found.line == line
    assert message in found.message


def test_a_missing_file_is_a_fault_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FaultyFile, match=r"there is no such file.*broker config init"):
        load_config(tmp_path / "config.toml", {})


def test_a_file_that_can_not_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'[server]\nhost = "\xe4"')
    with pytest.raises(FaultyFile, match="is not UTF-8, at byte 17"):
        load_config(tmp_path / "latin", {})
    with pytest.raises(FaultyFile, match="can't be read"):
        load_config(tmp_path, {})


def test_a_literal_secret_is_refused_and_not_repeated() -> None:
    found = fault('[auth]\nsecret = "hunter2"')
    assert found.message == "a secret does not stand in this file"
    assert "hunter2" not in str(found)


def test_the_environment_overrides_by_the_key_s_own_type() -> None:
    config = read(
        "[server]\nport = 1\n[auth]\nsecret = { file = 's', generate = true }",
        {
            "BROKER_SERVER__PORT": "9000",
            "BROKER_SERVER__SHUTDOWN_GRACE": "2",
            "BROKER_SERVER__HOST": "::",
            "BROKER_WEBSOCKET__COMPRESSION__ENABLED": "false",
            "BROKER_WEBSOCKET__OVERFLOW": "latest",
            "BROKER_AUTH__AUDIENCE": "a",
            "BROKER_AUTH__SECRET__ENV": "JWT",
            "BROKER_SERVER__TLS__CERTIFICATE": "c.pem",
            "BROKER_SERVER__TLS__PRIVATE_KEY": "k.pem",
        },
    )
    assert (config.server.port, config.server.shutdown_grace, config.server.host) == (9000, 2.0, "::")
    assert not config.websocket.compression.enabled
    assert (config.websocket.overflow, config.auth.audience) == ("latest", "a")
    assert config.auth.secret == SecretSource(env="JWT")
    assert config.server.tls == TlsConfig(certificate=FOLDER / "c.pem", private_key=FOLDER / "k.pem")


def test_other_variables_are_no_overrides() -> None:
    environ = {"BROKER_URL": "x", "BROKER_TOKEN": "y", "BROKER_PORT": "tcp://z", "SERVER__PORT": "1", "BROKER__X": "1"}
    assert read("", environ) == read("")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BROKER_SERVER__PROT", "1", 'there is no such key (did you mean "port"?)'),
        ("BROKER_SEVER__PORT", "1", 'there is no such key (did you mean "server"?)'),
        ("BROKER_SERVER__PORT__X", "1", "the environment can set nothing beneath server.port"),
        ("BROKER_CONNECTORS__WEBHOOK__SOURCES__X", "1", "can set nothing beneath connectors.webhook.sources"),
        ("BROKER_AUTH__SECRET__LITERAL", "1", "there is no such key"),
        ("BROKER_SERVER__PORT", "many", "must be a whole number"),
        ("BROKER_SERVER__PORT", "99999", "must be from 0 to 65535"),
        ("BROKER_SERVER__SHUTDOWN_GRACE", "10s", "must be a number"),
        ("BROKER_SERVER__SHUTDOWN_GRACE", "nan", "must be a finite number"),
        ("BROKER_CONNECTORS__STDIN__ENABLED", "1", "must be true or false"),
        ("BROKER_SERVER__ALLOWED_ORIGINS", "*", "this key holds more than one value"),
        ("BROKER_AUTH__SECRET", "hunter2", "this key holds more than one value"),
        ("BROKER_WEBSOCKET__HEARTBEAT_TIMEOUT", "0", "while there is a heartbeat"),
        ("BROKER_SERVER__TLS__CERTIFICATE", "x.pem", "is missing"),
    ],
)
def test_a_bad_override_names_its_variable_and_not_its_value(variable: str, value: str, message: str) -> None:
    found = fault("[server]\nhost = 'h'", {variable: value})
    assert message in str(found)
    assert found.path == variable or message == "is missing"
    assert "hunter2" not in str(found)


def test_an_override_does_not_hide_a_fault_of_the_file() -> None:
    assert [each.path for each in faults("server = 3", {"BROKER_SERVER__PORT": "1"})] == ["server"]


def test_a_source_says_where_a_secret_is() -> None:
    assert str(SecretSource(file=Path("/s"))) == "the file /s"
    assert str(SecretSource(env="S")) == "the environment variable S"
    assert "hunter2" not in f"{SecretSource(literal='hunter2')} {SecretSource(literal='hunter2')!r}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(NAMES)), inner, max_size=4),
        max_leaves=15,
    )
)
def test_whatever_stands_in_the_file_is_a_value_or_a_list_of_problems(data: Any) -> None:
    config, problems = structure({"server": data, "auth": data, "connectors": data, "websocket": data}, Config)
    assert isinstance(config, Config)
    assert all(problem.path for problem in problems)
