"""Download benchmark files from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from moa_graph.evals.files import EvalError


def download(repository: str, name: str, *, kind: str = "dataset", instead: str) -> Path:
    """Download a file into the cache of the hub client, unless it is cached.

    Args:
        repository: Name of the repository, such as `"tatsu-lab/alpaca_eval"`.
        name: Path of the file in the repository.
        kind: `"dataset"` or `"space"`.
        instead: Alternative to the hub, added to the error message.

    Raises:
        EvalError: If the file cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - needs [evals]

    try:
        if not is_available(repository, name, kind=kind):
            raise ConnectionError("it is not reachable from here")  # noqa: TRY301
        return Path(hf_hub_download(repo_id=repository, filename=name, repo_type=kind))
    except Exception as error:  # noqa: BLE001 - the hub client raises many types
        told = str(error).strip().splitlines() or [""]
        raise EvalError(
            f"{name} of {repository} cannot be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {told[0]}). {instead}"
        ) from None


def is_available(repository: str, name: str, *, kind: str = "dataset") -> bool:
    """Return whether a file is in the cache or the hub is reachable.

    The hub client retries for half a minute; this check sends one request.
    """
    import httpx  # noqa: PLC0415 - needs [evals]
    from huggingface_hub import constants, try_to_load_from_cache  # noqa: PLC0415

    if isinstance(try_to_load_from_cache(repository, name, repo_type=kind), str):
        return True
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        httpx.head(constants.ENDPOINT, timeout=5, follow_redirects=False)
    except httpx.HTTPError:
        return False
    return True
