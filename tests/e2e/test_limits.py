"""What a token's limits look like to fal's own clients, from the mint to the refusal."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.programs import program
from tests.e2e.test_javascript_client import client, play  # noqa: F401 - a fixture
from tests.e2e.test_javascript_client import pytestmark as needs_node
from tests.stack import Stack, create_key

APP = "fal-ai/fast-lcm-diffusion"

SEND_UNTIL_REFUSED = """
    with fal_client.realtime(APP, use_jwt={use_jwt}) as connection:
        try:
            for number in range(3):
                connection.send({{"prompt": "a red circle", "request_id": str(number)}})
                show(connection.recv())
        except fal_client.client.RealtimeError as error:
            print(json.dumps({{"error": error.error, "reason": error.reason}}))
    """


@pytest.mark.parametrize("use_jwt", [True, False])
def test_the_python_client_reads_which_limit_of_its_key_is_used_up(stack: Stack, use_jwt: bool) -> None:
    limited = replace(stack, key=create_key(stack.data, "--apps", APP, "--max-requests", "2"))
    *results, refusal = program(limited, SEND_UNTIL_REFUSED.format(use_jwt=use_jwt))
    assert [result["request_id"] for result in results] == ["0", "1"]
    assert refusal["error"] == "LIMIT_EXCEEDED"
    assert refusal["reason"].startswith("the token's max_requests is used up")


def test_the_python_client_gets_429_where_its_key_has_no_socket_left(stack: Stack) -> None:
    limited = replace(stack, key=create_key(stack.data, "--apps", APP, "--max-connections", "1"))
    [refusal] = program(
        limited,
        """
        with fal_client.realtime(APP, use_jwt=False):
            try:
                with fal_client.realtime(APP, use_jwt=False):
                    pass
            except Exception as error:
                print(json.dumps({"status": error.response.status_code, "body": json.loads(error.response.body)}))
        """,
    )
    assert refusal["status"] == refusal["body"]["status"] == 429
    assert "the key's max_connections, 1, is reached" in refusal["body"]["detail"]


@needs_node
@pytest.mark.parametrize(
    ("limit", "field", "good"),
    [
        ({"max_pixels": 64 * 64}, "image_size", {"image_size": {"width": 64, "height": 64}}),
        ({"max_steps": 1}, "num_inference_steps", {"num_inference_steps": 1}),
    ],
)
def test_the_javascript_client_reads_which_field_is_above_the_limit(
    client: Path,  # noqa: F811 - the fixture
    stack: Stack,
    limit: dict[str, int],
    field: str,
    good: dict[str, object],
) -> None:
    much = {"image_size": {"width": 128, "height": 64}, "num_inference_steps": 2, "request_id": "much"}
    inputs = [much, {**much, **good, "request_id": "good"}]
    seen = play(client, stack, "limits", token=stack.mint(APP, **limit), inputs=inputs, closes=False)
    [error] = seen["errors"]
    assert error["body"]["detail"][0]["loc"] == ["body", field]
    assert f"the token's {next(iter(limit))}" in error["message"]
    assert seen["ids"] == ["good"]


@needs_node
def test_the_javascript_client_learns_that_its_requests_are_used_up(
    client: Path,  # noqa: F811 - the fixture
    stack: Stack,
) -> None:
    inputs = [{"request_id": str(number)} for number in range(3)]
    seen = play(client, stack, "limits", token=stack.mint(APP, max_requests=2), inputs=inputs, closes=True)
    assert seen["ids"] == ["0", "1"]
    assert seen["errors"][0]["body"]["error"] == "LIMIT_EXCEEDED"
    assert seen["code"] == 4029


@needs_node
def test_the_javascript_client_learns_that_a_one_time_token_was_used(
    client: Path,  # noqa: F811 - the fixture
    stack: Stack,
) -> None:
    token = stack.mint(APP, one_time=True)
    first = play(client, stack, "limits", token=token, inputs=[{"request_id": "first"}], closes=False)
    assert (first["ids"], first["errors"]) == (["first"], [])
    second = play(client, stack, "refused", token=token)
    assert second["errors"][0]["message"] == "UNAUTHORIZED: the token was used already; mint a new one"
    assert second["code"] == 4001
