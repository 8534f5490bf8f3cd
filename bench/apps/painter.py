"""What an image model's app looks like from outside, without the model: a prompt in, bytes of a picture out."""

from pydantic import BaseModel

import runner as fal

PICTURE = bytes(range(256)) * 234  # 60 KB, as a JPEG of 512 x 512 has
THUMBNAIL = PICTURE[:200]


class Input(BaseModel):
    prompt: str
    seed: int = 0


class Image(BaseModel):
    content: bytes
    content_type: str = "image/jpeg"
    width: int = 512
    height: int = 512


class Output(BaseModel):
    images: list[Image]
    seed: int


class Painter(fal.App):
    """Sync methods, as of a model that is called and returns."""

    @fal.realtime("/realtime")
    def paint(self, input: Input) -> Output:
        return Output(images=[Image(content=PICTURE)], seed=input.seed)

    @fal.realtime("/thumbnail/realtime")
    def thumbnail(self, input: Input) -> Output:
        return Output(images=[Image(content=THUMBNAIL)], seed=input.seed)
