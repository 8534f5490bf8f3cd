"""Text from any OpenAI-compatible server, word for word, in the form of fal-ai/any-llm: the same client code runs.

OPENAI_BASE_URL=http://127.0.0.1:11434/v1 OPENAI_MODEL=llama3.2 \
    .venv/bin/python -m runner serve --app fal-ai/any-llm=examples.any_llm:AnyLLM

`/` answers when all is written. `/stream` sends an event for each piece: over HTTP (`fal.stream("fal-ai/any-llm")`) or
over WebSocket (`fal.apps.ws("fal-ai/any-llm/stream")`, or `wss://HOST/ws/fal-ai/any-llm/stream`).
"""

import json
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
from pydantic import BaseModel, Field

import runner as fal
from runner.exceptions import AppException, FieldException

log = logging.getLogger(__name__)

AWAY = "the language model's server cannot be reached: try again later"
BROKEN = "the language model's server broke off: try again"


class Input(BaseModel):
    prompt: str = Field(min_length=1, max_length=200_000)
    system_prompt: str | None = Field(default=None, max_length=200_000)
    model: str | None = Field(
        default=None, max_length=200, description="As the server names it; OPENAI_MODEL if left out"
    )
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)


class Output(BaseModel):
    output: str
    """All that was written so far."""
    partial: bool = False
    error: str | None = None


class AnyLLM(fal.App):
    def setup(self) -> None:
        base_url, key = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
        self.model = os.environ.get("OPENAI_MODEL", "")
        if not base_url or not self.model:
            raise RuntimeError("set OPENAI_BASE_URL (http://127.0.0.1:11434/v1) and OPENAI_MODEL (llama3.2)")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(60, connect=5)
        self.server = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout)

    async def teardown(self) -> None:
        await self.server.aclose()

    @fal.endpoint("/")
    async def complete(self, request: Input) -> Output:
        return Output(output="".join([piece async for piece in self.pieces(request)]))

    @fal.endpoint("/stream")
    async def stream(self, request: Input) -> fal.StreamingResponse:
        outputs = self.outputs(request)
        first = await anext(outputs)  # what goes wrong before the first word is still a status
        return fal.StreamingResponse(events(first, outputs), media_type="text/event-stream")

    async def outputs(self, request: Input) -> AsyncGenerator[Output, None]:
        """Longer and longer outputs; the last one is not partial.

        Raises:
            AppException: the server is away, refuses, or breaks off.
            FieldException: it does not take a field.
        """
        written = ""
        async with aclosing(self.pieces(request)) as pieces:
            async for piece in pieces:
                written += piece
                yield Output(output=written, partial=True)
        yield Output(output=written)

    async def pieces(self, request: Input) -> AsyncGenerator[str, None]:
        """What the server writes, as it comes. Raises as `outputs`."""
        is_complete = False
        try:
            async with self.server.stream("POST", "/chat/completions", json=self.question(request)) as answer:
                if not answer.is_success:
                    await refuse(answer)
                async for line in answer.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        is_complete = True
                        break
                    piece, ends = read(data)
                    is_complete = is_complete or ends
                    if piece:
                        yield piece
        except (httpx.ConnectError, httpx.TimeoutException) as error:
            log.warning("the language model's server is away: %r", error)
            raise AppException(AWAY, 503) from None
        except httpx.HTTPError as error:
            log.warning("the language model's server broke off: %r", error)
            raise AppException(BROKEN, 502) from None
        if not is_complete:
            raise AppException(BROKEN, 502)

    def question(self, request: Input) -> dict[str, Any]:
        """The body of a chat completion."""
        system = [{"role": "system", "content": request.system_prompt}] if request.system_prompt else []
        chosen = {"temperature": request.temperature, "max_tokens": request.max_tokens}
        return {
            "model": request.model or self.model,
            "messages": [*system, {"role": "user", "content": request.prompt}],
            "stream": True,
            **{name: value for name, value in chosen.items() if value is not None},
        }


async def events(first: Output, rest: AsyncGenerator[Output, None]) -> AsyncGenerator[str, None]:
    """Server-sent events, as fal-ai/any-llm spells them; what goes wrong now is one more."""
    latest = first
    try:
        yield event(first)
        async with aclosing(rest):
            async for latest in rest:
                yield event(latest)
    except (AppException, FieldException) as error:
        yield event(Output(output=latest.output, partial=True, error=error.message), "error")


def event(output: Output, name: str = "event") -> str:
    return f"event: {name}\ndata: {output.model_dump_json()}\n\n"


def read(data: str) -> tuple[str, bool]:
    """The text in a chunk of a completion, and whether it is the last one."""
    try:
        choices = json.loads(data)["choices"]
        choice = choices[0] if choices else {}  # the last chunk of some tells the usage alone
        return (choice.get("delta") or {}).get("content") or "", bool(choice.get("finish_reason"))
    except (ValueError, LookupError, TypeError, AttributeError):
        log.warning("the language model's server sent no chunk of a completion")
        raise AppException(BROKEN, 502) from None


async def refuse(answer: httpx.Response) -> None:
    """Raises what a refusal of the server means to the caller; its own words are the operator's alone."""
    said = "" if answer.status_code in (401, 403) else (await answer.aread())[:500].decode(errors="replace")
    log.warning("the language model's server answered %d: %s", answer.status_code, said)  # no 401: some repeat the key
    match answer.status_code:
        case 401 | 403:
            raise AppException(
                "the language model's server refuses this one: its operator must mend OPENAI_API_KEY", 502
            )
        case 404:
            raise FieldException("model", "the language model's server has no such model")
        case 400 | 413 | 422:
            raise AppException(
                "the language model's server does not take this input: shorten it, or change a field", 422
            )
        case 429:
            raise AppException("the language model's server is busy: try again later", 429)
    raise AppException("the language model's server failed: try again later", 502)
