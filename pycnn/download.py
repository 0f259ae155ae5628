"""Files by path or URL: checked, cached, never half there.

A URL's file is kept in a folder of the user's: ``$PYCNN_CACHE``, else ``$XDG_CACHE_HOME/pycnn``, else
``~/.cache/pycnn``. It is written beside its final name and renamed when complete and checked, so that an interrupted
download is never taken for the file.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit

from pycnn.arguments import as_path
from pycnn.errors import ArgumentError, FileError, FormatError

__all__ = ["cache_directory", "fetch"]

_PIECE = 1 << 20
_TIMEOUT_SECONDS = 30.0
_SCHEMES = ("https", "http", "file")
# Fewer digits say too little.
_SHORTEST_DIGEST = 8


def cache_directory() -> Path:
    """Where downloaded files are kept; it need not exist."""
    own = os.environ.get("PYCNN_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pycnn"


def is_url(source: str | os.PathLike[str]) -> bool:
    """Whether a text names a URL rather than a path."""
    return isinstance(source, str) and "://" in source


def fetch(source: str | os.PathLike[str], *, sha256: str | None = None) -> Path:
    """Find a file by path or URL.

    Args:
        source: A path, or a URL of scheme https, http (only with `sha256`) or file. What was downloaded once is taken
            from the cache.
        sha256: Digest of the content in hex, or its first 8 digits or more. A cached file of another digest is
            downloaded again.

    Returns:
        The path of a file that is complete and has the digest.

    Raises:
        FileError: The file cannot be read, or the server cannot be reached or refuses.
        FormatError: The content has another digest, or the connection ended early.
        ArgumentError: The source is neither a path nor a URL, the URL is malformed, its scheme is not accepted, it
            names a file of another machine, a server leads from https to something else and there is no digest, or
            the digest is no hex number.
    """
    digest = _as_digest(sha256)
    if not is_url(source):
        path = as_path(source, who="fetch")
        if digest is not None:
            _check(path, digest, str(path))
        return path
    url = str(source)
    parts, inner = _split(url)
    if parts.scheme not in _SCHEMES:
        raise ArgumentError(f"'{url}': scheme '{parts.scheme}' is not one of {', '.join(_SCHEMES)}")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ArgumentError(
                f"'{url}': a file of the machine '{parts.netloc}'\n  hint: file:///path is one of this machine"
            )
        path = Path(inner)
        if digest is not None:
            _check(path, digest, url)
        return path
    if parts.scheme == "http" and digest is None:
        raise ArgumentError(f"'{url}': http can be changed on its way\n  hint: give sha256=, or use https")
    # Two URLs of the same last part are two files.
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{Path(inner).name or 'file'}"
    path = cache_directory() / name
    if path.is_file() and (digest is None or _digest_of(path).startswith(digest)):
        return path
    _download(url, path, digest)
    return path


def _split(url: str) -> tuple[SplitResult, str]:
    """The parts of a URL, and its path without escapes."""
    try:
        parts = urlsplit(url)
        url.encode()
        # A property that reads the number.
        _ = parts.port
    except ValueError as error:
        raise ArgumentError(f"{url!r}: no URL: {error}") from None
    path = unquote(parts.path)
    if "\0" in path:
        raise ArgumentError(f"{url!r}: the path has a null character")
    return parts, path


def _as_digest(value: str | None) -> str | None:
    if value is None:
        return None
    digest = str(value).lower()
    if not (_SHORTEST_DIGEST <= len(digest) <= 64 and all(c in "0123456789abcdef" for c in digest)):
        raise ArgumentError(f"load_weights: sha256 must be {_SHORTEST_DIGEST} to 64 hex digits, got {value!r}")
    return digest


def _digest_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from None


def _check(path: Path, digest: str, shown: str) -> None:
    found = _digest_of(path)
    if not found.startswith(digest):
        raise FormatError(f"'{shown}': SHA-256 is {found}, expected {digest}")


def _download(url: str, path: Path, digest: str | None) -> None:
    """Write a URL's content to a path, all of it or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path.parent)) from None
    part = Path(temporary)
    try:
        with os.fdopen(handle, "wb") as file:
            _transfer(url, file, digest)
            file.flush()
            os.fsync(file.fileno())
        if digest is not None:
            _check(part, digest, url)
        part.replace(path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(error.errno, f"{url}: {error.strerror or error}", str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def _transfer(url: str, file: BinaryIO, digest: str | None) -> None:
    import http.client
    import urllib.error
    import urllib.request

    from tqdm import tqdm

    class HttpsOnly(urllib.request.HTTPRedirectHandler):
        """Every step counts: who changes one on its way chooses where the rest leads."""

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if urlsplit(newurl).scheme != "https":
                fp.close()
                raise ArgumentError(f"'{url}': leads to {newurl}, which is not https\n  hint: give sha256=")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    opener = urllib.request.build_opener(*([HttpsOnly] if digest is None else []))
    try:
        with opener.open(url, timeout=_TIMEOUT_SECONDS) as answer:
            expected = _length(answer.headers.get("Content-Length"))
            received = 0
            # On a terminal only.
            with tqdm(total=expected, unit="B", unit_scale=True, desc=Path(url).name, leave=False, disable=None) as bar:
                while piece := answer.read(_PIECE):
                    file.write(piece)
                    received += len(piece)
                    bar.update(len(piece))
    except urllib.error.HTTPError as error:
        text = f"{url}: the server answers {error.code} {error.reason}"
        error.close()
        raise FileError(None, text) from None
    except (http.client.InvalidURL, UnicodeError) as error:
        raise ArgumentError(f"{url!r}: no URL: {error}") from None
    except http.client.HTTPException as error:
        raise FormatError(f"'{url}': the connection ended early ({type(error).__name__})") from None
    except urllib.error.URLError as error:
        raise FileError(getattr(error.reason, "errno", None), f"{url}: {error.reason}") from None
    if expected is not None and received != expected:
        raise FormatError(f"'{url}': {received:,} of {expected:,} bytes came")


def _length(text: Any) -> int | None:
    return int(text) if text is not None and str(text).isdigit() else None
