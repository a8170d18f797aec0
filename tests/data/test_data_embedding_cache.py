"""Stored embeddings: those of the encoder, of this image, of these weights and this policy, or a sentence."""

from __future__ import annotations

import errno
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ultrarefiner.data import (
    CachedEmbeddings,
    EmbeddingCache,
    FittedCases,
    Phantoms,
    SimulatedFailures,
    collate,
    embedding_cache,
    embedding_writer,
)
from ultrarefiner.data.embedding_cache import image_digest, weights_digest
from ultrarefiner.data.fit import FittedCase
from ultrarefiner.sam import SAM, MedSAMInput, build_sam
from ultrarefiner.simulation import FailureSimulator

CASES = FittedCases(Phantoms(6, size=(48, 64)), 64)


def tiny(seed: int = 0) -> SAM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_sam("tiny", image_size=64)


def error(cache: EmbeddingCache, sam: SAM, index: int) -> float:
    with torch.no_grad():
        live = sam.eval()(CASES[index].image[None])[0]
    return float((cache.read(CASES[index]) - live).abs().max() / live.abs().max())


def test_an_embedding_is_the_encoders_to_float16(tmp_path: Path) -> None:
    sam = tiny()
    cache = EmbeddingCache(tmp_path, sam)
    assert cache.fill(CASES, batch_size=4, progress=False) == len(cache) == 6
    assert max(error(cache, sam, index) for index in range(6)) < 1e-3
    assert cache.read(CASES[0]).dtype == torch.float32
    again = EmbeddingCache(tmp_path, tiny())
    assert again.fill(CASES, progress=False) == 0
    assert torch.equal(again.read(CASES[3]), cache.read(CASES[3]))


def test_the_encoders_mode_is_left_as_it_was_and_it_embeds_in_evaluation(tmp_path: Path) -> None:
    sam = tiny().train()
    EmbeddingCache(tmp_path, sam).fill(CASES, progress=False)
    assert sam.training


def test_other_weights_another_policy_or_another_image_of_the_name_are_refused(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, tiny())
    cache.fill(CASES, progress=False)
    with pytest.raises(ValueError, match=r"made with encoder '.*', but this SAM has '.*'; load the weights"):
        EmbeddingCache(tmp_path, tiny(seed=1))
    other = tiny()
    other.input_policy = MedSAMInput(64)
    with pytest.raises(ValueError, match=r"made with input\.policy 'sam', but this SAM has 'medsam'"):
        EmbeddingCache(tmp_path, other)
    changed = replace(CASES[2], image=CASES[2].image.clone())
    changed.image[0, 5, 5] += 1e-6
    with pytest.raises(ValueError, match="of 'phantom 2', but of another image of that name"):
        cache.read(changed)
    with pytest.raises(ValueError, match="of another image of that name"):
        cache.fill(FittedCases(Phantoms(6, size=(50, 64)), 64), progress=False)
    with pytest.raises(KeyError, match="no embedding of 'phantom 0 of seed 9'"):
        cache.read(FittedCases(Phantoms(1, size=(48, 64), seed=9), 64)[0])


def test_a_damaged_entry_is_found_and_computed_again(tmp_path: Path) -> None:
    sam = tiny()
    cache = EmbeddingCache(tmp_path, sam)
    cache.fill(CASES, progress=False)
    (array,) = tmp_path.glob("part0-*.npy")
    content = bytearray(array.read_bytes())
    content[-3] ^= 0x40  # in the last entry
    array.write_bytes(content)
    fresh = EmbeddingCache(tmp_path, sam)
    with pytest.raises(ValueError, match=r"of 'phantom 5' in .* is damaged; fill the cache again"):
        fresh.read(CASES[5])
    assert error(fresh, sam, 0) < 1e-3
    assert fresh.fill(CASES, progress=False) == 1
    assert error(fresh, sam, 5) < 1e-3


def test_an_array_that_was_cut_off_is_computed_again(tmp_path: Path) -> None:
    sam = tiny()
    EmbeddingCache(tmp_path, sam).fill(CASES, progress=False)
    (array,) = tmp_path.glob("part0-*.npy")
    array.write_bytes(array.read_bytes()[:5000])
    fresh = EmbeddingCache(tmp_path, sam)
    assert fresh.fill(CASES, progress=False) == 6
    assert max(error(fresh, sam, index) for index in range(6)) < 1e-3


