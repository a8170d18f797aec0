"""Simulated failures as files: for those who want to look at them, or to read them from other programs."""

from __future__ import annotations

import csv
import io
import json
import signal
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ultrarefiner.checkpoints.files import Location, claim_file, replaced_file, sweep_parts
from ultrarefiner.checkpoints.settings import describe, first_difference
from ultrarefiner.data.failure_files import COLUMNS, FORMAT, Shard, all_shards, mask_digest, read_settings
from ultrarefiner.data.progress import progress_bar
from ultrarefiner.data.simulated import SimulatedFailures
from ultrarefiner.simulation.simulator import SimulatedMasks

_TOGETHER = 64  # samples simulated at once


def write_failures(
    failures: SimulatedFailures,
    folder: Location,
    *,
    shard_size: int = 1000,
    part: int = 0,
    parts: int = 1,
    workers: int = 0,
    progress: bool = True,
) -> int:
    """Write a data set of simulated failures, in shards that each appear whole or not at all.

    A shard is an archive ``shard-00000.zip`` of grey PNG pictures, ``00000042.png`` for sample 42: 255 times the
    probability, rounded so that what is above 0.5 is 128 or more and the mask at 0.5, hence the Dice, is that of the
    sample. ``shard-00000.csv`` says of every sample its case, seed, Dice, wanted bin, whether that was reached, and its
    edits. ``settings.json`` says how all of it was made. Images and true masks are not copied.

    The same call again goes on where it was stopped or killed: shards that are there are left alone. Nodes with a file
    system in common share the work by ``part`` and ``parts``; whoever finishes the last shard writes ``manifest.csv``.

    Args:
        failures: the data set.
        folder: gets the files.
        shard_size: samples in a shard.
        part: which share of the shards this call writes, from 0.
        parts: in how many shares.
        workers: processes that write; 0 writes in this one.
        progress: show a progress bar on a terminal, if tqdm is installed.

    Returns:
        How many samples this call wrote.

    Raises:
        ValueError: a number out of range, or the folder holds failures of other settings.
        ChildProcessError: a worker was killed.

    Example:
        >>> import os, tempfile
        >>> from ultrarefiner.data.batches import FittedCases
        >>> from ultrarefiner.data.phantoms import Phantoms
        >>> from ultrarefiner.simulation import FailureSimulator
        >>> cases = FittedCases(Phantoms(2, size=(48, 64)), 64)
        >>> made, folder = SimulatedFailures(cases, FailureSimulator(), samples=5), tempfile.mkdtemp()
        >>> write_failures(made, folder, shard_size=3, progress=False), write_failures(made, folder, shard_size=3)
        (5, 0)
        >>> sorted(os.listdir(folder))
        ['manifest.csv', 'settings.json', 'shard-00000.csv', 'shard-00000.zip', 'shard-00001.csv', 'shard-00001.zip']
    """
    folder = Path(folder)
    if shard_size < 1 or parts < 1 or not 0 <= part < parts or workers < 0:
        message = (
            "shard_size and parts must be at least 1, part 0 to parts - 1 and workers not negative, but they are "
            f"{shard_size}, {parts}, {part} and {workers}."
        )
        raise ValueError(message)
    settings = _settings(failures, shard_size)
    _claim(folder, settings)
    sweep_parts(folder)
    everything = all_shards(folder, settings)
    mine = everything[part::parts]
    missing = [shard for shard in mine if not shard.archive.exists()]
    written = 0
    with progress_bar(len(failures) // parts, "simulate", "mask", shown=progress) as bar:
        bar.update((len(mine) - len(missing)) * shard_size)
        for count in _written(failures, missing, shard_size, workers):
            bar.update(count)
            written += count
    _write_manifest(folder, everything)
    return written


def _written(failures: SimulatedFailures, shards: Sequence[Shard], shard_size: int, workers: int) -> Iterator[int]:
    """Write shards, here or in other processes; the number of samples of each as it is done."""
    if workers == 0 or len(shards) == 0:
        for shard in shards:
            yield from _write_shard(failures, shard, shard_size)
        return
    context = get_context("spawn")
    stop = context.Event()
    count = min(workers, len(shards))
    pool = ProcessPoolExecutor(
        count, mp_context=context, initializer=_start_worker, initargs=(failures, shard_size, stop)
    )
    waiting = iter(shards)
    try:
        # No more at once than there are workers: what is handed over can no longer be called back.
        running = {pool.submit(_write_in_worker, shard) for shard in islice(waiting, count)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
            running |= {pool.submit(_write_in_worker, shard) for shard in islice(waiting, len(done))}
    except BrokenProcessPool as error:
        message = (
            f"one of {workers} workers was killed, perhaps for memory; the shards that were finished are kept, so call "
            "again with fewer workers."
        )
        raise ChildProcessError(message) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


class _Worker:
    """What a process that writes shards was started with."""

    failures: SimulatedFailures
    shard_size: int
    stop: Any


def _start_worker(failures: SimulatedFailures, shard_size: int, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process says when to stop
    torch.set_num_threads(1)  # the processes are the parallelism
    _Worker.failures, _Worker.shard_size, _Worker.stop = failures, shard_size, stop


def _write_in_worker(shard: Shard) -> int:
    written = 0
    for count in _write_shard(_Worker.failures, shard, _Worker.shard_size):
        if _Worker.stop.is_set():
            return written
        written += count
    return written


def _write_shard(failures: SimulatedFailures, shard: Shard, shard_size: int) -> Iterator[int]:
    """The archive comes last: where it is, the table is, too."""
    content = io.BytesIO()
    rows: list[list[Any]] = []
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        first, end = shard.number * shard_size, min((shard.number + 1) * shard_size, len(failures))
        for start in range(first, end, _TOGETHER):
            indices = range(start, min(start + _TOGETHER, end))
            made = failures.simulated(indices)
            pictures = _to_bytes(made.probability)
            for index, picture in zip(indices, pictures, strict=True):
                # A fixed date, so that the same samples are the same file.
                archive.writestr(zipfile.ZipInfo(shard.picture(index)), _png(picture))
            rows += _rows(failures, indices, made)
            yield len(indices)
    with replaced_file(shard.table, shared=True) as stream:
        stream.write(_csv([COLUMNS, *rows]))
    with replaced_file(shard.archive, shared=True) as stream:
        stream.write(content.getvalue())


def _to_bytes(probability: Tensor) -> np.ndarray:
    """Rounded to 255ths, but exactly half goes down: above 0.5 is above 127, and nothing else is."""
    rounded: np.ndarray = (probability * 255 - 0.5).ceil().clamp(0, 255).byte().cpu().numpy()
    return rounded


def _png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def _rows(failures: SimulatedFailures, indices: Iterable[int], made: SimulatedMasks) -> Iterator[list[Any]]:
    bins = [f"{one.low:g}-{one.high:g}" for one in failures.simulator.bins]
    names = np.array(failures.simulator.names)
    told = zip(indices, made.dice.tolist(), made.bin.tolist(), made.reached.tolist(), made.edits.tolist(), strict=True)
    for index, dice, number, reached, edits in told:
        kinds = "+".join(names[edits])
        wanted = bins[number] if number >= 0 else ("complete" if kinds else "no lesion")
        case = failures.dataset.names[failures.case_of(index)]
        yield [index, case, failures.seed, f"{dice:.6f}", wanted, "yes" if reached else "no", kinds]


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()


def _settings(failures: SimulatedFailures, shard_size: int) -> dict[str, Any]:
    made, cases = describe(failures.settings(), "failures"), failures.dataset.dataset
    described = {
        "format": FORMAT,
        **made,
        "shard_size": shard_size,
        "fit": type(failures.dataset.fit).__qualname__,
        # Of every mask as it lies on disk: a folder holds failures of one set of masks only.
        "cases": {name: mask_digest(cases[index].mask) for index, name in enumerate(failures.dataset.names)},
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or make sure that those in the folder are the same."""
    claim_file(folder / "settings.json", (json.dumps(settings, indent=1) + "\n").encode())
    different = first_difference(read_settings(folder), settings)
    if different is not None:
        name, before, now = different
        message = (
            f"{folder} holds failures that were made with {name} {before!r}, but now it is {now!r}. Go on with the "
            "settings it was begun with, or give another folder."
        )
        raise ValueError(message)


def _write_manifest(folder: Path, shards: Sequence[Shard]) -> None:
    """All tables as one, once all shards are there."""
    if not all(shard.archive.exists() for shard in shards):
        return
    tables = [shard.table.read_bytes().split(b"\n", 1) for shard in shards]
    with replaced_file(folder / "manifest.csv", shared=True) as stream:
        stream.write(tables[0][0] + b"\n" + b"".join(rest for _, rest in tables))
