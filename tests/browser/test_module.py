"""The module as a file: small, declared in full, and with the patterns of the broker."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from itertools import product
from pathlib import Path
from random import Random

from broker.core import patterns
from tests.browser.pages import MODULE, Page
from tests.needing import needed

DECLARATIONS = MODULE.with_suffix(".d.ts")
MOST_BYTES = 6_000  # compressed as a proxy would; an image of a page is larger

WORDS = ["*", "**", "a", "b"]
NAMES = ["a", "b", "c"]

# What a page written in TypeScript does; it has to be right, but for the last line, which has to be wrong.
PROGRAM = """
import { BrokerError, Client, connect, matches } from "./client.js";

const client: Client = connect("https://events.example", { token: async () => "token", timeout: 5000 });
const games = client.subscribe<{ name: string }>("games.*", ({ event, data, id }) => event + data.name.length + id);
games.ready.catch((error: BrokerError) => error.code);
client.on("open", () => client.publish("a", { b: 1 }, { id: "7" }).then((id: string) => id));
client.on("close", ({ code, reason, retryIn }) => [code.toFixed(), reason.length, retryIn]);
client.on("error", ({ fatal, pattern }) => fatal || pattern)();
client.on("message", (message) => {
  if (message instanceof ArrayBuffer) return message.byteLength;
  return typeof message === "string" ? message.length : (message as { event: string }).event;
});
client.command<number>("add", [1, 2], { timeout: 700 }).then((sum) => sum.toFixed());
games.unsubscribe();
client.close();
export const others = [connect(), connect({ path: "live" }), connect(new URL("ws://x")), matches("a", "b")];
"""
WRONG = 'client.on("opne", () => 0);\n'


def test_it_is_small() -> None:
    assert len(gzip.compress(MODULE.read_bytes(), 9)) < MOST_BYTES


def test_it_needs_no_other_module() -> None:
    assert re.findall(r"^\s*import\b|\bimport\(|\brequire\(", MODULE.read_text(encoding="utf-8"), re.MULTILINE) == []


def test_everything_that_it_exports_is_declared() -> None:
    exported = set(re.findall(r"^export (?:class|function) (\w+)", MODULE.read_text(encoding="utf-8"), re.MULTILINE))
    declared = re.findall(
        r"^export declare (?:class|function) (\w+)", DECLARATIONS.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert exported == set(declared) == {"BrokerError", "connect", "matches"}


def test_what_a_client_can_do_is_declared() -> None:
    text = MODULE.read_text(encoding="utf-8")
    client = text[text.index("class Client {") : text.index("\nclass Held")]
    can = set(re.findall(r"^  (?:async )?([a-z]\w*)\(.*\{$", client, re.MULTILINE)) - {"constructor"}
    declared = DECLARATIONS.read_text(encoding="utf-8").partition("export interface Client {")[2].partition("\n}")[0]
    assert can == set(re.findall(r"^  (\w+)[<(]", declared, re.MULTILINE))


def test_everything_that_a_client_tells_is_declared() -> None:
    listeners = MODULE.read_text(encoding="utf-8").partition("#listeners = {")[2].partition("};")[0]
    told = set(re.findall(r"(\w+): new Set", listeners))
    events = DECLARATIONS.read_text(encoding="utf-8").partition("interface ClientEvents {")[2].partition("\n}")[0]
    assert told == set(re.findall(r"^  (\w+): ", events, re.MULTILINE)) > {"message"}


def test_the_declarations_let_a_right_program_pass_and_a_wrong_one_not(tmp_path: Path) -> None:
    tsc = shutil.which("tsc")
    needed("there is no TypeScript (on Debian: apt-get install node-typescript)" if tsc is None else None)
    assert tsc is not None
    shutil.copy(DECLARATIONS, tmp_path)
    (tmp_path / "page.ts").write_text(PROGRAM + WRONG)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "es2022", "--moduleResolution", "node"]
    done = subprocess.run([tsc, *options, "page.ts"], cwd=tmp_path, capture_output=True, text=True, check=False)
    line = PROGRAM.count("\n") + 1
    assert re.fullmatch(rf"page\.ts\({line},\d+\): error .*\n(?:  .*\n)*", done.stdout), done.stdout


async def assert_matches_as_the_broker_does(page: Page, pairs: list[tuple[str, str]]) -> None:
    await page.do("match", pairs=pairs)
    told = (await page.told())["matches"]
    expected = [patterns.matches(pattern, name) for pattern, name in pairs]
    assert [pair for pair, one, other in zip(pairs, told, expected, strict=True) if one != other] == []


async def test_patterns_match_what_they_match_in_the_broker(page: Page) -> None:
    """All of up to four segments against all of up to five."""
    every_pattern = [".".join(words) for length in range(1, 5) for words in product(WORDS, repeat=length)]
    every_name = [".".join(words) for length in range(1, 6) for words in product(NAMES, repeat=length)]
    await assert_matches_as_the_broker_does(page, list(product(every_pattern, every_name)))


async def test_long_patterns_match_what_they_match_in_the_broker(page: Page) -> None:
    chance = Random(7)
    long_patterns = [chance.choices(WORDS, k=chance.randint(1, 9)) for _ in range(20_000)]
    names = [chance.choices("ab", k=chance.randint(1, 12)) for _ in range(20_000)]
    pairs = [(".".join(pattern), ".".join(name)) for pattern, name in zip(long_patterns, names, strict=True)]
    await assert_matches_as_the_broker_does(page, pairs)


async def test_wildcards_do_not_match_the_broker_s_own_names(page: Page) -> None:
    own = ["broker.started", "broker.a.b", "broker.", "broker", "brokers.a"]
    words = ["**", "*", "broker.*", "broker.**", "*.started", "**.b", "brokers.*", *own]
    await assert_matches_as_the_broker_does(page, list(product(words, own)))


async def test_long_patterns_take_no_longer_than_they_have_to(page: Page) -> None:
    """Of a kind that takes for ever where each wildcard tries everything again."""
    pattern, name = ".".join(["**", "a"] * 50), ".".join(["a"] * 127)
    await page.do("match", pairs=[(pattern, name), (pattern, f"{name}.b")])
    assert (await page.told())["matches"] == [True, False]
