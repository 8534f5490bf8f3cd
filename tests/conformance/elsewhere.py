"""Behaviours of the contract that tests outside of this folder hold, most of them with the official clients."""

from dataclasses import dataclass
from typing import Final

from tests.conformance.behaviours import Whose


@dataclass(frozen=True, slots=True)
class Held:
    """One behaviour, and the tests that hold it."""

    section: str
    text: str
    tests: tuple[str, ...]
    """`path::name` below `tests/`."""
    whose: Whose
    note: str
    """What ours does beyond or instead."""


def held(section: str, text: str, *tests: str, whose: Whose = Whose.GATEWAY, note: str = "") -> Held:
    return Held(section, text, tests, whose, note)


DIFFUSION: Final = "runner/apps/test_diffusion.py"
MINTING: Final = "authsvc/test_minting.py"
PYTHON: Final = "e2e/test_python_client.py"
HTTP: Final = "runner/doors/test_http.py"
HTTP_CLIENTS: Final = "e2e/test_http_clients.py"
JAVASCRIPT: Final = "e2e/test_javascript_client.py"
CLIENTS: Final = "e2e/test_client_behaviours.py"
REALTIME: Final = "runner/doors/test_realtime.py"
OVER_SOCKET: Final = "runner/doors/test_http_over_websocket.py"
REFUSALS: Final = "runner/doors/test_realtime_refusals.py"

