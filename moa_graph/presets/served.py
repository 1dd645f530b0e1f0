"""Ask providers which models they serve, each with its own key at its own address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from moa_graph.errors import explain
from moa_graph.models.providers import PROVIDERS, Environment, Provider, wrong_keys
from moa_graph.models.this_machine import is_here

_TIMEOUT = 20.0  # seconds
_MOST_PAGES = 50
_DATE = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}(?:-v\d+)?(?::\d+)?")


@dataclass(frozen=True)
class _List:
    """Where a provider lists its models, if no variable has another base URL."""

    base: str
    path: str = "/models"
    header: str = "Authorization"
    """Header with the key."""
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None


_LISTS = {
    "together": _List("https://api.together.xyz/v1"),
    "openai": _List("https://api.openai.com/v1"),
    "anthropic": _List(
        "https://api.anthropic.com",
        "/v1/models",
        "x-api-key",
        {"limit": "1000"},
        {"anthropic-version": "2023-06-01"},
    ),
    "google_genai": _List(
        "https://generativelanguage.googleapis.com",
        "/v1beta/models",
        "x-goog-api-key",
        {"pageSize": "1000"},
    ),
    "openrouter": _List("https://openrouter.ai/api/v1"),
    "groq": _List("https://api.groq.com", "/openai/v1/models"),
    "mistralai": _List("https://api.mistral.ai/v1"),
    "deepseek": _List("https://api.deepseek.com/v1"),
    "xai": _List("https://api.x.ai/v1"),
    "fireworks": _List("https://api.fireworks.ai/inference/v1"),
}


class CannotTell(RuntimeError):
    """A provider's models are not known; the message says why."""


def served(
    environment: Environment, names: Iterable[str] = tuple(PROVIDERS)
) -> dict[str, set[str] | CannotTell]:
    """Ask the providers whose keys are set which models they serve, all at the same time.

    Args:
        environment: Environment variables.
        names: Names of the providers to ask, as in `PROVIDERS`.

    Returns:
        By provider: the names of its models, or why they are not known. Providers without a key
        are not asked and not in it.
    """
    asked = [PROVIDERS[name] for name in names if PROVIDERS[name].key_in(environment)]

    def ask(provider: Provider) -> set[str] | CannotTell:
        try:
            return _SPECIAL.get(provider.name, _listed)(provider, environment)
        except CannotTell as error:
            return error
        except Exception as error:  # noqa: BLE001 - each client has its own errors
            return CannotTell(
                explain(error, [environment[n] for n in provider.key_in(environment)])
            )

    with ThreadPoolExecutor(max_workers=max(1, len(asked))) as threads:
        return dict(zip([p.name for p in asked], threads.map(ask, asked), strict=True))


def is_served(model: str, known: set[str]) -> bool:
    """Return whether a model is in a provider's list, which may have only its dated name.

    Args:
        model: Name of the model, without the provider.
        known: Names in the list.
    """
    return model in known or any(
        name.startswith(model) and _DATE.fullmatch(name.removeprefix(model)) for name in known
    )


def _listed(provider: Provider, environment: Environment) -> set[str]:
    place = _LISTS[provider.name]
    base = provider.base_in(environment) or place.base
    if told := wrong_keys(f"{provider.name}:", {}, environment):
        raise CannotTell(told)
    key = environment[provider.key_in(environment)[0]].strip()
    sent = f"Bearer {key}" if place.header == "Authorization" else key
    headers = {place.header: sent, **(place.headers or {})}
    # A redirect would take the key to another address; a proxy, what is meant for this machine.
    options: dict[str, Any] = {"follow_redirects": False, "trust_env": not is_here(base)}
    with httpx.Client(headers=headers, timeout=_TIMEOUT, **options) as client:
        return _pages(client, base.rstrip("/") + place.path, dict(place.params or {}))


def _pages(client: httpx.Client, url: str, params: dict[str, str]) -> set[str]:
    found: set[str] = set()
    for _ in range(_MOST_PAGES):
        response = client.get(url, params=params)
        if response.is_redirect:
            raise CannotTell(f"{url} redirects to another address, which is not asked")
        response.raise_for_status()
        try:
            body = response.json()
        except (ValueError, RecursionError):
            body = None
        is_object = isinstance(body, Mapping)
        entries = (body.get("data") or body.get("models") or []) if is_object else body
        if not isinstance(entries, list):
            raise CannotTell(f"{url} does not answer with a list of models")
        found |= {name for entry in entries for name in _names(entry)}
        more = {} if isinstance(body, list) else _next_page(body)
        if not more:
            break
        params |= more
    if not found:
        raise CannotTell(f"{url} lists no models")
    return found


def _names(entry: Any) -> set[str]:
    """Return the names of a model, of which some providers tell several."""
    if not isinstance(entry, Mapping):
        return set()
    others = entry.get("aliases")
    given = [entry.get("id"), entry.get("name"), *(others if isinstance(others, list) else ())]
    return {name.removeprefix("models/") for name in given if isinstance(name, str)}


def _next_page(body: Mapping[str, Any]) -> dict[str, str]:
    if body.get("has_more") and body.get("last_id"):
        return {"after_id": str(body["last_id"])}
    if body.get("nextPageToken"):
        return {"pageToken": str(body["nextPageToken"])}
    return {}


def _of_bedrock(provider: Provider, environment: Environment) -> set[str]:
    if not provider.is_installed:
        raise CannotTell(f"it needs a package: pip install {provider.package}")
    import boto3  # noqa: PLC0415 - langchain-aws installs it

    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    client = boto3.client("bedrock", region_name=region)
    models = client.list_foundation_models()["modelSummaries"]
    pages = client.get_paginator("list_inference_profiles").paginate()
    profiles = [profile for page in pages for profile in page["inferenceProfileSummaries"]]
    return {m["modelId"] for m in models} | {p["inferenceProfileId"] for p in profiles}


def _of_azure(provider: Provider, environment: Environment) -> set[str]:
    del provider, environment
    raise CannotTell("a key cannot list the deployments of its resource")


_SPECIAL: dict[str, Callable[[Provider, Environment], set[str]]] = {
    "azure_openai": _of_azure,
    "bedrock_converse": _of_bedrock,
}
