"""Download weights into the caches of PyTorch and Hugging Face, with short timeouts and one-line errors."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch

from seewhy import storage
from seewhy.errors import ModelError, OfflineError, shorten_error
from seewhy.terminal.streams import styled_stream

Log = Callable[[str], None]

TIMEOUT_SECONDS = 4.0  # a server that does not answer within this time counts as unreachable
CHUNK_BYTES = 1 << 20


def download_from_url(url: str, model: str, log: Log) -> Path:
    """Return the file at `url` from PyTorch's cache; download it first if it is not there.

    Raises `OfflineError` if the download is needed and fails, `ModelError` for a wrong hash.
    """
    name = os.path.basename(urlsplit(url).path)
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.exists():
        return path
    remedy = (
        f"download {url} on another machine and copy it to {path.parent}, pass your own weights "
        f"('weights.safetensors?arch={model}'), or omit the model to use the embedded one"
    )
    if problem := find_connection_problem(url):
        raise OfflineError(model, f"its weights {name} are not on this machine, and {problem}; {remedy}")
    log(f"downloading {name} from {urlsplit(url).hostname} to {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # PyTorch's file names end with the first 8 or more digits of the SHA-256. Fewer are no hash: '-300e.pth' = epochs.
    prefix = re.search(r"-([0-9a-f]{8,})\.", name)
    partial = path.with_name(f"{name}.{uuid.uuid4().hex}.partial")
    storage.unfinished.add(partial)
    try:
        digest = download_file(url, partial)
        if prefix and not digest.startswith(prefix[1]):
            raise ModelError(model, f"the SHA-256 of {url} ({digest}) does not match its name; the file was deleted")
        os.replace(partial, path)
    except (OSError, http.client.HTTPException) as error:
        raise OfflineError(model, f"{url} could not be downloaded ({describe_error(error)}); {remedy}") from None
    finally:
        partial.unlink(missing_ok=True)
        storage.unfinished.discard(partial)
    return path


# torch.hub.download_url_to_file (2.14) has no timeout and keeps a truncated file that has no hash in its name, and
# huggingface_hub downloads only from its hub. So this download is ours. Neither torch.hub nor this function retries.
def download_file(url: str, path: Path) -> str:
    """Download `url` to `path`, with a progress bar if stderr is a terminal, and return its SHA-256."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    digest = hashlib.sha256()
    bar_file = styled_stream(sys.stderr)
    with urllib.request.urlopen(make_request(url), timeout=TIMEOUT_SECONDS * 5) as reply, path.open("wb") as file:
        size = int(reply.headers["Content-Length"]) if reply.headers["Content-Length"] else None
        with tqdm(total=size, disable=None, file=bar_file, unit="B", unit_scale=True, leave=False) as bar:
            while chunk := reply.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
        # http.client does not report a connection that ends early.
        if size is not None and file.tell() != size:
            raise OSError(f"the connection ended after {file.tell()} of {size} bytes")
    return digest.hexdigest()


def download_from_hub(
    repo: str, names: Sequence[str], model: str, log: Log, revision: str | None = None, remedy: str = ""
) -> Path:
    """Return the first of the files `names` that a Hugging Face repository has, from the local cache or downloaded.

    Without a network, the hub's own client retries five times (over 8 s) before it fails. So this function looks into
    the cache first, then checks the connection once. Raises `OfflineError` like `download_from_url`; `remedy` is the
    advice in its message.
    """
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cached = [try_to_load_from_cache(repo, name, revision=revision) for name in names]
    if path := next((path for path in cached if isinstance(path, str)), None):
        return Path(path)
    remedy = remedy or (
        f"on another machine run 'hf download {repo} {names[0]}' and pass that file ('{names[0]}?arch={model}'), "
        "or omit the model to use the embedded one"
    )
    # The cache records files that a commit does not have. A commit never changes, so they stay absent.
    is_absent = None not in cached and re.fullmatch("[0-9a-f]{40}", revision or "")
    url = hf_hub_url(repo, names[0], revision=revision)
    if not is_absent:
        problem = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else find_connection_problem(url)
        if problem:
            raise OfflineError(
                model, f"{names[0]} of {repo} (Hugging Face) is not on this machine, and {problem}; {remedy}"
            )
        log(f"downloading {repo} from {urlsplit(constants.ENDPOINT).hostname} to {constants.HF_HUB_CACHE}")
    for name in () if is_absent else names:
        try:
            with contextlib.redirect_stderr(
                styled_stream(sys.stderr)
            ):  # a terminal, in which its progress bar is shown
                return Path(hf_hub_download(repo, name, revision=revision))
        except Exception as error:  # the client's own errors, and those of httpx and the system
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # the server answered that it has no such file
            if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
                kind = "revision" if isinstance(error, RevisionNotFoundError) else "repository, or it is private"
                raise ModelError(model, f"{urlsplit(url).hostname} has no such {kind}; check the name") from None
            raise OfflineError(model, f"{repo} could not be downloaded ({describe_error(error)}); {remedy}") from None
    raise ModelError(model, f"the Hugging Face repository {repo} has none of {', '.join(names)}; {remedy}")


def find_connection_problem(url: str, seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Return why the server of `url` does not answer within `seconds`, or None if it gives any answer."""
    results: list[str | None] = []

    def send_request() -> None:
        try:
            urllib.request.urlopen(make_request(url, "HEAD"), timeout=seconds).close()
            results.append(None)
        except urllib.error.HTTPError as error:
            error.close()
            results.append(None)
        except Exception as error:
            results.append(describe_error(error))

    # getaddrinfo has no timeout, so run it in a thread.
    thread = threading.Thread(target=send_request, daemon=True)
    thread.start()
    thread.join(seconds)
    reason = results[0] if results else f"no answer in {seconds:.0f} s"
    return reason and f"{urlsplit(url).hostname} cannot be reached ({reason})"


def make_request(url: str, method: str = "GET") -> urllib.request.Request:
    return urllib.request.Request(url, headers={"User-Agent": "seewhy"}, method=method)


def describe_error(error: Exception) -> str:
    """Return the first sentence of a network error, without the wrapper "<urlopen error ...>"."""
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return shorten_error(error.reason) if isinstance(error.reason, BaseException) else str(error.reason)
    return shorten_error(error)
