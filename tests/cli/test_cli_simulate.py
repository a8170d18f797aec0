"""``ultrarefiner simulate``, as a shell calls it and as Python does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from ultrarefiner.cli import main
from ultrarefiner.data import read_manifest

SMALL = ["--phantoms", "4", "--samples", "12", "--size", "48", "--shard_size", "5"]


def test_masks_manifest_and_sheet_are_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--out", str(tmp_path), *SMALL]) == 0
    told = capsys.readouterr().out
    assert f"12 masks in {tmp_path} (12 written now)" in told
    assert "0 outside of the wanted range" in told
    assert len(read_manifest(tmp_path)) == 12
    assert Image.open(tmp_path / "sheet.png").size > (300, 300)
    assert main(["simulate", "--out", str(tmp_path), *SMALL]) == 0
    assert "(0 written now)" in capsys.readouterr().out


def test_parts_are_shared_and_the_last_one_tells_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["simulate", "--out", str(tmp_path), *SMALL, "--sheet", "false", "--parts", "2"]
    assert main([*command, "--part", "1"]) == 0
    assert "5 masks written to" in capsys.readouterr().out
    assert main([*command, "--part", "0"]) == 0
    assert "12 masks in" in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()


def test_every_knob_changes_what_is_made(tmp_path: Path) -> None:
    base = ["--phantoms", "4", "--samples", "6", "--sheet", "false"]
    seen = set()
    for number, changed in enumerate(
        (["--size", "48"], ["--size", "56"], ["--size", "48", "--seed", "1"], ["--size", "48", "--preset", "severe"],
         ["--size", "48", "--complete_share", "0.9"])
    ):  # fmt: skip
        folder = tmp_path / str(number)
        assert main(["simulate", "--out", str(folder), *base, *changed]) == 0
        seen.add((folder / "manifest.csv").read_text())
    assert len(seen) == 5


def test_a_folder_of_images_and_masks_will_do(tmp_path: Path) -> None:
    images = tmp_path / "data"
    images.mkdir()
    for name in ("a", "b"):
        Image.new("L", (60, 50), 90).save(images / f"{name}.png")
        mask = Image.new("L", (60, 50), 0)
        mask.paste(255, (15, 10, 40, 38))
        mask.save(images / f"{name}_mask.png")
    told = main(
        ["simulate", "--out", str(tmp_path / "out"), "--data", str(images), "--dataset", "folder", "--mask_suffix",
         "_mask", "--samples", "4", "--size", "48"]
    )  # fmt: skip
    assert told == 0
    assert {row.case for row in read_manifest(tmp_path / "out")} == {"a", "b"}


def test_what_is_wrong_is_a_sentence_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--out", str(tmp_path)]) == 1
    assert "give either data, the folder of a data set, or phantoms" in capsys.readouterr().err
    assert main(["simulate", "--out", str(tmp_path), "--data", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith("ultrarefiner: ")


def test_a_wrong_flag_exits_with_2() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", "--wrong", "1"])
    assert stopped.value.code == 2


def test_config_and_help_of_every_flag(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from ultrarefiner.cli import main; sys.exit(main())", "simulate"]
    printed = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), *SMALL, "--sheet", "false", "--print_config"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "samples: 12" in printed
    (tmp_path / "config.yaml").write_text(printed)
    subprocess.run([*command, "--config", str(tmp_path / "config.yaml")], check=True, capture_output=True)
    assert len(read_manifest(tmp_path / "out")) == 12
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    flags = [line for line in told.splitlines() if line.startswith("  --") and "config" not in line]
    assert len(flags) >= 17
    assert "folder for the files" in told


def test_sets_without_a_lesion_are_written_without_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "data"
    images.mkdir()
    for name in ("a", "a_mask"):
        Image.new("L", (60, 50), 0).save(images / f"{name}.png")
    command = ["simulate", "--out", str(tmp_path / "out"), "--data", str(images), "--dataset", "folder"]
    assert main([*command, "--mask-suffix=_mask", "--samples", "2", "--size", "48"]) == 0
    assert {row.bin for row in read_manifest(tmp_path / "out")} == {"no lesion"}
    assert not (tmp_path / "out" / "sheet.png").exists()
    assert "No case has a lesion at this size." in capsys.readouterr().out


def test_flags_that_mean_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--out", str(tmp_path), "--phantoms", "3", "--masks", str(tmp_path)]) == 1
    assert "masks and mask_suffix belong to a folder of images" in capsys.readouterr().err


def test_ctrl_c_stops_the_workers_and_the_command_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from ultrarefiner.cli import main; sys.exit(main())", "simulate"]
    command += ["--out", str(tmp_path), "--phantoms", "4", "--samples", "400000", "--size", "96", "--sheet", "false"]
    command += ["--shard-size", "100", "--workers", "2"]
    # As on a terminal, where Ctrl-C arrives: what is started in the background inherits that it is ignored.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listening)
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("shard-*.zip"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert told.strip().endswith("ultrarefiner: stopped; the same command goes on from here.")
    assert "Traceback" not in told
    assert 2 <= len(list(tmp_path.glob("shard-*.zip"))) < 4000
