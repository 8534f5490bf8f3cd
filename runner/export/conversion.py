"""The conversion itself, from torch modules to the files of a bundle. Imports torch: reached by `export` alone."""

import errno
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from runner.engine import bundle
from runner.export import golden, graphs, preview
from runner.export.assembly import Target, write_graphs
from runner.export.card import licence
from runner.export.defaults import Defaults, checkpoint_defaults
from runner.export.description import Written, check_supported, completed, describe
from runner.export.errors import DiskFull
from runner.export.families import Family, recognise
from runner.export.loading import load
from runner.export.lora import Lora
from runner.export.progress import Progress
from runner.export.safety import write_safety_checker
from runner.export.source import Checkpoint, Component
from runner.export.space import require_space
from runner.export.tokenizer import save_tokenizer

_GRAPHS: Final = 4
"""The graphs that are written at least; the VAE decoder may take more."""


@dataclass(frozen=True)
class Ingredients:
    """What goes into a bundle. `parts` are the UNet and the VAE that come from elsewhere."""

    checkpoint: Checkpoint
    parts: Mapping[str, Component]
    loras: Sequence[Lora] = ()
    safety_checker: Component | None = None

    def configs(self) -> dict[str, dict[str, Any]]:
        """The configurations of the networks in use and of the scheduler, by component."""
        names = ("scheduler", "text_encoder", "text_encoder_2", "unet", "vae")
        return {
            name: self.parts[name].config() if name in self.parts else self.checkpoint.config(name) for name in names
        }

    def named_parts(self) -> dict[str, Component]:
        """What comes from elsewhere besides LoRAs, by what it is."""
        checker = self.safety_checker
        return {**self.parts, **({"safety checker": checker} if checker else {})}

    def weight_files(self) -> list[Path]:
        """Every file of weights, LoRAs left out: they make nothing larger."""
        others = [file for part in self.named_parts().values() for file in part.weight_files()]
        return [*self.checkpoint.weight_files(self.parts), *others]

    def own_defaults(self) -> Defaults:
        """What the bundle is called, where it comes from and under which licences, by what is in it."""
        parts, loras = self.named_parts(), self.loras
        # The folder of a file that was named by itself is anybody's, and so is its card.
        folders = [
            *([] if self.checkpoint.single_file else [self.checkpoint.folder]),
            *(part.folder for part in parts.values()),
            *(lora.file.parent for lora in loras if lora.source != lora.file.name),
        ]
        origins = [
            self.checkpoint.source,
            *(f"{name} of {part.source}" for name, part in parts.items()),
            *(f"LoRA {lora}" for lora in loras),
        ]
        name = self.checkpoint.source.rpartition("/")[2].removesuffix(".safetensors")
        return Defaults(name=name, licence=licence(folders), source=", ".join(origins))


def convert(
    ingredients: Ingredients,
    out: Path,
    family: Family | Literal["auto"],
    target: Target,
    defaults: Defaults,
    progress: Progress,
    *,
    with_golden: bool,
) -> None:
    """Make the bundle `out`.

    Raises:
        UnsupportedCheckpoint: the engine cannot run such a model, or its weights cannot be read.
        UnknownFamily: nothing says what kind of few-step model it is.
        UnsuitableLora: a LoRA does not fit.
        DiskFull: there is no room for it.
    """
    configs = ingredients.configs()
    check_supported(configs)
    given_unet = ingredients.parts["unet"].source if "unet" in ingredients.parts else None
    recognised = recognise(configs["unet"], configs["scheduler"], ingredients.loras, family, given_unet)
    progress.note(f"family {recognised.family}: {recognised.because}")
    _note_slow_vae(configs["vae"], target, progress)
    own = ingredients.own_defaults()
    if ingredients.checkpoint.single_file is None:
        own = checkpoint_defaults(ingredients.checkpoint.folder).over(own)
    if defaults.over(own).licence is None:
        progress.note("licence unknown: no model card (README.md) with the weights names one")
    chosen = completed(defaults.over(own), configs, recognised.family)
    require_space(out, ingredients.weight_files())
    with _staged(out) as (folder, scratch):
        progress.expect(2 + len(ingredients.loras) + with_golden + len(graphs.GRAPH_NAMES) + _GRAPHS)
        planned = golden.planned(chosen, is_half=_is_half(target)) if with_golden else None
        traced = _trace(ingredients, recognised.family, planned, folder, scratch, progress)
        stages = write_graphs(traced, configs, folder, target, progress.stage)
        _write_others(ingredients, folder, scratch, target, progress)
        progress.stage("fitting the colours of previews")
        colours = preview.fit_traced(traced, configs["vae"])
        written = Written(target.device, target.precision, bundle.file_entries(folder), stages, planned, colours)
        index = ingredients.checkpoint.index()
        bundle.write_description(folder, describe(configs, index, chosen, recognised.family, written))


def _trace(
    ingredients: Ingredients,
    family: Family,
    planned: bundle.Golden | None,
    folder: Path,
    scratch: Path,
    progress: Progress,
) -> dict[str, Path]:
    """Load the networks, draw the golden picture with them, and trace them; what is left are files."""
    pipeline = load(ingredients.checkpoint, ingredients.parts, ingredients.loras, progress)
    if planned:
        progress.note(f"the golden picture is {planned.width}x{planned.height}; --no-golden leaves it out")
        progress.stage("drawing the golden picture")
        golden.with_fast_tokenizers(pipeline, ingredients.checkpoint.folder)
        golden.write(golden.draw(pipeline, family, planned), folder / bundle.GOLDEN_PNG)
    return graphs.export_graphs(pipeline, scratch, progress.stage)


def _write_others(ingredients: Ingredients, folder: Path, scratch: Path, target: Target, progress: Progress) -> None:
    for name in (bundle.TOKENIZER_JSON, bundle.TOKENIZER_2_JSON):
        save_tokenizer((ingredients.checkpoint.folder / name).parent, folder / name)
    if ingredients.safety_checker:
        progress.stage(f"writing {bundle.SAFETY_CHECKER_ONNX}")
        write_safety_checker(ingredients.safety_checker, folder / bundle.SAFETY_CHECKER_ONNX, scratch, target.weights)


def _is_half(target: Target) -> bool:
    return target.weights == "fp16"  # half-precision arithmetic has such weights, too


def _note_slow_vae(vae: Mapping[str, Any], target: Target, progress: Progress) -> None:
    if target.precision == "fp16" and vae.get("force_upcast"):
        progress.note(
            "the VAE overflows in half precision (force_upcast), so its graphs stay fp32 and are slow: "
            "--vae madebyollin/sdxl-vae-fp16-fix does not"
        )


@contextmanager
def _staged(out: Path) -> Iterator[tuple[Path, Path]]:
    """Two empty folders beside `out`: the first becomes `out` if all goes well, the second is always removed."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
            folder, scratch = Path(place, "bundle"), Path(place, "traced")
            folder.mkdir()
            scratch.mkdir()
            yield folder, scratch
            shutil.rmtree(scratch)
            folder.replace(out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(out) from error
        raise
