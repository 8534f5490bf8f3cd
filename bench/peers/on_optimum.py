"""optimum's ORTStableDiffusionXLPipeline on the graphs that optimum exports."""

from pathlib import Path

import onnxruntime
import torch
from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTStableDiffusionXLPipeline
from transformers import CLIPTokenizerFast

from bench.peers.diffusion import DiffusersPipeline
from runner.engine.devices import session_options

VARIANTS = {"spinning": {}, "not_spinning": {"session.intra_op.allow_spinning": "0"}}
"""ONNX Runtime lets idle threads spin unless told otherwise; with five sessions in a process that can cost time."""
TUNED = "tuned"
"""The session options that our engine has."""


def export(checkpoint: Path, out: Path) -> None:
    """Write the five graphs, as `optimum-cli export onnx --task text-to-image` does."""
    staged = out.with_name("optimum-staged")
    main_export(str(checkpoint), staged, task="text-to-image", local_files_only=True, do_validation=False)
    staged.replace(out)


def load(graphs: Path, checkpoint: Path, variant: str, threads: int) -> DiffusersPipeline:
    """The pipeline on the CPU.

    Without IO binding: with it, optimum 2.1 writes the UNet's output over the sample that the LCM scheduler steps
    from, and draws garbage.
    """
    torch.set_num_threads(threads)
    options = session_options(threads)
    if variant != TUNED:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        for name, value in VARIANTS[variant].items():
            options.add_session_config_entry(name, value)
    pipeline = ORTStableDiffusionXLPipeline.from_pretrained(
        graphs, session_options=options, use_io_binding=False, local_files_only=True
    )
    for name in ("tokenizer", "tokenizer_2"):
        setattr(pipeline, name, CLIPTokenizerFast.from_pretrained(checkpoint / name, local_files_only=True))
    return DiffusersPipeline(pipeline)


def load_on_cuda(graphs: Path) -> DiffusersPipeline:
    """The pipeline on the first GPU; without IO binding for the same reason as on the CPU."""
    return DiffusersPipeline(
        ORTStableDiffusionXLPipeline.from_pretrained(
            graphs, provider="CUDAExecutionProvider", use_io_binding=False, local_files_only=True
        )
    )
