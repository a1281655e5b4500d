from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import stomics_tools as st
from stomics_tools.cli import _main, main
from stomics_tools.cli._spelling import config_first


@pytest.fixture
def recorded(monkeypatch):
    """Calls of a command that only records them."""
    calls = []

    def record(path: Path | None = None, *, n_obs: int = 5, label_key: str | None = None) -> None:
        """Record.

        Parameters
        ----------
        path
            A path.
        n_obs
            A number.
        label_key
            A word.
        """
        calls.append((path, n_obs, label_key))

    monkeypatch.setitem(_main.COMMANDS, "record", record)
    return calls


@pytest.fixture
def failing(monkeypatch):
    def fail_with(error: BaseException) -> None:
        def fail() -> None:
            """Fail."""
            raise error

        monkeypatch.setitem(_main.COMMANDS, "fail", fail)

    return fail_with


def test_options_become_arguments(recorded):
    assert main(["record"]) == 0
    assert main(["record", "--path", "a.h5ad", "--n-obs", "7", "--label-key=layer"]) == 0
    assert main(["record", "--n_obs", "8"]) == 0
    assert recorded == [(None, 5, None), (Path("a.h5ad"), 7, "layer"), (None, 8, None)]


def test_options_from_a_file_are_overridden_by_those_given(recorded, tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text("n_obs: 9\nlabel_key: region\n")
    assert main(["record", "--config", str(config), "--label-key", "layer"]) == 0
    assert recorded == [(None, 9, "layer")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "demo"),
        (["dmo"], "demo"),
        (["record", "--n-ob", "3"], "--n-ob"),
        (["record", "--n-obs", "many"], "n_obs"),
    ],
)
def test_wrong_usage_ends_with_2(recorded, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not recorded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["graphst", "a.h5ad", "--output", "o.h5ad", "--max-epoch", "10"], "unrecognized option --max-epoch. Did you mean --max-epochs?"),
        (["praga-spike", "a.h5ad", "--output", "o.h5ad", "--spatial_keys=xy"], "unrecognized option --spatial_keys. Did you mean --spatial-key?"),
        (["compare", "--xyz"], "unrecognized option --xyz. `--help` lists the options."),
    ],
)  # fmt: skip
def test_the_nearest_option_is_named(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"stomics: error: {message}\n"


def parsed(*arguments):
    found = _main.build_parser().parse_args(config_first(arguments, _main.COMMANDS))
    for word in arguments[: 2 if arguments[0] == "diffusion" else 1]:
        found = found[word]
    return found


@pytest.mark.parametrize(
    "words", [("demo",), ("compare",), ("graphst", "--output", "o"), ("diffusion", "preprocess", "--data-dir", "d")]
)
def test_the_input_stands_alone_or_behind_its_option(words):
    assert parsed(*words, "a.h5ad").input == Path("a.h5ad")
    assert parsed(*words, "--input", "a.h5ad").input == Path("a.h5ad")
    assert parsed(*words, "--input=a.h5ad").input == Path("a.h5ad")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("praga-spike", "a", "--output", "o", "--num_heads", "4"), "n_heads", 4),
        (("praga-spike", "a", "--output", "o", "--weight_bits", "learned"), "weight_bits", "learned"),
        (("praga-spike", "a", "--output", "o", "--attention-windows", "10", "20"), "attention_windows", [10, 20]),
        (("graphst", "a", "--output", "o", "--epochs", "3"), "max_epochs", 3),
        (("graphst", "a", "--output", "o", "--num-clusters", "3"), "n_domains", 3),
        (("graphst", "a", "--output", "o", "--counts"), "counts", True),
        (("graphst", "a", "--output", "o", "--batch_key", "none"), "batch_key", "none"),
        (("var-st", "a", "--batch_size", "64"), "batch_size", 64),
        (("diffusion", "preprocess", "--raw_dir", "r", "--output_dir", "p"), "data_dir", Path("p")),
        (("diffusion", "preprocess", "--raw_dir", "r", "--output_dir", "p"), "input", Path("r")),
        (("diffusion", "sample", "--load-model", "m", "--n-samples", "9"), "num_samples", 9),
        (("diffusion", "train", "--resume", "a/last.ckpt"), "resume", Path("a/last.ckpt")),
        (("diffusion", "train", "--resume"), "resume", True),
        (("diffusion", "train", "--num_genes", "50"), "num_genes", 50),
    ],
)
def test_other_spellings(words, name, value):
    assert parsed(*words)[name] == value


