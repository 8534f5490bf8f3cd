"""The official fal_client against your own host, sync and async. While `make run` is up:

FAL_KEY="$(cat .run/api-key)" FAL_RUN_HOST=localhost:8443 SSL_CERT_FILE=.run/ca.pem \
    .venv/bin/python examples/python_client.py
"""

import asyncio
from pathlib import Path

import fal_client

APP = "fal-ai/fast-lcm-diffusion"


def sync(prompt: str) -> bytes:
    """One picture over a synchronous connection."""
    with fal_client.realtime(APP, use_jwt=False) as connection:
        connection.send({"prompt": prompt, "seed": 8})
        return connection.recv()["images"][0]["content"]


async def asynchronous(prompts: list[str]) -> list[bytes]:
    """Several pictures over one asynchronous connection, in order."""
    async with fal_client.realtime_async(APP, use_jwt=False) as connection:
        for prompt in prompts:
            await connection.send({"prompt": prompt, "seed": 8})
        return [(await connection.recv())["images"][0]["content"] for _ in prompts]


if __name__ == "__main__":
    Path("star.jpg").write_bytes(sync("a small red star at the left on a blue background"))
    heart, square = asyncio.run(
        asynchronous(["a large green heart on a yellow background", "a black square on a white background"])
    )
    Path("heart.jpg").write_bytes(heart)
    Path("square.jpg").write_bytes(square)
    print("star.jpg, heart.jpg, square.jpg")
