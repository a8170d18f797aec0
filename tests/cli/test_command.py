"""The command line around everything: what was asked for, flags as people write them, exit codes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from docstring_parser import parse
from hypothesis import given, settings
from hypothesis import strategies as st

import ultrarefiner
from ultrarefiner.cli import main
from ultrarefiner.cli.outcome import EXIT_CODES, SOME_BROKEN, Outcome
from ultrarefiner.cli.parsing import CommandParser, command_parser, overview, spelt_out
from ultrarefiner.cli.registry import COMMANDS, GROUPS, Command, asked_for

EVERY = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def parser_of(words: tuple[str, ...]) -> CommandParser:
    return command_parser(words, COMMANDS[words])


def put_in_place(monkeypatch: pytest.MonkeyPatch, function: object, **options: object) -> None:
    """A command "try" of this function."""
    module = ModuleType("ultrarefiner.cli.made_up")
    module.run = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ultrarefiner.cli.made_up", module)
    monkeypatch.setitem(COMMANDS, ("try",), Command("made_up", "run", "Try.", **options))  # type: ignore[arg-type]


@EVERY
def test_every_flag_of_every_command_has_a_help_text(words: tuple[str, ...]) -> None:
    parser = parser_of(words)
    # jsonargparse writes the text of --print_config itself, when it is shown.
    told = {action.dest: action.help for action in parser._actions if action.dest != "print_config"}
    assert len(told) >= 5
    for name, text in told.items():
        assert str(text or "").strip(), f"{' '.join(words)} --{name}"
    assert "Exit codes: 0 all was done" in " ".join(parser.format_help().split())


@EVERY
def test_the_line_of_every_command_is_its_functions(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert command.told == parse(str(command.load().__doc__)).short_description
    assert len(command.told) < 120


@EVERY
def test_every_switch_may_stand_alone(words: tuple[str, ...]) -> None:
    parser = parser_of(words)
    words_of = ("{true,false}", "{true,false,null}")
    told = {action.dest for action in parser._actions if str(action.metavar or action.choices) in words_of}
    shown = parser.format_help()
    for name in parser.switches:
        assert any(f"--{name} {told_words}\n" in shown or f"--{name} {told_words} " in shown for told_words in words_of)
    assert sum(shown.count(f" {told_words}") for told_words in words_of) == len(parser.switches)
    assert told <= parser.switches
    for name in sorted(parser.switches):
        for written, value in ((f"--{name}", "true"), (f"--no-{name.replace('_', '-')}", "false")):
            assert spelt_out([written], parser.switches, None) == [f"--{name}={value}"]


@EVERY
def test_a_printed_config_is_read_back_and_flags_win(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = parser_of(words)
    number = "epochs" if "train" in words else {"simulate": "samples", "cache": "batch_size"}.get(words[0], "threshold")
    value, later = ("0.25", "0.75") if number == "threshold" else ("7", "9")
    text = {"data": "a folder: with [odd] characters"} if words[0] not in ("predict", "download") else {}
    switch = sorted(parser.switches)[0]
    given = [f"--{switch}=true", *(f"--{name}={value}" for name, value in text.items())]
    given += ["a [1].png", "b: c.png"] if COMMANDS[words].positional else []
    given += [] if words[0] == "download" else [f"--{number}", value]
    given += ["--out", "there"] if words[0] not in ("predict", "download") else []
    printed = _printed(words, given, capsys)
    file = tmp_path / "flags.yaml"
    file.write_text(printed)
    assert _printed(words, ["--config", str(file)], capsys) == printed
    if words[0] != "download":
        assert f"{number}: {value}" in printed
        changed = _printed(words, ["--config", str(file), f"--{number}", later], capsys)
        assert changed == printed.replace(f"{number}: {value}", f"{number}: {later}")


def _printed(words: tuple[str, ...], flags: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*words, *flags, "--print_config"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_a_config_is_what_the_command_runs_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(paths: list[Path], rate: float = 0.5, quick: bool = False) -> str:
        return f"{[str(path) for path in paths]} {rate} {quick}"

    put_in_place(monkeypatch, run, positional="paths")
    (tmp_path / "a.yaml").write_text("paths: [one, two]\nrate: 0.25\nquick: true\n")
    config = ["try", "--config", str(tmp_path / "a.yaml")]
    assert main(config) == 0
    assert main(["try", "three", "--rate", "1e-3", "--no-quick", *config[1:]]) == 0, "flags win wherever they stand"
    assert main(["try", "--paths", "four", "--paths=five.png", "six"]) == 0, "the flag of words may be given, too"
    assert main(["try", "a b", "--rate=-1", "--quick", "c,[d]", "--", "--e"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "['one', 'two'] 0.25 True",
        "['three'] 0.001 False",
        "['four', 'five.png', 'six'] 0.5 False",
        "['a b', 'c,[d]', '--e'] -1.0 True",
    ]


@settings(deadline=None, max_examples=30)
@given(
    words=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1), max_size=4),
    switched=st.booleans(),
    value=st.from_regex(r"[a-z0-9 ./]{1,8}", fullmatch=True),
)
def test_words_and_flags_may_be_mixed_in_any_order(words: list[str], switched: bool, value: str) -> None:
    words = [word for word in words if not word.startswith("-")]
    words = [word for word in words if word.lower() not in ("true", "false", "yes", "no")]
    flags = [["--quick"] if switched else ["--no-quick"], ["--out-folder", value]]
    parser = CommandParser()
    parser.add_argument("--quick", type=bool, help="Quick.")
    parser.add_argument("--out_folder", type=str, help="Where.")
    parser.add_argument("--names", type=list[str], default=[], help="Who.")
    for mixed in ([*words, *flags[0], *flags[1]], [*flags[1], *words[:1], *flags[0], *words[1:]]):
        found = parser.parse_args(spelt_out(mixed, parser.switches, "names"))
        assert (found.quick, found.names) == (switched, words)
        assert found.out_folder.strip() == value.strip()


def test_words_that_no_command_wants_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (["simulate", "image.png"], "image.png"),
        (["download", "--wrong", "1"], "--wrong"),
        (["predict", "a.png", "--device", "abacus"], "device"),
        (["train", "autosam", "--out", "x", "--device", "1"], "unrecognized arguments: --device=1"),
        (["predict", "a.png", "--mod", "x"], "unrecognized arguments: --mod=x"),
        (["--vers"], "required: COMMAND"),
        (["predict", "a.png", "--config", sys.executable], "--config must be a YAML file of flags, but it is no text"),
        (["unknown"], "invalid choice: 'unknown'"),
        (["train", "unknown"], "invalid choice: 'unknown'"),
        (["train"], "required: COMMAND"),
        ([], "required: COMMAND"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert sentence in capsys.readouterr().err


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"ultrarefiner {ultrarefiner.__version__}\n"


def test_the_overview_has_every_command_and_the_exit_codes() -> None:
    everything = " ".join(overview([], "1.2").format_help().split())
    assert EXIT_CODES in everything
    for words, command in COMMANDS.items():
        assert words[0] in everything
        if len(words) == 1:
            assert command.told in everything
        else:
            assert GROUPS[words[0]] in everything
            assert command.told in " ".join(overview(words[:1], "1.2").format_help().split())
            assert asked_for([*words, "--help"]) == words
    for code in ("0", "1", "2", "3", "130"):
        assert f" {code} " in EXIT_CODES
        assert code in str(main.__doc__)


@pytest.mark.parametrize(
    ("raised", "code", "sentence"),
    [
        (ValueError("rate must be more."), 1, "ultrarefiner: rate must be more.\n"),
        (FileNotFoundError("there is no folder x."), 1, "ultrarefiner: there is no folder x.\n"),
        (ModuleNotFoundError("it needs the package y."), 1, "ultrarefiner: it needs the package y.\n"),
        (FloatingPointError("the loss is NaN."), 1, "ultrarefiner: the loss is NaN.\n"),
        (torch.OutOfMemoryError("no memory."), 1, "Give a smaller batch_size"),
        (KeyboardInterrupt(), 130, "ultrarefiner: stopped; the same command goes on from here.\n"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    sentence: str,
) -> None:
    def run() -> str:
        raise raised

    put_in_place(monkeypatch, run)
    assert main(["try"]) == code
    assert sentence in capsys.readouterr().err


def test_what_does_not_go_on_does_not_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> str:
        raise KeyboardInterrupt

    put_in_place(monkeypatch, run, goes_on=False)
    assert main(["try"]) == 130
    assert capsys.readouterr().err == "ultrarefiner: stopped.\n"


def test_what_was_done_in_part_tells_both(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> Outcome:
        return Outcome("2 of 3.", ("c is broken.",), SOME_BROKEN)

    put_in_place(monkeypatch, run)
    assert main(["try"]) == 3
    told = capsys.readouterr()
    assert (told.out, told.err) == ("2 of 3.\n", "c is broken.\n")


def test_names_of_any_bytes_are_taken_and_said(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    odd = "é\udcff '\"x: [1]"

    def run(paths: list[Path], out: Path = Path("there"), quick: bool = False) -> Outcome:
        assert paths == [Path(odd), Path("b")]
        assert out == Path(odd)
        return Outcome(f"{odd} is done.", (f"{odd} is not.",))

    put_in_place(monkeypatch, run, positional="paths")
    for name in ("stdout", "stderr"):
        stream = open(getattr(sys, name).fileno(), "w", encoding="ascii", closefd=False)  # noqa: SIM115
        monkeypatch.setattr(sys, name, stream)
    assert main(["try", odd, "b", "--out", odd]) == 0
    told = capfdbinary.readouterr()
    assert told.out.startswith(rb"\xe9\udcff")
    assert told.err.startswith(rb"\xe9\udcff")


def test_a_reader_that_has_read_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place(monkeypatch, lambda: Outcome("a line", ("a failure",), SOME_BROKEN))
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:  # noqa: PTH123 - a number is no path
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["try"]) == SOME_BROKEN
    assert capsys.readouterr().err == "a failure\n"


def test_a_missing_package_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ultrarefiner.cli.train_joint", raising=False)
    monkeypatch.setitem(COMMANDS, ("try",), Command("no_such_module", "run", "Try."))
    assert main(["try"]) == 1
    assert "pip install 'ultrarefiner[cli]'" in capsys.readouterr().err


LIGHT = """
import sys
for name in {names}:
    sys.modules[name] = None  # as if it were not installed
