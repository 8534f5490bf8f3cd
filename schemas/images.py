"""Inputs and outputs of the image apps, as fal's clients send and read them (contract §6)."""

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from schemas import limits

ImageSizePreset = Literal["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]
OutputFormat = Literal["jpeg", "png", "webp"]


class ImageSize(BaseModel):
    """An exact size in pixels, multiples of 8 up to what the model can draw."""

    width: int = Field(gt=0, le=limits.IMAGE_SIDE_MAX_PX)
    height: int = Field(gt=0, le=limits.IMAGE_SIDE_MAX_PX)


class Source(NamedTuple):
    """A picture as an input brought it, not yet looked into."""

    field: str
    """The input's field, for error messages."""
    content: bytes | str
    """The encoded picture, or where it is: a data URI, base64, a URL."""


class TextToImageInput(BaseModel):
    """What both apps take. A field left out takes the served model's own default.

    Fields that clients send and this server has no use for (`expand_prompt`, `model_name` …) are ignored, as
    the original ignores them. `negative_prompt` and `guidance_rescale` count only for models with
    classifier-free guidance, at a `guidance_scale` above 1.
    """

    model_config = ConfigDict(extra="ignore", strict=False, validate_by_name=True)

    prompt: str = Field(max_length=limits.PROMPT_MAX_CHARS)
    negative_prompt: str = Field(default="", max_length=limits.PROMPT_MAX_CHARS)
    image_size: ImageSizePreset | ImageSize | None = None
    num_inference_steps: int | None = Field(default=None, ge=1, le=limits.NUM_INFERENCE_STEPS_MAX)
    guidance_scale: float | None = Field(default=None, ge=0, le=limits.GUIDANCE_SCALE_MAX, allow_inf_nan=False)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=0, le=limits.SEED_MAX)
    num_images: int = Field(default=1, ge=1, le=limits.NUM_IMAGES_MAX)
    format: OutputFormat = "jpeg"
    enable_safety_checker: bool = Field(
        default=True,
        validation_alias=AliasChoices("enable_safety_checker", "enable_safety_checks"),
        description="Let the model's safety checker, if it has one, look at the pictures. Also enable_safety_checks.",
    )
    sync_mode: bool = True
    request_id: str = Field(default="", max_length=limits.REQUEST_ID_MAX_CHARS)

    @property
    def image(self) -> Source | None:
        """The picture to start from."""
        return None

    @property
    def mask(self) -> Source | None:
        """What of the picture to draw anew."""
        return None


ImageBytes = Annotated[bytes, Field(strict=True, min_length=1, max_length=limits.IMAGE_BYTES_MAX)]


ImageUri = Annotated[str, Field(max_length=2 * limits.IMAGE_BYTES_MAX)]


class FromPictureInput(TextToImageInput):
    """What an input may say besides if it starts from a picture."""

    strength: float = Field(
        default=0.95,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="How far the result may leave the picture; 1 leaves nothing of it.",
    )


class ImageToImageInput(FromPictureInput):
    """Image-to-image over HTTP."""

    image_url: ImageUri = Field(
        description="A base64 data URI of a JPEG, PNG or WebP; an http(s) address where the server fetches those."
    )

    @property
    def image(self) -> Source | None:
        """The picture to start from."""
        return Source("image_url", self.image_url)


class InpaintingInput(ImageToImageInput):
    """Inpainting over HTTP."""

    mask_url: ImageUri = Field(description="As image_url. What is white in it is drawn anew.")

    @property
    def mask(self) -> Source | None:
        """What of the picture to draw anew."""
        return Source("mask_url", self.mask_url)


class RealtimeInput(FromPictureInput):
    """The realtime form: text-to-image, image-to-image when a picture comes along, inpainting with a mask as well.

    The picture is `image_bytes` (JPEG, PNG or WebP in msgpack `bin`) or `image_url` (a data URI; a URL where the
    server fetches those); so is the mask, `mask_bytes` or `mask_url`. What is white in it is drawn anew.
    """

    image_bytes: ImageBytes | None = None
    image_url: ImageUri | None = None
    mask_bytes: ImageBytes | None = None
    mask_url: ImageUri | None = None

    @property
    def image(self) -> Source | None:
        """The picture to start from."""
        return _source("image", self.image_bytes, self.image_url)

    @property
    def mask(self) -> Source | None:
        """What of the picture to draw anew."""
        return _source("mask", self.mask_bytes, self.mask_url)

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.image_bytes is not None and self.image_url is not None:
            raise ValueError("send image_bytes or image_url, not both")
        if self.mask_bytes is not None and self.mask_url is not None:
            raise ValueError("send mask_bytes or mask_url, not both")
        return self


def _source(name: str, content: bytes | None, uri: str | None) -> Source | None:
    if content is not None:
        return Source(f"{name}_bytes", content)
    return None if uri is None else Source(f"{name}_url", uri)


class Image(BaseModel):
    """A picture in an answer over HTTP."""

    url: str = Field(description="A data URI with `sync_mode`, else an address that is good for a while.")
    content_type: str
    file_name: str
    file_size: int = Field(description="Bytes of the file.")
    width: int
    height: int


class ImagesOutput(BaseModel):
    """An answer over HTTP. `has_nsfw_concepts` is empty when no checker ran: empty means "not checked"."""

    images: list[Image]
    timings: dict[str, float] = Field(description="Seconds a stage.")
    seed: int
    has_nsfw_concepts: list[bool] = []


class PromptedImagesOutput(ImagesOutput):
    """An answer that repeats the prompt."""

    prompt: str


class PreviewOutput(ImagesOutput):
    """An event of a stream before its last: about what the first picture will be."""

    preview: Literal[True] = True
    step: int = Field(description="Steps made, from 1; some may be left out.")
    num_inference_steps: int = Field(description="Steps that the picture takes.")


class PromptedPreviewOutput(PreviewOutput):
    """A preview that repeats the prompt."""

    prompt: str


class RealtimeImage(BaseModel):
    """A picture in a realtime result: the encoded bytes themselves, not a URL."""

    content: bytes
    content_type: str
    width: int
    height: int


class RealtimeOutput(BaseModel):
    """A realtime result. `has_nsfw_concepts` is empty when no checker ran: empty means "not checked"."""

    images: list[RealtimeImage]
    timings: dict[str, float] = Field(description="Seconds a stage.")
    seed: int
    num_inference_steps: int
    request_id: str
    dropped_inputs: int = Field(description="Inputs that newer ones replaced since the previous result.")
    has_nsfw_concepts: list[bool] = []
    nsfw_content_detected: list[bool] = Field(default=[], description="The older name of has_nsfw_concepts.")

    def as_message(self) -> dict[str, Any]:
        """The map that goes onto the wire."""
        return self.model_dump()
