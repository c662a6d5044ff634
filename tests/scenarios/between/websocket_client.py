"""Talks to a gateway with the independent client `websockets`, and prints what came of it as one JSON object.

Usage: websocket_client.py HOST:PORT CHAIN.pem
"""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ADDRESS, CHAIN = sys.argv[1:]
LIMIT = 15
LINK, TUNNEL, UPLINK = "umbra.link.1", "umbra.tunnel.1", "umbra.uplink.1"


def context():
    trusting = ssl.create_default_context(cafile=CHAIN)
    trusting.minimum_version = ssl.TLSVersion.TLSv1_3
    return trusting


def open_at(path, subprotocols=(LINK,), **options):
    return connect(
        f"wss://{ADDRESS}/usg/{path}",
        ssl=context(),
        subprotocols=list(subprotocols) or None,
        compression=None,
        proxy=None,
        open_timeout=LIMIT,
        close_timeout=2,
        ping_interval=None,
        max_size=None,
        **options,
    )


async def refused(path, subprotocols=(LINK,), with_retry=False, **options):
    """The status of a refusal, its code, and whether it says when to come back."""
    try:
        async with open_at(path, subprotocols, **options):
            return "let in"
    except InvalidStatus as refusal:
        answer = refusal.response
        try:
            body = json.loads(answer.body)
        except ValueError:
            body = {}
        seen = [answer.status_code, body.get("code")]
        if body and (len(answer.body) > 1024 or not body.get("sentence")):
            seen.append("without a sentence, or too long")
        if with_retry:
            in_body = body.get("retry_after_seconds")
            seen.append(in_body is not None and answer.headers.get("Retry-After") == str(in_body))
        return seen


async def closed_after(act):
    """The code with which the gateway closes the connection after `act`."""
    async with open_at("endpoint") as socket:
        try:
            await act(socket)
            async with asyncio.timeout(LIMIT):
                while True:
                    await socket.recv()
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else None


async def send_text(socket):
    await socket.send("text")


async def send_too_large(socket):
    await socket.send(bytes(64 * 1024 + 1))


async def send_too_large_in_fragments(socket):
    async def fragments():
        for _ in range(9):
            yield bytes(8 * 1024)

    await socket.send(fragments())


def raw(frame_bytes):
    async def act(socket):
        socket.transport.write(frame_bytes)

    return act


async def ping(size):
    async with open_at("endpoint") as socket:
        async with asyncio.timeout(LIMIT):
            await (await socket.ping(b"x" * size))
        return "answered"


async def tls_through_fragments():
    """The server's own TLS, with every message cut into frames of a few bytes."""
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    inner.check_hostname = False
    inner.verify_mode = ssl.CERT_NONE
    inner.set_alpn_protocols(["umbra/1"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = inner.wrap_bio(incoming, outgoing)
    async with open_at("endpoint") as socket, asyncio.timeout(LIMIT):
        while True:
            try:
                tls.do_handshake()
                return [tls.version(), tls.selected_alpn_protocol()]
            except ssl.SSLWantReadError:
                said = outgoing.read()
                if said:

                    async def fragments(said=said):
                        for begin in range(0, len(said), 7):
                            yield said[begin : begin + 7]

                    await socket.send(fragments())
                incoming.write(await socket.recv())


async def subprotocol():
    async with open_at("endpoint", ("something.else", LINK)) as socket:
        return socket.subprotocol


async def main():
    bearer = {"Authorization": "Bearer " + "A" * 43}
    side = {"Umbra-Side": "console"}
    seen = {
        "subprotocol": await subprotocol(),
        "tls_through_fragments": await tls_through_fragments(),
        "ping_of_125_bytes": await ping(125),
        "text_frame": await closed_after(send_text),
        "message_too_large": await closed_after(send_too_large),
        "fragments_too_large": await closed_after(send_too_large_in_fragments),
        "reserved_bits": await closed_after(raw(b"\xf2\x80abcd")),
        "ping_of_126_bytes": await closed_after(raw(b"\x89\xfe\x00\x7eabcd" + bytes(126))),
        "foreign_origin": await refused("endpoint", origin="https://attacker.example"),
        "own_origin": await refused("tunnel", (TUNNEL,), origin=f"https://{ADDRESS}"),
        "wrong_subprotocol": await refused("endpoint", ("chat",)),
        "no_subprotocol": await refused("endpoint", ()),
        "subprotocol_of_another_path": await refused("endpoint", (TUNNEL,)),
        "uplink_with_origin": await refused("uplink", (UPLINK,), origin="null"),
        "unknown_server": await refused("endpoint", with_retry=True, additional_headers={"Umbra-Server": "ab" * 32}),
        "malformed_server": await refused("endpoint", additional_headers={"Umbra-Server": "ab"}),
        "unknown_token": await refused("tunnel", (TUNNEL,), additional_headers=bearer | side),
        "no_token": await refused("tunnel", (TUNNEL,), additional_headers=side),
        "no_side": await refused("tunnel", (TUNNEL,), additional_headers=bearer),
        "elsewhere": await refused("elsewhere"),
    }
    print(json.dumps(seen))


asyncio.run(main())
