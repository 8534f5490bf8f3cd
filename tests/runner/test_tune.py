"""`runner tune`, and what workers make of its file."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.engine import batch_table, bundle, tuning
from runner.engine.batch_table import BatchTable, DeviceTiming, SizeTiming, TuneFile, choose_rows, device_name
from runner.engine.devices import Device
from runner.engine.pipeline import Pipeline
from runner.engine.request import OutOfMemory
from runner.engine.tuning import Tuner
from runner.tune import TuneError, print_table, tune
from tests.processes import run_module

CPU = Device("cpu")


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """One that the test may write into."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "own"))


def timing(model: Path, sizes: dict[tuple[int, int], int], **changes: Any) -> DeviceTiming:
    """An entry for this machine with two threads; `sizes` have the rows chosen for each."""
    device, version, sha256 = batch_table.timing_key(bundle.read_description(model), CPU, 2)
    measured = [
        SizeTiming(width=w, height=h, step={1: 1.0}, decoder_stages=[1.0], vae_encoder=1.0, max_rows=rows)
        for (w, h), rows in sizes.items()
    ]
    entry = DeviceTiming(device=device, onnxruntime=version, step_sha256=sha256, text=1.0, sizes=measured)
    return entry.model_copy(update=changes)


def table(model: Path, threads: int = 2) -> BatchTable:
    return BatchTable.load(model, bundle.read_description(model), "cpu", threads)


def test_untuned_large_pictures_step_with_less_company() -> None:
    untuned = BatchTable(8, 64 * 64)
    assert [untuned.max_rows((4, side, side)) for side in (4, 8, 16, 17, 64)] == [8, 8, 2, 1, 1]


def test_tune_measures_and_the_worker_uses_it(own_bundle: Path) -> None:
    options = ["--sizes", "square,32x64", "--rounds", "2", "--max-rows", "3", "--threads", "1", "--json"]
    done = run_module("runner", "tune", str(own_bundle), "--device", "cpu", *options)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [(size["width"], size["height"]) for size in said["sizes"]] == [(64, 64), (32, 64)]
    for size in said["sizes"]:
        assert list(size["step"]) == ["1", "2", "3"]
        assert len(size["decoder_stages"]) == 2
        assert size["max_rows"] in (2, 3)
    assert json.loads((own_bundle / bundle.TUNE_JSON).read_text()) == {"format_version": 1, "devices": [said]}
    pipeline = Pipeline.load(own_bundle, "cpu", 1)
    assert pipeline.max_rows((4, 8, 8)) == said["sizes"][0]["max_rows"]


def test_tune_prints_a_table(own_bundle: Path) -> None:
    options = ["--sizes", "64x64", "--rounds", "1", "--max-rows", "2", "--max-step-ms", "10000"]
    done = run_module("runner", "tune", str(own_bundle), *options)
    assert done.returncode == 0, done.stderr
    assert "encoding a new prompt" in done.stdout
    heading, row = (next(line for line in done.stdout.splitlines() if word in line) for word in ("encode", "64x64"))
    assert heading.split() == ["size", "1", "2", "decode", "encode"]
    assert len(row.split()) == 5
    assert row.split()[2].endswith("*")
    said = f"wrote {own_bundle / bundle.TUNE_JSON}; workers that start from now on use it"
    assert done.stdout.splitlines()[-1] == said


@pytest.mark.parametrize("slowest_s", [0.0099, 0.0999, 0.0999 * 100, 99.9, 9999])
def test_the_table_is_no_wider_than_a_terminal(capsys: pytest.CaptureFixture[str], slowest_s: float) -> None:
    sizes = [
        SizeTiming(width=1536, height=1024, step=step, decoder_stages=[slowest_s / 3] * 3, vae_encoder=1, max_rows=16)
        for step in (dict.fromkeys(tuning.ROWS, slowest_s), {16: slowest_s})
    ]
    print_table(DeviceTiming(device="a", onnxruntime="1", step_sha256="", text=slowest_s, sizes=sizes))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    full, short = (line.split() for line in lines if line.startswith("1536x1024"))
    assert len(full) == len(short) == 1 + len(tuning.ROWS) + 2
    assert full[-3].endswith("*")
    assert full[-3] == short[-3]
    assert "- does not fit into memory" in lines
    assert "…" not in "".join(lines)


