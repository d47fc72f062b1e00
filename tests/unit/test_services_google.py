"""What stands in for Google Cloud Storage in the tests: that it refuses what Google refuses."""

from __future__ import annotations

import datetime as dt
import io
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import google.auth
import google.auth.iam
import google.auth.transport.requests
import pytest
from google.api_core import exceptions as google_errors
from google.oauth2 import service_account

from support.services.gcs import GCS, plain
from support.services.s3 import forged, status

KEY = "ab12/name-1.0+a b.whl"
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

#: The smallest piece of an upload that Google takes.
PIECE = 256 * 1024


@pytest.fixture
def bucket(gcs: GCS) -> Iterator[Any]:
    """A bucket with one object."""
    client = gcs.client()
    bucket = client.bucket(gcs.settings()["storage.bucket"])
    bucket.create(location="eu")
    blob = bucket.blob(KEY)
    blob.metadata = {"name": "name", "other": "é"}
    blob.upload_from_string(b"content")
    yield bucket
    client.close()


def google_code(call: Callable[[], object]) -> int:
    """The status that a call to Google ends with."""
    with pytest.raises(google_errors.GoogleAPICallError) as caught:
        call()
    assert caught.value.code is not None
    return int(caught.value.code)


@pytest.mark.parametrize("size", [7, PIECE * 2 + 1], ids=["at once", "in pieces"])
def test_google_conditions_of_uploads(bucket: Any, size: int) -> None:
    """An upload whose condition does not hold is refused, in whatever way it is made; one whose does is not."""

    def upload(generation: int) -> None:
        blob = bucket.blob(KEY, chunk_size=PIECE)
        blob.upload_from_file(io.BytesIO(bytes(size)), size=size, if_generation_match=generation)

    found = bucket.get_blob(KEY)
    assert google_code(lambda: upload(0)) == 412
    assert google_code(lambda: upload(found.generation + 1)) == 412
    assert bucket.get_blob(KEY).generation == found.generation
    upload(found.generation)
    assert bucket.get_blob(KEY).size == size


def test_google_conditions_hold_at_the_end(bucket: Any) -> None:
    """An upload in pieces is refused if somebody else was first, even after it began."""
    blob = bucket.blob("race", chunk_size=PIECE)
    address = blob.create_resumable_upload_session(size=PIECE, if_generation_match=0)
    bucket.blob("race").upload_from_string(b"first", if_generation_match=0)
    assert status_of_piece(address, bytes(PIECE)) == 412
    assert bucket.blob("race").download_as_bytes() == b"first"


def status_of_piece(address: str, content: bytes) -> int:
    """What the only piece of an upload is answered with."""
    headers = {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}
    request = urllib.request.Request(address, content, headers, method="PUT")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    with caught.value as error:
        return error.code


def test_google_conditions_of_changes(bucket: Any) -> None:
    """Metadata changes and objects go only in the state that was named; a change adds to what is there."""
    blob = bucket.get_blob(KEY)
    blob.metadata = {"more": "x", "name": None}
    blob.patch(if_metageneration_match=blob.metageneration)
    assert bucket.get_blob(KEY).metadata == {"other": "é", "more": "x"}
    assert google_code(lambda: blob.patch(if_metageneration_match=blob.metageneration + 1)) == 412
    assert google_code(lambda: blob.delete(if_generation_match=blob.generation + 1)) == 412
    blob.delete(if_generation_match=blob.generation)
    assert bucket.get_blob(KEY) is None


