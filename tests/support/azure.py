"""Azure Blob Storage as an identity sees it, for the tests of the storage there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest
from azure.storage.blob import BlobServiceClient, UserDelegationKey

from support.services.azurite import Azurite, Identity
from support.services.web import Question, Reply

#: The newest version of which Azurite knows the signatures of an identity, as Azure's documentation has them.
KNOWN: Final = "2025-11-05"

#: What is signed before and after the path of the blob; two lines, on headers and queries, are new since then.
_BEFORE: Final = ("sp", "st", "se")
_AFTER: Final = ("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid", "skdutid", "sduoid")
_SCOPE: Final = ("sip", "spr", "sv", "sr", "snapshot", "ses")
_NEW: Final = ("srh", "srq")
_ANSWER: Final = ("rscc", "rscd", "rsce", "rscl", "rsct")


class Machine(Identity):
    """A machine with a managed identity; ``words`` are the queries of those who asked for a token."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[dict[str, str]] = []
        self.keys: list[UserDelegationKey] = []

    def answer(self, question: Question) -> Reply:
        self.words.append(question.words)
        return super().answer(question)

    @contextmanager
    def here(self, azurite: Azurite) -> Iterator[None]:
        """A time in which the tests run on it, and believe the server; ``keys`` are the keys for URLs that it gave."""
        assert azurite.certificate is not None
        ask = BlobServiceClient.get_user_delegation_key

        def record(*arguments: Any, **options: Any) -> UserDelegationKey:
            key = ask(*arguments, **options)
            self.keys.append(key)
            return key

        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setenv("REQUESTS_CA_BUNDLE", str(azurite.certificate.authority))
            patch.setattr(BlobServiceClient, "get_user_delegation_key", record)
            yield

    def fetch(self, url: str, azurite: Azurite) -> bytes:
        """What is at a signed URL, after a look at the signature: the server knows no such new ones."""
        assert azurite.certificate is not None
        path, _, query = url.partition("?")
        words = dict(parse_qsl(query))
        assert words["sig"] == self._signature(path, words, *_NEW)
        words["sv"] = KNOWN
        words["sig"] = self._signature(path, words)
        context = ssl.create_default_context(cafile=azurite.certificate.authority)
        with urllib.request.urlopen(f"{path}?{urlencode(words)}", context=context) as answer:
            content: bytes = answer.read()
        return content

    def _signature(self, url: str, words: dict[str, str], *more: str) -> str:
        (key,) = {key.value for key in self.keys if key.signed_expiry == words["ske"]}
        values = [*(words.get(name, "") for name in _BEFORE), f"/blob{unquote(urlsplit(url).path)}"]
        values += [words.get(name, "") for name in (*_AFTER, *_SCOPE, *more, *_ANSWER)]
        digest = hmac.digest(base64.b64decode(key or ""), "\n".join(values).encode(), hashlib.sha256)
        return base64.b64encode(digest).decode()