def test_what_is_true_is_turned_off(monkeypatch):
    calls = []

    def record(*, counts: bool | None = None, keep: bool = True) -> None:
        """Record.

        Parameters
        ----------
        counts
            Three values.
        keep
            Two values.
        """
        calls.append((counts, keep))

    monkeypatch.setitem(_main.COMMANDS, "record", record)
    for arguments in ([], ["--counts"], ["--no-counts", "--no-keep"], ["--counts", "false"]):
        assert main(["record", *arguments]) == 0
    assert calls == [(None, True), (True, True), (False, False), (False, True)]


def test_lists_of_numbers_and_of_names(monkeypatch):
    """Numbers may stand behind one comma or apart; names may have commas of their own."""
    calls = []

    def record(*, sizes: list[int | None] | None = None, names: list[str] | None = None) -> None:
        """Record.

        Parameters
        ----------
        sizes
            Numbers.
        names
            Names.
        """
        calls.append((sizes, names))

    monkeypatch.setitem(_main.COMMANDS, "record", record)
    for arguments in (
        ["--sizes", "2,4"],
        ["--sizes", "2", "4"],
        ["--sizes=2,4"],
        ["--sizes", "none,4", "--names", "a,b"],
    ):
        assert main(["record", *arguments]) == 0
    assert calls == [([2, 4], None)] * 3 + [([None, 4], ["a,b"])]
    with pytest.raises(SystemExit):
        main(["record", "--sizes", "2,x"])


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert st.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [["--help"], ["graphst", "--help"], ["var-st", "--help"], ["diffusion", "train", "--help"]]
)
def test_help_does_without_torch(command):
    code = (
        "import sys\nfrom stomics_tools.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(sorted({'torch', 'scanpy', 'lightning'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def commands(what=_main.COMMANDS, words=()) -> list[tuple[str, ...]]:
    """The words of every command."""
    if callable(what):
        return [words]
    return [found for name, part in what.items() for found in commands(part, (*words, name))]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_has_examples_that_are_understood(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("outputs/brain").mkdir(parents=True)
    Path("outputs/brain/config.yaml").write_text("data_dir: data\nexp_name: brain\n")
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    _, _, examples = capsys.readouterr().out.partition("\nexamples:\n")
    lines = [line.strip() for line in examples.splitlines()]
    assert any(line.startswith(" ".join(["stomics", *words])) for line in lines)
    for line in lines:
        _main.build_parser().parse_args(config_first(shlex.split(line)[1:], _main.COMMANDS))


def test_help_shows_options_with_dashes(capsys):
    with pytest.raises(SystemExit) as end:
        main(["demo", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "--output-dir" in out
    assert "--output_dir" not in out
    assert "h5ad or h5mu file" in out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("`n_obs` is too\n  small."), "stomics: error: `n_obs` is too small.\n"),
        (KeyError("key 'a' not found"), "stomics: error: key 'a' not found\n"),
        (
            RuntimeError("odd"),
            "stomics: error: odd (RuntimeError; run again with --debug for the traceback)\n",
        ),
    ],
)
def test_an_error_is_one_line(failing, capsys, error, line):
    failing(error)
    assert main(["fail"]) == 1
    captured = capsys.readouterr()
    assert captured.err == line
    assert captured.out == ""


def test_debug_shows_the_traceback(failing):
    failing(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        main(["fail", "--debug"])


def test_interruption(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["fail"]) == 130
    assert capsys.readouterr().err == "stomics: interrupted\n"


def test_installed_command():
    code = "import sys; from stomics_tools.cli import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", code, "demo", "--input", "nowhere.h5ad"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == "stomics: error: `input`: no such file 'nowhere.h5ad'.\n"


def test_info(capsys):
    assert main(["info"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["stomics-tools"] == st.__version__
    assert "CPU" in rows["devices"]
    assert {"python", "torch", "scanpy", "anndata"} <= set(rows)
