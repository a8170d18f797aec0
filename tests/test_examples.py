"""The scripts that a newcomer runs. Minutes long: ``pytest -m slow tests/test_examples.py``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ultrarefiner import UltraRefiner
from ultrarefiner.data import Phantoms

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_the_quickstart_ends_with_the_table_and_the_picture(tmp_path: Path) -> None:
    printed = run("quickstart.py", "--out", str(tmp_path))
    assert "| Dice" in printed
    assert (tmp_path / "panels.png").stat().st_size > 10_000
    assert len((tmp_path / "cases.csv").read_text().splitlines()) > 40


@pytest.mark.slow
def test_the_three_phases_run_small_one_after_the_other(tmp_path: Path) -> None:
    small = ("--small", "--epochs", "1", "--out", str(tmp_path))
    assert "TrainingResult" in run("phase1_coarse.py", *small)
    assert "out-of-fold predictions and 32 of phase 1" in run("phase1_out_of_fold.py", *small)
    for failures in ("mixed", "simulated"):
        assert "TrainingResult" in run("phase2_refiner.py", *small, "--failures", failures)
    compared = run("phase2_compare.py", *small)
    assert "| the full simulation |" in compared
    assert "| that and out-of-fold predictions |" in compared
    assert "no phase has seen" in run("phase3_joint.py", *small)
    assert (tmp_path / "phantoms" / "after_phase_3" / "panels.png").exists()


@pytest.mark.slow
def test_microsegnet_ends_with_a_table_in_millimetres(tmp_path: Path) -> None:
    printed = run("microsegnet.py", "--small", "--epochs", "3", "--out", str(tmp_path))
    assert "HD95 of a slice ↓ (mm)" in printed
    assert (tmp_path / "slices.png").stat().st_size > 10_000
    assert len((tmp_path / "volumes.csv").read_text().splitlines()) == 7


@pytest.mark.slow
def test_the_sweep_ends_with_a_picture(tmp_path: Path) -> None:
    printed = run(
        "hard_region_weight.py", "--weights", "1", "12", "--seeds", "1", "--epochs", "1", "--out", str(tmp_path)
    )
    assert "w = 12: dice" in printed
    assert (tmp_path / "sweep.png").exists()


@pytest.mark.slow
def test_sam_without_a_prompt_runs_small_and_composes(tmp_path: Path) -> None:
    small = ("--small", "--epochs", "1", "--phantoms", "16", "--sam-epochs", "1", "--out", str(tmp_path))
    for labels in ("boxes", "masks"):
        printed = run("automedsam.py", *small, "--labels", labels)
    assert "a small SAM is trained first" not in printed, "it is kept"
    for row in ("| boxes, the project's way |", "| full masks, the project's way |", "| (the true box, filled) |"):
        assert row in printed
    for head in ("sam", "light"):
        printed = run("autosam.py", *small, "--head", head)
    assert "| light decoder h(g(I)) |" in printed
    printed = run("composed.py", *small)
    assert "holds no run" not in printed
    assert "norm of the gradient in AutoMedSAM's prompt module, through points and box: " in printed
    folder = tmp_path / "phantoms"
    for name in ("composed/panels.png", "autosam_sam/curves.png", "automedsam_project_boxes/snapshots/epoch0000.png"):
        assert (folder / name).stat().st_size > 10_000


@pytest.mark.slow
def test_clicks_end_with_a_table_and_pictures(tmp_path: Path) -> None:
    printed = run("clicks.py", "--small", "--epochs", "1", "--volumes", "1", "1", "1", "--out", str(tmp_path))
    assert "| box + correction |" in printed
    assert "nilearn's MNI template" in printed
    for name in ("clicks.png", "slices.png", "clicks.md"):
        assert next(tmp_path.rglob(name)).stat().st_size > 100


@pytest.mark.slow
def test_clicks_in_images_end_with_a_table_and_a_picture(tmp_path: Path) -> None:
    printed = run("image_clicks.py", "--small", "--epochs", "1", "--out", str(tmp_path))
    assert "| correction |" in printed
    for name in ("clicks.png", "clicks.md"):
        assert next(tmp_path.rglob(name)).stat().st_size > 100


def write_busi(root: Path) -> None:
    """Phantoms in the layout of BUSI, two images a group, and three without a lesion."""
    rows = ["case,group"]
    for index, case in enumerate(Phantoms(12, size=(64, 80))):
        label = ("benign", "malignant", "normal")[index % 4 % 3]
        name = f"{label} ({index})"
        folder = root / "Dataset_BUSI_with_GT" / label
        folder.mkdir(parents=True, exist_ok=True)
        mask = torch.zeros_like(case.mask) if label == "normal" else case.mask
        for picture, ending in ((case.image, ""), (mask, "_mask")):
            Image.fromarray((picture[0] * 255).round().byte().numpy()).save(folder / f"{name}{ending}.png")
        rows.append(f"{name},{index // 2}")
    (root / "near_duplicate_groups.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.slow
def test_the_light_pair_is_trained_measured_and_packed(tmp_path: Path) -> None:
    write_busi(tmp_path / "busi")
    told = ("--data", str(tmp_path / "busi"), "--out", str(tmp_path / "light"))
    short = (*told, "--epochs", "1")
    for which in (("--train-on", "0"), ("--train-on", "1"), ("--train-on", "2"), ("--fold", "0"), ("--all",)):
        assert "TrainingResult" in run("light_pair.py", "coarse", *short, *which)
    for stage in ("refiner", "joint"):
        assert "TrainingResult" in run("light_pair.py", stage, *short, "--fold", "0")
        measured = run("light_pair_results.py", "measure", *told, "--run", stage, "--folds", "0")
        assert "4 images" in measured
    for picture in (("curves", *told[2:]), ("cases", *told)):
        run("light_pair_pictures.py", *picture, "--folds", "0", "--to", str(tmp_path / f"{picture[0]}.png"))
        assert (tmp_path / f"{picture[0]}.png").stat().st_size > 5_000
    table = run("light_pair_results.py", "table", *told, "--runs", "refiner", "joint", "--folds", "0")
    assert "| joint, accepted from IoU 0.5 |" in table
    shutil.copytree(tmp_path / "light" / "fold0", tmp_path / "light" / "all", dirs_exist_ok=True)
    packed = run("light_pair_results.py", "pack", *told, "--to", str(tmp_path / "pair"))
    assert "23." in packed
    assert UltraRefiner.from_pretrained(tmp_path / "pair").acceptance is not None


SCRIPTS = [path.name for path in sorted(EXAMPLES.glob("*.py")) if "__main__" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_what_it_does(script: str) -> None:
    assert "python examples/" in run(script, "--help")


@pytest.mark.slow
def test_the_lightning_module_trains_and_saves(tmp_path: Path) -> None:
    assert "Dice of refined masks" in run("lightning_module.py", "--small", "--out", str(tmp_path))
    assert UltraRefiner.from_pretrained(tmp_path / "model") is not None


@pytest.mark.slow
def test_one_mask_is_refined_by_the_script(tmp_path: Path) -> None:
    printed = run("refine_one_mask.py", "--epochs", "1", "--out", str(tmp_path))
    assert "Dice with the truth: " in printed
    assert Image.open(tmp_path / "refined.png").size == (256, 192)
    assert (tmp_path / "panel.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("network", ["smp", "monai"])
def test_an_own_network_goes_through_three_phases(tmp_path: Path, network: str) -> None:
    few = ("--epochs", "1", "1", "1", "--cases", "16", "--out", str(tmp_path))
    assert "| Dice" in run("own_network.py", "--network", network, *few)
