import json
from pathlib import Path
from typing import Any

import pytest

from runner.engine import bundle
from runner.engine.bundle import BundleError
from tests.tiny_bundle import make_tiny_bundle

GOLDEN = {
    "prompt": "a star",
    "width": 64,
    "height": 64,
    "num_inference_steps": 1,
    "guidance_scale": 1,
    "seed": 0,
    "max_difference": 1,
    "max_share": 0.001,
}


@pytest.fixture
def own_bundle(tmp_path: Path) -> Path:
    """A bundle that the test may break."""
    return make_tiny_bundle(tmp_path / "bundle")


def rewrite(directory: Path, **changes: Any) -> None:
    path = directory / bundle.MODEL_JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_whole_bundle_passes_and_says_what_the_apps_need(tiny_bundle: Path) -> None:
    card = bundle.check(tiny_bundle).card()
    assert (card.name, card.family) == ("tiny", "lcm")
    assert (card.default_width, card.default_height) == (64, 64)
    assert (card.default_num_inference_steps, card.default_guidance_scale) == (4, 8.0)
    assert card.presets["landscape_16_9"] == (64, 32)


def test_the_description_survives_its_file(tiny_bundle: Path, tmp_path: Path) -> None:
    description = bundle.read_description(tiny_bundle)
    bundle.write_description(tmp_path, description)
    assert bundle.read_description(tmp_path) == description


def test_every_file_but_the_description_is_listed(tiny_bundle: Path) -> None:
    description = bundle.read_description(tiny_bundle)
    assert sorted(description.files) == sorted({*bundle.REQUIRED_FILES, *description.decoder_stages})


@pytest.mark.parametrize("name", bundle.REQUIRED_FILES)
def test_a_missing_file(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: is missing\. Export"):
        bundle.check(own_bundle)


def test_a_file_cut_short(own_bundle: Path) -> None:
    path = own_bundle / bundle.STEP_ONNX
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"step\.onnx: has \d+ bytes instead of \d+\. .*git lfs pull"):
        bundle.check(own_bundle, hashes=False)


def test_a_changed_byte_is_seen_by_its_hash(own_bundle: Path) -> None:
    path = own_bundle / bundle.STEP_ONNX
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    bundle.check(own_bundle, hashes=False)
    with pytest.raises(BundleError, match=r"step\.onnx: does not have the SHA-256"):
        bundle.check(own_bundle)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.json: cannot be read \(No such file") as raised:
        bundle.check(tmp_path)
    assert "runner export" in raised.value.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\xff"])
def test_a_description_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / bundle.MODEL_JSON).write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match="is not a bundle description of format 2"):
        bundle.read_description(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format_version": 1}, r"format 2 \(format_version: .*\. Export the model again"),
        ({"format_version": 3}, "format_version"),
        ({"decoder_stages": []}, "decoder_stages"),
        ({"decoder_stages": ["vae_decoder_2.onnx"]}, "decoder_stages does not begin with vae_decoder.onnx"),
        ({"decoder_stages": ["vae_decoder.onnx", "vae_decoder_3.onnx"]}, "not listed: vae_decoder_3.onnx"),
        ({"golden": GOLDEN}, "not listed: golden.png"),
        ({"golden": GOLDEN | {"max_share": 2}}, "golden.max_share"),
        ({"preview": {"factors": [[1, 1, 1]] * 3, "bias": [0, 0, 0]}}, "preview.factors needs a row for each of the 4"),
        ({"preview": {"factors": [[1, 1]] * 4, "bias": [0, 0, 0]}}, "preview.factors"),
        ({"family": "dalle"}, "family"),
        ({"colour": "red"}, "colour"),
        ({"size_multiple": 12}, "size_multiple"),
        ({"default_size": [60, 64]}, "default_size"),
        ({"max_pixels": 64}, "max_pixels"),
        ({"presets": {"square": [63, 64]}}, "square"),
        ({"files": {}}, "not listed: tokenizer/tokenizer.json"),
        ({"scheduler": {"prediction_type": "sample"}}, "prediction_type"),
        ({"default_guidance_scale": -1}, "default_guidance_scale"),
        ({"scheduler": {"num_train_timesteps": 2**40}}, "num_train_timesteps"),
        ({"scheduler": {"original_inference_steps": 10**9}}, "original_inference_steps"),
        ({"default_size": [2**20, 64], "max_pixels": 2**62}, "default_size"),
        ({"name": "\x1b]0;other title\x07"}, "name: .*cannot be printed"),
    ],
)
def test_a_description_that_says_something_wrong(own_bundle: Path, changes: dict[str, Any], named: str) -> None:
    rewrite(own_bundle, **changes)
    with pytest.raises(BundleError, match=named):
        bundle.read_description(own_bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "./a"])
