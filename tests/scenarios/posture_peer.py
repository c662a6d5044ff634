"""OpenSSL at the other end, as the package `cryptography` brings it: newer than distributions have it, so that it knows X25519MLKEM768.

    posture_peer.py client HOST:PORT [ALPN]   shakes hands, and says with which version, cipher suite and group
    posture_peer.py server                    says its port, shakes one hand, and says the same
    posture_peer.py tls12 HOST:PORT           is a console of the field that knows TLS 1.2 only: presents the one-time password that it reads from
                                              its standard input, sees one whole screen, and says how many bytes that was
    posture_peer.py suites HOST:PORT          tries each suite of TLS 1.2 that OpenSSL knows, with and without the extended master secret

No certificate is verified: what is of interest is what the two agree on.
"""

import json
import socket
import ssl
import sys
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from datetime import datetime, timedelta, timezone
from OpenSSL import SSL

PATIENCE = 20
KEY_SHARE = 51


def group_of(server_hello):
    """The group that a ServerHello's key share names (RFC 8446, section 4.2.8); `None` where it has none."""
    # Record (5), handshake header (4), version (2), random (32).
    at = 5 + 4 + 2 + 32
    at += 1 + server_hello[at]  # session ID
    at += 2 + 1  # cipher suite, compression
    end = at + 2 + int.from_bytes(server_hello[at : at + 2], "big")
    at += 2
    while at + 4 <= end:
        kind = int.from_bytes(server_hello[at : at + 2], "big")
        length = int.from_bytes(server_hello[at + 2 : at + 4], "big")
        if kind == KEY_SHARE:
            return int.from_bytes(server_hello[at + 4 : at + 6], "big")
        at += 4 + length
    return None


def shake(connection, wire, i_serve):
    """Moves bytes between OpenSSL and the socket until the handshake is through; gives the server's first flight."""
    first = b""
    wire.settimeout(PATIENCE)
    while True:
        through = True
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            through = False
        while True:
            try:
                out = connection.bio_read(65536)
            except SSL.WantReadError:
                break
            first += out if i_serve else b""
            wire.sendall(out)
        if through:
            return first
        came = wire.recv(65536)
        if not came:
            raise SystemExit("the other side hung up during the handshake")
        first += b"" if i_serve else came
        connection.bio_write(came)


def tell(connection, first):
    group = group_of(first)
    print(
        json.dumps(
            {
                "version": connection.get_protocol_version_name(),
                "cipher": connection.get_cipher_name(),
                "group": f"{group:#06x}" if group else None,
            }
        ),
        flush=True,
    )


def client(address, alpn):
    host, port = address.rsplit(":", 1)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    if alpn:
        context.set_alpn_protos([alpn.encode()])
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with socket.create_connection((host, int(port)), PATIENCE) as wire:
        tell(connection, shake(connection, wire, False))


def own_certificate(context):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer.test")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    with tempfile.NamedTemporaryFile() as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.flush()
        context.use_privatekey_file(file.name)
    with tempfile.NamedTemporaryFile() as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
        file.flush()
        context.use_certificate_file(file.name)


def server():
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    own_certificate(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        wire, _ = listener.accept()
        connection = SSL.Connection(context, None)
        connection.set_accept_state()
        with wire:
            tell(connection, shake(connection, wire, True))


# Python has no name for it: SSL_OP_NO_EXTENDED_MASTER_SECRET.
WITHOUT_EMS = 1


def in_tls12():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def suites(address):
    host, port = address.rsplit(":", 1)
    everything = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
    context = in_tls12()
    context.set_ciphers(everything)
    known = [one["name"] for one in context.get_ciphers() if one["protocol"] != "TLSv1.3"]
    accepted = {"known": len(known), "with_ems": [], "without_ems": []}
    for key, options in (("with_ems", 0), ("without_ems", WITHOUT_EMS)):
        for name in known:
            context = in_tls12()
            context.options |= options
            context.set_ciphers(f"{name}:@SECLEVEL=0")
            try:
                with socket.create_connection((host, int(port)), PATIENCE) as wire:
                    with context.wrap_socket(wire):
                        accepted[key].append(name)
            except (ssl.SSLError, ConnectionError):
                pass
    print(json.dumps(accepted))


def exactly(tls, length):
    read = b""
    while len(read) < length:
        more = tls.recv(length - len(read))
        if not more:
            raise SystemExit("the device hung up")
        read += more
    return read


def tls12(address, password):
    """RFB 3.8 without security and with raw pixels, inside of TLS 1.2 (RFC 6143)."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE) as wire:
        with in_tls12().wrap_socket(wire) as tls:
            tls.sendall(b"PROCYCMD PW_" + password)
            tls.sendall(exactly(tls, 12))
            kinds = exactly(tls, exactly(tls, 1)[0])
            if 1 not in kinds:
                raise SystemExit(f"a password is asked for: {kinds}")
            tls.sendall(b"\1")
            if exactly(tls, 4) != bytes(4):
                raise SystemExit("the VNC server refused")
            tls.sendall(b"\1")
            init = exactly(tls, 24)
            exactly(tls, int.from_bytes(init[20:24], "big"))
            tls.sendall(b"\2\0\0\1" + bytes(4))
            tls.sendall(b"\3\0" + bytes(4) + init[0:4])
            _, rectangles = exactly(tls, 2), int.from_bytes(exactly(tls, 2), "big")
            pixels = 0
            for _ in range(rectangles):
                head = exactly(tls, 12)
                if head[8:12] != bytes(4):
                    raise SystemExit(f"pixels that were not asked for: {head}")
                area = int.from_bytes(head[4:6], "big") * int.from_bytes(head[6:8], "big")
                pixels += len(exactly(tls, area * init[4] // 8))
            cipher = tls.cipher()[0]
            print(json.dumps({"version": tls.version(), "cipher": cipher, "pixels": pixels}))


if __name__ == "__main__":
    if sys.argv[1] == "tls12":
        tls12(sys.argv[2], sys.stdin.buffer.read().strip())
    elif sys.argv[1] == "suites":
        suites(sys.argv[2])
    elif sys.argv[1] == "client":
        client(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
    else:
        server()
