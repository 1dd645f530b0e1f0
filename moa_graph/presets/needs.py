"""What a mixture needs that is not there: packages, and environment variables with keys."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from moa_graph.errors import explain
from moa_graph.models import build_chat_model, local
from moa_graph.models.providers import (
    Environment,
    Provider,
    has_credentials,
    provider_named,
    wrong_keys,
)
from moa_graph.models.text import sentence
from moa_graph.presets.configuration import Configuration

_PACKAGE = re.compile(r"pip install [\"'`]?([A-Za-z][\w.-]*(?:\[[\w,-]+\])?)")
_AWS_REGION = "specify a region"  # in the error of Amazon's client
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:KEY|TOKEN|REGION|ENDPOINT|URL)\b")


@dataclass(frozen=True)
class Needs:
    """Packages to install and variables to set, and nothing if it is false."""

    packages: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    """Pages that explain how to get the keys."""
    other: str = ""
    """An error for which no command is known."""

    def __bool__(self) -> bool:
        return bool(self.packages or self.variables or self.other)

    @classmethod
    def of_all(cls, several: Iterable[Needs]) -> Needs:
        """Return the needs together, each once."""
        known = list(several)
        return cls(
            packages=tuple(dict.fromkeys(p for needs in known for p in needs.packages)),
            variables=tuple(dict.fromkeys(v for needs in known for v in needs.variables)),
            sites=tuple(dict.fromkeys(s for needs in known for s in needs.sites)),
            other="; ".join(dict.fromkeys(needs.other for needs in known if needs.other)),
        )

    @property
    def command(self) -> str:
        """The command of a shell that helps; empty if none is known."""
        parts = []
        if self.packages:
            parts.append("pip install " + " ".join(map(_quoted, self.packages)))
        if self.variables and sys.platform == "win32":
            parts += [f'$env:{name} = "…"' for name in self.variables]
        elif self.variables:
            parts.append("export " + " ".join(f"{name}=…" for name in self.variables))
        return ("; " if sys.platform == "win32" else " && ").join(parts)

    def sentence(self, who: str) -> str:
        """Return a sentence that says what is missing.

        Args:
            who: What needs it.
        """
        parts = [
            _listed("the package", "the packages", self.packages),
            _listed("the variable", "the variables", self.variables),
        ]
        told = " and ".join(filter(None, parts))
        keys = f" (keys: {', '.join(self.sites)})" if self.variables and self.sites else ""
        if not told:
            return sentence(f"{who} cannot be used: {self.other}")
        return f"{who} needs {told}{keys}."


def needs_of(provider: Provider, environment: Environment) -> Needs:
    """Return what a provider needs before its models can be built."""
    missing = provider.missing_in(environment)
    return Needs(
        packages=() if provider.is_installed else (provider.package,),
        variables=missing,
        sites=(provider.site,) if missing else (),
    )


def needs_of_mixture(configuration: Configuration, environment: Environment) -> Needs:
    """Return what the models of a mixture need before they can be asked.

    No model is asked, and no weights are downloaded.
    """
    found = []
    seen = set()
    for spec, settings in configuration.entries():
        provider = spec.partition(":")[0].strip().lower()
        if (provider, *settings) not in seen:
            seen.add((provider, *settings))
            found.append(_needs_of_model(spec, settings, environment))
    return Needs.of_all(found)


def _needs_of_model(spec: str, settings: Mapping[str, Any], environment: Environment) -> Needs:
    if spec.startswith("local:"):
        return Needs() if local.is_installed() else Needs(packages=("moa-graph[local]",))
    if told := wrong_keys(spec, settings, environment):
        return Needs(other=told)
    provider = provider_named(spec)
    if provider is not None:
        needs = needs_of(provider, environment)
        if has_credentials(settings):
            needs = Needs(packages=needs.packages)
        elif not needs and provider.in_files and not provider.key_in(environment):
            needs = _needs_of_amazon(provider)
        if needs:
            return needs
    return _errors_of(spec, settings)


def _needs_of_amazon(provider: Provider) -> Needs:
    """Return what is needed if Amazon's client finds no credentials in its files either."""
    import boto3  # noqa: PLC0415 - langchain-aws installs it

    if boto3.Session().get_credentials() is not None:
        return Needs()
    return Needs(variables=provider.keys[0], sites=(provider.site,))


def _errors_of(spec: str, settings: Mapping[str, Any]) -> Needs:
    """Return the needs that LangChain's package tells when a model is built."""
    try:
        build_chat_model(spec, settings)
    except ImportError as error:
        packages = tuple(_PACKAGE.findall(str(error)))
        return Needs(packages=packages, other="" if packages else explain(error))
    except Exception as error:  # noqa: BLE001 - each package has its own errors
        if "Unsupported" in str(error):  # the graph's own error names the known providers
            return Needs()
        told = _without_input(error)
        if _AWS_REGION in str(told):
            return Needs(variables=("AWS_REGION",))
        variables = tuple(dict.fromkeys(_VARIABLE.findall(str(told))))[:1]
        return Needs(variables=variables, other="" if variables else f"{spec}: {explain(told)}")
    return Needs()


def _without_input(error: Exception) -> Exception:
    """Return an error of pydantic without the arguments, which may have a key."""
    if not isinstance(error, ValidationError):
        return error
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return ValueError("; ".join(problem["msg"] for problem in problems))


def _listed(one: str, many: str, names: tuple[str, ...]) -> str:
    return f"{one if len(names) == 1 else many} {', '.join(names)}" if names else ""


def _quoted(package: str) -> str:
    return f"'{package}'" if "[" in package else package
