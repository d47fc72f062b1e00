"""A layer before the emulator of Google Cloud Storage, which is as strict as the service where the emulator is not."""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from support.live import LOOPBACK
from support.services.google_accounts import Account, Accounts, Refused, json_reply
from support.services.web import Question, Reply, Web

#: How long the metadata of an object may be in all, in bytes, and what the pieces of an upload are multiples of.
_MOST_METADATA: Final = 8192
_PIECE: Final = 256 * 1024

_OBJECT: Final = re.compile(r"(?:/download)?/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)")
_OBJECTS: Final = re.compile(r"(?:/upload)?/storage/v1/b/(?P<bucket>[^/]+)/o")
_BUCKET: Final = re.compile(r"/storage/v1/b(?:/(?P<bucket>[^/]+))?")
_SIGNED: Final = re.compile(r"/(?P<bucket>[^/]+)/(?P<name>.+)")

_RIGHTS: Final = {"GET": "get", "PATCH": "update", "DELETE": "delete"}


@dataclass
class _Upload:
    """An upload in pieces: how it began, how many bytes are there, and what its end was answered with."""

    question: Question
    bucket: str
    name: str
    received: int = 0
    reply: Reply | None = None


class Layer(Web):
    """Checks who asks and under which conditions, corrects what the emulator does otherwise, and passes the rest on."""

    def __init__(self, emulator: int, accounts: Accounts) -> None:
        super().__init__()
        self.page_size = 1000
        self._emulator = emulator
        self._accounts = accounts
        self._locations: dict[str, str] = {}
        self._uploads: dict[str, _Upload] = {}
        # The emulator does one thing at a time, and nothing may come between a check and what it is for.
        self._alone = threading.Lock()

    def answer(self, question: Question) -> Reply:
        try:
            reply = self._accounts.answer(question)
            if reply is not None:
                return reply
            with self._alone:
                return self._answer(question)
        except Refused as error:
            return error.reply

    def _answer(self, question: Question) -> Reply:
        if upload := self._uploads.get(question.words.get("upload_id", "")):
            return self._continue(question, upload)
        if match := _OBJECT.fullmatch(question.path):
            return self._object(question, match["bucket"], match["name"])
        if match := _OBJECTS.fullmatch(question.path):
            return self._objects(question, match["bucket"])
        if match := _BUCKET.fullmatch(question.path):
            return self._bucket(question, match["bucket"])
        if match := _SIGNED.fullmatch(question.path):
            return self._signed(question, match["bucket"], match["name"])
        raise Refused(501, "notImplemented", f"This stand-in does not know {question.path}")

    def _bucket(self, question: Question, bucket: str | None) -> Reply:
        if (question.method, bucket is None) not in {("GET", False), ("POST", True)}:
            raise Refused(501, "notImplemented", f"This stand-in does not {question.method} {question.path}")
        self._allow(question, "storage.buckets.create" if bucket is None else "storage.buckets.get")
        reply = self._pass(question)
        if reply.status != 200:
            return reply
        facts = json.loads(reply.body)
        if bucket is None:
            self._locations[facts["name"]] = json.loads(question.body).get("location", "US").upper()
        # The emulator takes all buckets for American.
        return json_reply({**facts, "location": self._locations.get(facts["name"], "US")})

    def _allow(self, question: Question, permission: str) -> None:
        _allow(self._accounts.of(question), permission)

    # --- objects ----------------------------------------------------------------------------------------

    def _object(self, question: Question, bucket: str, name: str) -> Reply:
        if question.method not in _RIGHTS:
            raise Refused(501, "notImplemented", f"This stand-in does not {question.method} objects")
        self._allow(question, f"storage.objects.{_RIGHTS[question.method]}")
        found = self._find(bucket, name)
        if found is None:
            raise Refused(404, "notFound", f"No such object: {bucket}/{unquote(name)}")
        _check_conditions(question.words, found)
        if question.method == "GET":
            is_download = question.path.startswith("/download") or question.words.get("alt") == "media"
            return self._download(question, bucket, name, found) if is_download else json_reply(found)
        if question.method == "PATCH":
            return self._patch(question, found)
        return Reply(204, headers=self._pass(question).headers)

    def _patch(self, question: Question, found: Mapping[str, Any]) -> Reply:
        """The service adds metadata to what is there, and takes away what is null; the emulator replaces all."""
        changes = json.loads(question.body or b"{}")
        if "metadata" in changes:
            metadata = {**found.get("metadata", {}), **(changes["metadata"] or {})}
            changes["metadata"] = {key: value for key, value in metadata.items() if value is not None}
            _check_metadata(changes)
        return self._ask("PATCH", question.path, json.dumps(changes).encode())

    def _download(self, question: Question, bucket: str, name: str, found: Mapping[str, Any]) -> Reply:
        size = int(found["size"])
        match = re.fullmatch(r"bytes=(\d+)-\d*", question.headers.get("Range", ""))
        if match and int(match[1]) >= size:
            return Reply(416, headers={"Content-Range": f"bytes */{size}"})
        headers = {key: value for key, value in question.headers.items() if key.lower() == "range"}
        query = {key: value for key, value in question.words.items() if key == "response-content-disposition"}
        reply = self._ask("GET", f"/download/storage/v1/b/{bucket}/o/{name}?{urlencode(query)}", headers=headers)
        about = {"ETag": f'"{found["etag"]}"', "X-Goog-Generation": found["generation"], "Accept-Ranges": "bytes"}
        return Reply(reply.status, reply.body, {**reply.headers, **about})

    def _signed(self, question: Question, bucket: str, name: str) -> Reply:
        """What a signed URL asks for, or anybody who needs no signature."""
        name = quote(unquote(name), safe="")
        is_signed = "X-Goog-Signature" in question.words
        if is_signed:
            _allow(self._accounts.check_signature(question), "storage.objects.get")
        found = self._find(bucket, name)
        if not is_signed and not (found and _is_public(found)):
            raise Refused(403, "forbidden", "Anonymous caller does not have storage.objects.get access")
        if found is None:
            raise Refused(404, "notFound", "NoSuchKey: The specified key does not exist.")
        if question.method not in {"GET", "HEAD"}:
            raise Refused(405, "methodNotAllowed", f"This stand-in does not {question.method} by URL")
        return self._download(question, bucket, name, found)

    def _objects(self, question: Question, bucket: str) -> Reply:
        if question.method == "GET":
            self._allow(question, "storage.objects.list")
            return self._page(question)
        self._allow(question, "storage.objects.create")
        return self._upload(question, bucket)

    def _page(self, question: Question) -> Reply:
        """One page of a list; the emulator has them all in one."""
        words = question.words
        reply = self._pass(question)
        if reply.status != 200:
            return reply
        facts = json.loads(reply.body)
        size = min(int(words.get("maxResults", self.page_size)), self.page_size)
        after = base64.urlsafe_b64decode(words.get("pageToken", "")).decode()
        rest = [item for item in facts.get("items", []) if item["name"] > after]
        rest = [item for item in rest if item["name"] >= words.get("startOffset", "")]
        facts["items"] = rest[:size]
        if len(rest) > size:
            facts["nextPageToken"] = base64.urlsafe_b64encode(rest[size - 1]["name"].encode()).decode()
        return json_reply(facts)

    # --- uploads ----------------------------------------------------------------------------------------

    def _upload(self, question: Question, bucket: str) -> Reply:
        facts = _uploaded_facts(question)
        _check_metadata(facts)
        name = question.words.get("name") or facts.get("name")
        if not name:
            raise Refused(400, "required", "Required")
        self._check_upload(question, bucket, name)
        reply = self._pass(question)
        if question.words.get("uploadType") != "resumable":
            return self._finish(question, reply)
        words = dict(parse_qsl(reply.headers.get("Location", "").partition("?")[2]))
        if "upload_id" in words:
            self._uploads[words["upload_id"]] = _Upload(question, bucket, name)
        return reply

    def _check_upload(self, question: Question, bucket: str, name: str) -> None:
        found = self._find(bucket, quote(name, safe=""))
        _check_conditions(question.words, found)
        if found is not None:
            self._allow(question, "storage.objects.delete")

    def _continue(self, question: Question, upload: _Upload) -> Reply:
        """A piece of an upload, or the question how far it got; the conditions of its beginning hold at its end."""
        if upload.reply is not None:
            return upload.reply
        match = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(\d+|\*)", question.headers.get("Content-Range", ""))
        if question.method != "PUT" or not match:
            raise Refused(
                501, "notImplemented", "This stand-in knows only uploads in pieces that say where they belong"
            )
        first, last, total = match.groups()
        received = int(last) + 1 if last else upload.received
        if first and int(first) != upload.received:
            raise Refused(400, "invalid", f"The next piece begins at {upload.received}")
        if str(received) != total:
            return self._take(question, upload, received)
        self._check_upload(upload.question, upload.bucket, upload.name)
        upload.reply = self._finish(upload.question, self._pass(question))
        return upload.reply

    def _take(self, question: Question, upload: _Upload, received: int) -> Reply:
        """A piece that is not the last."""
        if len(question.body) % _PIECE:
            raise Refused(400, "invalid", f"The pieces of an upload must be multiples of {_PIECE} bytes")
        if question.body:
            self._pass(question)
        upload.received = received
        return Reply(308, headers={"Range": f"bytes=0-{received - 1}"} if received else {})

    def _finish(self, question: Question, reply: Reply) -> Reply:
        """Give a new object the rights that were asked for; the emulator does not."""
        wanted = question.words.get("predefinedAcl")
        if reply.status != 200 or wanted not in {"publicRead", "authenticatedRead"}:
            return reply
        found = json.loads(reply.body)
        entity = "allUsers" if wanted == "publicRead" else "allAuthenticatedUsers"
        path = f"/storage/v1/b/{found['bucket']}/o/{quote(found['name'], safe='')}"
        return self._ask("PATCH", path, json.dumps({"acl": [{"entity": entity, "role": "READER"}]}).encode())

    # --- the emulator -----------------------------------------------------------------------------------

    def _find(self, bucket: str, name: str) -> dict[str, Any] | None:
        """What the emulator knows of an object; None if there is none."""
        reply = self._ask("GET", f"/storage/v1/b/{bucket}/o/{name}")
        if reply.status == 404:
            return None
        facts: dict[str, Any] = json.loads(reply.body)
        return facts

    def _pass(self, question: Question) -> Reply:
        ours = {"authorization", "connection", "transfer-encoding", "content-length", "expect", "accept-encoding"}
        headers = {key: value for key, value in question.headers.items() if key.lower() not in ours}
        path = f"{question.path}?{question.query}" if question.query else question.path
        reply = self._ask(question.method, path, question.body, headers)
        if reply.status == 404 and not reply.body:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        return reply

    def _ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(LOOPBACK, self._emulator, timeout=120)
        try:
            connection.request(method, path, body, headers or ({"Content-Type": "application/json"} if body else {}))
            answer = connection.getresponse()
            theirs = {"connection", "server", "date"}
            kept = {key: value for key, value in answer.getheaders() if key.lower() not in theirs}
            return Reply(answer.status, answer.read(), kept)
        except http.client.HTTPException as error:
            raise OSError(f"the emulator broke off: {error}") from error
        finally:
            connection.close()


