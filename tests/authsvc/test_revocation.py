"""Revocation, introspection and the published list, through the application."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from authsvc.domain import api_keys, revocations, revoking, signing_keys
from authsvc.domain.revocations import Target
from authsvc.store.models import AuditEventRow, RedeemedToken, Revocation
from schemas import limits
from schemas.keys import Role
from schemas.revocation import RevocationList, RevokedKind
from tests.authsvc.conftest import APP, Authsvc, assert_problem
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims
from tokens.revocation import RevocationSet


def key_of(authsvc: Authsvc, *roles: Role) -> str:
    with authsvc.context.database.writing() as session:
        apps = (APP,) if Role.MINT in roles else ()
        return str(api_keys.create(session, name="test", apps=apps, roles=roles, now=authsvc.clock())[1])


@pytest.fixture
def admin(authsvc: Authsvc) -> str:
    return key_of(authsvc, Role.ADMIN)


def post(authsvc: Authsvc, path: str, key: str | None, body: Any = None, *, form: bool = False) -> TestResponse:
    headers = {} if key is None else {"Authorization": f"Key {key}"}
    return authsvc.client.post(path, headers=headers, **({"data": body} if form else {"json": body}))


def revoke(authsvc: Authsvc, key: str, **body: Any) -> Any:
    answered = post(authsvc, "/tokens/revoke", key, body)
    assert answered.status_code == 200, answered.text
    assert answered.headers["Cache-Control"] == "no-store"
    return answered.json["revoked"]


def token(authsvc: Authsvc, key: str, **body: Any) -> str:
    return str(authsvc.mint(key, {"app": APP, **body}).json["token"])


def listed(authsvc: Authsvc, after: str = "") -> RevocationList:
    return RevocationList.model_validate_json(authsvc.client.get("/revocations", query_string={"after": after}).data)


def is_revoked(authsvc: Authsvc, text: str) -> bool:
    """As a runner decides it: by the published list."""
    return RevocationSet(listed(authsvc).revocations).revokes(authsvc.claims(text))


def introspected(authsvc: Authsvc, key: str, text: str, *, form: bool = False) -> Any:
    answered = post(authsvc, "/tokens/introspect", key, {"token": text}, form=form)
    assert answered.status_code == 200, answered.text
    assert answered.headers["Cache-Control"] == "no-store"
    return answered.json


def entries(authsvc: Authsvc) -> int:
    with authsvc.context.database.reading() as session:
        return session.scalar(select(func.count()).select_from(Revocation)) or 0


# What is revoked


@pytest.mark.parametrize("form", [False, True])
def test_a_key_revokes_a_token_that_it_minted(authsvc: Authsvc, form: bool) -> None:
    key = authsvc.key()
    revoked, other = token(authsvc, key), token(authsvc, key)
    body = {"token": revoked, "token_type_hint": "access_token"}
    assert post(authsvc, "/tokens/revoke", key, body, form=form).status_code == 200
    assert is_revoked(authsvc, revoked)
    assert not is_revoked(authsvc, other)


def test_a_token_is_revoked_after_it_expired_because_its_socket_lives_on(authsvc: Authsvc) -> None:
    key = authsvc.key()
    text = token(authsvc, key, duration=10)
    claims = authsvc.claims(text)
    authsvc.clock.now += 3000
    assert revoke(authsvc, key, token=text)["kind"] == "token"
    assert RevocationSet(listed(authsvc).revocations).revokes(claims)


def test_a_token_whose_sockets_are_all_gone_leaves_no_entry(authsvc: Authsvc) -> None:
    key = authsvc.key()
    text = token(authsvc, key, duration=10)
    authsvc.clock.now += 10 + authsvc.context.settings.max_session_s + 60
    assert revoke(authsvc, key, token=text) is None
    assert entries(authsvc) == 0


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é", "x" * 5000, "eyJhbGciOiJub25lIn0.e30."])
def test_h5_revoking_an_unknown_token_is_200(authsvc: Authsvc, admin: str, text: str, form: bool) -> None:
    answered = post(authsvc, "/tokens/revoke", admin, {"token": text}, form=form)
    if text == "" and form:  # RFC 6749 §3.2: as if it were not there
        assert_problem(answered, 400)
        return
    assert (answered.status_code, answered.json) == (200, {"revoked": None})
    assert entries(authsvc) == 0


def test_h5_a_token_that_somebody_else_signed_is_unknown(authsvc: Authsvc, admin: str) -> None:
    claims = authsvc.claims(token(authsvc, authsvc.key()))
    assert revoke(authsvc, admin, token=mint(SigningKey.generate(), claims)) is None


def test_a_token_of_a_retired_key_can_be_revoked(authsvc: Authsvc, admin: str) -> None:
    text = token(authsvc, authsvc.key())
    with authsvc.context.database.writing() as session:
        signing_keys.rotate(session, now=authsvc.clock())
    assert revoke(authsvc, admin, token=text) is not None


def test_a_subject_is_revoked_up_to_the_second_and_may_come_back_in_the_next(authsvc: Authsvc) -> None:
    key = authsvc.key()
    now, other = token(authsvc, key, subject="user-1"), token(authsvc, key, subject="user-2")
    assert revoke(authsvc, key, subject="user-1")["issued_before"] == authsvc.clock.now
    same_second = token(authsvc, key, subject="user-1")
    authsvc.clock.now += 1
    next_second = token(authsvc, key, subject="user-1")
    found = [is_revoked(authsvc, text) for text in (now, same_second, next_second, other)]
    assert found == [True, True, False, False]


def test_only_what_was_issued_before_a_moment_is_revoked(authsvc: Authsvc, admin: str) -> None:
    key = authsvc.key()
    first = token(authsvc, key)
    authsvc.clock.now += 10
    second = token(authsvc, key)
    revoke(authsvc, admin, key_id=key.split(":")[0], issued_before=int(authsvc.clock.now) - 10)
    assert [is_revoked(authsvc, text) for text in (first, second)] == [True, False]


def test_a_moment_so_long_ago_that_no_token_is_left_leaves_no_entry(authsvc: Authsvc, admin: str) -> None:
    assert revoke(authsvc, admin, subject="user-1", issued_before=0) is None
    assert entries(authsvc) == 0


def test_a_revoked_key_loses_its_tokens_even_those_minted_at_that_moment(authsvc: Authsvc) -> None:
    key = authsvc.key()
    text, other = token(authsvc, key), token(authsvc, authsvc.key())
    authsvc.clock.now += 5
    late = token(authsvc, key)  # its transaction may end after the one that revokes the key
    authsvc.clock.now -= 5
    with authsvc.context.database.writing() as session:
        api_keys.revoke(session, key.split(":")[0], now=authsvc.clock())
    assert [is_revoked(authsvc, text) for text in (text, late, other)] == [True, True, False]


# Who may revoke what


def test_a_key_reaches_only_what_it_minted_itself(authsvc: Authsvc, admin: str) -> None:
    mine, other = authsvc.key(), authsvc.key()
    theirs = token(authsvc, other, subject="user-1")
    for body in ({"token": theirs}, {"key_id": other.split(":")[0]}, {"key_id": other.split(":")[0], "subject": "x"}):
        refused = post(authsvc, "/tokens/revoke", mine, body)
        assert_problem(refused, 403)
        assert refused.json["error"] == "insufficient_scope"
    # A name alone is looked for among its own tokens, and the answer tells nothing.
    revoke(authsvc, mine, jti=authsvc.claims(theirs).jti)
    revoke(authsvc, mine, subject="user-1")
    assert not is_revoked(authsvc, theirs)
    revoke(authsvc, admin, subject="user-1")
    assert is_revoked(authsvc, theirs)


@pytest.mark.parametrize("named", ["token", "jti", "key_id", "subject", "both"])
@pytest.mark.parametrize("by_admin", [False, True])
def test_everything_that_a_token_can_be_revoked_by(authsvc: Authsvc, admin: str, named: str, by_admin: bool) -> None:
    key = authsvc.key()
    key_id = key.split(":")[0]
    text, untouched = token(authsvc, key, subject="user-1"), token(authsvc, authsvc.key(), subject="user-2")
    body = {
        "token": {"token": text},
        "jti": {"jti": authsvc.claims(text).jti},
        "key_id": {"key_id": key_id},
        "subject": {"subject": "user-1"},
        "both": {"key_id": key_id, "subject": "user-1"},
    }[named]
    revoke(authsvc, admin if by_admin else key, **body)
    assert is_revoked(authsvc, text)
    assert not is_revoked(authsvc, untouched)


def test_a_subject_of_another_key_is_left_alone(authsvc: Authsvc) -> None:
    one, other = authsvc.key(), authsvc.key()
    texts = [token(authsvc, key, subject="user-1") for key in (one, other)]
    revoke(authsvc, one, subject="user-1")
    assert [is_revoked(authsvc, text) for text in texts] == [True, False]


@pytest.mark.parametrize("path", ["/tokens/revoke", "/tokens/introspect"])
@pytest.mark.parametrize("form", [False, True])
def test_h6_introspection_and_revocation_need_a_key(authsvc: Authsvc, path: str, form: bool) -> None:
    for key in (None, "unknown:secret"):
        refused = post(authsvc, path, key, {"token": "x"}, form=form)
        assert_problem(refused, 401)
        assert refused.json["error"] == "invalid_client"
    assert_problem(post(authsvc, path, key_of(authsvc, Role.RUNNER), {"token": "x"}, form=form), 403)


def test_j8_a_token_is_no_key_and_a_key_is_no_token(authsvc: Authsvc, admin: str) -> None:
    text = token(authsvc, authsvc.key())
    for path in ("/tokens/revoke", "/tokens/introspect", "/tokens/realtime"):
        for authorization in (f"Bearer {text}", f"Key {text}", f"Key {text}:{text}", f"Bearer {admin}"):
            refused = authsvc.client.post(path, json={"token": text}, headers={"Authorization": authorization})
            assert_problem(refused, 401)
    assert introspected(authsvc, admin, admin) == {"active": False}


# Bodies


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "token"),
        ({"token": None}, "token"),
        ({"token": "x", "jti": "y"}, "token"),
        ({"jti": "x", "key_id": "y"}, "token"),
        ({"token": "x", "issued_before": 1}, "issued_before"),
        ({"jti": "x", "issued_before": 1}, "issued_before"),
        ({"subject": "x", "issued_before": "1"}, "issued_before"),
        ({"subject": "x", "issued_before": -1}, "issued_before"),
        ({"subject": "x", "issued_before": 1_800_000_001}, "issued_before"),
        ({"subject": "two words"}, "subject"),
        ({"jti": ""}, "jti"),
        ({"jti": "x" * 65}, "jti"),
        ({"subject": "x", "all": True}, "all"),
    ],
)
def test_a_body_that_names_nothing_or_too_much_is_422(
    authsvc: Authsvc, admin: str, body: dict[str, object], field: str
) -> None:
    refused = post(authsvc, "/tokens/revoke", admin, body)
    assert assert_problem(refused, 422).detail[0].loc == ["body", field]
    assert refused.json["error"] == "invalid_request"
    assert entries(authsvc) == 0


@pytest.mark.parametrize(
    "body", ["", "token", "token=a&token=b", "%ff=x", "token=%ff", "a=b", "token=x&issued_before=1"]
)
def test_a_form_that_cannot_be_read_is_400_in_the_rfc_s_words(authsvc: Authsvc, admin: str, body: str) -> None:
    refused = authsvc.client.post(
        "/tokens/revoke",
        data=body,
        content_type="application/x-www-form-urlencoded",
        headers={"Authorization": f"Key {admin}"},
    )
    assert_problem(refused, 400)
    assert refused.json["error"] == "invalid_request"


def test_a_form_may_have_fields_that_nobody_knows(authsvc: Authsvc, admin: str) -> None:
    body = {"subject": "user-1", "issued_before": "1799999999", "client_assertion": "x"}
    assert post(authsvc, "/tokens/revoke", admin, body, form=True).json["revoked"]["issued_before"] == 1799999999


def test_other_bodies_are_refused_by_kind_and_size(authsvc: Authsvc, admin: str) -> None:
    headers = {"Authorization": f"Key {admin}"}
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        large = b"token=" + b"x" * limits.HTTP_BODY_MAX_BYTES
        refused = authsvc.client.post("/tokens/revoke", data=large, content_type=kind, headers=headers)
        assert_problem(refused, 413)
    assert_problem(authsvc.client.post("/tokens/revoke", data="x", content_type="text/plain", headers=headers), 415)


# Again, and later


def test_asking_again_changes_nothing(authsvc: Authsvc) -> None:
    key = authsvc.key()
    text = token(authsvc, key, subject="user-1")
    for body in ({"token": text}, {"subject": "user-1"}, {"jti": "abc"}):
        first = revoke(authsvc, key, **body)
        before = listed(authsvc)
        assert revoke(authsvc, key, **body) == first
        assert listed(authsvc) == before
    with authsvc.context.database.reading() as session:
        events = session.scalars(select(AuditEventRow).where(AuditEventRow.kind == "revoked")).all()
    assert [(event.jti, event.subject) for event in events] == [
        (authsvc.claims(text).jti, "user-1"),
        (None, "user-1"),
        ("abc", None),
    ]
    assert {event.key_id for event in events} == {event.actor for event in events} == {key.split(":")[0]}


def test_a_later_revocation_reaches_further_and_an_earlier_one_takes_nothing_back(authsvc: Authsvc, admin: str) -> None:
    now = int(authsvc.clock())
    for issued_before, reaches in ((now - 10, now - 10), (now, now), (now - 5, now)):
        assert revoke(authsvc, admin, subject="user-1", issued_before=issued_before)["issued_before"] == reaches
        assert [entry.issued_before for entry in listed(authsvc).revocations] == [reaches]


@pytest.mark.parametrize("how", ["by the next revocation", "by the next reader"])
def test_entries_vanish_after_the_last_token_and_socket_that_they_can_concern(authsvc: Authsvc, how: str) -> None:
    key = authsvc.key()
    text = token(authsvc, key, duration=100, subject="user-1")
    start = authsvc.clock.now
    ends = {
        100 + authsvc.context.settings.max_session_s + 60: {"token": text},
        revocations.LONGEST_S: {"subject": "user-1"},
    }
    for after_s, body in ends.items():
        authsvc.clock.now = start
        assert revoke(authsvc, key, **body)["expires_at"] == start + after_s
    assert len(listed(authsvc).revocations) == entries(authsvc) == 2
    for number, after_s in enumerate(ends, start=1):
        authsvc.clock.now = start + after_s - 1
        assert len(listed(authsvc).revocations) == 3 - number
        authsvc.clock.now = start + after_s
        assert len(listed(authsvc).revocations) == 2 - number
    if how == "by the next reader":
        authsvc.clock.now += 60
        listed(authsvc)
    else:
        with authsvc.context.database.writing() as session:
            revocations.prune(session, now=authsvc.clock())
    assert entries(authsvc) == 0


# Introspection


@pytest.mark.parametrize("form", [False, True])
def test_an_active_token_is_told_in_the_rfc_s_members(authsvc: Authsvc, admin: str, form: bool) -> None:
    key = authsvc.key()
    text = token(authsvc, key, subject="user-1")
    claims = authsvc.claims(text)
    said = {
        "active": True,
        "client_id": key.split(":")[0],
        "sub": "user-1",
        "jti": claims.jti,
        "iss": claims.iss,
        "aud": claims.aud,
        "iat": claims.iat,
        "nbf": claims.nbf,
        "exp": claims.exp,
        "scope": APP,
        "token_type": "Bearer",
    }
    assert introspected(authsvc, key, text, form=form) == introspected(authsvc, admin, text) == said


def test_a_token_that_opens_nothing_is_inactive_and_no_more_is_said(authsvc: Authsvc, admin: str) -> None:
    key, other = authsvc.key(), authsvc.key()
    good, revoked, used = (token(authsvc, key) for _ in range(3))
    revoke(authsvc, key, token=revoked)
    with authsvc.context.database.writing() as session:
        session.add(RedeemedToken(jti=authsvc.claims(used).jti, expires_at=int(authsvc.clock()) + 1000))
    assert introspected(authsvc, admin, good)["active"]
    for asker, text in ((other, good), (key, revoked), (admin, revoked), (admin, used), (admin, "x"), (admin, "")):
        assert introspected(authsvc, asker, text) == {"active": False}
    authsvc.clock.now += 3600
    assert introspected(authsvc, admin, good) == {"active": False}


def test_the_token_of_a_revoked_key_is_inactive(authsvc: Authsvc, admin: str) -> None:
    key = authsvc.key()
    text = token(authsvc, key)
    with authsvc.context.database.writing() as session:
        api_keys.revoke(session, key.split(":")[0], now=authsvc.clock())
    assert introspected(authsvc, admin, text) == {"active": False}


# The list


def test_the_list_is_public_and_gives_nothing_away(authsvc: Authsvc, admin: str) -> None:
    key = authsvc.key()
    text = token(authsvc, key, subject="user-1")
    for body in ({"token": text}, {"subject": "user-1"}, {"key_id": key.split(":")[0]}):
        revoke(authsvc, admin, **body)
    answered = authsvc.client.get("/revocations")
    assert answered.status_code == 200
    assert len(answered.json["revocations"]) == 3
    for name in ("user-1", key.split(":")[0], authsvc.claims(text).jti):
        assert name not in answered.text


def test_the_list_is_not_sent_again_while_it_is_the_same(authsvc: Authsvc, admin: str) -> None:
    revoke(authsvc, admin, subject="user-1")
    first = authsvc.client.get("/revocations")
    assert first.headers["Cache-Control"] == "no-cache"
    same = authsvc.client.get("/revocations", headers={"If-None-Match": first.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")
    revoke(authsvc, admin, subject="user-2")
    assert authsvc.client.get("/revocations", headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_who_reads_on_from_where_it_was_misses_nothing(authsvc: Authsvc, admin: str) -> None:
    seen = listed(authsvc)
    assert (seen.revocations, seen.next, seen.from_start, seen.more) == ([], "", True, False)
    revoke(authsvc, admin, subject="user-1")
    seen = listed(authsvc, seen.next)
    assert (len(seen.revocations), seen.from_start) == (1, True)
    authsvc.clock.now += 1
    for subject in ("user-2", "user-1"):  # the second again: it reaches further now
        revoke(authsvc, admin, subject=subject)
    seen = listed(authsvc, seen.next)
    # The entry it had seen last is replaced, so it is given all of them.
    assert (len(seen.revocations), seen.from_start) == (2, True)
    revoke(authsvc, admin, subject="user-3")
    page = listed(authsvc, seen.next)
    assert (len(page.revocations), page.from_start) == (1, False)
    last = listed(authsvc, page.next)
    assert (last.revocations, last.next, last.from_start, last.more) == ([], page.next, False, False)


@pytest.mark.parametrize(
    "after",
    [
        "x",
        "0",
        "1",
        "1-",
        "9" * 30,
        "9" * 15,
        f"{2**31}-0",
        "-1",
        "1-0000000000000000",
        "\u0661",
        "'; DROP TABLE",
        "%00",
    ],
)
def test_a_cursor_that_names_nothing_starts_anew(authsvc: Authsvc, admin: str, after: str) -> None:
    revoke(authsvc, admin, subject="user-1")
    page = listed(authsvc, after)
    assert (len(page.revocations), page.from_start) == (1, True)


def test_a_long_list_comes_in_pages(authsvc: Authsvc) -> None:
    now = int(authsvc.clock())
    with authsvc.context.database.writing() as session:
        for number in range(25):
            target = Target(RevokedKind.SUBJECT, (f"user-{number}",))
            revocations.revoke_issued(session, target, issued_before=now, now=now)
    pages, after = [], ""
    while not pages or pages[-1].more:
        with authsvc.context.database.reading() as session:
            pages.append(revocations.listing(session, after, now=now, size=10))
        after = pages[-1].next
    assert [len(page.revocations) for page in pages] == [10, 10, 5]
    assert [page.from_start for page in pages] == [True, False, False]
    assert len({entry.sha256 for page in pages for entry in page.revocations}) == 25


def test_a_page_of_the_largest_size_fits_into_what_a_runner_reads(authsvc: Authsvc) -> None:
    from runner.doors.token_service import ANSWER_MAX_BYTES

    now = int(authsvc.clock())
    with authsvc.context.database.writing() as session:
        session.add_all(
            Revocation(kind="key_subject", sha256=f"{number:064x}", issued_before=now, expires_at=now + 10)
            for number in range(limits.REVOCATIONS_PER_PAGE + 1)
        )
    answered = authsvc.client.get("/revocations")
    assert answered.json["more"]
    assert len(answered.json["revocations"]) == limits.REVOCATIONS_PER_PAGE
    assert len(answered.data) < ANSWER_MAX_BYTES


def test_no_token_gets_into_a_log_or_the_audit_table(
    make_authsvc: Callable[..., Authsvc], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    authsvc = make_authsvc(log_level="debug")
    key = authsvc.key()
    text = token(authsvc, key)
    for path in ("/tokens/revoke", "/tokens/introspect"):
        for form in (False, True):
            post(authsvc, path, key, {"token": text}, form=form)
            post(authsvc, path, key, {"token": text, "jti": text}, form=form)
    with authsvc.context.database.reading() as session:
        rows = [json.dumps(row.detail) + str(row.jti) for row in session.scalars(select(AuditEventRow))]
    assert rows
    for written in (caplog.text, *rows):
        assert text not in written
        assert text.split(".")[2] not in written


def test_claims_of_a_foreign_service_are_no_token_of_ours(authsvc: Authsvc, admin: str) -> None:
    with authsvc.context.database.reading() as session:
        signing = signing_keys.current(session)
    claims = new_claims(
        issuer="other", audience="other", subject="x", apps=[APP], now=authsvc.clock(), duration_s=60, limits=None
    )
    text = mint(signing, claims)
    assert revoke(authsvc, admin, token=text) is None
    assert introspected(authsvc, admin, text) == {"active": False}


def test_a_key_that_revokes_made_up_names_does_not_fill_every_runner(
    authsvc: Authsvc, admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoking, "OWN_A_DAY", 2)
    key = authsvc.key()
    for named in ({"jti": "made-up"}, {"subject": "user-1"}, {"jti": "made-up"}):  # the last is there already
        revoke(authsvc, key, **named)
    response = post(authsvc, "/tokens/revoke", key, {"jti": "another"})
    assert "2 tokens and subjects today" in assert_problem(response, 429).detail
    assert response.json["error"] == "temporarily_unavailable"
    assert entries(authsvc) == 2
    for who, named in ((key, {"key_id": key.partition(":")[0]}), (admin, {"jti": "a"}), (authsvc.key(), {"jti": "b"})):
        assert revoke(authsvc, who, **named) is not None
    authsvc.clock.now += int(response.headers["Retry-After"])
    assert revoke(authsvc, key, jti="another") is not None
