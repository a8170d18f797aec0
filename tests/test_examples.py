"""The scripts that a newcomer runs. Minutes long: ``pytest -m slow tests/test_examples.py``."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_notebooks import cells_of

from ultrarefiner import UltraRefiner
from ultrarefiner.data import Phantoms

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PICTURES = ROOT / "docs" / "pictures"
# Those that draw what anybody can draw; the others ask for data.
DRAWINGS = [path for path in sorted(PICTURES.glob("draw_*.py")) if "required=True" not in path.read_text()]


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sources() -> dict[str, str]:
    """The code that users read: examples, drawings and the cells of notebooks."""
    scripts = {path.name: path.read_text() for path in (*EXAMPLES.glob("*.py"), *PICTURES.glob("*.py"))}
    return scripts | {path.name: "\n".join(cells_of(path)) for path in EXAMPLES.glob("*.ipynb")}


def modules_of(source: str) -> list[str]:
    """What it imports of the package."""
    nodes = list(ast.walk(ast.parse(source)))
    found = [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    found += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return [name for name in found if name.split(".")[0] == "ultrarefiner"]


def test_examples_and_drawings_import_from_rooms() -> None:
    """Not from the modules inside, which nobody promises: ``ultrarefiner.data``, not ``ultrarefiner.data.phantoms``."""
    assert modules_of("from ultrarefiner.data.phantoms import Phantoms") == ["ultrarefiner.data.phantoms"]
    deep = {name: [one for one in modules_of(source) if one.count(".") > 1] for name, source in sources().items()}
    assert {name: found for name, found in deep.items() if found} == {}


@pytest.mark.slow
@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_picture_is_drawn_again_at_the_size_that_is_kept(path: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(path), "--out", str(tmp_path)], capture_output=True, check=True)
    drawn = sorted(tmp_path.iterdir())
    assert drawn
    for picture in drawn:
        assert Image.open(picture).size == Image.open(PICTURES / picture.name).size


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


def lightning_run(folder: Path, epochs: int, *more: str) -> dict[str, torch.Tensor]:
    """The checkpoint's weights after so many epochs; 18 phantoms, so that both last batches are shorter."""
    few = ("--small", "--images", "18", "--epochs", str(epochs), "--out", str(folder), *more)
    assert "Dice of refined masks in validation: " in run("lightning_module.py", *few)
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == epochs - 1
    return {name.removeprefix("model."): weight for name, weight in kept["state_dict"].items() if "model." in name[:6]}


@pytest.mark.slow
def test_the_lightning_module_trains_saves_and_goes_on(tmp_path: Path) -> None:
    first = lightning_run(tmp_path / "broken_off", 1)
    resumed = lightning_run(tmp_path / "broken_off", 2, "--resume")
    unbroken = lightning_run(tmp_path / "unbroken", 2)
    saved = UltraRefiner.from_pretrained(tmp_path / "unbroken" / "model").state_dict()
    assert saved.keys() == unbroken.keys() == resumed.keys() == first.keys()
    for part in ("coarse.", "refiner.sam.image_encoder.", "refiner.sam.mask_decoder."):
        weights = [name for name in first if name.startswith(part) and first[name].is_floating_point()]
        assert any(not torch.equal(first[name], unbroken[name]) for name in weights), part
        assert any(not torch.equal(first[name], resumed[name]) for name in weights), part
    for name, weight in unbroken.items():
        assert torch.equal(saved[name], weight)
    assert any(not torch.equal(first[name], resumed[name]) for name in first), "the resumed run trained"


def test_the_lightning_module_resumes_only_what_is_there(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    command = [sys.executable, str(EXAMPLES / "lightning_module.py"), "--small", "--resume", "--out", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "train without it first" in told.stderr


@pytest.mark.slow
def test_one_mask_is_refined_by_the_script(tmp_path: Path) -> None:
    printed = run("refine_one_mask.py", "--epochs", "1", "--out", str(tmp_path))
    assert "Dice with the truth: " in printed
    assert Image.open(tmp_path / "refined.png").size == (256, 192)
    assert (tmp_path / "panel.png").stat().st_size > 10_000
    case = Phantoms(1, size=(64, 80))[0]
    for name, picture in (("scan", case.image), ("mask", case.mask)):
        Image.fromarray((picture[0] * 255).round().byte().numpy()).save(tmp_path / f"{name}.png")
    own = ("--image", str(tmp_path / "scan.png"), "--mask", str(tmp_path / "mask.png"))
    assert "never saw a real image" not in printed
    assert "never saw a real image" in run("refine_one_mask.py", *own, "--epochs", "1", "--out", str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["smp", "monai"])
def test_an_own_network_goes_through_three_phases(tmp_path: Path, network: str) -> None:
    few = ("--epochs", "1", "1", "1", "--cases", "16", "--out", str(tmp_path))
    assert "| Dice" in run("own_network.py", "--network", network, *few)
