"""Reading the configuration: the file, what the environment overrides of it, and every fault of both at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from broker.config import reading, rules
from broker.config.environ import override
from broker.config.reading import Problem
from broker.config.schema import Config, PresenceConfig
from broker.core import toml
from broker.core.errors import Fault, FaultyFile


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read the configuration file at `path`, and what `environ` overrides of it.

    Raises FaultyFile with every fault at once, also where there is no such file.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise FaultyFile(
            str(path), [Fault("", "there is no such file", hint="`broker config init` writes one")]
        ) from None
    except UnicodeDecodeError as error:
        raise FaultyFile(
            str(path), [Fault("", f"is not UTF-8, at byte {error.start}", hint="save it as UTF-8")]
        ) from None
    except OSError as error:
        raise FaultyFile(str(path), [Fault("", f"can't be read: {error.strerror}")]) from None
    return parse_config(text, str(path), path.absolute().parent, environ)


def parse_config(text: str, file: str, folder: Path, environ: Mapping[str, str]) -> Config:
    """Read configuration from `text`; `file` names it in faults, relative paths are taken from `folder`.

    Raises FaultyFile with every fault at once.
    """
    document = toml.parse(text, file)
    overridden = override(document.data, Config, environ)
    config, misread = reading.structure(overridden.data, Config)
    if "presence" not in overridden.data:
        config = attrs.evolve(config, presence=PresenceConfig(enabled=bool(config.handlers.modules)))
    problems = overridden.problems + misread
    spoiled = {problem.key for problem in problems}
    problems += [problem for problem in rules.check(config) if not spoiled & {problem.key, *problem.also}]
    if problems:
        raise FaultyFile(file, [_fault(problem, document, overridden.origins) for problem in problems])
    return reading.resolve(config, folder)


def _fault(problem: Problem, document: toml.Document, origins: Mapping[toml.Path, str]) -> Fault:
    for end in range(len(problem.path), 0, -1):
        variable = origins.get(problem.path[:end])
        if variable is not None:
            return Fault(variable, problem.message, None, problem.hint)
    return Fault(toml.show_path(problem.path), problem.message, document.line(problem.path), problem.hint)
