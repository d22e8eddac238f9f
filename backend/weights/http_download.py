"""Downloads one file over HTTP. A download that was interrupted goes on where it ended. Uses the standard library alone."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import UserError
from ..progress import Bytes, size_text

TIMEOUT = 15.0  # seconds without a byte until an attempt ends
CHUNK = 1 << 18
FRUITLESS = 4  # attempts in a row without a new byte until the download fails
ATTEMPTS = 50  # at most
PAUSE = 0.5  # seconds before the second attempt, doubled for each after it
SPARE = 200_000_000  # bytes to leave free on the disk
RETRY_CODES = {408, 425, 429, 500, 502, 503, 504}  # status codes after which another attempt may succeed
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
PAST_END = re.compile(r"bytes \*/(\d+)")
BLOCK = 1 << 22
SHA256 = re.compile(r'^(?:W/)?"?([0-9a-f]{64})"?$')


class Dropped(Exception):
    """An attempt ended early. The next one goes on from there."""


class _PastEnd(Exception):
    """The server has no bytes after those on the disk. length: of the whole file, 0 if the server does not state it."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


@dataclass(eq=False)
class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, but not from https to http. sha256: of the file, if the hub states it on the way."""

    sha256: str = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.sha256 = self.sha256 or _published_sha256(headers)
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (scheme == "http" and urlsplit(req.full_url).scheme == "https"):
            raise UserError(
                f"{urlsplit(req.full_url).netloc} redirects to the unsafe address '{newurl[:80]}': use another mirror."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _published_sha256(headers: Any) -> str:
    """The SHA-256 that the hub states for large files in a header of its own, or ''."""
    found = SHA256.match(headers.get("X-Linked-ETag", ""))
    return found[1] if found else ""


@dataclass(frozen=True)
class _Part:
    """The begun download of the file `whole`, and a JSON file beside it with its address, version and published SHA-256."""

    whole: Path
    name: str  # for the user

    @property
    def path(self) -> Path:
        return self.whole.with_name(f"{self.whole.name}.part")

    @property
    def about(self) -> Path:
        return self.whole.with_name(f"{self.whole.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def known(self, url: str) -> dict[str, str]:
        """Version and published SHA-256 of the begun download, if it came from this address; else empty."""
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            return {key: str(about[key]) for key in ("version", "published")} if about["url"] == url else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def begin(self, url: str, version: str, published: str) -> None:
        # first, so that old bytes, or a whole file from another address, never lie beside the new version
        self.whole.unlink(missing_ok=True)
        self.path.write_bytes(b"")
        self.about.write_text(json.dumps({"url": url, "version": version, "published": published}), encoding="utf-8")

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Delete what `download` has written for `path`, complete or not."""
    path.unlink(missing_ok=True)
    _Part(path, "").drop()


def download(url: str, path: Path, name: str) -> Generator[Bytes, None, str]:
    """Download `url` to `path`. Yields (bytes done, bytes in all) and returns the SHA-256 that the hub published, or ''.

    name: of the file, for the user. Closing the generator keeps the bytes in `path`.part, and the next call goes on from there. A
    complete file is not downloaded again until `discard` is called. Raises UserError: no connection, file not found, no space,
    disk not writable, connection that keeps breaking.
    """
    part, fruitless, reason = _Part(path, name), 0, ""
    if path.is_file() and (known := part.known(url)):
        return known["published"]
    for _ in range(ATTEMPTS):
        before = part.size
        try:
            with closing(_attempt(url, part)) as work:
                published = yield from work
            part.path.replace(path)
            return published
        except Dropped as error:
            fruitless = 0 if part.size > before else fruitless + 1
            reason = str(error)
        except OSError as error:
            raise UserError(
                f"'{path}' cannot be written ({error.strerror or error}): choose another folder for the weights."
            ) from error
        if fruitless >= FRUITLESS:
            break
        yield from _pause(PAUSE * 2**fruitless, part.size)
    kept = f"; {size_text(part.size)} are kept" if part.size else ""
    raise UserError(f"{name} does not arrive from {urlsplit(url).netloc} ({reason}){kept}: try again later, or set a mirror.")


