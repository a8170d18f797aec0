"""A run's folder is held by one run at a time, and by no dead one."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ultrarefiner.training import locking
from ultrarefiner.training.hardware import make_fabric
from ultrarefiner.training.locking import hold_folder

# It holds the folder as a run does, with a child that lives longer, as one that reads ahead may.
HOLDER = """
import os, sys, time
from pathlib import Path
from ultrarefiner.training.hardware import make_fabric
from ultrarefiner.training.locking import hold_folder

with hold_folder(make_fabric("auto", accelerator="cpu", devices=1), Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path):
    """A real second process, by its id, and its child's."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no locks on this platform")
def test_a_second_run_is_refused_until_the_first_is_killed(held, coarse, fit, tmp_path: Path) -> None:
    sentence = rf"process {held.pid} on {socket.gethostname()} holds .*run; wait until it has ended, end it, or train"
    for _ in range(2):
        with pytest.raises(BlockingIOError, match=sentence):
            fit(coarse())
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"], "nothing was touched"
    assert fit(coarse(), folder=tmp_path / "other").steps == 6
    held.kill()
    held.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:  # the kernel lets go; its child is still alive
        try:
            assert fit(coarse()).steps == 6
            return
        except BlockingIOError:
            time.sleep(0.05)
    pytest.fail("the lock outlived its process")


def test_every_way_out_lets_go(coarse, fit, cases) -> None:
    class Breaks(list):
        error: type[BaseException] = ValueError

        def __getitem__(self, index):
            raise self.error

    for error in (ValueError, KeyboardInterrupt, SystemExit):
        data = Breaks(cases)
        data.error = error
        with pytest.raises(error):
            fit(coarse(), dataset=data)
        assert not locking._held
    assert fit(coarse()).steps == 6
    assert fit(coarse()).resumed_from == 6
    with pytest.raises(ValueError, match=r"plan.epochs was 2, but now it is 3"):
        fit(coarse(), epochs=3)
    assert not locking._held


def test_a_run_within_a_run_is_refused(coarse, fit, tmp_path: Path, caplog) -> None:
    def train_here(moment) -> None:
        fit(coarse())

    fit(coarse(), epochs=1, watchers=[train_here])
    assert f"process {os.getpid()} on" in caplog.text


def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    fabric = make_fabric("auto", accelerator="cpu", devices=1)
    with hold_folder(fabric, tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
        (tmp_path / ".lock").write_text("")
        with pytest.raises(BlockingIOError, match="another process holds"), hold_folder(fabric, tmp_path):
            pass
        with pytest.raises(BlockingIOError), hold_folder(fabric, tmp_path):
            pass
    with hold_folder(fabric, tmp_path):
        pass


def test_without_locks_it_goes_on(coarse, fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_fcntl", None)
    assert fit(coarse(), folder=tmp_path / "platform").steps == 6
    assert not (tmp_path / "platform" / ".lock").exists()

    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking, "_fcntl", NoLocks)
    assert fit(coarse(), folder=tmp_path / "disk").steps == 6
    assert not locking._held
