"""Simulated failures on disk: what was written is what was simulated, whatever kills, nodes and workers did."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ultrarefiner.data import (
    FittedCases,
    ImageFolder,
    Phantoms,
    SimulatedFailures,
    StoredFailures,
    StretchToSquare,
    collate,
    read_manifest,
    write_failures,
)
from ultrarefiner.simulation import FailureSimulator


def failures(samples: int = 10, *, count: int = 3, seed: int = 5, preset: str = "default") -> SimulatedFailures:
    cases = FittedCases(Phantoms(count, size=(48, 64)), 48)
    return SimulatedFailures(cases, FailureSimulator.preset(preset), samples=samples, seed=seed)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_picture_is_the_simulated_mask_to_half_a_255th_and_its_mask_at_half_exactly(tmp_path: Path) -> None:
    made = failures()
    assert write_failures(made, tmp_path, shard_size=4, progress=False) == 10
    simulated = made.simulated(range(10))
    for sample in range(10):
        with zipfile.ZipFile(tmp_path / f"shard-{sample // 4:05d}.zip") as archive:
            picture = np.array(Image.open(archive.open(f"{sample:08d}.png")))
        exact = simulated.probability[sample].numpy()
        assert picture.dtype == np.uint8
        assert picture.shape == (48, 48)
        assert np.abs(picture / 255 - exact).max() <= 0.5 / 255 + 1e-6
        assert np.array_equal(picture > 127, exact > 0.5)


def test_exactly_half_is_no_lesion_in_the_picture() -> None:
    from ultrarefiner.data.failure_writing import _to_bytes

    values = torch.tensor([0.0, 0.5, torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)).item(), 1.0])
    assert _to_bytes(values).tolist() == [0, 127, 128, 255]


def test_the_manifest_says_what_was_done(tmp_path: Path) -> None:
    made = failures()
    write_failures(made, tmp_path, shard_size=4, progress=False)
    simulated, rows = made.simulated(range(10)), read_manifest(tmp_path)
    assert [row.sample for row in rows] == list(range(10))
    assert [row.case for row in rows] == list(made.names)
    assert {row.seed for row in rows} == {5}
    assert [row.dice for row in rows] == pytest.approx(simulated.dice.tolist(), abs=1e-6)
    assert [row.reached for row in rows] == simulated.reached.tolist()
    for row, edits, number in zip(rows, simulated.edits.tolist(), simulated.bin.tolist(), strict=True):
        assert row.edits == "+".join(name for name, on in zip(made.simulator.names, edits, strict=True) if on)
        wanted = made.simulator.bins[number]
        assert row.bin == f"{wanted.low:g}-{wanted.high:g}"
    assert len((tmp_path / "manifest.csv").read_text().splitlines()) == 11
    assert (tmp_path / "manifest.csv").read_text().startswith("sample,case,seed,dice,bin,reached,edits\n0,phantom")


def test_complete_failures_are_named_so(tmp_path: Path) -> None:
    cases = FittedCases(Phantoms(2, size=(48, 64)), 48)
    simulator = FailureSimulator.preset("default", complete_share=1.0)
    write_failures(SimulatedFailures(cases, simulator, samples=4), tmp_path, progress=False)
    assert {row.bin for row in read_manifest(tmp_path)} == {"complete"}


def test_another_shard_in_another_process_or_on_another_node_gives_the_same_files(tmp_path: Path) -> None:
    made = failures()
    write_failures(made, tmp_path / "one", shard_size=3, progress=False)
    write_failures(made, tmp_path / "two", shard_size=3, workers=2, progress=False)
    assert write_failures(made, tmp_path / "nodes", shard_size=3, part=1, parts=2, progress=False) == 4
    assert not (tmp_path / "nodes" / "manifest.csv").exists()
    with pytest.raises(FileNotFoundError, match=r"lacks shard-00000\.zip: not all of the 10 samples were written"):
        read_manifest(tmp_path / "nodes")
    assert write_failures(made, tmp_path / "nodes", shard_size=3, part=0, parts=2, progress=False) == 6
    first = contents(tmp_path / "one")
    for other in ("two", "nodes"):
        found = contents(tmp_path / other)
        assert found.keys() == first.keys()
        assert found == first


def test_what_is_there_is_not_written_again_and_what_was_lost_is(tmp_path: Path) -> None:
    made = failures()
    write_failures(made, tmp_path, shard_size=4, progress=False)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    (tmp_path / "shard-00001.zip").unlink()
    assert write_failures(made, tmp_path, shard_size=4, progress=False) == 4
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    assert {name for name in before if before[name] != after[name]} == {"shard-00001.csv", "shard-00001.zip"}


def test_a_kill_leaves_whole_shards_and_the_same_call_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "write.py"
    script.write_text(
        "import sys\n"
        "from ultrarefiner.data import FittedCases, Phantoms, SimulatedFailures, write_failures\n"
        "from ultrarefiner.simulation import FailureSimulator\n"
        "made = SimulatedFailures(FittedCases(Phantoms(3, size=(48, 64)), 48), FailureSimulator(), samples=1500)\n"
        "write_failures(made, sys.argv[1], shard_size=5, progress=False)\n"
    )
    folder = tmp_path / "out"
    process = subprocess.Popen([sys.executable, str(script), str(folder)])
    deadline = time.monotonic() + 120
    while len(list(folder.glob("shard-*.zip"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = sorted(folder.glob("shard-*.zip"))
    assert 3 <= len(whole) < 300
    for path in whole:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert len(archive.namelist()) == 5
        assert path.with_suffix(".csv").exists()
    before = {path.name: path.stat().st_mtime_ns for path in whole}
    made = SimulatedFailures(FittedCases(Phantoms(3, size=(48, 64)), 48), FailureSimulator(), samples=1500)
    assert write_failures(made, folder, shard_size=5, progress=False) == 1500 - 5 * len(whole)
    assert len(read_manifest(folder)) == 1500
    assert before == {name: (folder / name).stat().st_mtime_ns for name in before}
    assert not list(folder.glob(".*part"))


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    write_failures(failures(), tmp_path, progress=False)
    for other, name in (
        (failures(seed=6), "seed 5, but now it is 6"),
        (failures(samples=11), "samples 10, but now it is 11"),
        (failures(preset="mild"), "made with simulator"),
        (failures(count=4), "made with cases"),
    ):
        with pytest.raises(ValueError, match=name):
            write_failures(other, tmp_path, progress=False)
    with pytest.raises(ValueError, match="shard_size 1000, but now it is 7"):
        write_failures(failures(), tmp_path, shard_size=7, progress=False)


def test_stored_failures_are_the_simulated_ones_for_a_loader_with_and_without_workers(tmp_path: Path) -> None:
    made = failures(9)
    write_failures(made, tmp_path, shard_size=4, progress=False)
    stored = StoredFailures(made.dataset, tmp_path)
    assert len(stored) == 9
    assert stored.names == made.names
    for sample in range(9):
        assert stored[sample].name == made[sample].name
        assert torch.equal(stored[sample].mask, made[sample].mask)
        difference = stored[sample].coarse_probability - made[sample].coarse_probability
        assert difference.abs().max() <= 0.5 / 255 + 1e-6
    for workers in (0, 2):
        loader = DataLoader(stored, batch_size=4, collate_fn=collate, num_workers=workers)
        together = torch.cat([batch.coarse_probability for batch in loader])
        assert torch.equal(together, torch.stack([stored[sample].coarse_probability for sample in range(9)]))


def test_stored_failures_come_into_a_larger_square(tmp_path: Path) -> None:
    made = failures(2)
    write_failures(made, tmp_path, progress=False)
    larger = FittedCases(Phantoms(3, size=(48, 64)), 96)
    assert StoredFailures(larger, tmp_path)[1].coarse_probability.shape == (1, 96, 96)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no simulated failures in"):
        StoredFailures(failures().dataset, tmp_path)
    write_failures(failures(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="must be fitted by FitToSquare"):
        StoredFailures(FittedCases(Phantoms(3, size=(48, 64)), StretchToSquare(48)), tmp_path)
    with pytest.raises(ValueError, match=r"failures of 1 cases that the data set lacks, the first is 'phantom 2'"):
        StoredFailures(FittedCases(Phantoms(2, size=(48, 64)), 48), tmp_path)
    stored = StoredFailures(failures().dataset, tmp_path)
    with pytest.raises(IndexError, match="index must be in 0 to 9, got 10"):
        stored[10]
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        StoredFailures(failures().dataset, tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="must say format"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "options", [{"shard_size": 0}, {"parts": 0}, {"part": 2, "parts": 2}, {"part": -1}, {"workers": -1}]
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="shard_size and parts must be at least 1"):
        write_failures(failures(), tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_tells_stored_failures_apart(tmp_path: Path) -> None:
    from ultrarefiner.training.identity import describe_cases

    described = []
    for name, made in (("one", failures()), ("two", failures(seed=6))):
        write_failures(made, tmp_path / name, progress=False)
        described.append(describe_cases(StoredFailures(made.dataset, tmp_path / name)))
    assert described[0] != described[1]
    shutil.rmtree(tmp_path)


def test_several_processes_may_start_at_once_on_one_folder(tmp_path: Path) -> None:
    """The documented use on several nodes; and the same part twice, which wastes work and breaks nothing."""
    script = (
        "import sys\n"
        "from ultrarefiner.data import FittedCases, Phantoms, SimulatedFailures, write_failures\n"
        "from ultrarefiner.simulation import FailureSimulator\n"
        "made = SimulatedFailures(FittedCases(Phantoms(3, size=(48, 64)), 48), FailureSimulator(), samples=40)\n"
        "write_failures(made, sys.argv[1], shard_size=3, part=int(sys.argv[2]), parts=2, progress=False)\n"
    )
    folder = tmp_path / "out"
    running = [subprocess.Popen([sys.executable, "-c", script, str(folder), part]) for part in ("0", "1", "0")]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(read_manifest(folder)) == 40
    made = SimulatedFailures(FittedCases(Phantoms(3, size=(48, 64)), 48), FailureSimulator(), samples=40)
    assert write_failures(made, folder, shard_size=3, progress=False) == 0
    write_failures(made, tmp_path / "alone", shard_size=3, progress=False)
    assert contents(folder) == contents(tmp_path / "alone")


def test_a_dead_worker_is_a_sentence_and_loses_no_finished_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures.process import BrokenProcessPool

    from ultrarefiner.data import failure_writing

    class Broken(failure_writing.ProcessPoolExecutor):
        def submit(self, *_: object, **__: object) -> object:
            raise BrokenProcessPool("killed")

    monkeypatch.setattr(failure_writing, "ProcessPoolExecutor", Broken)
    with pytest.raises(ChildProcessError, match=r"one of 2 workers was killed, .* call again with fewer workers"):
        write_failures(failures(), tmp_path, shard_size=3, workers=2, progress=False)


def test_another_mask_of_the_same_name_is_noticed(tmp_path: Path) -> None:
    def cases(box: tuple[int, int, int, int]) -> FittedCases:
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("L", (48, 48), 90).save(tmp_path / "images" / "a.png")
        mask = Image.new("L", (48, 48), 0)
        mask.paste(255, box)
        mask.save(tmp_path / "masks" / "a.png")
        return FittedCases(ImageFolder(tmp_path / "images", tmp_path / "masks"), 48)

    first = cases((5, 5, 25, 25))
    write_failures(SimulatedFailures(first, FailureSimulator(), samples=4), tmp_path / "out", progress=False)
    assert StoredFailures(first, tmp_path / "out")[0].coarse_probability.shape == (1, 48, 48)
    second = cases((25, 25, 45, 45))
    with pytest.raises(ValueError, match=r"made with cases\.a"):
        write_failures(SimulatedFailures(second, FailureSimulator(), samples=4), tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="failures of another true mask of 'a' than the data set's"):
        StoredFailures(second, tmp_path / "out")


def test_only_a_few_archives_are_open_at_once(tmp_path: Path) -> None:
    made = failures(60)
    write_failures(made, tmp_path, shard_size=2, progress=False)
    stored = StoredFailures(made.dataset, tmp_path)
    for sample in [*range(60), *range(60)]:
        assert stored[sample].name == made.names[sample]
    assert len(stored._archives) == 16


@pytest.mark.parametrize("harm", ["cut off", "bytes changed", "gone"])
def test_a_damaged_archive_is_named_with_the_remedy_which_works(tmp_path: Path, harm: str) -> None:
    made = failures()
    write_failures(made, tmp_path, shard_size=4, progress=False)
    stored, archive = StoredFailures(made.dataset, tmp_path), tmp_path / "shard-00001.zip"
    content = bytearray(archive.read_bytes())
    whole = bytes(content)
    content[len(content) // 8] ^= 0xFF
    archive.write_bytes(whole[:300] if harm == "cut off" else content)
    if harm == "gone":
        archive.unlink()
    assert stored[0].name == made.names[0]
    with pytest.raises(ValueError, match=r"shard-00001\.zip is damaged or gone .* delete it and run the command"):
        stored[4]
    archive.unlink(missing_ok=True)
    assert write_failures(made, tmp_path, shard_size=4, progress=False) == 4
    assert archive.read_bytes() == whole
