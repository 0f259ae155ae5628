"""Files by URL: what is checked, what is cached, and that half a file is never used."""

from __future__ import annotations

import errno
import hashlib
import http.client
import http.server
import os
import threading

import pytest

import pycnn as pc
from pycnn.download import cache_directory, fetch

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.server.leads_to.pop(0) if self.server.leads_to else "/net.safetensors")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        # A connection that breaks leaves the reader with a part.
        self.wfile.write(CONTENT[: self.server.send])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCNN_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.send, server.leads_to = [], len(CONTENT), []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_downloaded_once(server):
    url = f"{server.url}/net.safetensors"
    path = fetch(url, sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("-net.safetensors")
    assert fetch(url, sha256=DIGEST[:8].upper()) == path
    assert server.requests == ["/net.safetensors"]
    assert list(cache_directory().iterdir()) == [path]


def test_equal_names_of_different_places_do_not_meet(server):
    assert fetch(f"{server.url}/a/net.pth", sha256=DIGEST) != fetch(f"{server.url}/b/net.pth", sha256=DIGEST)


def test_a_redirection_is_followed(server):
    assert fetch(f"{server.url}/moved", sha256=DIGEST).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_nothing_stays(server):
    with pytest.raises(pc.FormatError, match=f"SHA-256 is {DIGEST}, expected 00000000"):
        fetch(f"{server.url}/net.safetensors", sha256="0" * 64)
    assert list(cache_directory().iterdir()) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_leaves_nothing_and_is_named(server, monkeypatch, code):
    def fail(_handle):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(pc.FileError, match=os.strerror(code)) as caught:
            fetch(f"{server.url}/net.safetensors", sha256=DIGEST)
    assert caught.value.errno == code
    assert str(cache_directory()) in caught.value.filename
    assert list(cache_directory().iterdir()) == []
    assert fetch(f"{server.url}/net.safetensors", sha256=DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("send", [0, 1000, len(CONTENT) - 1])
def test_half_a_file_is_refused_and_the_next_try_gets_it_whole(server, send):
    url = f"{server.url}/net.safetensors"
    server.send = send
    with pytest.raises(pc.FormatError, match=r"ended early|bytes came|SHA-256"):
        fetch(url, sha256=DIGEST)
    assert list(cache_directory().iterdir()) == []
    server.send = len(CONTENT)
    assert fetch(url, sha256=DIGEST).read_bytes() == CONTENT


def test_a_cached_file_that_was_changed_is_downloaded_again(server):
    url = f"{server.url}/net.safetensors"
    path = fetch(url, sha256=DIGEST)
    path.write_bytes(b"rubbish")
    assert fetch(url, sha256=DIGEST).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_what_the_server_answers_is_told(server):
    with pytest.raises(pc.FileError, match=r"/gone/net.pth: the server answers 404 Not Found"):
        fetch(f"{server.url}/gone/net.pth", sha256=DIGEST)


def test_an_absent_server_is_told(server):
    with pytest.raises(pc.FileError, match=r"http://127.0.0.1:1/x: .*refused"):
        fetch("http://127.0.0.1:1/x", sha256=DIGEST)


def test_http_needs_a_digest(server):
    with pytest.raises(pc.ArgumentError, match="http can be changed on its way\n  hint: give sha256"):
        fetch(f"{server.url}/net.safetensors")
    assert server.requests == []


class PlainConnection(http.client.HTTPConnection):
    """Speaks to the test server where https is asked for."""

    def __init__(self, host, *, timeout, **_):
        super().__init__(host, timeout=timeout)


def test_every_step_of_a_redirection_must_be_https(server, monkeypatch):
    monkeypatch.setattr(http.client, "HTTPSConnection", PlainConnection)
    secure = server.url.replace("http:", "https:")
    assert fetch(f"{secure}/moved").read_bytes() == CONTENT
    server.requests.clear()
    server.leads_to = chain = [f"{server.url}/moved/2", f"{secure}/net.safetensors"]
    steps = list(chain)
    with pytest.raises(pc.ArgumentError, match=rf"leads to {server.url}/moved/2, which is not https"):
        fetch(f"{secure}/moved/1")
    assert server.requests == ["/moved/1"]
    server.leads_to = steps
    assert fetch(f"{secure}/moved/1", sha256=DIGEST).read_bytes() == CONTENT
    assert server.requests == ["/moved/1", "/moved/1", "/moved/2", "/net.safetensors"]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://[", "no URL"),
        ("https://127.0.0.1:port/x", "no URL"),
        ("https://127.0.0.1/\udc80", "no URL"),
        ("https://127.0.0.1/a b", "no URL"),
        ("https://127.0.0.1/%00", "null character"),
        ("file:///%00", "null character"),
        ("file://otherhost/tmp/x", "a file of the machine 'otherhost'"),
    ],
)
def test_malformed_urls_are_refused(server, monkeypatch, url, text):
    monkeypatch.setattr(http.client, "HTTPSConnection", PlainConnection)
    with pytest.raises(pc.ArgumentError, match=text):
        fetch(url)


def test_paths_and_file_urls_are_used_where_they_are(tmp_path):
    path = tmp_path / "with space.bin"
    path.write_bytes(CONTENT)
    assert fetch(path) == path
    assert fetch(str(path), sha256=DIGEST) == path
    assert fetch(path.as_uri(), sha256=DIGEST[:12]) == path
    assert fetch(path.as_uri().replace("file://", "file://localhost")) == path
    with pytest.raises(pc.FormatError, match=r"with space.bin': SHA-256 is"):
        fetch(path, sha256="0" * 8)
    with pytest.raises(pc.FileError, match="absent"):
        fetch(tmp_path / "absent", sha256=DIGEST)


@pytest.mark.parametrize("digest", ["", "1234567", "z" * 64, "0" * 65])
def test_a_digest_that_is_none_is_refused(tmp_path, digest):
    with pytest.raises(pc.ArgumentError, match="sha256 must be 8 to 64 hex digits"):
        fetch(tmp_path / "x", sha256=digest)


def test_other_schemes_are_refused():
    with pytest.raises(pc.ArgumentError, match="scheme 'ftp' is not one of https, http, file"):
        fetch("ftp://example.org/net.pth")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PYCNN_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.delenv("PYCNN_CACHE")
    assert cache_directory() == tmp_path / "xdg" / "pycnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "pycnn"


def test_a_cache_that_cannot_be_made_is_told(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYCNN_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(pc.FileError, match="below"):
        fetch(f"{server.url}/net.safetensors", sha256=DIGEST)
