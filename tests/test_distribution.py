"""What is published: the wheel and the sdist, built, looked into, installed in a fresh environment and used."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml

from ultrarefiner import packaged_models

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEM = f"ultrarefiner-{PROJECT['version']}"
LARGE = 2**20  # bytes; only weights that come along may be larger
SMOKE = """
import sys
from importlib import metadata
from pathlib import Path
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

def brought(distribution, extras):
    # What pip would install with it, and with that.
    for line in metadata.requires(distribution) or ():
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            key = (canonicalize_name(one.name), tuple(sorted(one.extras)))
            if key not in seen:
                seen.add(key)
                try:
                    brought(*key)
                except metadata.PackageNotFoundError:
                    pass  # a platform's own
seen = set()
brought("ultrarefiner", ())
declared = {"ultrarefiner", *(name for name, _ in seen)}
blocked = set()
for module, owners in metadata.packages_distributions().items():
    if not declared & {canonicalize_name(owner) for owner in owners}:
        blocked.add(module)
blocked -= {"packaging"}  # it asks, here
assert not {"torch", "PIL", "timm", "jsonargparse"} & blocked, blocked
assert {"scipy", "monai", "sklearn", "matplotlib", "nibabel", "pydicom", "griffe", "pytest"} <= blocked, blocked
assert not blocked & sys.modules.keys(), blocked & sys.modules.keys()
sys.modules.update(dict.fromkeys(blocked))
import ultrarefiner as ur
assert Path(ur.__file__).is_relative_to(Path(sys.prefix)), ur.__file__
import ultrarefiner.prediction, ultrarefiner.data
images = __import__("torch").rand(1, 1, 48, 64)
refiner = ur.SAMRefiner(ur.build_sam("tiny", image_size=64), cropper=ur.ROICropper())
coarse = ur.AtSize(ur.BackboneUNet(decoder_channels=(16, 8, 8, 8, 8)), 64)
model = ur.UltraRefiner(coarse=coarse, refiner=refiner, frame=64).eval()
assert model(images).refined_probability.shape == (1, 1, 48, 64)
try:
    ur.load_pretrained("no such model")
except Exception as error:
    assert all(name in str(error) for name in ur.packaged_models()), error
else:
    raise SystemExit("a model of no name was loaded")
for name in ur.packaged_models():
    ur.load_pretrained(name)
model.save_pretrained("pair")
import PIL.Image
PIL.Image.effect_noise((64, 48), 50).save("a.png")
from ultrarefiner.cli import main
assert main(["predict", "a.png", "--model", "pair", "--out", "found", "--no-progress"]) == 0
assert PIL.Image.open("found/masks/a.png").size == (64, 48)
try:
    from ultrarefiner.prompts import next_click
    next_click(images[:, :, :8, :8].round() * 0, images[:, :, :8, :8] * 0 + 1)
except ModuleNotFoundError as error:
    assert "ultrarefiner[evaluation]" in str(error), error
else:
    raise SystemExit("scipy was not blocked")
print(ur.__version__, *ur.packaged_models())
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    ran = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both; the wheel is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    assert sorted(path.name for path in folder.iterdir()) == [f"{STEM}-py3-none-any.whl", f"{STEM}.tar.gz"]
    return folder


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; its dependencies are those installed here, but not the package's sources."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    # Without its .pth files, so that an editable installation here is not seen there.
    paths = {"base": str(folder), "platbase": str(folder)}
    purelib = Path(sysconfig.get_path("purelib", scheme="venv", vars=paths))
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheel = built / f"{STEM}-py3-none-any.whl"
    run(scripts / "python", "-m", "pip", "install", "--no-deps", "--no-index", "--ignore-installed", wheel)
    return scripts


@pytest.mark.slow
def test_both_pass_the_check_of_the_index(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(built.iterdir()))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built / f"{STEM}-py3-none-any.whl") as wheel:
        sizes = {PurePosixPath(one.filename): one.file_size for one in wheel.infolist()}
        metadata = email.message_from_bytes(wheel.read(f"{STEM}.dist-info/METADATA"))
    assert {path.parts[0] for path in sizes} == {"ultrarefiner", f"{STEM}.dist-info"}
    sources = {
        PurePosixPath(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "ultrarefiner").rglob("*")
        if path.is_file() and not {"__pycache__", ".mypy_cache"} & {*path.parts}
    }
    assert {path for path in sizes if path.parts[0] == "ultrarefiner"} == sources
    assert PurePosixPath("ultrarefiner/py.typed") in sizes
    assert PurePosixPath(f"{STEM}.dist-info/licenses/LICENSE") in sizes
    stray = {str(path) for path in sizes if "tests" in path.parts or path.suffix in {".pyc", ".pt", ".pth"}}
    large = {str(p) for p, size in sizes.items() if size > LARGE and p.parts[:2] != ("ultrarefiner", "pretrained")}
    assert (stray, large) == (set(), set())
    assert sum(sizes.values()) < 40 * LARGE
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["Description-Content-Type"] == "text/markdown"


@pytest.mark.slow
def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    with tarfile.open(built / f"{STEM}.tar.gz") as sdist:
        sizes = {PurePosixPath(one.name).relative_to(STEM): one.size for one in sdist.getmembers() if one.isfile()}
    needed = """LICENSE README.md CHANGELOG.md CONTRIBUTING.md CITATION.cff pyproject.toml PKG-INFO .ci/run mkdocs.yml
        tests/public_names.json tests/downstream/pyproject.toml examples/quickstart.py docs/architecture.md
        .github/ISSUE_TEMPLATE/bug.yml ultrarefiner/py.typed"""
    for path in needed.split():
        assert PurePosixPath(path) in sizes, path
    hidden = {path.parts[0] for path in sizes if path.parts[0].startswith(".")}
    assert hidden <= {".ci", ".github", ".gitignore"}
    assert not {str(path) for path in sizes if path.suffix in {".pyc", ".pt", ".pth"}}
    large = {str(p) for p, size in sizes.items() if size > LARGE and p.parts[:2] != ("ultrarefiner", "pretrained")}
    assert not large
    assert sum(sizes.values()) < 60 * LARGE


@pytest.mark.slow
def test_the_wheel_works_where_it_is_installed(environment: Path, tmp_path: Path) -> None:
    """With nothing of what is installed here but the declared dependencies and what they bring."""
    lines = run(environment / "python", "-c", SMOKE, cwd=tmp_path).splitlines()
    assert lines[-1].split() == [PROJECT["version"], *packaged_models()]


@pytest.mark.slow
def test_the_command_works_where_it_is_installed(environment: Path, tmp_path: Path) -> None:
    told = run(environment / "ultrarefiner", "--help", cwd=tmp_path)
    assert all(command in told for command in ("predict", "evaluate", "train", "simulate", "cache", "download"))


def test_one_version_everywhere() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]


def test_the_citation_is_one() -> None:
    """The keys that version 1.2.0 of the format asks for, and none that it does not know."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"]
    known = {"type", "version", "license", "keywords", "abstract", "references", "date-released", "doi", "url"}
    assert citation.keys() - known <= {"cff-version", "message", "title", "authors", "repository-code"}
    assert all({"name"} == author.keys() or {"family-names"} <= author.keys() for author in citation["authors"])


def test_each_push_runs_what_stands_in_ci_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("page", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda page: page.stem)
def test_forms_for_issues_are_forms(page: Path) -> None:
    form = yaml.safe_load(page.read_text())
    if page.stem == "config":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= form.keys()
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for part in form["body"]:
        assert part["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert part["attributes"]["value" if part["type"] == "markdown" else "label"]


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 45
