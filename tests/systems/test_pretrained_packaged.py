"""Models that come with the package: listed by name, loaded without a network, unknown names a sentence."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from saved_systems import images, tiny_refiner, tiny_transunet

from ultrarefiner.systems import UltraRefiner, load_pretrained, packaged, packaged_models


@pytest.fixture
def model() -> UltraRefiner:
    torch.manual_seed(0)
    return UltraRefiner(coarse=tiny_transunet(), refiner=tiny_refiner(), frame=64).eval()


@pytest.fixture
def shelf(tmp_path: Path, model: UltraRefiner, monkeypatch: pytest.MonkeyPatch) -> Path:
    model.save_pretrained(tmp_path / "small-pair", dtype=torch.float16)
    model.save_pretrained(tmp_path / "another")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "README.md").touch()
    monkeypatch.setattr(packaged, "_shelf", lambda: tmp_path)
    return tmp_path


def test_the_names_are_listed(shelf: Path) -> None:
    assert packaged_models() == ("another", "small-pair")


def test_a_model_is_loaded_by_its_name_in_single_precision(shelf: Path, model: UltraRefiner) -> None:
    loaded = load_pretrained("small-pair")
    assert not loaded.training
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert loaded.frame == 64
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(images()).coarse_probability, model(images()).coarse_probability, atol=0.01, rtol=0
        )


@pytest.mark.parametrize("name", ["other", "../another", "another/", "", ".", "/etc", "small-pair/../another"])
def test_other_names_get_a_sentence(shelf: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"come with the package, another, small-pair, but it is '"):
        load_pretrained(name)


def test_a_package_without_models_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "_shelf", lambda: tmp_path / "nothing")
    assert packaged_models() == ()
    with pytest.raises(ValueError, match=r"of which there are none, but it is 'any'"):
        load_pretrained("any")


def test_a_package_in_a_zip_archive_has_them_too(
    shelf: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path_factory.mktemp("zip") / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(shelf.rglob("*")):
            file.write(path, path.relative_to(shelf).as_posix())
    monkeypatch.setattr(packaged, "_shelf", lambda: zipfile.Path(archive))
    assert packaged_models() == ("another", "small-pair")
    assert load_pretrained("another").frame == 64
