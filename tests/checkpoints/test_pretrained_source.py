"""Where a saved system is found: folders win, the hub is asked for two files only; no network in these tests."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from ultrarefiner.checkpoints import pretrained_folder


class Hub:
    """huggingface_hub.snapshot_download, without the hub."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None

    def __call__(self, name: str, **options: Any) -> str:
        self.asked.append((name, options))
        if self.error is not None:
            raise self.error
        return str(self.folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).touch()
    hub = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    return hub


def test_a_folder_wins_and_the_hub_is_not_asked(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert pretrained_folder("owner/model").resolve() == (tmp_path / "owner" / "model").resolve()
    assert hub.asked == []


def test_two_files_of_one_revision_are_asked_for(hub: Hub, tmp_path: Path) -> None:
    found = pretrained_folder("owner/model", revision="v1", token="t", cache_dir=tmp_path / "c", local_files_only=True)
    assert found == hub.folder
    ((name, options),) = hub.asked
    assert name == "owner/model"
    assert options == {
        "revision": "v1",
        "token": "t",
        "cache_dir": str(tmp_path / "c"),
        "local_files_only": True,
        "allow_patterns": ["config.json", "model.safetensors"],
    }


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "../secret", "/etc/nothing", "owner/..", "a b/c", "~x/y", "a/.b"])
def test_what_is_neither_folder_nor_id_gets_a_sentence(hub: Hub, name: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"There is no folder .* no repository either: an id on the Hugging Face"
    ):
        pretrained_folder(name)
    assert hub.asked == []


def test_a_path_object_is_never_an_id(hub: Hub) -> None:
    with pytest.raises(FileNotFoundError, match="There is no folder owner/model"):
        pretrained_folder(Path("owner/model"))
    assert hub.asked == []


def test_a_file_gets_a_sentence(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model.safetensors is a file, but a saved system is a folder; give .*snapshot"
    ):
        pretrained_folder(hub.folder / "model.safetensors")


@pytest.mark.parametrize(("offline", "where"), [(False, "on the Hugging Face hub"), (True, "that were fetched before")])
def test_a_failure_of_the_hub_gets_a_sentence_without_the_token(hub: Hub, offline: bool, where: str) -> None:
    hub.error = ConnectionError("no route\nsecond line")
    with pytest.raises(FileNotFoundError) as caught:
        pretrained_folder("owner/model", revision="v1", token="hf_secret", local_files_only=offline)
    sentence = str(caught.value)
    assert "There is no folder owner/model here" in sentence
    assert "owner/model at revision v1 could not be had" in sentence
    assert where in sentence
    assert "(ConnectionError: no route)" in sentence
    assert "secret" not in sentence


def test_a_repository_without_the_files_gets_a_sentence(hub: Hub) -> None:
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"owner/model on the Hugging Face hub has no model.safetensors, so it"):
        pretrained_folder("owner/model")
    (hub.folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config.json and no model.safetensors"):
        pretrained_folder("owner/model")


def test_without_the_package_there_is_a_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ModuleNotFoundError(name=name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"huggingface-hub: pip install 'ultrarefiner\[hub\]'"):
        pretrained_folder("owner/model")
