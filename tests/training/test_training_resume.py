"""A run that is killed and started again ends like one that never was; one with other settings is not continued."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ultrarefiner
from ultrarefiner.checkpoints import read_tensors, write_tensors
from ultrarefiner.losses import DiceBCELoss
from ultrarefiner.prompts import DifferentiablePromptExtractor
from ultrarefiner.refinement import LearnedGate, ROICropper
from ultrarefiner.training import CoarseRecipe, JointRecipe, RefinerRecipe

KILLER = Path(__file__).with_name("kill_repeatedly.py")


def test_kill_nine_loses_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(ultrarefiner.__file__).parents[1])}
    subprocess.run([sys.executable, str(KILLER), str(tmp_path)], check=True, timeout=300, env=environment)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["status"] == 0, "a child failed by itself"
    assert report["kills"] >= 3
    assert len(report["saved"]) >= 2, "no kill came after a checkpoint"
    whole, killed = (read_tensors(tmp_path / name / "last.pt") for name in ("whole", "killed"))
    assert_same(whole, killed)
    assert_same(*(read_tensors(tmp_path / name / "best.pt") for name in ("whole", "killed")))
    for name in ("metrics.csv", "steps.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    names = {"last.pt", "best.pt", "metrics.csv", "steps.csv", "run.json", ".lock"}
    assert {path.name for path in (tmp_path / "killed").iterdir()} == names


def assert_same(one, other, name: str = "") -> None:
    """Equal to the last bit, whatever is nested in what."""
    assert type(one) is type(other), name
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            assert_same(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), name
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{name}.{index}")
    else:
        assert one == other, name


class UnpluggedError(Exception):
    """Somebody pulls the plug."""


def test_every_step_can_be_the_last_one_saved(network, fit, cases, tmp_path) -> None:
    """Break off after each step in turn, also in the middle of a window of the log and of an epoch's mean."""

    class Unplugged(list):
        seen = 0

        def __getitem__(self, index):
            type(self).seen += 1
            if type(self).seen == self.limit:
                raise UnpluggedError
            return super().__getitem__(index)

    whole = CoarseRecipe(network(), learning_rate=0.01)
    expected = read_tensors(fit(whole, folder=tmp_path / "whole", log_every=2).last)
    for limit in (4, 5, 8, 11):
        data = Unplugged(cases)
        data.limit, Unplugged.seen = limit, 0
        folder = tmp_path / str(limit)
        with pytest.raises(UnpluggedError):
            fit(
                CoarseRecipe(network(), learning_rate=0.01),
                dataset=data,
                folder=folder,
                checkpoint_every=1,
                log_every=2,
            )
        resumed = CoarseRecipe(network(), learning_rate=0.01)
        again = fit(resumed, folder=folder, checkpoint_every=None, log_every=2)
        assert_same(read_tensors(again.last), expected)
        assert (folder / "steps.csv").read_bytes() == (tmp_path / "whole" / "steps.csv").read_bytes()


def recipe_of(kind: str, ultra, network):
    """Each phase with all that it can have: augmentation, dropout, failures, regions, a gate, an anchor, stages."""
    if kind == "coarse":
        return CoarseRecipe(network(), learning_rate=0.01)
    model = ultra(gate=LearnedGate())
    model.refiner.cropper = ROICropper(expand=0.2)
    if kind == "refiner":
        return RefinerRecipe(model.refiner, learning_rate=1e-3)
    return JointRecipe(model, coarse_learning_rate=0.01, anchor_weight=0.5, freeze_coarse_epochs=1)


@pytest.mark.parametrize("kind", ["coarse", "refiner", "joint"])
def test_each_phase_resumes_exactly(kind, ultra, network, fit, cases, other_cases, tmp_path, caplog) -> None:
    class Unplugged(list):
        left = 9  # cases: into the second epoch

        def __getitem__(self, index):
            self.left -= 1
            if self.left < 0:
                raise UnpluggedError
            return super().__getitem__(index)

    with torch.random.fork_rng():
        torch.manual_seed(0)  # a gate draws its weights
        whole = recipe_of(kind, ultra, network)
    start = {name: tensor.clone() for name, tensor in whole.module.state_dict().items()}
    broken = recipe_of(kind, ultra, network)
    broken.module.load_state_dict(start)
    with pytest.raises(UnpluggedError):
        fit(broken, dataset=Unplugged(cases), validation=other_cases, checkpoint_every=1)
    expected = fit(whole, folder=tmp_path / "whole", validation=other_cases)
    resumed = recipe_of(kind, ultra, network)
    with caplog.at_level("INFO", "ultrarefiner"):
        again = fit(resumed, validation=other_cases)
    assert (again.steps, again.resumed_from, again.best_dice) == (6, 4, expected.best_dice)
    assert "after step 4, in epoch 2 of 2" in caplog.text
    final = resumed.module.state_dict()
    assert any(not torch.equal(tensor, final[name]) for name, tensor in start.items())
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(final[name], tensor), name


def test_other_cases_of_equal_number_are_refused(coarse, fit, cases, other_cases) -> None:
    fit(coarse(), dataset=cases[:3], validation=cases[3:])
    with pytest.raises(
        ValueError,
        match=r"by a run with another training set: it was 3 cases of side 32 with the digest .*, but now .* 3",
    ):
        fit(coarse(), dataset=other_cases, validation=cases[3:])
    with pytest.raises(ValueError, match=r"another validation set: it was 3 cases .*or train into another folder"):
        fit(coarse(), dataset=cases[:3], validation=other_cases)
    with pytest.raises(ValueError, match=r"another validation set: it was 3 cases .*, but now it is none"):
        fit(coarse(), dataset=cases[:3])
    assert fit(coarse(), dataset=cases[:3], validation=cases[3:]).resumed_from == 4