def _allow(account: Account, permission: str) -> None:
    if account.permissions is not None and permission not in account.permissions:
        message = f"{account.email} does not have {permission} access to the Google Cloud Storage object. "
        raise Refused(403, "forbidden", f"{message}Permission '{permission}' denied on resource (or it may not exist).")


def _check_conditions(words: Mapping[str, str], found: Mapping[str, Any] | None) -> None:
    """Whether an object is what a request takes for granted; generation 0 is that of no object."""
    generation = found["generation"] if found else "0"
    if found and words.get("generation", generation) != generation:
        raise Refused(404, "notFound", f"No such object: {found['bucket']}/{found['name']}#{words['generation']}")
    wrong = [
        words.get("ifGenerationMatch", generation) != generation,
        words.get("ifGenerationNotMatch") == generation,
    ]
    if "ifMetagenerationMatch" in words:
        wrong.append(found is None or words["ifMetagenerationMatch"] != found["metageneration"])
    if any(wrong):
        raise Refused(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")


def _uploaded_facts(question: Question) -> dict[str, Any]:
    """What an upload says about the object beside its bytes."""
    text = question.body
    match question.words.get("uploadType"):
        case "media":
            return {}
        case "multipart":
            text = text.partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
    facts: dict[str, Any] = json.loads(text or b"{}")
    return facts


def _check_metadata(facts: Mapping[str, Any]) -> None:
    length = sum(len(word.encode()) for pair in (facts.get("metadata") or {}).items() for word in pair)
    if length > _MOST_METADATA:
        raise Refused(400, "invalid", f"The total size of the metadata, {length}, is over {_MOST_METADATA} bytes.")


def _is_public(found: Mapping[str, Any]) -> bool:
    return any(entry["entity"] == "allUsers" for entry in found.get("acl", ()))