def test_google_pages(gcs: GCS, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list comes in pages, as long as was asked for and no longer than the service makes them."""
    for number in range(5):
        bucket.blob(f"many/{number}").upload_from_string(b"")
    monkeypatch.setattr(gcs, "page_size", 2)
    for wanted, sizes in ((None, [2, 2, 1]), (1, [1, 1, 1, 1, 1]), (9, [2, 2, 1])):
        pages = bucket.client.list_blobs(bucket, prefix="many/", page_size=wanted).pages
        assert [len(list(page)) for page in pages] == sizes
    assert [blob.name for blob in bucket.list_blobs(start_offset="many/3")] == ["many/3", "many/4"]


def test_google_checks_signed_urls(gcs: GCS, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed URL of Google's is good for its object and its method, for its time."""
    blob = bucket.blob(KEY)
    common = {"version": "v4", "expiration": 60, "api_access_endpoint": gcs.url}
    url = blob.generate_signed_url(**common)
    assert [status(url), status(url, Range="bytes=2-3"), status(url, Range="bytes=99-")] == [200, 206, 416]
    for refused in (forged(url), url.replace("name-1.0", "name-2.0"), url.replace("Expires=60", "Expires=90")):
        assert status(refused) == 403
    assert status(url, "HEAD") == 403
    assert status(blob.generate_signed_url(**common, method="HEAD"), "HEAD") == 200
    assert status(url.partition("?")[0]) == 403
    monkeypatch.setattr("google.cloud.storage._signing._NOW", lambda zone: LONG_AGO)
    assert status(blob.generate_signed_url(**common)) == 400


def test_google_public_objects(gcs: GCS, bucket: Any) -> None:
    """An object that was made public at its upload needs no signature."""
    bucket.blob("public").upload_from_string(b"", predefined_acl="publicRead")
    assert status(f"{gcs.url}/{bucket.name}/public") == 200


def test_google_permissions(gcs: GCS, bucket: Any) -> None:
    """An account does what it has the permission to, and the refusal names the one that is missing."""
    settings = gcs.user(gcs.settings(bucket.name), "storage.objects.list", "storage.objects.create")
    theirs = plain(settings).bucket(bucket.name)
    assert [blob.name for blob in theirs.list_blobs()] == [KEY]
    theirs.blob("new").upload_from_string(b"")
    for call in (theirs.blob(KEY).download_as_bytes, lambda: theirs.blob("new").upload_from_string(b""), theirs.exists):
        assert google_code(call) == 403
    with pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.delete"):
        theirs.blob(KEY).delete()


def test_google_tokens(gcs: GCS, bucket: Any) -> None:
    """A token that is not good any more is refused, and the library gets another one."""
    gcs.forget_tokens()
    assert status(f"{gcs.url}/storage/v1/b/{bucket.name}", Authorization="Bearer some-token") == 401
    assert status(f"{gcs.url}/storage/v1/b/{bucket.name}") == 401
    assert bucket.exists()


def test_google_limits_metadata(bucket: Any) -> None:
    """More metadata than Google keeps is refused, at the upload and later."""
    long = {"name": "x" * 8190}
    blob = bucket.blob("other")
    blob.metadata = long
    assert google_code(lambda: blob.upload_from_string(b"")) == 400
    found = bucket.get_blob(KEY)
    found.metadata = long
    assert google_code(found.patch) == 400


def test_google_machine(gcs: GCS, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no key, a machine's account gets tokens, and IAM signs for it."""
    gcs.as_machine(monkeypatch)
    found, project = google.auth.default()
    request = google.auth.transport.requests.Request()
    found.refresh(request)
    signer = google.auth.iam.Signer(request, found, found.service_account_email)
    signing = service_account.Credentials(signer, found.service_account_email, "")
    options = {"version": "v4", "expiration": 60, "api_access_endpoint": gcs.url, "credentials": signing}
    assert (project, status(bucket.blob(KEY).generate_signed_url(**options))) == ("a-project", 200)


def test_google_keeps_what_it_was_given() -> None:
    """What the emulator was given outlives a restart; while it is away, connections break off."""
    with GCS() as service:
        bucket = service.client().bucket("bucket")
        bucket.create()
        bucket.blob(KEY).upload_from_string(b"content")
        service.stop()
        with pytest.raises(ConnectionError):
            status(f"{service.url}/bucket/{KEY.replace(' ', '%20')}")
        service.start()
        assert bucket.blob(KEY).download_as_bytes() == b"content"
        bucket.client.close()
