"""``python -m pocket.train``: every stage in order; what is done already is not done again.

Kill it whenever you like: the same command goes on from the last saved state.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from pocket.assemble import assemble
from pocket.conditioning import Prompts, build_text_encoders
from pocket.data import encode
from pocket.diffusion import Schedule
from pocket.distill import distill, distilled
from pocket.sharpen import Source, sharpen
from pocket.text import build_tokenizers
from pocket.train_autoencoder import load_autoencoder, train_autoencoder
from pocket.train_text import train_text
from pocket.train_unet import Denoiser, train_unet
from pocket.workspace import SEED, Workspace, write

WORK = Path(__file__).parent / ".work"


def main() -> None:
    """Train the pocket model and write its checkpoint folder."""
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    work = Workspace(arguments.work)
    train_autoencoder(work, arguments.autoencoder_steps)
    vae = load_autoencoder(work)
    tokenizers = build_tokenizers(work.root / "vocabulary", SEED)
    vocabulary = (len(tokenizers[0]), tokenizers[0].bos_token_id, tokenizers[0].eos_token_id)
    latents, prompts = _latents(work, arguments.pictures), Prompts(*tokenizers)
    train_text(work, build_text_encoders(*vocabulary), prompts, arguments.text_steps)
    train_unet(work, latents, prompts, vocabulary, arguments.unet_steps)
    distill(work, latents, prompts, vocabulary, arguments.distill_steps)
    trained = Denoiser(*vocabulary)
    trained.load_state_dict(distilled(work))
    trained.eval().requires_grad_(False)
    sharpen(work, vae, Source(latents, prompts, trained, Schedule()), arguments.decoder_steps)
    assemble(work.checkpoint, vae, trained, tokenizers)
    print(f"wrote {work.checkpoint}")


def _latents(work: Workspace, count: int) -> Tensor:
    """The training latents, float16 ``[count, 4, 16, 16]``, encoded on the first call."""
    if not work.latents.exists():
        write(work.latents, encode(load_autoencoder(work), SEED, count))
    latents: Tensor = torch.load(work.latents, weights_only=True)
    return latents


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pocket.train", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--work", type=Path, default=WORK, help="folder for states and the checkpoint")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--autoencoder-steps", type=int, default=1400)
    parser.add_argument("--text-steps", type=int, default=400)
    parser.add_argument("--pictures", type=int, default=12288)
    parser.add_argument("--unet-steps", type=int, default=2600)
    parser.add_argument("--distill-steps", type=int, default=650)
    parser.add_argument("--decoder-steps", type=int, default=4000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