def test_a_line_that_was_cut_off_costs_its_entry_alone(tmp_path: Path) -> None:
    sam = tiny()
    EmbeddingCache(tmp_path, sam).fill(CASES, progress=False)
    (journal,) = tmp_path.glob("part0-*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-10])
    fresh = EmbeddingCache(tmp_path, sam)
    assert len(fresh) == 5
    assert fresh.fill(CASES, progress=False) == 1
    assert max(error(fresh, sam, index) for index in range(6)) < 1e-3
    assert len(EmbeddingCache(tmp_path, sam)) == 6


def test_several_processes_share_the_work(tmp_path: Path) -> None:
    sam = tiny()
    one, two = EmbeddingCache(tmp_path, sam), EmbeddingCache(tmp_path, sam)
    assert one.fill(CASES, part=0, parts=2, progress=False) == 3
    assert two.fill(CASES, part=1, parts=2, progress=False) == 3
    assert max(error(one, sam, index) for index in range(6)) < 1e-3  # reads what the other wrote
    assert one.fill(CASES, progress=False) == 0


FILL = """
import sys, torch
from ultrarefiner.data import EmbeddingCache, FittedCases, Phantoms
from ultrarefiner.sam import build_sam
torch.manual_seed(0)
cache = EmbeddingCache(sys.argv[1], build_sam("tiny", image_size=64))
cache.fill(FittedCases(Phantoms(400, size=(48, 64)), 64), batch_size=2, progress=False)
"""


def test_a_kill_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path)])
    deadline = time.monotonic() + 120

    def lines() -> int:
        return sum(path.read_bytes().count(b"}\n") for path in tmp_path.glob("part0-*.jsonl"))

    while time.monotonic() < deadline and lines() < 6:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = lines()
    assert 6 <= done < 400
    sam = tiny()
    cache = EmbeddingCache(tmp_path, sam)
    assert len(cache) == done
    more = FittedCases(Phantoms(done + 3, size=(48, 64)), 64)
    assert cache.fill(more, progress=False) == 3
    assert error(cache, sam, 4) < 1e-3


def test_a_loader_and_its_workers_get_embeddings_and_coarse_masks(tmp_path: Path) -> None:
    sam = tiny()
    cache = EmbeddingCache(tmp_path, sam)
    cache.fill(CASES, progress=False)
    made = CachedEmbeddings(SimulatedFailures(CASES, FailureSimulator(), samples=8), cache)
    assert made.names == made.dataset.names
    expected = torch.stack([made[index].embedding for index in range(8)])
    for workers in (0, 2):
        batches = list(DataLoader(made, batch_size=3, collate_fn=collate, num_workers=workers))
        assert torch.equal(torch.cat([batch.embeddings for batch in batches]), expected)
        assert batches[0].coarse_probability.shape == (3, 1, 64, 64)
    assert made.settings()["of"]["samples"] == 8
    with pytest.raises(AttributeError):
        _ = made.nothing


def test_digests_tell_apart() -> None:
    image = torch.rand(1, 4, 6)
    assert image_digest(image) == image_digest(image.clone())
    assert image_digest(image) != image_digest(image.reshape(1, 6, 4))
    layer = torch.nn.BatchNorm1d(2)
    before = weights_digest(layer)
    layer.num_batches_tracked += 1
    assert weights_digest(layer) != before


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"part": 1}, {"part": -1}, {"parts": 0}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1 and part 0 to parts - 1"):
        EmbeddingCache(tmp_path, tiny()).fill(CASES, **wrong)


