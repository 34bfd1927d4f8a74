"""A real ``serve`` process with a terminal to read, and a certificate made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

START_S = 60.0


class ServeProcess:
    """``python -m truststram_lab.server serve`` on a folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.terminal = home.parent / f"{home.name}-terminal.txt"
        self._clients: list[httpx.Client] = []

    def start(self, *options: str) -> ServeProcess:
        """Start it and wait until its terminal says where it is."""
        self.terminal.unlink(missing_ok=True)
        self.process = self.spawn(*options)
        deadline = time.monotonic() + START_S
        while " is at " not in self.said or not self.said.endswith("\n"):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return self

    def spawn(self, *options: str) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRUSTSTRAM_")}
        command = [sys.executable, "-m", "truststram_lab.server", "serve"]
        command += ["--home", str(self.home), "--port", str(self.port), *options]
        with self.terminal.open("ab") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    def refusal(self, *options: str) -> str:
        """The one sentence with which it does not start."""
        before = self.said
        process = self.spawn(*options)
        assert process.wait(START_S) == 1, self.said
        said = self.said.removeprefix(before)
        assert said.count("\n") == 1, said
        assert said.endswith(".\n")
        return said.strip()

    @property
    def said(self) -> str:
        return self.terminal.read_text() if self.terminal.exists() else ""

    @property
    def token(self) -> str:
        """The setup token on the terminal."""
        found = re.findall(r"setup token: (\S+)", self.said)
        assert len(found) == 1, self.said
        return found[0]

    @property
    def log(self) -> str:
        return (self.home / "platform.log").read_text()

    def state(self) -> dict[str, Any]:
        return json.loads((self.home / "serve.json").read_bytes())

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= options.pop("headers", {})
        options.setdefault("base_url", f"http://127.0.0.1:{self.port}")
        options.setdefault("verify", False)
        made = httpx.Client(headers=headers, timeout=60, trust_env=False, **options)
        self._clients.append(made)
        return made

    def set_up(self, **options: Any) -> str:
        """Become the administrator; returns the key."""
        body = {"token": self.token, "name": "ada"}
        answer = self.client(**options).post("/api/v1/setup", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["api_key"]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(30)
        self.process = None
        return status


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def make_certificate(folder: Path, *, password: bytes | None = None) -> tuple[Path, Path]:
    """A self-signed certificate for this computer's loopback names, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "crl_sign", "encipher_only", "decipher_only"), False
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    sealed = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
    )
    return cert_file, key_file
