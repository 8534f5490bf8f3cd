"""What once broke users of fal's clients, each with its report (contract §7): here it works, with the same clients.

Those that other tests show already are named in docs/conformance.md.
"""

import json
from pathlib import Path

import pytest

from tests.e2e.programs import program
from tests.e2e.test_javascript_client import APP, client, jpeg, picture, play
from tests.stack import Stack

__all__ = ["client"]


def test_fal_js_193_200_201_202_31_55_a_token_refresh_does_not_disturb_the_socket(client: Path, stack: Stack) -> None:
    """The client keeps the fresh token for the next socket and sends nothing: the open one must not depend on it."""
    seen = play(client, stack, "refreshes_while_open")
    assert seen == {"ids": ["before", "after"], "errors": [], "sockets": 1}


def test_fal_js_94_an_input_without_request_id_is_answered(client: Path, stack: Stack) -> None:
    seen = play(client, stack, "one_input", input={"prompt": "a red circle"})
    assert (len(seen["results"]), seen["errors"]) == (1, [])


def test_fal_js_179_a_path_of_ones_own(client: Path, stack: Stack) -> None:
    seen = play(client, stack, "custom_path", path="image-to-image/realtime", image=jpeg("red"))
    assert seen["errors"] == []
    assert picture(seen["results"][0]).format == "JPEG"
    assert seen["asked"] == [f"{APP}/image-to-image/realtime"]


def test_fal_js_180_a_codec_of_ones_own_may_send_json_text(client: Path, stack: Stack) -> None:
    seen = play(client, stack, "custom_codec")
    assert (seen["errors"], seen["sent"]) == ([], ["text"])
    [result] = seen["results"]
    assert (result["request_id"], result["by"]) == ("text", "my codec")


def test_fal_js_185_a_token_for_the_alias_alone_opens_the_app(client: Path, stack: Stack) -> None:
    """The client's own token provider asks for the alias; a backend, told by `tokenProvider`, for the full path."""
    seen = play(client, stack, "default_token_provider")
    assert (len(seen["results"]), seen["errors"]) == (1, [])


def test_real_time_demo_app_8_the_server_proxy_mints(client: Path, stack: Stack) -> None:
    seen = play(client, stack, "through_the_server_proxy")
    assert (len(seen["results"]), seen["errors"]) == (1, [])
    assert seen["proxied"] == ["https://rest.fal.ai/tokens/"]


def test_fal_js_145_a_422_names_the_field_in_the_validation_error(client: Path, stack: Stack) -> None:
    error = play(client, stack, "run", input={"num_inference_steps": 4})
    assert (error["name"], error["status"]) == ("ValidationError", 422)
    assert [entry["loc"] for entry in error["body"]["detail"]] == [["body", "prompt"]]


@pytest.mark.parametrize("use_jwt", [True, False])
def test_fal_836_837_a_path_of_ones_own_with_header_or_token(stack: Stack, use_jwt: bool) -> None:
    [result] = program(
        stack,
        f"""
        with fal_client.realtime(APP, path="/image-to-image/realtime", use_jwt={use_jwt}) as connection:
            connection.send({{"prompt": "a red circle", "image_bytes": base64.b64decode({json.dumps(jpeg("red"))})}})
            show(connection.recv())
        """,
    )
    assert result["images"][0]["content_type"] == "image/jpeg"
