"""An authenticator in software (WebAuthn level 2): what a browser and a security key make of a challenge together."""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def data(encoded: str) -> bytes:
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


class Authenticator:
    """One key on P-256. `make` and `use` take the panel's options, and may be told to do one thing wrong."""

    def __init__(self, origin: str) -> None:
        self.origin, self.count = origin, 0
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = secrets.token_bytes(32)
        self.handle = ""

    def make(self, options: Mapping[str, Any], **wrong: Any) -> str:
        numbers = self.key.public_key().public_numbers()
        x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
        public = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})  # RFC 9053 §2.1, §7.1.1
        credential = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + public
        known = self._known(options["rp"]["id"], PRESENT | VERIFIED | ATTESTED, 0) + credential
        self.handle = options["user"]["id"]
        made = {"attestationObject": text(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": known}))}
        client = self._client("webauthn.create", options, wrong)
        return self._answer({**made, "clientDataJSON": text(client), "transports": ["internal", "odd", 7]})

    def use(self, options: Mapping[str, Any], **wrong: Any) -> str:
        """`wrong`: origin, challenge, name (the RP's), flags, count, handle."""
        self.count = wrong.get("count", self.count + 1)
        known = self._known(
            wrong.get("name", options["rpId"]), wrong.get("flags", PRESENT | VERIFIED), self.count
        )
        client = self._client("webauthn.get", options, wrong)
        signed = self.key.sign(known + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._answer({
            "authenticatorData": text(known), "clientDataJSON": text(client), "signature": text(signed),
            "userHandle": wrong.get("handle", self.handle),
        })

    def _known(self, name: str, flags: int, count: int) -> bytes:
        """Authenticator data (§6.1)."""
        return hashlib.sha256(name.encode()).digest() + bytes([flags]) + count.to_bytes(4, "big")

    def _client(self, kind: str, options: Mapping[str, Any], wrong: Mapping[str, Any]) -> bytes:
        challenge, origin = wrong.get("challenge", options["challenge"]), wrong.get("origin", self.origin)
        return json.dumps({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": False}).encode()

    def _answer(self, response: Mapping[str, Any]) -> str:
        return json.dumps({"id": text(self.id), "rawId": text(self.id), "type": "public-key", "response": response})