from ultrarefiner.cli import main
def code(*words):
    try:
        return main(list(words))
    except SystemExit as stopped:
        return stopped.code
assert code("--help") == 0
assert code("predict", "--help") == 0
assert code("evaluate", "--help") == 0
assert code("train", "--help") == 0
assert code("download", "--list") == 0
assert code("train", "autosam", "--help") == 1
import torch, ultrarefiner as ur
from PIL import Image
folder = sys.argv[1]
coarse = ur.AtSize(ur.build_transunet("tiny", image_size=32), 32)
model = ur.UltraRefiner(coarse=coarse, refiner=ur.SAMRefiner(ur.build_sam("tiny", image_size=64)), frame=64)
model.save_pretrained(folder + "/pair")
Image.linear_gradient("L").save(folder + "/a.png")
assert code("predict", folder + "/a.png", "--model", folder + "/pair", "--out", folder + "/out") == 0
assert code("evaluate", "--phantoms", "2", "--model", folder + "/pair", "--out", folder + "/measured") == 1
"""


def test_without_extras_predict_runs_and_what_is_missing_is_named(tmp_path: Path) -> None:
    names = ("matplotlib", "monai", "sklearn", "lightning_fabric", "scipy", "pooch", "nibabel", "pydicom",
             "huggingface_hub", "tensorboard", "pysodmetrics", "pandas")  # fmt: skip
    command = [sys.executable, "-c", LIGHT.format(names=names), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Segment images and refine their masks." in ran.stdout
    assert "IMAGE | FOLDER ..." in ran.stdout
    assert "Train AutoSAM" in ran.stdout
    assert "sam_vit_b_01ec64.pth (375 MB; licence Apache-2.0)" in ran.stdout
    assert "train autosam needs the package" in ran.stderr
    assert "1 picture in" in ran.stdout
    assert (tmp_path / "out" / "panels" / "a.png").stat().st_size > 1000
    assert ran.stderr.rstrip().endswith("pip install 'ultrarefiner[cli]'.")


def test_python_m_is_the_same_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["ultrarefiner", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("ultrarefiner", run_name="__main__")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"ultrarefiner {ultrarefiner.__version__}\n"
