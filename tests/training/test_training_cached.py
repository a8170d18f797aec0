"""Phase 2 on stored embeddings: step by step the losses of phase 2 without them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from ultrarefiner.data import CachedEmbeddings, EmbeddingCache, FittedCases, Phantoms, SimulatedFailures
from ultrarefiner.refinement import ROICropper
from ultrarefiner.sam import build_sam
from ultrarefiner.simulation import FailureSimulator
from ultrarefiner.systems import SAMRefiner, UltraRefiner, build_autosam_generator, legacy_autosam
from ultrarefiner.training import AutoSAMRecipe, CoarseRecipe, JointRecipe, RefinerRecipe, train

CASES = FittedCases(Phantoms(4, size=(48, 64)), 64)


def refiner(**options: object) -> SAMRefiner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SAMRefiner(build_sam("tiny", image_size=64), **options)


def losses(folder: Path, *, cached: bool) -> list[float]:
    model = refiner()
    dataset = SimulatedFailures(CASES, FailureSimulator(), samples=12)
    if cached:
        cache = EmbeddingCache(folder / "cache", model.sam)
        cache.fill(CASES, progress=False)
        dataset = CachedEmbeddings(dataset, cache)
    recipe = RefinerRecipe(model, augmentation=None, learning_rate=1e-3)
    train(
        recipe, dataset, folder=folder / "run", epochs=2, batch_size=3, log_every=1, tensorboard=False, progress=False
    )
    with (folder / "run" / "steps.csv").open() as stream:
        return [float(row["train/loss"]) for row in csv.DictReader(stream)]


def test_the_losses_are_those_without_a_cache(tmp_path: Path) -> None:
    live, stored = losses(tmp_path / "live", cached=False), losses(tmp_path / "stored", cached=True)
    assert len(live) == 8
    assert stored == pytest.approx(live, rel=2e-3)
    assert live[0] != live[-1]


def test_the_image_encoder_does_not_run(tmp_path: Path) -> None:
    model = refiner()
    cache = EmbeddingCache(tmp_path / "cache", model.sam)
    cache.fill(CASES, progress=False)

    def refuse(*_: object) -> None:
        raise AssertionError("the encoder ran")

    model.sam.image_encoder.register_forward_pre_hook(refuse)
    dataset = CachedEmbeddings(CASES, cache)
    others = FittedCases(Phantoms(2, size=(48, 64), seed=1), 64)
    EmbeddingCache(tmp_path / "cache", refiner().sam).fill(others, progress=False)
    recipe = RefinerRecipe(model, augmentation=None, failures=FailureSimulator())
    validation = CachedEmbeddings(others, cache)
    train(
        recipe, dataset, validation=validation, folder=tmp_path / "run", epochs=1, batch_size=2, tensorboard=False,
        progress=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({}, {}, "augmentation must be None with stored embeddings"),
        ({"augmentation": None, "train_image_encoder": True}, {}, "train_image_encoder must be False with stored"),
        ({"augmentation": None}, {"cropper": ROICropper()}, "the refiner must have no cropper with stored"),
        (
            {"augmentation": None, "frozen": {"sam.image_encoder.neck": 1, "sam.image_encoder.blocks": None}},
            {},
            r"^frozen\['sam.image_encoder.neck'\] must be None with stored",
        ),
    ],
)
def test_what_does_not_go_with_stored_embeddings_is_refused(
    tmp_path: Path, changes: dict[str, object], options: dict[str, object], sentence: str
) -> None:
    model = refiner(**options)
    cache = EmbeddingCache(tmp_path / "cache", model.sam)
    cache.fill(CASES, progress=False)
    recipe = RefinerRecipe(model, **changes)
    with pytest.raises(ValueError, match=sentence):
        train(
            recipe, CachedEmbeddings(CASES, cache), folder=tmp_path / "run", epochs=1, batch_size=2,
            tensorboard=False, progress=False,
        )  # fmt: skip


def test_embeddings_of_another_sam_or_policy_are_refused_before_the_run(tmp_path: Path) -> None:
    model = refiner()
    cache = EmbeddingCache(tmp_path / "cache", model.sam)
    cache.fill(CASES, progress=False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = SAMRefiner(build_sam("tiny", image_size=64))
    for dataset in (CachedEmbeddings(CASES, cache), Subset(CachedEmbeddings(CASES, cache), [0, 1])):
        with pytest.raises(ValueError, match=r"made with encoder '.*', but the SAM that trains has"):
            train(
                RefinerRecipe(other, augmentation=None), dataset, folder=tmp_path / "run", epochs=1, batch_size=2,
                tensorboard=False, progress=False,
            )  # fmt: skip
    system = legacy_autosam(model.sam, build_autosam_generator("tiny", channels=64, size=4), input_size=64)
    with pytest.raises(ValueError, match=r"made with input\.policy 'sam', but the SAM that trains has 'sam twice'"):
        train(
            AutoSAMRecipe(system, augmentation=None), CachedEmbeddings(CASES, cache), folder=tmp_path / "run",
            epochs=1, batch_size=2, tensorboard=False, progress=False,
        )  # fmt: skip


def test_recipes_without_a_use_for_embeddings_say_so(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache", refiner().sam)
    with pytest.raises(ValueError, match="dataset brings stored embeddings, but CoarseRecipe has no use for them"):
        train(
            CoarseRecipe(torch.nn.Conv2d(1, 1, 3, padding=1)), CachedEmbeddings(CASES, cache), folder=tmp_path / "run",
            epochs=1, batch_size=2, tensorboard=False, progress=False,
        )  # fmt: skip


def joint_losses(folder: Path, *, cached: bool) -> list[float]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        coarse = torch.nn.Conv2d(1, 1, 5, padding=2)
    model = UltraRefiner(coarse=coarse, refiner=refiner())
    dataset: FittedCases | CachedEmbeddings = CASES
    if cached:
        cache = EmbeddingCache(folder / "cache", model.refiner.sam)
        cache.fill(CASES, progress=False)
        dataset = CachedEmbeddings(CASES, cache)

        def refuse(*_: object) -> None:
            raise AssertionError("the encoder ran")

        model.refiner.sam.image_encoder.register_forward_pre_hook(refuse)
    recipe = JointRecipe(model, augmentation=None, coarse_learning_rate=1e-2, refiner_learning_rate=1e-3)
    train(
        recipe, dataset, folder=folder / "run", epochs=2, batch_size=2, log_every=1, tensorboard=False, progress=False
    )
    with (folder / "run" / "steps.csv").open() as stream:
        return [float(row["train/loss"]) for row in csv.DictReader(stream)]


def test_phase_3_too_has_the_losses_that_it_has_without_a_cache(tmp_path: Path) -> None:
    live, stored = joint_losses(tmp_path / "live", cached=False), joint_losses(tmp_path / "stored", cached=True)
    assert len(live) == 4
    assert stored == pytest.approx(live, rel=2e-3)
    assert live[0] != live[-1]


def test_phase_3_refuses_what_does_not_go_with_stored_embeddings(tmp_path: Path) -> None:
    model = UltraRefiner(coarse=torch.nn.Conv2d(1, 1, 5, padding=2), refiner=refiner())
    cache = EmbeddingCache(tmp_path / "cache", model.refiner.sam)
    cache.fill(CASES, progress=False)
    recipe = JointRecipe(model, augmentation=None, freeze_image_encoder=False)
    with pytest.raises(ValueError, match="freeze_image_encoder must be True with stored"):
        train(
            recipe, CachedEmbeddings(CASES, cache), folder=tmp_path / "run", epochs=1, batch_size=2, tensorboard=False,
            progress=False,
        )  # fmt: skip