HELD: Final = (
    held(
        "1a",
        "both spellings of the route answer without a redirect; only POST mints",
        f"{MINTING}::test_both_spellings_answer_without_a_redirect_and_forbid_caching",
        f"{MINTING}::test_only_post_mints",
    ),
    held(
        "1a",
        "durations from 1 to 3600 s; another one is a field error",
        f"{MINTING}::test_a_bad_field_is_named",
        note="fal documents no maximum; a program that asks for more is told the field.",
    ),
    held(
        "1a",
        "an alias opens the app of any owner, `owner/alias` all below it, a full path itself alone",
        "tokens/test_scope.py::test_an_entry_opens",
        "tokens/test_scope.py::test_an_entry_does_not_open",
    ),
    held(
        "1b",
        "`POST /tokens/realtime` answers an object with `token`",
        f"{MINTING}::test_the_current_route_answers_an_object",
    ),
    held("1c", "a body that is no JSON object is refused", f"{MINTING}::test_a_body_that_is_no_json_object_is_refused"),
    held(
        "1d",
        "a token that expires closes no open socket",
        f"{REALTIME}::test_an_open_session_outlives_its_token",
        note="How long a session may live is `max_session_s`.",
    ),
    held(
        "1d",
        "the JavaScript client's refresh: new tokens are asked for, the open socket stays",
        f"{CLIENTS}::test_fal_js_193_200_201_202_31_55_a_token_refresh_does_not_disturb_the_socket",
        whose=Whose.CLIENT,
    ),
    held(
        "2a",
        "paths of all clients: `/realtime`, `/realtime/realtime` (Python's), sub-endpoints, three segments for "
        "`workflows/` and `comfy/`",
        "runner/doors/test_routes.py::test_paths_of_the_official_clients",
        "runner/doors/test_routes.py::test_paths_that_lead_nowhere",
        f"{REALTIME}::test_the_paths_of_all_clients_lead_to_a_picture",
        f"{PYTHON}::test_an_endpoint_id_that_ends_in_realtime_is_served_too",
    ),
    held("2a", "`path` of the JavaScript client", f"{CLIENTS}::test_fal_js_179_a_path_of_ones_own", whose=Whose.CLIENT),
    held(
        "2b",
        "a token in the query, `Authorization: Key id:secret`, `Authorization: Bearer token`",
        "runner/doors/test_access.py::test_good_credentials_enter",
        f"{REFUSALS}::test_good_headers_enter",
        f"{PYTHON}::test_realtime",
    ),
    held(
        "2b",
        "a refused token in the query is told in band, and closed with a code of its own",
        f"{REFUSALS}::test_a_refused_token_is_told_in_band_and_closed",
        f"{JAVASCRIPT}::test_a_token_that_is_none_is_noticed",
        f"{JAVASCRIPT}::test_a_token_for_another_app_is_noticed",
        note='`x-fal-error` UNAUTHORIZED or FORBIDDEN and 4001 or 4003, as `{"status":"error"}` leaves the JavaScript '
        "client silent on an open socket.",
    ),
    held(
        "2b",
        "a refused header gets an HTTP status",
        f"{REFUSALS}::test_a_refused_header_gets_a_status_and_the_one_error_body",
        f"{PYTHON}::test_a_wrong_key_is_refused_at_the_handshake",
    ),
    held(
        "2c",
        "whatever bytes or text come, they give a map or a named error",
        "runner/protocol/test_codec.py::test_any_bytes_give_a_map_or_a_decode_error",
        "runner/protocol/test_codec.py::test_any_text_gives_a_map_or_a_decode_error",
        whose=Whose.OURS,
    ),
    held(
        "2c",
        "control messages are compact JSON text whatever the codec",
        "runner/protocol/test_codec.py::test_control_messages_are_compact_json_without_empty_members",
        whose=Whose.OURS,
    ),
    held(
        "2d",
        "after 1000 the JavaScript client connects again with the next input, and mints anew",
        f"{JAVASCRIPT}::test_reconnects_by_itself_after_idle",
        whose=Whose.CLIENT,
    ),
    held(
        "2d",
        "Python: TIMEOUT raises RealtimeError, and after the normal close `recv()` is None",
        f"{PYTHON}::test_idle_is_fals_timeout_and_a_normal_close",
        whose=Whose.CLIENT,
    ),
    held(
        "2e",
        "`max_buffering` from 1 to 60; another one is refused by name",
        f"{REALTIME}::test_max_buffering_in_range",
        f"{REALTIME}::test_a_max_buffering_out_of_range_is_told_and_closed",
    ),
    held(
        "2e",
        "of many quick inputs of the JavaScript client the newest win, and every drop is counted",
        f"{JAVASCRIPT}::test_newest_wins_and_every_drop_is_counted",
        whose=Whose.CLIENT,
    ),
    held(
        "2e",
        "without buffering a flood is held back by TCP, not in memory",
        f"{REALTIME}::test_a_flood_without_buffering_is_held_back_and_answered_in_order",
        whose=Whose.OURS,
    ),
    held(
        "2e",
        "a session without a `session_timeout`",
        f"{REALTIME}::test_an_idle_session_ends_with_timeout_and_1000",
        "runner/protocol/test_session.py::test_the_idle_clock_can_be_off",
        whose=Whose.OURS,
        note="fal's lasts for ever; ours has the runner's idle time, `RUNNER_IDLE_TIMEOUT_S`, which can be off.",
    ),
    held(
        "3",
        "a client that leaves takes its work along",
        f"{REALTIME}::test_a_client_that_leaves_takes_its_work_along",
        whose=Whose.OURS,
    ),
    held(
        "4",
        "`run` of both clients: results, the request id, field errors",
        f"{HTTP_CLIENTS}::TestPython::test_run",
        f"{HTTP_CLIENTS}::TestPython::test_a_field_error_is_raised_with_its_list",
        f"{HTTP_CLIENTS}::TestJavaScript::test_run",
        f"{HTTP_CLIENTS}::TestJavaScript::test_a_field_error_is_its_validation_error",
        whose=Whose.CLIENT,
    ),
    held(
        "4",
        "`stream` of both clients, JavaScript's in both connection modes; the last event is what `run` answers",
        f"{HTTP_CLIENTS}::TestPython::test_stream_ends_with_what_run_gives",
        f"{HTTP_CLIENTS}::TestJavaScript::test_stream",
        whose=Whose.CLIENT,
    ),
    held(
        "4",
        "a failure before the first event has its status, one after it is the last event",
        f"{HTTP}::TestStreams::test_a_failure_after_the_start_is_the_last_event_and_does_not_count",
        whose=Whose.OURS,
    ),
    held(
        "4",
        "`x-fal-request-timeout` of either client's spelling; the server's own time limit is told apart",
        f"{HTTP}::TestTime::test_the_callers_timeout_is_named_and_the_work_given_up",
        f"{HTTP}::TestTime::test_python_clients_spelling_is_read",
        f"{HTTP}::TestTime::test_the_servers_own_is_told_apart",
    ),
    held(
        "4",
        "a client that leaves cancels the work",
        "runner/doors/test_http_connection.py::TestLeaving::test_a_client_that_leaves_cancels_the_work",
        "runner/doors/test_http_connection.py::TestLeaving::test_a_client_that_leaves_a_stream_cancels_it",
    ),
    held(
        "5",
        "a text message is a POST; start, body and end come in order, with the times and ids that fal documents",
        f"{OVER_SOCKET}::test_a_payload_is_a_post_and_its_answer_comes_between_metadata",
        "runner/protocol/test_http_over_websocket.py::test_metadata_are_as_fal_documents_them",
    ),
    held(
        "5",
        "pipelined payloads are answered one after the other",
        f"{OVER_SOCKET}::test_pipelined_payloads_are_answered_one_after_the_other",
    ),
    held(
        "5",
        "one binary message for each event of a stream, as soon as it is made",
        f"{OVER_SOCKET}::test_each_event_of_a_stream_is_a_message_as_soon_as_it_is_made",
    ),
    held(
        "5",
        "an error is an answer with its status, and the socket lives on",
        f"{OVER_SOCKET}::test_a_failure_has_its_status_and_the_socket_lives_on",
        f"{OVER_SOCKET}::test_an_answer_of_the_app_keeps_its_status_and_fields",
        note="fal documents no errors; `start` and `end` carry the status, the body is the usual one.",
    ),
    held(
        "5",
        "`Authorization` in the handshake, or a token in the query; any path of a host `ws.…`, and `/ws/…`",
        f"{OVER_SOCKET}::test_a_header_that_is_good_opens_it",
        f"{OVER_SOCKET}::test_a_refused_header_is_a_status_at_the_upgrade",
        f"{OVER_SOCKET}::test_a_refused_token_in_the_query_is_told_in_band",
        f"{OVER_SOCKET}::test_any_path_of_a_host_that_begins_with_ws",
    ),
    held(
        "5",
        "the `fal` SDK's own `fal.apps.ws`, with `FAL_WS_RUN_HOST`",
        "e2e/test_http_over_websocket.py::test_the_example_of_the_documentation",
        "e2e/test_http_over_websocket.py::test_one_answer_after_the_other",
        whose=Whose.CLIENT,
    ),
    held(
        "6",
        "fields, defaults and limits of fast-lcm-diffusion; unknown fields and fields of other models are ignored",
        "runner/apps/test_fast_lcm_diffusion.py::test_what_is_left_out_is_the_model_s_default",
        "runner/apps/test_fast_lcm_diffusion.py::test_what_is_given_is_kept",
        "runner/apps/test_fast_lcm_diffusion.py::test_fields_that_other_models_know_are_ignored",
        whose=Whose.MODEL,
        note="A field left out takes the served model's own default.",
    ),
    held(
        "6",
        "both models: text, `/image-to-image` and `/inpainting`, each over HTTP, as a stream and as a socket",
        f"{DIFFUSION}::test_the_endpoints_of_both",
        f"{DIFFUSION}::test_image_to_image_and_inpainting_bring_their_pictures",
        f"{DIFFUSION}::test_what_an_input_must_have",
        f"{DIFFUSION}::test_all_fields_of_the_contract_are_taken",
        whose=Whose.MODEL,
    ),
    held(
        "6",
        "what each answers over HTTP; turbo without `prompt`",
        f"{DIFFUSION}::test_the_answer_of_the_lcm_app",
        f"{DIFFUSION}::test_the_answer_of_the_turbo_app_leaves_the_prompt_out",
        whose=Whose.MODEL,
    ),
    held(
        "6",
        "`sync_mode`: a data URI, and nothing is kept; without it a link to a file",
        "e2e/test_image_apps.py::test_run_draws_at_once_and_gives_data_uris",
        "e2e/test_image_apps.py::test_without_sync_mode_there_is_a_link_for_a_while",
        f"{DIFFUSION}::test_with_sync_mode_nothing_is_kept",
        f"{DIFFUSION}::test_without_sync_mode_the_answer_links_to_files",
        f"{DIFFUSION}::test_how_long_a_request_wishes_files_to_be_kept",
        whose=Whose.MODEL,
    ),
    held(
        "6",
        "image sizes: presets and exact ones",
        "runner/apps/test_sizes.py::test_a_preset_is_the_model_s_own",
        "runner/apps/test_sizes.py::test_an_exact_size_up_to_the_cap",
        "e2e/test_features.py::test_any_multiple_of_8_is_drawn_exactly",
        whose=Whose.MODEL,
    ),
    held(
        "6",
        "realtime: `image_bytes` in, `images[].content` as raw bytes out, `request_id` and `seed` echoed",
        f"{REALTIME}::test_a_result_is_binary_with_the_picture_s_bytes_in_it",
        f"{JAVASCRIPT}::test_connect_send_result_and_a_close_that_is_no_error",
        f"{JAVASCRIPT}::test_image_to_image_path_takes_bytes",
        whose=Whose.MODEL,
    ),
    held(
        "6",
        "the root's socket draws from text, from a picture or inpaints, as the input says",
        "runner/apps/test_fast_lcm_diffusion.py::test_the_root_endpoint_takes_every_form",
        "e2e/test_features.py::test_inpainting_draws_anew_what_is_white",
        whose=Whose.MODEL,
    ),
    held("6", "`format` jpeg and png", "e2e/test_features.py::test_formats", whose=Whose.MODEL),
    held(
        "6",
        "`has_nsfw_concepts`",
        "e2e/test_features.py::test_the_safety_checker_blackens_what_it_finds_and_says_so",
        "e2e/test_features.py::test_a_model_without_a_checker_claims_nothing",
        whose=Whose.MODEL,
        note='Empty where no checker ran: it says "not checked".',
    ),
    held(
        "7",
        "idle TIMEOUT is no error (fal-js #35)",
        f"{JAVASCRIPT}::test_reconnects_by_itself_after_idle",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "a browser that is not let in learns why (lcm-websocket-demo #2)",
        f"{JAVASCRIPT}::test_a_token_that_is_none_is_noticed",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "the token route behind `@fal-ai/server-proxy` (real-time-demo-app #8)",
        f"{CLIENTS}::test_real_time_demo_app_8_the_server_proxy_mints",
        whose=Whose.CLIENT,
        note="`rest.fal.ai/tokens/` has to be added to its `allowedUrlPatterns`.",
    ),
    held(
        "7",
        "tokens for an alias and for a full path (fal-js #185)",
        f"{CLIENTS}::test_fal_js_185_a_token_for_the_alias_alone_opens_the_app",
        f"{JAVASCRIPT}::test_connect_send_result_and_a_close_that_is_no_error",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "a token refresh leaves the socket and its state alone (fal-js #193, #200, #201, #202, #31, #55)",
        f"{CLIENTS}::test_fal_js_193_200_201_202_31_55_a_token_refresh_does_not_disturb_the_socket",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "no `request_id` is asked for (fal-js #94)",
        f"{CLIENTS}::test_fal_js_94_an_input_without_request_id_is_answered",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "`connection.close()` is no error (fal-js #93)",
        f"{JAVASCRIPT}::test_connect_send_result_and_a_close_that_is_no_error",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "a path and a codec of one's own; JSON text is an input (fal-js #179, #180)",
        f"{CLIENTS}::test_fal_js_179_a_path_of_ones_own",
        f"{CLIENTS}::test_fal_js_180_a_codec_of_ones_own_may_send_json_text",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "header credentials and a path of one's own in Python (fal #836, #837)",
        f"{CLIENTS}::test_fal_836_837_a_path_of_ones_own_with_header_or_token",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "the fields of a 422 reach the JavaScript ValidationError (fal-js #145)",
        f"{CLIENTS}::test_fal_js_145_a_422_names_the_field_in_the_validation_error",
        whose=Whose.CLIENT,
    ),
    held(
        "7",
        "a cold start holds the first input until the model is there",
        "runner/apps/test_fast_lcm_diffusion.py::test_an_input_waits_for_a_model_that_is_loading",
        whose=Whose.CLIENT,
    ),
    held(
        "8",
        "Python: `FAL_RUN_HOST` with a port, TLS by `SSL_CERT_FILE`, with a token and by header",
        f"{PYTHON}::test_realtime",
        f"{PYTHON}::test_realtime_async_answers_in_order",
        whose=Whose.CLIENT,
    ),
    held(
        "8",
        "the `fal` SDK: `FAL_RUN_HOST` and `FAL_WS_RUN_HOST`, credentials by header",
        "e2e/test_http_over_websocket.py::test_the_example_of_the_documentation",
        whose=Whose.CLIENT,
    ),
    held(
        "8",
        "JavaScript: `globalThis.WebSocket` replaced, `tokenProvider`, `requestMiddleware` for tokens and HTTP",
        f"{JAVASCRIPT}::test_connect_send_result_and_a_close_that_is_no_error",
        f"{CLIENTS}::test_fal_js_185_a_token_for_the_alias_alone_opens_the_app",
        f"{HTTP_CLIENTS}::TestJavaScript::test_run",
        whose=Whose.CLIENT,
    ),
    held(
        "8",
        "the backend's token route in Flask, FastAPI, Express and Next.js",
        "examples/test_backends.py::test_the_official_client_draws",
        whose=Whose.CLIENT,
    ),
)