def _pause(seconds: float, done: int) -> Generator[Bytes, None, None]:
    """Wait in short steps, so that the caller can cancel."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield done, 0
        time.sleep(0.05)


def _attempt(url: str, part: _Part) -> Generator[Bytes, None, str]:
    part.path.parent.mkdir(parents=True, exist_ok=True)
    version = part.known(url).get("version", "") if part.size else ""  # no version, no resuming
    headers = {"User-Agent": "AnyRig", "Accept-Encoding": "identity"}
    if version:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": version}
    redirects = _Redirects()
    try:
        response = _open_url(urllib.request.Request(url, headers=headers), redirects, part)
    except _PastEnd as beyond:
        published = redirects.sha256 or part.known(url).get("published", "")
        yield from _check_complete(part, beyond.length, published)
        return published
    with response:
        published = redirects.sha256 or _published_sha256(response.headers)
        start, total = _received_range(response, part)
        _check_space(part, total - start)
        if start == 0:
            part.begin(url, _validator(response.headers), published)
        yield from _receive(response, part, start, total)
    return published


def _open_url(request: urllib.request.Request, redirects: _Redirects, part: _Part) -> http.client.HTTPResponse:
    host = urlsplit(request.full_url).netloc
    secure = urllib.request.HTTPSHandler(context=authorities())
    try:
        return urllib.request.build_opener(redirects, secure).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise _error_for(error, host, part) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            problem = error.reason.verify_message
            raise UserError(
                f"{host} cannot be trusted ({problem}): check this computer's clock and proxy, or use another mirror."
            ) from error
        raise Dropped(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(_reason_of(error)) from error
    except ValueError as error:  # the address has characters that are not allowed
        raise UserError(f"'{request.full_url}' is not an address ({error}): use another mirror.") from error


def authorities() -> ssl.SSLContext:
    """The certificates to trust: the system's, or certifi's where Python finds none, as in Blender on macOS. Blender ships certifi."""
    context, paths = ssl.create_default_context(), ssl.get_default_verify_paths()
    if sys.platform != "win32" and not (paths.cafile or paths.capath) and find_spec("certifi"):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _error_for(error: urllib.error.HTTPError, host: str, part: _Part) -> Exception:
    """The exception for an answer without a file: `Dropped` if another attempt may succeed, else UserError."""
    if error.code == 416:
        found = PAST_END.match(error.headers.get("Content-Range", ""))
        return _PastEnd(int(found[1]) if found else 0)
    if error.code in RETRY_CODES:
        return Dropped(f"{error.code} {error.reason}")
    if error.code in (301, 302, 303, 307, 308):
        where = "to an unsafe address" if "not allowed" in error.msg else "in circles"
        return UserError(f"{host} sends the download of {part.name} {where}: use another mirror.")
    why = {401: "needs a login", 403: "refuses it", 404: "does not have it", 410: "no longer has it"}.get(error.code, "answers")
    return UserError(
        f"{part.name} cannot be downloaded: {host} {why} ({error.code} {error.reason}); use another mirror, or your own file."
    )


def _check_complete(part: _Part, length: int, published: str) -> Generator[Bytes, None, None]:
    """Raises Dropped if the bytes on the disk are not the whole file, by its length and its published SHA-256.

    Their version is right: the server would have sent another version from the beginning (If-Range).
    """
    if 0 < part.size == length and (not published or (yield from digest(part.path)) == published):
        return
    part.drop()
    raise Dropped("the bytes on the disk were not the file")


def digest(path: Path) -> Generator[Bytes, None, str]:
    """Compute the SHA-256 of a file. Yields (bytes done, bytes in all)."""
    sha256, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha256.update(block)
            done += len(block)
            yield done, total
    return sha256.hexdigest()


def _received_range(response: http.client.HTTPResponse, part: _Part) -> tuple[int, int]:
    """-> the place of the first byte of the answer, and the length of the whole file (0: unknown)."""
    if response.status != 206:
        return 0, response.length or 0
    found = RANGE.match(response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != part.size:
        part.drop()
        raise Dropped("the server resumes at the wrong place")
    return part.size, int(found[3])


def _validator(headers: Any) -> str:
    """The value for If-Range: a strong ETag, else the date."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _check_space(part: _Part, coming: int) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if coming + SPARE > free:
        needed = size_text(coming + SPARE)
        raise UserError(
            f"{part.name} needs {needed} in '{part.path.parent}', where {size_text(free)} are free: make room or choose another folder."
        )


def _receive(response: http.client.HTTPResponse, part: _Part, done: int, total: int) -> Generator[Bytes, None, None]:
    with part.path.open("ab") as file:
        yield done, total
        while chunk := _read_chunk(response):
            file.write(chunk)
            done += len(chunk)
            yield done, total
    if total and done < total:
        raise Dropped(f"the connection ended after {size_text(done)} of {size_text(total)}")
    if total and done > total:
        part.drop()
        raise Dropped(f"more arrived than the announced {size_text(total)}")


def _read_chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Dropped(_reason_of(error)) from error


def _reason_of(error: BaseException) -> str:
    return str(error) or type(error).__name__
