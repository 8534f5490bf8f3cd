"""Downloads from real servers of this machine, kind and unkind. What may be reached is told by the test."""

import gzip
import os
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_network

import pytest
import trustme

from runner.fetching.addresses import Reach
from runner.fetching.download import Downloader, DownloadFailed, DownloadTooLarge, system_addresses
from tests.runner.fetching.servers import PICTURE, Server, redirect, response, serving

LOCAL = "127.0.0.1/32"
MAX_BYTES = 100_000


def downloader(*servers: Server, allow: str = LOCAL, timeout_s: float = 30, **options: object) -> Downloader:
    reach = Reach(
        networks=tuple(map(ip_network, allow.split())), ports=frozenset({80, 443, *(server.port for server in servers)})
    )
    return Downloader(reach, max_bytes=MAX_BYTES, timeout_s=timeout_s, **options)  # type: ignore[arg-type]


def names(**addresses: Sequence[str]) -> tuple[list[str], object]:
    """A resolver that knows `NAME.example`, and what it was asked; each time the next answer, the last for good."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        known = addresses[host.removesuffix(".example")]
        return known[min(asked.count(host), len(known)) - 1].split()

    return asked, resolve


def test_a_picture_comes_as_it_is() -> None:
    with serving(response()) as server:
        assert downloader(server)(server.url("/a.png?x=1#y")) == PICTURE
        [head] = server.heads
        assert head.startswith(b"GET /a.png?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % server.port)


def test_nothing_of_ours_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(response(Set_Cookie="a=b")) as server:
        download = downloader(server)
        assert [download(server.url()) for _ in range(2)] == [PICTURE, PICTURE]
        for head in server.heads:
            fields = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
            assert fields == {b"host", b"user-agent", b"accept", b"accept-encoding", b"connection"}


def test_over_tls_the_certificate_must_be_for_the_name() -> None:
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("good.example").configure_cert(ours)
    _, resolve = names(good=["127.0.0.1"], other=["127.0.0.1"])
    with serving(response(), tls=ours) as server:
        download = downloader(server, resolve=resolve, trust=trust)
        assert download(server.url(host="good.example", scheme="https")) == PICTURE
        with pytest.raises(DownloadFailed):
            download(server.url(host="other.example", scheme="https"))
        with pytest.raises(DownloadFailed):
            downloader(server, resolve=resolve)(server.url(host="good.example", scheme="https"))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "017700000001", "0", "[::1]", "[::ffff:127.0.0.1]"],
)
def test_this_machine_is_not_reached(host: str) -> None:
    with serving(response()) as server:
        with pytest.raises(DownloadFailed):
            downloader(server, allow="192.0.2.0/24")(server.url(host=host))
        assert server.heads == []


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://[64:ff9b::7f00:1]/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/_x",
        "ftp://example.com/",
        "http://",
        "http:///a.png",
        "//example.com/a.png",
        "http://127.0.0.1:22/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://user:secret@127.0.0.1/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1\r\nX: y/",
        "http://127.0.0.1/\0",
        "http://a b/",
        "http://" + "a" * 64 + ".example/",
        "http://é" + "é" * 300 + "/",
        "http://[::1/",
        "http://127.0.0.1/" + "a" * 5000,
    ],
)
def test_what_is_no_address_to_fetch_from(url: str) -> None:
    with pytest.raises(DownloadFailed):
        downloader(allow="192.0.2.0/24", timeout_s=5, resolve=lambda host, _: [host.strip("[]")])(url)


def test_why_it_failed_says_nothing_of_the_url() -> None:
    with pytest.raises(DownloadFailed) as caught:
        downloader()("http://127.0.0.1:1x/?signature=S3CRET")
    assert "S3CRET" not in str(caught.value)


def test_one_private_address_among_public_ones_is_enough() -> None:
    _, resolve = names(mixed=["93.184.216.34 127.0.0.1"])
    with serving(response()) as server:
        with pytest.raises(DownloadFailed, match="public"):
            downloader(server, allow="192.0.2.0/24", resolve=resolve)(server.url(host="mixed.example"))
        assert server.heads == []


def test_a_name_that_changes_its_mind_is_asked_once_and_held_to_it() -> None:
    """DNS rebinding: what was looked at is what is connected to, and each connection looks again."""
    asked, resolve = names(rebinding=["127.0.0.1", "127.0.0.2"])
    with serving(response()) as good, serving(response(b"inside"), "127.0.0.2", port=good.port) as inside:
        download = downloader(good, resolve=resolve)
        assert download(good.url(host="rebinding.example")) == PICTURE
        assert asked == ["rebinding.example"]
        with pytest.raises(DownloadFailed, match="public"):
            download(good.url(host="rebinding.example"))
        assert inside.heads == []


def test_a_name_that_changes_its_mind_at_a_redirect() -> None:
    asked, resolve = names(rebinding=["127.0.0.1", "127.0.0.2"])
    with serving(redirect("/inside")) as good, serving(response(b"inside"), "127.0.0.2", port=good.port) as inside:
        with pytest.raises(DownloadFailed, match="public"):
            downloader(good, resolve=resolve)(good.url(host="rebinding.example"))
        assert (len(asked), inside.heads) == (2, [])


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_inside_is_not_followed(status: str) -> None:
    with serving(response(b"inside"), "127.0.0.2") as inside:
        location = f"http://127.0.0.2:{inside.port}/"
        with serving(redirect(location, status)) as outside, pytest.raises(DownloadFailed, match="public"):
            downloader(outside, inside)(outside.url())
        assert inside.heads == []


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://127.0.0.1:1/", "http://u:p@127.0.0.1/", "gopher://x/", "http://[", "é"]
)
def test_where_a_redirect_may_not_lead(location: str) -> None:
    with serving(redirect(location)) as server, pytest.raises(DownloadFailed):
        downloader(server)(server.url())


def test_a_few_redirects_are_followed() -> None:
    def say(connection: socket.socket, head: bytes) -> None:
        hop = int(head.split()[1].rpartition(b"/")[2])
        (redirect(f"/{hop - 1}") if hop else response())(connection, head)

    with serving(say) as server:
        assert downloader(server)(server.url("/3")) == PICTURE
        with pytest.raises(DownloadFailed, match="redirects"):
            downloader(server)(server.url("/4"))


def test_a_redirect_to_nowhere() -> None:
    with serving(response(b"", "302 Found")) as server, pytest.raises(DownloadFailed, match="nowhere"):
        downloader(server)(server.url())


@pytest.mark.parametrize("status", ["404 Not Found", "500 Broken", "206 Partial", "204 No Content", "401 Secret"])
def test_any_status_but_200(status: str) -> None:
    with serving(response(status=status)) as server, pytest.raises(DownloadFailed):
        downloader(server)(server.url())


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DownloadFailed):
        downloader(Server(port))(Server(port).url())


def test_the_next_address_is_tried() -> None:
    _, resolve = names(two=["127.0.0.2 127.0.0.1"])
    with serving(response()) as server:
        assert downloader(server, allow="127.0.0.0/8", resolve=resolve)(server.url(host="two.example")) == PICTURE


def test_a_name_that_does_not_exist() -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    for answer in (resolve, lambda *_: []):
        with pytest.raises(DownloadFailed):
            downloader(resolve=answer)("http://nowhere.example/")


def test_the_system_knows_old_spellings() -> None:
    for host in ("127.1", "0x7f000001", "2130706433", "017700000001"):
        assert system_addresses(host, 80) == ["127.0.0.1"]


def test_a_body_that_says_it_is_too_large() -> None:
    with serving(response(b"", Content_Length=str(MAX_BYTES + 1))) as server, pytest.raises(DownloadTooLarge):
        downloader(server)(server.url())


def test_a_body_may_be_as_large_as_the_bound() -> None:
    with serving(response(bytes(MAX_BYTES))) as server:
        assert len(downloader(server)(server.url())) == MAX_BYTES


def endless(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")


def endless_without_framing(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(4096))


@pytest.mark.parametrize("say", [endless, endless_without_framing])
def test_a_body_without_end_is_left_at_the_bound(say: object) -> None:
    with serving(say) as server, pytest.raises(DownloadTooLarge):  # type: ignore[arg-type]
        downloader(server)(server.url())


def test_packed_bodies_are_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000), 1)[: MAX_BYTES - 1000]
    with serving(response(bomb, Content_Encoding="gzip")) as server, pytest.raises(DownloadFailed, match="packed"):
        downloader(server)(server.url())


def drip_body(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while connection.send(b"x"):
        select_nothing(connection)


def drip_head(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while connection.send(b"x"):
        select_nothing(connection)


def silence(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)


def select_nothing(connection: socket.socket) -> None:
    """A little later; or at once when the other side has gone."""
    connection.settimeout(0.05)
    try:
        if connection.recv(1) == b"":
            raise ConnectionError
    except TimeoutError:
        pass


@pytest.mark.parametrize("say", [drip_body, drip_head, silence])
def test_a_slow_server_has_the_one_time_limit(say: object) -> None:
    with serving(say) as server, pytest.raises(DownloadFailed):  # type: ignore[arg-type]
        downloader(server, timeout_s=0.5)(server.url())


def test_the_time_that_a_name_takes_counts() -> None:
    with serving(response()) as server:
        with pytest.raises(DownloadFailed, match="took too long"):
            downloader(server, timeout_s=0)(server.url())
        assert server.heads == []


def test_redirects_share_the_time_limit() -> None:
    def say(connection: socket.socket, head: bytes) -> None:
        select_nothing(connection)
        redirect("/")(connection, head)

    with serving(say) as server, pytest.raises(DownloadFailed, match=r"took too long|Timeout"):
        downloader(server, timeout_s=0.1)(server.url())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01",
        b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut short",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        os.urandom(2000),
    ],
)
def test_what_is_no_http(answer: bytes) -> None:
    with serving(lambda connection, _: connection.sendall(answer)) as server, pytest.raises(DownloadFailed):
        downloader(server)(server.url())