def test_damaged_settings_are_said(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, tiny())
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        EmbeddingCache(tmp_path, tiny())
    (tmp_path / "settings.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="made with format"):
        EmbeddingCache(tmp_path, tiny())


def test_weights_that_change_after_the_cache_was_opened_are_refused(tmp_path: Path) -> None:
    sam = tiny()
    cache = EmbeddingCache(tmp_path, sam)
    sam.load_state_dict(tiny(seed=1).state_dict())
    with pytest.raises(ValueError, match="sam has other weights than when the cache in"):
        cache.fill(CASES, progress=False)


def test_an_entry_of_another_process_is_healed_for_good(tmp_path: Path) -> None:
    sam = tiny()
    for part in (0, 1):
        EmbeddingCache(tmp_path, sam).fill(CASES, part=part, parts=2, progress=False)
    (array,) = tmp_path.glob("part1-*.npy")
    content = bytearray(array.read_bytes())
    content[-3] ^= 0x40
    array.write_bytes(content)
    assert EmbeddingCache(tmp_path, sam).fill(CASES, progress=False) == 1
    fresh = EmbeddingCache(tmp_path, sam)
    assert fresh.fill(CASES, progress=False) == 0
    assert max(error(fresh, sam, index) for index in range(6)) < 1e-3


@pytest.mark.parametrize("harm", ["empty", "half", "gone"])
def test_an_array_that_cannot_be_read_is_damaged_and_computed_again(tmp_path: Path, harm: str) -> None:
    sam = tiny()
    EmbeddingCache(tmp_path, sam).fill(CASES, progress=False)
    (array,) = tmp_path.glob("part0-*.npy")
    if harm == "gone":
        array.unlink()
    else:
        array.write_bytes(b"" if harm == "empty" else array.read_bytes()[: array.stat().st_size // 2])
    fresh = EmbeddingCache(tmp_path, sam)
    with pytest.raises(ValueError, match=r"the embedding of 'phantom 5' in .* is damaged; fill the cache again"):
        fresh.read(CASES[5])
    assert fresh.fill(CASES, progress=False) == 6
    assert max(error(fresh, sam, index) for index in range(6)) < 1e-3


def test_digests_in_a_refusal_are_short_and_their_cause_is_named(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, tiny())
    sentence = (
        r"encoder '[0-9a-f]{12}', but (this SAM|the SAM that trains) has '[0-9a-f]{12}'; .*"
        "random weights of another seed are other weights"
    )
    with pytest.raises(ValueError, match=sentence):
        EmbeddingCache(tmp_path, tiny(seed=1))
    with pytest.raises(ValueError, match=sentence):
        cache.refuse_other(tiny(seed=1), tiny().input_policy)
    other = tiny()
    other.input_policy = MedSAMInput(64)
    with pytest.raises(ValueError, match=r"another folder\.$"):  # the cause is not the seed
        EmbeddingCache(tmp_path, other)


class Counted:
    """The cases, and how often each was read."""

    def __init__(self) -> None:
        self.names = CASES.names
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(CASES)

    def __getitem__(self, index: int) -> FittedCase:
        self.read.append(index)
        return CASES[index]


class Bar:
    """What a progress bar is told, and how much had been read by then."""

    def __init__(self, cases: Counted) -> None:
        self.cases = cases
        self.told: list[int] = []
        self.read_before = -1

    def __enter__(self) -> Bar:
        self.read_before = len(self.cases.read)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, count: int) -> None:
        self.told.append(count)


def test_fill_reads_every_image_once_and_its_bar_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, first, second = EmbeddingCache(tmp_path, tiny()), Counted(), Counted()
    bars = [Bar(first), Bar(second)]
    left: Iterator[Bar] = iter(bars)
    monkeypatch.setattr(embedding_cache, "progress_bar", lambda *_, **__: next(left))
    assert cache.fill(first, part=1, parts=3) == 2  # the cases 1 and 4
    assert cache.fill(second, batch_size=3) == 4
    assert (first.read, second.read) == ([1, 4], [0, 1, 2, 3, 4, 5])
    assert [bar.read_before for bar in bars] == [0, 0]
    assert [bar.told for bar in bars] == [[1, 1], [1, 3, 1, 1]]  # by default one image at a time
    assert max(error(cache, cache.sam, index) for index in range(6)) < 1e-3


def test_arrays_are_as_long_as_what_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "_ROWS", 4)
    sam = tiny()
    cache = EmbeddingCache(tmp_path, sam)
    cache.fill(CASES, batch_size=3, progress=False)
    arrays = [np.load(path) for path in sorted(tmp_path.glob("*.npy"))]
    assert [array.shape for array in arrays] == [(4, 64, 4, 4), (2, 64, 4, 4)]
    assert all(array.dtype == np.float16 for array in arrays)
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.npy"))]
    assert sizes == [128 + array.nbytes for array in arrays]
    assert max(error(cache, sam, index) for index in range(6)) < 1e-3
    assert cache.fill(CASES, progress=False) == 0
    assert len(list(tmp_path.glob("*.npy"))) == 2  # nothing to write, no file


@pytest.mark.parametrize("where", ["rows", "sync", "length"])
def test_a_full_disk_is_said_and_the_fill_goes_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    room = {"rows": 4, "sync": 4, "length": 0}[where]  # a header and three entries; two entries and their lines

    def full(count: list[int], real: object) -> object:
        def limited(*args: object) -> object:
            count.append(1)
            if len(count) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)  # type: ignore[operator] # a function

        return limited

    sam = tiny()
    cache = EmbeddingCache(tmp_path, sam)
    with monkeypatch.context() as patch:
        if where == "rows":
            patch.setattr(embedding_writer, "_write_all", full([], embedding_writer._write_all))
        elif where == "sync":
            patch.setattr(embedding_writer.os, "fsync", full([], embedding_writer.os.fsync))
        else:
            patch.setattr(embedding_writer, "_header", full([], embedding_writer._header))
        with pytest.raises(OSError, match=r"'phantom \d' cannot be written to .* \(No space left on device\); .*kept"):
            cache.fill(CASES, progress=False)
    kept = {"rows": 3, "sync": 2, "length": 0}[where]
    again = EmbeddingCache(tmp_path, sam)
    assert len(again) == kept
    assert all(error(again, sam, index) < 1e-3 for index in range(kept))
    assert cache.fill(CASES, progress=False) == 6 - kept
    assert max(error(cache, sam, index) for index in range(6)) < 1e-3


def test_a_cache_that_is_there_is_opened_without_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EmbeddingCache(tmp_path, tiny()).fill(CASES, progress=False)

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedding_cache, "claim_file", full)
    assert EmbeddingCache(tmp_path, tiny()).read(CASES[0]).shape == (64, 4, 4)


def test_what_a_file_takes_in_parts_is_written_whole(tmp_path: Path) -> None:
    taken: list[bytes] = []

    class Slow(io.FileIO):
        def write(self, content: object) -> int:
            taken.append(bytes(content[:3]))
            return len(taken[-1])

    with Slow(tmp_path / "slow", "w") as file:
        embedding_writer._write_all(file, b"abcdefgh")
    assert taken == [b"abc", b"def", b"gh"]
