"""Bring a model's folder from the hub: for a connected machine, and only when asked to.

This is the one place of pixsieve that uses a network. Taken are safetensors and JSON files of one
commit; what the hub says of their SHA-256 is checked, and all is noted in ``pixsieve.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from pixsieve.errors import StorageError, UsageError
from pixsieve.models.folder import ELSEWHERE, HUB_NAME, KNOWN, RECORD, read_json, sha256, ways_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPMessage
    from pathlib import Path
    from typing import IO

HUB: Final = "https://huggingface.co"
_WEIGHTS: Final = re.compile(r"(open_clip_)?model(-\d+-of-\d+)?\.safetensors")
_BLOCK: Final = 1024 * 1024
_TIMEOUT: Final = 60  # seconds without an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What :func:`fetch` brought: revision, and SHA-256 of each file."""

    folder: Path
    revision: str
    files: dict[str, str]


def fetch(
    name: str,
    root: Path,
    *,
    revision: str | None = None,
    hub: str = HUB,
    progress: Callable[[str, int], None] = lambda _file, _size: None,
) -> Fetched:
    """Bring a model to ``root/name``; files that are there already, and right, are kept.

    Args:
        name: Name on the hub, ``owner/model``.
        root: The folder of models.
        revision: Branch, tag or commit; ``None`` for the one that pixsieve knows, or ``main``.
        hub: Where from.
        progress: Told the name and size of each file before it is brought.

    Raises:
        UsageError: for a name that cannot be, or a model without safetensors.
        StorageError: if the hub cannot be reached, or gives what it did not promise.
    """
    if name in ELSEWHERE:
        msg = f"{name} is not on the hub. {ways_to(name, root)}"
        raise UsageError(msg)
    if not HUB_NAME.fullmatch(name):
        msg = f"{name!r} is no name of a model on the hub; expected owner/model"
        raise UsageError(msg)
    opener = urllib.request.build_opener(_SameScheme)
    wanted = revision or KNOWN.get(name, "main")
    listed = _listing(opener, f"{hub}/api/models/{name}/revision/{quote(wanted, safe='')}?blobs=1")
    commit, files = _choose(name, listed)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    for file, promised in files.items():
        target = folder / file
        noted = read_json(folder / RECORD).get("files")
        known = promised or (noted.get(file) if isinstance(noted, dict) else None)
        if not (target.is_file() and known == sha256(target)):
            progress(file, listed_size(listed, file))
            _download(opener, f"{hub}/{name}/resolve/{commit}/{quote(file)}", target, promised)
        digests[file] = sha256(target)
    record = {"name": name, "revision": commit, "files": digests}
    _write(folder / RECORD, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return Fetched(folder=folder, revision=commit, files=digests)


def listed_size(listed: dict[str, object], file: str) -> int:
    """Return how large the hub says a file is; 0 if it does not say."""
    siblings = listed.get("siblings")
    for each in siblings if isinstance(siblings, list) else []:
        if isinstance(each, dict) and each.get("rfilename") == file:
            size = each.get("size")
            return size if isinstance(size, int) else 0
    return 0


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirection, but never from an encrypted address to one that is not."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            text = f"{req.full_url} redirects to another scheme ({newurl}); not followed"
            raise StorageError(text)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _listing(opener: urllib.request.OpenerDirector, address: str) -> dict[str, object]:
    try:
        with opener.open(address, timeout=_TIMEOUT) as answer:
            found = json.load(answer)
    except (OSError, ValueError) as error:
        msg = f"{address} cannot be read: {error}; is there a network, and the model?"
        raise StorageError(msg) from error
    if not isinstance(found, dict):
        msg = f"{address} gave no list of files"
        raise StorageError(msg)
    return found


def _choose(name: str, listed: dict[str, object]) -> tuple[str, dict[str, str | None]]:
    """Return the commit, and the files to bring with the SHA-256 that the hub says they have."""
    commit, siblings = listed.get("sha"), listed.get("siblings")
    if not isinstance(commit, str) or not isinstance(siblings, list):
        msg = f"the hub says neither commit nor files of {name}"
        raise StorageError(msg)
    files: dict[str, str | None] = {}
    for each in siblings:
        file = each.get("rfilename") if isinstance(each, dict) else None
        if not isinstance(file, str) or "/" in file or file.startswith("."):
            continue
        plain = file.endswith(".json") and not file.endswith(".bin.index.json") and file != RECORD
        if plain or _WEIGHTS.fullmatch(file):
            stored = each.get("lfs")
            digest = stored.get("sha256") if isinstance(stored, dict) else None
            files[file] = digest if isinstance(digest, str) else None
    if "model.safetensors" in files or "model.safetensors.index.json" in files:
        files.pop("open_clip_model.safetensors", None)  # the same weights once more
        files.pop("open_clip_config.json", None)
    if not any(file.endswith(".safetensors") for file in files):
        msg = (
            f"{name} has no safetensors on the hub, and pixsieve takes no pickles; look for a "
            f"conversion of it, or convert the weights with: pixsieve models convert FILE OUT"
        )
        raise UsageError(msg)
    return commit, files


def _download(
    opener: urllib.request.OpenerDirector, address: str, target: Path, promised: str | None
) -> None:
    """Write a file whole or not at all."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    digest, stated, size = hashlib.sha256(), None, 0
    try:
        with opener.open(address, timeout=_TIMEOUT) as answer, temporary.open("xb") as file:
            stated = answer.headers.get("Content-Length")
            while block := answer.read(_BLOCK):
                digest.update(block)
                size += file.write(block)
            file.flush()
            os.fsync(file.fileno())
        found = digest.hexdigest()
        if fault := _fault(size, stated, found, promised):
            msg = f"{address} gave {fault}; try again"
            raise StorageError(msg)  # noqa: TRY301  # the file that came is removed either way
        temporary.replace(target)
    except StorageError:
        raise
    except OSError as error:
        msg = f"{address} could not be brought to {target}: {error}"
        raise StorageError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)


def _fault(size: int, stated: str | None, found: str, promised: str | None) -> str | None:
    """Say what is wrong with a file that came, if anything."""
    if stated is not None and size != int(stated):
        return f"{size} of {stated} bytes"
    if promised is not None and found != promised:
        return f"a file of SHA-256 {found}, but the hub promised {promised}"
    return None


def _write(target: Path, data: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    temporary.write_bytes(data)
    temporary.replace(target)