def test_the_progress_moves_within_a_size(own_bundle: Path) -> None:
    heard: list[float] = []
    Tuner(Pipeline.load(own_bundle, "cpu", 1), 4, rows=(1, 2)).measure((32, 32), progress=heard.append)
    assert heard == sorted(heard)
    assert len(set(heard)) >= 10
    assert 0 < heard[0] < 0.2
    assert heard[-1] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sizes", "huge"], "--sizes: 'huge' is neither WIDTHxHEIGHT nor one of square_hd, square"),
        (["--sizes", "0x64"], "--sizes: '0x64' is neither"),
        (["--sizes", "64x99999"], "--sizes: a side of 64x99999 has more than"),
        (
            ["--sizes", "64x64,30x30"],
            "--sizes: 30x30: width and height must be multiples of 8; the nearest size is 32x32",
        ),
        (["--sizes", "4096x4096"], "--sizes: 4096x4096: at most"),
        (["--device", "tpu"], "--device: 'tpu' is not a device"),
    ],
)
def test_tune_says_in_one_line_what_to_mend(tiny_bundle: Path, options: list[str], words: str) -> None:
    done = run_module("runner", "tune", str(tiny_bundle), "--rounds", "1", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_size_that_was_not_measured_takes_after_the_nearest(own_bundle: Path) -> None:
    batch_table.keep_timing(own_bundle, timing(own_bundle, {(512, 512): 8, (1024, 1024): 2}))
    found = table(own_bundle)
    assert [found.max_rows((4, side, side)) for side in (16, 64, 80, 100, 128, 256)] == [8, 8, 8, 2, 2, 2]


@pytest.mark.parametrize(
    "changes", [{"device": "abacus"}, {"onnxruntime": "1.0"}, {"step_sha256": "0" * 64}], ids=lambda c: next(iter(c))
)
def test_what_was_measured_elsewhere_counts_for_nothing(own_bundle: Path, changes: dict[str, str]) -> None:
    batch_table.keep_timing(own_bundle, timing(own_bundle, {(64, 64): 13}, **changes))
    assert table(own_bundle).max_rows((4, 8, 8)) == batch_table.ROWS_WANTED
    batch_table.keep_timing(own_bundle, timing(own_bundle, {(64, 64): 13}))
    assert table(own_bundle).max_rows((4, 8, 8)) == 13
    assert table(own_bundle, threads=5).max_rows((4, 8, 8)) == batch_table.ROWS_WANTED


def test_a_device_has_one_entry_and_leaves_the_others_alone(own_bundle: Path) -> None:
    for rows in (3, 5):
        batch_table.keep_timing(own_bundle, timing(own_bundle, {(64, 64): rows}))
        batch_table.keep_timing(own_bundle, timing(own_bundle, {(64, 64): rows}, device="other"))
    kept = TuneFile.model_validate_json((own_bundle / bundle.TUNE_JSON).read_bytes()).devices
    assert [(entry.device == "other", entry.sizes[0].max_rows) for entry in kept] == [(False, 5), (True, 5)]


@pytest.mark.parametrize("text", ["", "{", '{"format_version": 2, "devices": []}', '{"devices": [{}]}', "\xff"])
def test_a_broken_file_is_logged_and_left_out(own_bundle: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (own_bundle / bundle.TUNE_JSON).write_text(text, encoding="latin-1")
    with caplog.at_level(logging.WARNING):
        assert table(own_bundle).max_rows((4, 8, 8)) == batch_table.ROWS_WANTED
    assert "tune.json is left out, run `python -m runner tune` again" in caplog.text


def test_a_file_that_cannot_be_read_is_logged_and_left_out(own_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    (own_bundle / bundle.TUNE_JSON).mkdir()
    with caplog.at_level(logging.WARNING):
        assert table(own_bundle).max_rows((4, 8, 8)) == batch_table.ROWS_WANTED
    assert "tune.json is left out" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_told(own_bundle: Path) -> None:
    (own_bundle / bundle.TUNE_JSON).mkdir()
    with pytest.raises(TuneError, match="cannot be written to"):
        tune(own_bundle, "cpu", sizes=["64x64"], rounds=1, rows_max=2)


def test_a_size_that_the_model_cannot_draw_is_told(tiny_bundle: Path) -> None:
    for size in ("huge", "4096x4096"):
        with pytest.raises(TuneError, match="--sizes"):
            tune(tiny_bundle, "cpu", sizes=[size], rounds=1)


def test_every_preset_is_measured_unless_sizes_are_named(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = tune(own_bundle, "cpu", rounds=3, rows_max=2, max_step_ms=0.001)
    assert [(size.width, size.height) for size in measured.sizes] == [(64, 64), (48, 64), (32, 64), (64, 48), (64, 32)]
    assert {size.max_rows for size in measured.sizes} == {2}
    print_table(measured)
    assert "48x64" in capsys.readouterr().out


def test_batches_that_do_not_fit_are_left_out(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline.load(own_bundle, "cpu", 1)
    step = pipeline.denoise_step

    def denoise_step(samples):
        if len(samples) > rows_that_fit:
            raise OutOfMemory("too many")
        step(samples)

    monkeypatch.setattr(pipeline, "denoise_step", denoise_step)
    rows_that_fit = 3
    assert sorted(Tuner(pipeline, 1).measure((32, 32)).step) == [1, 2, 3]
    assert all(not batch._slots for batch in pipeline._stepper._batches.values())
    rows_that_fit = 0
    with pytest.raises(OutOfMemory):
        Tuner(pipeline, 1).measure((32, 32))


def test_no_size_is_measured_for_ever(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "BUDGET_S", 0.0)
    pipeline = Pipeline.load(own_bundle, "cpu", 1)
    made: list[int] = []
    step = pipeline.denoise_step
    monkeypatch.setattr(pipeline, "denoise_step", lambda samples: (made.append(len(samples)), step(samples)))
    assert Tuner(pipeline, 50, rows=(1,)).measure((32, 32)).step
    assert len(made) == 2 * (1 + 3) + 50  # warm-up and three rounds of two steps; one step for each decoding


def test_devices_have_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert device_name(CPU, 1).endswith(", 1 thread")
    assert device_name(CPU, 3).endswith(", 3 threads")
    monkeypatch.setattr(batch_table, "_GPUS", tmp_path)
    monkeypatch.setattr(batch_table, "_CPUS", tmp_path / "none")
    assert device_name(CPU, 1).endswith(", 1 thread")
    for number, name in enumerate(["NVIDIA H200", "NVIDIA L4"]):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
        (tmp_path / f"0000:0{number}:00.0" / "information").write_text(f"Model: \t {name}\nIRQ: 1\n")
    (tmp_path / "0000:09:00.0").mkdir()
    (tmp_path / "0000:09:00.0" / "information").write_text("IRQ: 1\n")
    names = [device_name(Device("cuda", index), None) for index in range(4)]
    assert names == ["NVIDIA H200", "NVIDIA L4", "cuda:2", "cuda:3"]


@pytest.mark.parametrize(
    ("step", "cap_s", "rows"),
    [
        ({1: 0.010, 2: 0.011, 4: 0.013, 8: 0.022}, None, 8),
        ({1: 0.010, 2: 0.011, 4: 0.013, 8: 0.0255}, None, 4),  # 8 rows have 2 % more throughput
        ({1: 0.010, 2: 0.011, 4: 0.013, 8: 0.025}, 0.012, 2),
        ({1: 0.010, 2: 0.030}, None, 2),  # guidance takes two, however slow
        ({1: 0.010, 4: 0.020}, 0.001, 2),
        ({1: 0.010, 2: 0.020, 3: 0.030, 4: 0.040}, None, 2),
    ],
)
def test_the_fewest_rows_with_nearly_the_best_throughput(step: dict[int, float], cap_s: float, rows: int) -> None:
    assert choose_rows(step, cap_s) == rows
