"""What Google does around its storage: accounts and their keys, tokens, and signatures, of URLs above all."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.auth import exceptions, jwt

from support.services.web import Question, Reply

#: The longest that a signed URL is good for, in seconds.
_LONGEST: Final = 7 * 24 * 60 * 60

_METADATA: Final = {"Metadata-Flavor": "Google"}


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    """The key of every account: to make one takes a while."""
    # Whoever reads a key checks it, which takes seven times as long for one of 2048 bits.
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)


def _public() -> bytes:
    return _key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Account:
    """A service account; without ``permissions`` it may do everything."""

    email: str
    permissions: frozenset[str] | None = None

    def key_file(self, token_uri: str) -> str:
        """The JSON of a key of the account."""
        private = _key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        facts = {
            "type": "service_account",
            "project_id": "a-project",
            "private_key_id": "a-key",
            "private_key": private.decode(),
            "client_email": self.email,
            "client_id": "1",
            "token_uri": token_uri,
        }
        return json.dumps(facts)


class Refused(Exception):
    """Google's no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def reply(self) -> Reply:
        """How Google says it."""
        errors = [{"message": str(self), "domain": "global", "reason": self.reason}]
        return json_reply({"error": {"code": self.status, "message": str(self), "errors": errors}}, self.status)


def json_reply(facts: Any, status: int = 200) -> Reply:
    """Facts as Google answers them."""
    return Reply(status, json.dumps(facts).encode(), {"Content-Type": "application/json; charset=UTF-8"})


class Accounts:
    """All accounts, and the tokens that are good. The first account is also that of the machine."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._tokens: dict[str, Account] = {}

    def add(self, account: Account) -> None:
        """One more account."""
        self._accounts[account.email] = account

    def forget_tokens(self) -> None:
        """No token is good any more, as if all had expired."""
        self._tokens.clear()

    def of(self, question: Question) -> Account:
        """Who asks."""
        kind, _, token = question.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            raise Refused(401, "required", "Anonymous caller does not have access to the Google Cloud Storage bucket.")
        if token not in self._tokens:
            raise Refused(401, "authError", "Invalid Credentials")
        return self._tokens[token]

    def answer(self, question: Question) -> Reply | None:
        """The answer to a question that is not about storage."""
        match question.path.split("/"):
            case ["", "token"]:
                return self._exchange(question)
            case ["", "computeMetadata", "v1", *words]:
                return self._metadata(question, words)
            case ["", "v1", "projects", "-", "serviceAccounts", last] if last.endswith(":signBlob"):
                return self._sign(question, last.removesuffix(":signBlob").replace("%40", "@"))
            case ["", ""] if question.headers.get("Metadata-Flavor"):
                return Reply(headers=_METADATA)
        return None

    def _exchange(self, question: Question) -> Reply:
        """A token for what an account signed with its key."""
        words = dict(parse_qsl(question.body.decode()))
        try:
            claims = jwt.decode(words.get("assertion", ""), certs=_public())
            account = self._accounts[claims["iss"]]
        except (ValueError, KeyError, exceptions.GoogleAuthError):
            return json_reply({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        return self._token(account)

    def _token(self, account: Account) -> Reply:
        token = secrets.token_urlsafe()
        self._tokens[token] = account
        return json_reply({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _metadata(self, question: Question, words: list[str]) -> Reply:
        """What a machine of Google's knows of itself and of its account."""
        if not question.headers.get("Metadata-Flavor"):
            return Reply(403)
        account = next(iter(self._accounts.values()))
        match words:
            case ["project", "project-id"]:
                return Reply(body=b"a-project", headers={**_METADATA, "Content-Type": "application/text"})
            case ["instance", "service-accounts", "default" | account.email, ""]:
                reply = json_reply({"aliases": ["default"], "email": account.email, "scopes": []})
            case ["instance", "service-accounts", "default" | account.email, "token"]:
                reply = self._token(account)
            case _:
                return Reply(404, headers=_METADATA)
        return Reply(body=reply.body, headers={**reply.headers, **_METADATA})

    def _sign(self, question: Question, email: str) -> Reply:
        """The IAM service signs what an account with the right to that asks it to."""
        account = self.of(question)
        if account.permissions is not None and "iam.serviceAccounts.signBlob" not in account.permissions:
            raise Refused(403, "forbidden", "Permission 'iam.serviceAccounts.signBlob' denied on resource")
        if email not in self._accounts:
            raise Refused(404, "notFound", f"Not found; Gaia id not found for email {email}")
        payload = base64.b64decode(json.loads(question.body)["payload"])
        signed = _key().sign(payload, padding.PKCS1v15(), hashes.SHA256())
        return json_reply({"keyId": "a-key", "signedBlob": base64.b64encode(signed).decode()})

    def check_signature(self, question: Question) -> Account:
        """Whose signature a URL carries. Raises :class:`Refused` if it is not good for the request, or not any more."""
        words = question.words
        try:
            email, day, *scope = words["X-Goog-Credential"].split("/")
            moment = dt.datetime.strptime(words["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
            seconds = int(words["X-Goog-Expires"])
            signature = bytes.fromhex(words["X-Goog-Signature"])
            names = words["X-Goog-SignedHeaders"].split(";")
        except (KeyError, ValueError):
            raise Refused(400, "invalid", "InvalidArgument") from None
        account = self._accounts.get(email)
        if account is None:
            raise Refused(403, "forbidden", "SignatureDoesNotMatch")
        pairs = sorted(pair for pair in question.query.split("&") if not pair.startswith("X-Goog-Signature="))
        headers = [f"{name}:{' '.join(question.headers.get(name, '').split())}" for name in names]
        request = [question.method, question.path, "&".join(pairs), *headers, "", ";".join(names), "UNSIGNED-PAYLOAD"]
        digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
        text = "\n".join(["GOOG4-RSA-SHA256", words["X-Goog-Date"], "/".join([day, *scope]), digest])
        try:
            _key().public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise Refused(403, "forbidden", "SignatureDoesNotMatch") from None
        age = (dt.datetime.now(dt.UTC) - moment).total_seconds()
        if not 0 < seconds <= _LONGEST:
            raise Refused(400, "invalid", "X-Goog-Expires must be between 1 and 604800 seconds")
        if age > seconds:
            raise Refused(400, "invalid", "ExpiredToken: The provided token has expired.")
        return account