def test_a_listed_file_stays_inside_the_bundle(own_bundle: Path, name: str) -> None:
    files = json.loads((own_bundle / bundle.MODEL_JSON).read_text())["files"]
    rewrite(own_bundle, files=files | {name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(BundleError, match="does not name a file inside the bundle"):
        bundle.check(own_bundle)


@pytest.mark.parametrize("change", ["files", "presets"])
def test_an_error_about_a_description_never_moves_the_terminals_cursor(own_bundle: Path, change: str) -> None:
    content = json.loads((own_bundle / bundle.MODEL_JSON).read_text())
    entry = {"files": {"sha256": "0" * 64, "bytes": 1}, "presets": 5}[change]
    rewrite(own_bundle, **{change: content[change] | {"\x1b[2J": entry}})
    with pytest.raises(BundleError, match=r"model\.json") as caught:
        bundle.check(own_bundle)
    assert str(caught.value).isprintable()


def test_a_description_is_not_read_without_end(own_bundle: Path) -> None:
    (own_bundle / bundle.MODEL_JSON).unlink()
    (own_bundle / bundle.MODEL_JSON).symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="has more than 1048576 bytes"):
        bundle.read_description(own_bundle)


@pytest.mark.parametrize("trained_side", [128, 512, 1024])
def test_presets_never_exceed_what_the_model_was_trained_at(trained_side: int) -> None:
    presets = bundle.scaled_presets(trained_side, 8)
    assert presets.keys() == bundle.FAL_PRESETS.keys()
    assert max(max(size) for size in presets.values()) == trained_side
    assert all(side % 8 == 0 for size in presets.values() for side in size)


def test_presets_of_a_full_size_model_are_fals_own() -> None:
    assert bundle.scaled_presets(1024, 8) == bundle.FAL_PRESETS
    assert bundle.scaled_presets(128, 8)["portrait_4_3"] == (96, 128)


def test_the_step_graph_takes_the_inputs_of_its_kind_of_guidance(tmp_path: Path, tiny_bundle: Path) -> None:
    plain = set(bundle.read_description(make_tiny_bundle(tmp_path, timestep_cond_dim=None)).step_signature.inputs)
    embedding = set(bundle.read_description(tiny_bundle).step_signature.inputs)
    assert embedding - plain == {bundle.TIMESTEP_COND}
    assert plain - embedding == set(bundle.GUIDANCE)


def test_the_optional_parts_are_known_by_their_files(tmp_path: Path, tiny_bundle: Path) -> None:
    card = bundle.check(make_tiny_bundle(tmp_path, safety_checker=True, golden=True)).card()
    assert card.has_safety_checker
    assert not bundle.check(tiny_bundle).card().has_safety_checker


def test_measurements_are_no_part_of_the_model(own_bundle: Path) -> None:
    listed = bundle.file_entries(own_bundle)
    (own_bundle / bundle.TUNE_JSON).write_text("{}")
    assert bundle.file_entries(own_bundle) == listed
    bundle.check(own_bundle)
