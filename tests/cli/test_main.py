"""The command line as a user meets it: quick help, whole output, one-line errors, exit codes."""

import contextlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from rich.table import Table

import jaxinit as ji
from jaxinit import initializers
from jaxinit.cli import _demo, _main, _results, main
from jaxinit.cli._output import Output, plain

SIMULATE = ["simulate", "--depth", "4", "--width", "16", "--seeds", "4"]
COMPARE = [
    "compare",
    "--depth",
    "3",
    "--width",
    "8",
    "--seeds",
    "2",
    "--steps",
    "8",
    "--learning-rates",
    "0.01,0.1",
]


def run_python(code, **environment):
    words = [sys.executable, "-c", code]
    environment = {**os.environ, **environment}
    return subprocess.run(words, capture_output=True, timeout=120, env=environment)


def test_help_is_quick_and_shows_an_example():
    """Of every command, in one process of its own that loads nothing heavy."""
    code = """
import contextlib, io, sys, time
from jaxinit.cli._main import main, parser

names = set(parser()._subparsers._group_actions[0].choices)
for words in ([], *([name] for name in names)):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        try:
            main([*words, "--help"])
        except SystemExit as end:
            assert end.code == 0
    text = shown.getvalue()
    assert "example" in text and "\\n  jaxinit " + " ".join(words) in text, words
    heavy = {"jax", "numpy", "matplotlib", "flax", "optax", "rich"} & set(sys.modules)
    assert not heavy, (words, heavy)
    if words:
        assert all(f"  {option}" in text for option in ("--out", "--json", "--quiet", "--plain", "--debug")), words
assert {"demo", "init-table", "simulate", "phase", "probe", "compare", "sweep", "report", "plot", "bench"} <= names
print(time.process_time())  # of the processor: other work on the machine does not count
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr.decode()
    assert float(done.stdout) < 1.0


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.strip() == f"jaxinit {ji.__version__}"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """One run of `simulate` with all its output: stdout, stderr, folder."""
    target = tmp_path_factory.mktemp("cli") / "new" / "run"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([*SIMULATE, "--init", "zeros,normal(stddev=0.4)", "--out", str(target)]) == 0
    return out.getvalue(), err.getvalue(), target


def test_simulate_shows_layers_and_verdicts(simulated):
    out, err, target = simulated
    assert "layer" in out and "zeros: dead." in out and "normal(stddev=0.4): alive." in out
    assert "simulate zeros:" in err and "\x1b" not in out + err
    assert out.endswith(f"Report: {target / 'report.html'}\n")


def test_plain_is_for_logs(monkeypatch):
    """Neither lines nor colours, on a terminal too; numbers are those of the other table."""
    table = Table("layer", "signal", title="by layer", show_lines=True)
    table.add_row("1", "[bold]0.5", style="red")
    shown = {}
    for plain_mode in (False, True):
        stream = io.StringIO()
        stream.isatty = lambda: True
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setenv("TERM", "xterm-256color")
            patch.delenv("NO_COLOR", raising=False)
            Output(plain=plain_mode).say(table)
        shown[plain_mode] = stream.getvalue()
    assert "\x1b[" in shown[False] and "━" in shown[False]
    assert [line.split() for line in shown[True].splitlines()] == [
        ["by", "layer"],
        ["layer", "signal"],
        ["1", "[bold]0.5"],
    ]


def test_out_holds_records_figures_and_a_report(simulated):
    _, _, target = simulated
    names = sorted(p.name for p in target.iterdir())
    assert names == ["normal-stddev-0.4.npz", "profiles.png", "report.html", "zeros.npz"]
    network = ji.Network(4, 16, "relu", initializer=initializers.normal(0.4))
    expected = ji.simulate(network, 4).log_second_moment.mean
    np.testing.assert_array_equal(ji.load(target / names[0]).log_second_moment.mean, expected)
    page = (target / "report.html").read_text(encoding="utf-8")
    assert "jaxinit simulate --depth 4" in page and "normal(stddev=0.4)" in page


def test_json_is_the_whole_of_stdout_and_tells_what_the_api_tells(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*SIMULATE, "--weight-variance", "1,2", "--forward-only", "--json"]) == 0
    assert not list(tmp_path.iterdir()), "nothing is written without --out"
    found = json.loads(capsys.readouterr().out)
    assert list(found["records"]) == ["σ²=1", "σ²=2"] and found["files"] == []
    record = ji.simulate(ji.Network(4, 16, "relu", weight_variance=2.0), 4, backward=False)
    told = found["records"]["σ²=2"]["statistics"]
    assert "log_grad_second_moment" not in told
    np.testing.assert_array_equal(told["log_second_moment"]["mean"], record.log_second_moment.mean)
    np.testing.assert_array_equal(told["log_second_moment"]["stderr"], record.log_second_moment.stderr)


def test_compare_trains_on_a_file_and_reports_quietly(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 4)).astype(np.float32), np.tile([0, 1], 100)
    np.savez(tmp_path / "d.npz", x_train=x[:150], y_train=y[:150], x_test=x[150:], y_test=y[150:])
    target = tmp_path / "run"
    words = [*COMPARE, "--data", str(tmp_path / "d.npz"), "--batch-size", "10"]
    assert main([*words, "--init", "he,zeros", "--quiet", "--out", str(target)]) == 0
    assert capsys.readouterr() == (f"{target / 'report.html'}\n", "")
    assert {"training.npz", "training.png", "report.html"} == {p.name for p in target.iterdir()}
    assert ji.load(target / "training.npz").test_accuracy.shape == (2, 2, 2)


def test_a_comparison_as_json(synthetic):
    record = synthetic.convergence(("xavier", "he"), diverge=(1, 0, 0))
    told = json.loads(json.dumps(plain(_results.convergence_json(record)), allow_nan=False))
    assert len(told["runs"]) == 2 * 2 * 3 and told["measure"] == "test_accuracy"
    assert told["runs"][6]["test_loss"] == "inf" and told["runs"][6]["diverged_at"] == 20
    best = record.summary()["he"]
    assert told["summary"]["he"] == {
        "learning_rate": 0.1,
        "median": best.value,
        "low": best.low,
        "high": best.high,
    }


@pytest.mark.slow
def test_demo_tells_the_whole_story(capsys, tmp_path, monkeypatch):
    small = _demo.Size(depth=12, width=32, seeds=8, runs=1, steps=20, learning_rates=(0.01,))
    monkeypatch.setattr(_demo, "QUICK", small)
    assert main(["demo", "--quick", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    words = {line.split(": ")[0]: line for line in out.splitlines() if ". Training: " in line}
    assert list(words) == list(_demo.contestants())
    assert "zeros: dead" in words["zeros"] and "random: vanishing" in words["random"]
    assert "he: alive" in words["he"] and "orthogonal × √2: alive" in words["orthogonal × √2"]
    rate = ji.load(tmp_path / "xavier.npz").log_second_moment.mean
    assert rate[-1, 0] < -5  # about 11 halvings
    assert all("a layer (8 seeds)" in line for name, line in words.items() if name != "zeros")
    assert out.rstrip().endswith(str(tmp_path / "report.html"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SIMULATE, "--init", "xavir"], "xavier"),
        (["simulate", "--depth", "0"], "depth"),
        ([*SIMULATE[:5], "--seeds", "0"], "seeds"),
        ([*SIMULATE, "--activation", "rellu"], "relu"),
        ([*SIMULATE, "--weight-variance", "-1"], "weight_variance"),
        ([*SIMULATE, "--sampler", "magic"], "'auto'"),
        ([*SIMULATE, "--dtype", "float8"], "'float16'"),
        ([*COMPARE, "--data", "missing.npz"], "missing.npz"),
        ([*COMPARE, "--optimizer", "adma"], "adam"),
        ([*COMPARE, "--steps", "0"], "steps"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("jaxinit: error: ")]
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in err and out == ""


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match=r"depth"):
        main(["simulate", "--depth", "0", "--debug"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ""),
        (["simulat"], "simulate"),
        ([*SIMULATE, "--init", "he", "--weight-variance", "2"], "--init"),
        (["demo", "--x"], "`jaxinit demo --help`"),
        (["simulate", "--depht", "6"], "Did you mean --depth?"),
        (["phase", "--activation", "tanh"], "ACTIVATION is given without --activation"),
    ],
)
def test_bad_options_exit_2(words, told, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    err = capsys.readouterr().err
    assert end.value.code == 2 and "usage: jaxinit" in err and told in err


class Command:
    """A command that does what a test tells it."""

    def __init__(self, act):
        self.act = act

    def add(self, commands, common):
        commands.add_parser("act", parents=[common]).set_defaults(run=lambda options, out: self.act(out))


def raising(error):
    def act(out):
        raise error

    return Command(act)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("no\nmemory\n\nlong story"), 1, "failed: RuntimeError: no memory (--debug"),
        (ImportError("figures need matplotlib"), 2, "error: figures need matplotlib"),
        (FileNotFoundError(2, "No such file", "x.npz"), 2, "error: no such file: 'x.npz'"),
        (OSError(28, "No space left on device", "x.npz"), 1, "failed: No space left on device: 'x.npz'\n"),
        (PermissionError(13, "Permission denied"), 1, "failed: Permission denied\n"),
    ],
)
def test_exit_codes(error, code, message, capsys, monkeypatch):
    monkeypatch.setattr(_main, "COMMANDS", (raising(error),))
    assert main(["act"]) == code
    assert message in capsys.readouterr().err


def test_notes_of_an_error_are_told(capsys, monkeypatch):
    error = OSError(28, "No space left on device")
    error.add_note("The same command goes on from 'run'.")
    monkeypatch.setattr(_main, "COMMANDS", (raising(error),))
    assert main(["act"]) == 1
    told = "jaxinit: failed: No space left on device\nThe same command goes on from 'run'.\n"
    assert capsys.readouterr().err == told


def test_an_interrupted_process_ends_at_once(monkeypatch):
    """Programs still run in threads of JAX: an interpreter that is taken down around them may crash."""
    ended = []
    monkeypatch.setattr(_main, "COMMANDS", (raising(KeyboardInterrupt()),))
    monkeypatch.setattr(_main.os, "_exit", ended.append)
    monkeypatch.setattr(sys, "argv", ["jaxinit", "act"])
    main()
    assert ended == [130]


def test_no_command_shows_the_help(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "jaxinit simulate --depth 50" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(capsys, monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(_main, "COMMANDS", (Command(ran.append),))
    (tmp_path / "file").touch()
    assert main(["act", "--out", str(tmp_path / "file")]) == 2 and not ran
    assert "cannot be made: File exists" in capsys.readouterr().err
    assert main(["act", "--out", str(tmp_path / "new" / "folder")]) == 0 and ran
    assert not (tmp_path / "new" / "folder").exists()  # nothing came of it


_ACT = """
import sys
from jaxinit.cli import _main
class Command:
    def add(self, commands, common):
        commands.add_parser("act", parents=[common]).set_defaults(run=self.run)
    def run(self, options, out):
        for _ in range(20000):
            out.say("⟨z²⟩")
_main.COMMANDS = (Command(),)
sys.exit(_main.main(["act"]))
"""


def test_a_terminal_without_these_letters_shows_something_else():
    done = run_python(_ACT.replace("20000", "1"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.strip() == b"?z??"


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-c", _ACT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait(timeout=60) == 0 and error == b""