def test_an_anchor_remembers_where_it_began(ultra, fit) -> None:
    model = ultra()
    start = {name: tensor.clone() for name, tensor in model.coarse.state_dict().items()}
    fit(JointRecipe(model, anchor_weight=0.5, coarse_learning_rate=0.01), epochs=1, checkpoint_every=1)
    assert not torch.equal(model.coarse.head.weight, start["head.weight"])
    again = ultra()
    with torch.no_grad():
        again.coarse.head.weight.add_(1.0)  # a script that loads other weights before it resumes
    recipe = JointRecipe(again, anchor_weight=0.5, coarse_learning_rate=0.01)
    fit(recipe, epochs=1)
    assert torch.equal(recipe.auxiliary().state_dict()["_anchor.start/head/weight"], start["head.weight"])


@pytest.mark.parametrize(
    ("recipe_options", "train_options", "sentence"),
    [
        ({"learning_rate": 0.5}, {}, "whose recipe.learning_rate was 0.01, but now it is 0.5. Go on with the settings"),
        ({"loss": DiceBCELoss(bce_weight=0.5)}, {}, r"recipe.loss.bce_weight was 1.0, but now it is 0.5"),
        ({"frozen": {"encoder": 1}}, {}, "recipe.frozen.encoder was 'absent', but now it is 1"),
        ({}, {"epochs": 3}, "plan.epochs was 2, but now it is 3"),
        ({}, {"seed": 1}, "plan.seed was 0, but now it is 1"),
        ({}, {"batch_size": 3}, "plan.batch_size was 2, but now it is 3"),
        ({}, {"precision": "bf16-mixed"}, "plan.precision was '32-true', but now it is 'bf16-mixed'"),
    ],
)
def test_other_settings_are_refused(coarse, fit, recipe_options, train_options, sentence) -> None:
    fit(coarse())
    with pytest.raises(ValueError, match=sentence):
        fit(coarse(**recipe_options), **train_options)


@pytest.mark.parametrize(
    ("kind", "younger", "other"),
    [
        ("refiner", {"frozen": {}, "gate": None}, {"frozen": {"prompts": None}}),
        ("joint", {"stored_weight": 0.0}, {"stored_weight": 0.5}),
    ],
)
def test_a_run_from_before_a_setting_was_there_goes_on(kind, younger, other, ultra, fit) -> None:
    def recipe(**options):
        return RefinerRecipe(ultra().refiner, **options) if kind == "refiner" else JointRecipe(ultra(), **options)

    last = fit(recipe(), epochs=1).last
    content = read_tensors(last)
    for name, default in younger.items():
        assert content["settings"]["recipe"].pop(name) == default
    write_tensors(last, content)
    assert fit(recipe(), epochs=1).resumed_from == 3
    (name,) = other
    with pytest.raises(ValueError, match=rf"whose recipe.{name}.* was .*, but now it is"):
        fit(recipe(**other), epochs=1)
    del content["settings"]["recipe"]["learning_rate" if kind == "refiner" else "iou_weight"]  # as old as the recipe
    write_tensors(last, content)
    with pytest.raises(ValueError, match="was 'absent', but now it is"):
        fit(recipe(), epochs=1)


def test_another_mask_style_is_refused(ultra, fit) -> None:
    fit(JointRecipe(ultra()), epochs=1)
    other = ultra()
    other.refiner.prompts = DifferentiablePromptExtractor(image_size=64, mask_style="gaussian")
    with pytest.raises(ValueError, match=r"prompts.mask_style was 'direct', but now it is 'gaussian'"):
        fit(JointRecipe(other), epochs=1)


def test_damaged_and_foreign_checkpoints_are_refused(coarse, fit, tmp_path) -> None:
    last = fit(coarse()).last
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last.pt .* is truncated or damaged"):
        fit(coarse())
    write_tensors(last, {"state_dict": {}})
    with pytest.raises(
        ValueError, match=r"not a checkpoint of a run \(format 1\): it holds state_dict, and lacks model"
    ):
        fit(coarse())


@pytest.mark.parametrize("missing", ["scaler", "auxiliary", "progress.best_dice", "model.head.weight"])
def test_a_checkpoint_that_lacks_something_is_refused(coarse, fit, missing) -> None:
    last = fit(coarse()).last
    content = read_tensors(last)
    place, _, key = missing.partition(".")
    del (content[place] if key else content)[key or place]
    write_tensors(last, content)
    sentence = r"1 tensors are missing.*first head.weight" if key == "head.weight" else rf"and lacks {missing}\. Train"
    with pytest.raises(ValueError, match=sentence):
        fit(coarse())


def test_a_run_that_never_saved_starts_anew(coarse, fit, tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "steps.csv").write_text("step,epoch\n2,0\n")
    (folder / "metrics.csv").write_text("epoch,step\n0,3\n")
    (folder / ".last.pt.part").write_bytes(b"half")
    fit(coarse(), log_every=2)
    assert (folder / "metrics.csv").read_text().count("\n") == 3
    assert not (folder / ".last.pt.part").exists()
