"""Real processes that fill one cache together; one of them is killed and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from ultrarefiner.data import EmbeddingCache, FittedCases, Phantoms
from ultrarefiner.sam import build_sam

IMAGES, BATCH = 24, 3

# Each process says what it encoded. One is told to stand still in its third batch, between the numbers of an entry and
# the line that says that they are there: nothing is more in the middle.
FILL = """
import sys, time, zlib
from pathlib import Path
import torch
from ultrarefiner.data import EmbeddingCache, FittedCases, Phantoms, embedding_writer
from ultrarefiner.sam import build_sam

folder, place, part, stop, images, batch = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]

torch.set_num_threads(1)
torch.manual_seed(0)
sam = build_sam("tiny", image_size=64)
def encoded(module, inputs, output):
    with (place / f"encoded-{part}").open("a") as stream:
        stream.write(f"{len(output)}\\n")

class Watched:
    written = 0

    def __getattr__(self, name):
        return getattr(zlib, name)

    def crc32(self, data):
        Watched.written += 1  # in an empty cache every checksum is of an entry that is written
        if stop == "stop" and Watched.written == 2 * int(batch) + 2:
            (place / "still").touch()
            time.sleep(600)
        return zlib.crc32(data)

embedding_writer.zlib = Watched()
sam.image_encoder.register_forward_hook(encoded)
cases = FittedCases(Phantoms(int(images), size=(48, 64)), 64)
(place / f"ready-{part}").touch()
while not (place / "go").exists():
    time.sleep(0.005)
made = EmbeddingCache(folder, sam).fill(cases, batch_size=int(batch), part=int(part), parts=2, progress=False)
(place / f"made-{part}").write_text(str(made))
"""


def started(folder: Path, place: Path, part: int, stop: str = "go on") -> subprocess.Popen[bytes]:
    told = (str(folder), str(place), str(part), stop, str(IMAGES), str(BATCH))
    return subprocess.Popen([sys.executable, "-c", FILL, *told])


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, f"the process ended with {process.returncode} before {path.name}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def entries(folder: Path, part: int) -> list[dict[str, object]]:
    return [json.loads(line) for path in folder.glob(f"part{part}-*.jsonl") for line in path.open() if line[-1] == "\n"]


def encoded(place: Path, part: int) -> int:
    return sum(map(int, (place / f"encoded-{part}").read_text().split()))


def test_processes_fill_one_cache_and_a_kill_costs_the_batch_at_hand(tmp_path: Path) -> None:
    folder, place = tmp_path / "cache", tmp_path / "told"
    place.mkdir()
    half = IMAGES // 2
    together = [started(folder, place, 0), started(folder, place, 1, "stop")]
    for part, process in enumerate(together):
        wait_for(place / f"ready-{part}", process)
    (place / "go").touch()
    wait_for(place / "still", together[1])
    together[1].send_signal(signal.SIGKILL)
    assert together[1].wait() == -signal.SIGKILL
    assert together[0].wait(timeout=240) == 0  # the other does not mind
    assert (place / "made-0").read_text() == str(half)
    before = entries(folder, 1)
    assert len(before) == 2 * BATCH
    assert encoded(place, 1) == 3 * BATCH  # the last of them lost

    last = started(folder, place, 1)
    assert last.wait(timeout=240) == 0
    assert (place / "made-1").read_text() == str(half - 2 * BATCH)
    assert encoded(place, 0) == half
    assert encoded(place, 1) == half + BATCH  # nothing twice but the batch at hand
    told = entries(folder, 0) + entries(folder, 1)
    assert set(Counter(entry["name"] for entry in told).values()) == {1}
    assert all(entry in told for entry in before)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_sam("tiny", image_size=64)
    cases = FittedCases(Phantoms(IMAGES, size=(48, 64)), 64)
    cache = EmbeddingCache(folder, sam)
    assert len(cache) == IMAGES
    assert cache.fill(cases, progress=False) == 0
    with torch.no_grad():
        for index in range(IMAGES):
            live = sam.eval()(cases[index].image[None])[0]
            assert (cache.read(cases[index]) - live).abs().max() < 1e-3 * live.abs().max()
