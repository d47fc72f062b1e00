"""What CloudFront is to a bucket: an edge of the network that gives its objects to whoever has a signed URL."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from support.services.s3 import plain
from support.services.web import Question, Reply, Web

KEY_ID: Final = "K2JCJMDEHXQW5F"

_SIGNING: Final = ("Expires", "Signature", "Key-Pair-Id")
_CHUNK: Final = 1 << 18

#: Amazon's base64, which needs no escape in a URL.
_LETTERS: Final = str.maketrans("-_~", "+=/")


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    """The key of every edge: to make one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Edge(Web):
    """An edge before the bucket of a storage's settings, which it reads with the credentials of those.

    With ``is_public`` anybody may read. ``served`` are the keys that were asked for and given.
    """

    def __init__(self, settings: Mapping[str, str], *, is_public: bool = False) -> None:
        super().__init__()
        self.served: list[str] = []
        self._is_public = is_public
        self._bucket = settings["storage.bucket"]
        self._client = plain(settings)

    def close(self) -> None:
        super().close()
        self._client.close()

    @property
    def private_key(self) -> str:
        """The key that URLs have to be signed with, as PEM."""
        private = _key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        return private.decode()

    def settings(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings of the bucket's storage with what they need to be those of an edge's."""
        domain = {**settings, "storage.cloud_front_domain": self.url}
        if self._is_public:
            return domain
        signing = {"storage.cloud_front_key_id": KEY_ID, "storage.cloud_front_key_string": self.private_key}
        return {**domain, **signing}

    def answer(self, question: Question) -> Reply:
        if question.method not in {"GET", "HEAD"}:
            return Reply(405)
        problem = None if self._is_public else self._problem(question)
        if problem is not None:
            return Reply(403, f"<Error><Code>AccessDenied</Code><Message>{problem}</Message></Error>".encode())
        # Amazon takes a plus for a space, in a path, too.
        key = unquote_plus(question.path.removeprefix("/"))
        conditions = {"Range": question.headers.get("Range"), "IfNoneMatch": question.headers.get("If-None-Match")}
        wanted = {name: value for name, value in conditions.items() if value}
        read = self._client.get_object if question.method == "GET" else self._client.head_object
        try:
            found = read(Bucket=self._bucket, Key=key, **wanted)
        except ClientError as error:
            return Reply(error.response["ResponseMetadata"]["HTTPStatusCode"])
        self.served.append(key)
        return _reply(found)

    def _problem(self, question: Question) -> str | None:
        """What is wrong with the signature of a URL: a canned policy for its resource, as CloudFront wants it."""
        words = question.words
        if not all(words.get(name) for name in _SIGNING):
            return "Missing Key-Pair-Id query parameter or cookie value"
        if words["Key-Pair-Id"] != KEY_ID:
            return "Unknown Key"
        rest = "&".join(pair for pair in question.query.split("&") if not pair.startswith(_SIGNING))
        resource = f"http://{question.headers['Host']}{question.path}{'?' if rest else ''}{rest}"
        condition = {"DateLessThan": {"AWS:EpochTime": int(words["Expires"])}}
        policy = json.dumps({"Statement": [{"Resource": resource, "Condition": condition}]}, separators=(",", ":"))
        signature = base64.b64decode(words["Signature"].translate(_LETTERS))
        try:
            # SHA-1 is what CloudFront's signatures are made with.
            _key().public_key().verify(signature, policy.encode(), padding.PKCS1v15(), hashes.SHA1())
        except InvalidSignature:
            return "Access denied"
        return "Access denied" if int(words["Expires"]) < time.time() else None


def _reply(found: Mapping[str, Any]) -> Reply:
    """The answer with an object, or a part of one, as it comes."""
    given = found["ResponseMetadata"]["HTTPHeaders"]
    names = ("Content-Length", "Content-Type", "Content-Range", "ETag", "Last-Modified", "Accept-Ranges")
    headers = {name: given[name.lower()] for name in names if name.lower() in given}
    pieces = _pieces(found["Body"]) if "Body" in found else ()
    return Reply(found["ResponseMetadata"]["HTTPStatusCode"], headers=headers, pieces=pieces)


def _pieces(body: Any) -> Iterator[bytes]:
    with contextlib.closing(body):
        yield from body.iter_chunks(_CHUNK)
