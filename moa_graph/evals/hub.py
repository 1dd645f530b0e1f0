"""Files of benchmarks on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from moa_graph.evals.files import EvalError


def download(repository: str, name: str, *, kind: str = "dataset", instead: str) -> Path:
    """Fetch a file once, into the hub's own cache.

    Args:
        repository: Such as `"tatsu-lab/alpaca_eval"`.
        name: The file's path in it.
        kind: `"dataset"` or `"space"`.
        instead: What to do without the hub; the error says it.

    Raises:
        EvalError: If it cannot be had.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - with [evals]

    try:
        if not is_available(repository, name, kind=kind):
            raise ConnectionError("it is not reachable from here")  # noqa: TRY301
        return Path(hf_hub_download(repo_id=repository, filename=name, repo_type=kind))
    except Exception as error:  # noqa: BLE001 - the hub's client raises many kinds
        told = str(error).strip().splitlines() or [""]
        raise EvalError(
            f"{name} of {repository} cannot be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {told[0]}). {instead}"
        ) from None


def is_available(repository: str, name: str, *, kind: str = "dataset") -> bool:
    """Return whether a file is in the cache, or the hub can be reached for it.

    The hub's client tries for half a minute; this asks once.
    """
    import httpx  # noqa: PLC0415 - with [evals]
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
