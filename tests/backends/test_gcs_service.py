"""The storage in Google Cloud Storage when the service or the settings are not as they should be."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import machinery
from pathlib import Path
from typing import Any, Final

import google.auth.compute_engine._metadata as machine_facts
import pytest
from google.auth import iam
from google.auth.transport.requests import AuthorizedSession

from doc_pages import marked
from pypicloud.declared import check
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.storage import gcs as backend
from pypicloud.storage.buckets import Condition
from pypicloud.storage.gcs import GoogleCloudStorage, bucket
from pypicloud.storage.gcs.bucket import Bucket
from pypicloud.storage.gcs.failures import Address
from pypicloud.testing.storage_fixtures import make_package
from support.gcs import Settings, everything, storage_of
from support.live import LOOPBACK
from support.services.gcs import GCS, plain
from support.services.proxy import GCS_BUSY, Proxy
from support.services.service import ROOT

KEY_FILE: Final = "storage.gcp_service_account_json_filename"

#: The permissions of the role that the documentation makes.
OBJECTS: Final = tuple(re.findall(r"^- (.*)$", marked("rights: gcs"), re.MULTILINE))
BIG: Final = bytes(range(256)) * (36 << 10)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are made again at once, but not for long."""
    monkeypatch.setattr(bucket, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(bucket, "PATIENCE", 0)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials are found anywhere but in the settings."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def settings(gcs: GCS) -> Settings:
    """The settings of a new bucket."""
    return {"pypi.storage": "gcs", **gcs.settings()}


def content_of(storage: GoogleCloudStorage, package: Any) -> bytes:
    """The bytes of a package."""
    with storage.open(package) as stream:
        return stream.read()


def opened(url: str) -> bytes:
    """What a client gets at a place."""
    with urllib.request.urlopen(url) as answer:
        content: bytes = answer.read()
    return content


# Settings


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("bucket", "A Bucket", "must be 3 or more lower-case letters and digits"),
        ("bucket", "a..b", "must be 3 or more lower-case letters and digits"),
        ("object_acl", "public", "must be one of private, project-private, public-read"),
        ("gcp_api_endpoint", "storage.example", "must be the address of a server alone"),
        ("gcp_api_endpoint", "https://storage.example/path", "must be the address of a server alone"),
        ("gcp_api_endpoint", "https://storage.example:x", "must be the address of a server alone"),
        ("gcp_kms_key_name", "k", "must be the whole name of a key"),
        ("connect_timeout", "0", "must be a second at least"),
        ("read_timeout", "0", "must be a second at least"),
        ("gcp_service_account_json_filename", "/nowhere/key.json", "cannot be read: No such file"),
    ],
)
def test_settings_that_cannot_be(settings: Settings, key: str, value: str, reason: str) -> None:
    """A setting that cannot be used is found without the service, and stops the start; both name it."""
    given = EnvironSettings({**settings, f"storage.{key}": value}, {})
    (error,) = (error for error in check(given)[1] if error.setting.startswith("storage."))
    assert error.setting == f"storage.{key}"
    assert reason in error.reason
    with pytest.raises(SettingError, match=key):
        GoogleCloudStorage.configure(given)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"type": "authorized_user"}', "\x00"])
def test_key_file_that_is_none(settings: Settings, tmp_path: Path, text: str) -> None:
    """A file that is no key stops the start, and nothing of it is told."""
    file = tmp_path / "key.json"
    file.write_text(text)
    with pytest.raises(SettingError, match="has no JSON key of a service account") as raised:
        storage_of(settings, gcp_service_account_json_filename=str(file))
    assert raised.value.setting == KEY_FILE


@pytest.mark.parametrize("name", ["a.bucket.example", "bucket_1", "b-2"])
def test_names_of_buckets(settings: Settings, gcs: GCS, name: str) -> None:
    """Buckets may have dots, underscores and hyphens in their names."""
    storage = storage_of({**settings, "storage.bucket": f"{name}-{settings['storage.bucket']}"})
    package = make_package(content=b"x")
    storage.publish(package, io.BytesIO(b"x"))
    assert opened(storage.redirect_url(package)) == b"x"


def test_missing_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the SDK the start says which extra to install."""
    for found in (lambda _: None, _no_google):
        monkeypatch.setattr(backend, "find_spec", found)
        with pytest.raises(SettingError, match=r"pip install 'pypicloud\[gcs\]'"):
            storage_of(settings)


def _no_google(_: str) -> machinery.ModuleSpec:
    raise ModuleNotFoundError("No module named 'google'")


def test_settings_that_do_nothing(settings: Settings) -> None:
    """The kind of encryption, which Google decides, is no setting here, and the check says so (compat.md 1.4)."""
    odd, wrong = check(EnvironSettings({**settings, "storage.server_side_encryption": "AES256"}, {}))
    assert [error for error in wrong if error.setting.startswith("storage.")] == []
    assert [each.key for each in odd if each.key.startswith("storage.")] == ["storage.server_side_encryption"]


# Buckets


def test_bucket(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """A bucket that is missing is made once, and can be had by its name (compat.md 8.3)."""
    with caplog.at_level(logging.INFO, "pypicloud"):
        found = GoogleCloudStorage.get_bucket(settings["storage.bucket"], EnvironSettings(settings, {}))
        storage_of(settings)
    assert [record.message for record in caplog.records] == [f"Made the bucket {settings['storage.bucket']!r}"]
    assert found.name == settings["storage.bucket"]
    assert found.exists()


def test_bucket_factory(settings: Settings) -> None:
    """The documented constructor takes any maker of a bucket, which is asked when the bucket is needed first."""
    storage_of(settings)
    asked = []

    def make() -> Any:
        asked.append(1)
        return plain(settings).bucket(settings["storage.bucket"])

    storage = GoogleCloudStorage(None, make)
    assert asked == []
    package = make_package(content=b"x")
    storage.publish(package, io.BytesIO(b"x"))
    assert content_of(storage, package) == opened(storage.redirect_url(package)) == b"x"
    assert asked == [1]
    storage.store.close()


def test_bucket_made_at_the_same_moment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers that start together make one bucket."""
    is_there = Bucket._is_there

    def and_then_it_is_made(store: Bucket) -> bool:
        found = is_there(store)
        monkeypatch.undo()
        storage_of(settings)
        return found

    monkeypatch.setattr(Bucket, "_is_there", and_then_it_is_made)
    assert storage_of(settings).check_health() == (True, "")


def test_no_project(settings: Settings, tmp_path: Path) -> None:
    """A bucket is made in a project, and without one the start says how to name it."""
    file = tmp_path / "key.json"
    facts = json.loads(Path(settings[KEY_FILE]).read_text())
    file.write_text(json.dumps({key: value for key, value in facts.items() if key != "project_id"}))
    with pytest.raises(SettingError, match=r"storage\.gcp_project_id: is required to make the bucket"):
        storage_of(settings, gcp_service_account_json_filename=str(file))
    storage = storage_of(settings, gcp_service_account_json_filename=str(file), gcp_project_id="a-project")
    assert storage.check_health() == (True, "")


def test_lost_bucket(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """A bucket that somebody deletes is an error, and not a bucket without files."""
    storage = storage_of(settings)
    missing = GoogleCloudStorage(store=Bucket(Address("no-such-bucket", *_place(settings))))
    reason = "there is no bucket 'no-such-bucket'"
    for fails in (lambda: list(missing.list()), lambda: missing.upload(make_package(), io.BytesIO(b"x"))):
        caplog.clear()
        with pytest.raises(BackendUnavailable, match="refuses to answer"):
            fails()
        assert reason in caplog.text
    assert missing.check_health() == (False, "the storage refuses to answer; ask the administrator of this index")
    assert storage.check_health() == (True, "")


def _place(settings: Settings) -> tuple[str, str]:
    return settings["storage.gcp_api_endpoint"], settings[KEY_FILE]


# Rights and credentials


def test_least_rights(settings: Settings, gcs: GCS) -> None:
    """An account with the permissions in the documentation, and no others, can do all that a server does."""
    storage_of(settings)
    storage = storage_of(gcs.user(settings, *OBJECTS))
    package = make_package(content=b"x")
    storage.publish(package, io.BytesIO(b"x"), {"metadata": b"m"})
    storage.publish(package, io.BytesIO(b"y"), replace=True)
    package.data["yanked"] = True
    storage.update_metadata(package)
    assert content_of(storage, package) == opened(storage.redirect_url(package)) == b"y"
    assert storage.check_health() == (True, "")
    storage.delete(package)
    assert everything(settings) == {}
    assert len(OBJECTS) == 5


@pytest.mark.parametrize(
    ("missing", "role"),
    [("storage.buckets.create", "Storage Admin"), ("storage.objects.list", "Storage Object User")],
)
def test_missing_permission_at_the_start(settings: Settings, gcs: GCS, missing: str, role: str) -> None:
    """The start names the permission that is missing, and a role that has it."""
    user = gcs.user(settings, *(set(OBJECTS) - {missing}))
    with pytest.raises(SettingError, match=f"the account lacks {missing} on .*; give it the role '{role}'") as raised:
        storage_of(user)
    assert raised.value.setting == KEY_FILE


@pytest.mark.parametrize("missing", [each for each in OBJECTS if not each.endswith("list")])
def test_missing_permission(settings: Settings, gcs: GCS, caplog: pytest.LogCaptureFixture, missing: str) -> None:
    """What is not allowed is an error for the client, and the log names the permission."""
    package = make_package(content=b"x")
    storage_of(settings).publish(package, io.BytesIO(b"x"))
    storage = storage_of(gcs.user(settings, *(set(OBJECTS) - {missing})))
    works: dict[str, Callable[[], object]] = {
        "create": lambda: storage.publish(make_package("bar"), io.BytesIO(b"x")),
        "delete": lambda: storage.publish(package, io.BytesIO(b"y"), replace=True),
        "get": lambda: content_of(storage, package),
        "update": lambda: storage.update_metadata(package),
    }
    with pytest.raises(BackendUnavailable, match="refuses to answer; ask the administrator") as raised:
        works[missing.rpartition(".")[2]]()
    assert f"the account lacks {missing} on the bucket '{settings['storage.bucket']}'" in caplog.text
    assert "storage." not in raised.value.message


def test_rights_that_are_taken(settings: Settings, gcs: GCS) -> None:
    """Health is bad as soon as the bucket cannot be listed any more."""
    user = gcs.user(settings, "storage.objects.list")
    storage_of(settings)
    storage = storage_of(user)
    assert storage.check_health() == (True, "")
    other = gcs.user(settings, "storage.objects.get")
    storage.store.close()
    storage.store.address = Address(settings["storage.bucket"], *_place(other))
    assert storage.check_health() == (False, "the storage refuses to answer; ask the administrator of this index")


def test_expired_tokens(settings: Settings, gcs: GCS) -> None:
    """A token that is not good any more is replaced, and nobody notices."""
    storage = storage_of(settings)
    storage.publish(make_package("one"), io.BytesIO(b"x"))
    gcs.forget_tokens()
    storage.publish(make_package("two"), io.BytesIO(b"x"))
    gcs.forget_tokens()
    assert len(list(storage.list())) == 2
    gcs.forget_tokens()
    assert content_of(storage, make_package("one")) == b"x"


def test_unknown_account(settings: Settings, tmp_path: Path) -> None:
    """The key of an account that is gone stops the start."""
    file = tmp_path / "key.json"
    facts = {**json.loads(Path(settings[KEY_FILE]).read_text()), "client_email": "gone@a-project.example"}
    file.write_text(json.dumps(facts))
    with pytest.raises(SettingError, match="Google does not accept the credentials: invalid_grant") as raised:
        storage_of(settings, gcp_service_account_json_filename=str(file))
    assert raised.value.setting == KEY_FILE


def test_no_credentials(settings: Settings) -> None:
    """Without any credentials the start says how to give some."""
    with pytest.raises(SettingError, match="is not set, and there are no other credentials") as raised:
        storage_of(settings, gcp_service_account_json_filename="")
    assert raised.value.setting == KEY_FILE


def test_default_credentials(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file in the settings, that in GOOGLE_APPLICATION_CREDENTIALS is taken (compat.md 1.4)."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", settings[KEY_FILE])
    storage = storage_of(settings, gcp_service_account_json_filename="")
    package = make_package(content=b"x")
    storage.publish(package, io.BytesIO(b"x"))
    assert opened(storage.redirect_url(package)) == b"x"


# Signatures of the IAM service


@pytest.fixture
def _iam(gcs: GCS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's IAM service is the stand-in's."""
    monkeypatch.setattr(iam, "_IAM_SIGN_ENDPOINT", f"{gcs.url}/v1/projects/-/serviceAccounts/{{}}:signBlob")


@pytest.fixture
def _machine(gcs: GCS, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run on a machine of Google's."""
    monkeypatch.delenv("NO_GCE_CHECK")
    monkeypatch.setattr(machine_facts, "_NO_GCE_CHECK", False)
    monkeypatch.setattr(machine_facts, "_GCE_METADATA_HOST", f"{LOOPBACK}:{gcs.port}")
    monkeypatch.setenv("GCE_METADATA_IP", f"{LOOPBACK}:{gcs.port}")


def signer_of(url: str) -> str:
    """In whose name a URL is signed."""
    return url.partition("X-Goog-Credential=")[2].partition("%2F")[0].replace("%40", "@")


@pytest.mark.usefixtures("_iam")
@pytest.mark.parametrize("is_other", [False, True], ids=["own account", "other account"])
def test_iam_signer(settings: Settings, gcs: GCS, is_other: bool) -> None:
    """Where it is asked for, the IAM service signs URLs, in the name of the key's account or of another."""
    accounts = [settings, gcs.user(settings, "storage.objects.get")]
    emails = [json.loads(Path(each[KEY_FILE]).read_text())["client_email"] for each in accounts]
    changes = {"iam_signer_service_account_email": emails[1]} if is_other else {}
    storage = storage_of(settings, gcp_use_iam_signer="true", **changes)
    package = make_package(content=b"x")
    storage.publish(package, io.BytesIO(b"x"))
    url = storage.redirect_url(package)
    assert signer_of(url) == emails[is_other]
    assert opened(url) == b"x"
    assert storage.redirect_url(package) is url


@pytest.mark.usefixtures("_iam", "_machine")
def test_machine(settings: Settings) -> None:
    """On a machine of Google's, its own account is who asks, and the IAM service signs for it without being told."""
    storage = storage_of(settings, gcp_service_account_json_filename="")
    package = make_package(content=b"x")
    storage.publish(package, io.BytesIO(b"x"))
    url = storage.redirect_url(package)
    assert signer_of(url) == json.loads(Path(settings[KEY_FILE]).read_text())["client_email"]
    assert opened(url) == b"x"


@pytest.mark.usefixtures("_iam")
def test_signing_is_not_allowed(settings: Settings, gcs: GCS, caplog: pytest.LogCaptureFixture) -> None:
    """An account that may not sign gives no URL, and the log names the permission and its role."""
    storage_of(settings)
    storage = storage_of(gcs.user(settings, *OBJECTS), gcp_use_iam_signer="true")
    with pytest.raises(BackendUnavailable, match="refuses to answer"):
        storage.redirect_url(make_package())
    assert "lacks iam.serviceAccounts.signBlob" in caplog.text
    assert "'Service Account Token Creator'" in caplog.text


def test_nobody_signs(settings: Settings, gcs: GCS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of a person cannot sign: the start says so, unless the bucket is public."""
    storage_of(settings)
    file = tmp_path / "person.json"
    person = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    file.write_text(json.dumps({**person, "quota_project_id": "a-project"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setattr(Bucket, "_is_there", lambda _: True)
    with pytest.raises(SettingError, match=r"storage\.iam_signer_service_account_email: is required"):
        storage_of(settings, gcp_service_account_json_filename="")
    storage = storage_of(settings, gcp_service_account_json_filename="", public_url="true")
    assert storage.redirect_url(make_package()).startswith(gcs.url)


# The network


@pytest.fixture
def proxy(gcs: GCS) -> Iterator[Proxy]:
    """A network in front of the service."""
    with Proxy(gcs.port) as proxy:
        yield proxy


@pytest.fixture
def remote(settings: Settings, proxy: Proxy) -> GoogleCloudStorage:
    """The storage behind that network."""
    url = proxy.through(settings["storage.gcp_api_endpoint"])
    return storage_of(settings, gcp_api_endpoint=url, read_timeout="1", connect_timeout="1")


def test_busy(remote: GoogleCloudStorage, proxy: Proxy) -> None:
    """A service that is too busy is asked again, and at last given up with the word when to come back."""
    package = make_package(content=BIG)
    proxy.refuse(3, GCS_BUSY)
    remote.publish(package, io.BytesIO(BIG))
    proxy.refuse(2, GCS_BUSY)
    assert content_of(remote, package) == BIG
    proxy.refuse(2, GCS_BUSY)
    assert len(list(remote.list())) == 1
    assert proxy.refused == 7
    remote.store.address = Address(remote.store.address.bucket, connect_timeout=1, read_timeout=1)
    proxy.refuse(10000, GCS_BUSY)
    with pytest.raises(BackendUnavailable, match="too busy") as raised:
        remote.stored(package)
    assert raised.value.retry_after == 5
    assert remote.check_health() == (False, "the storage is too busy to answer; please try again")


def test_a_silent_download(
    remote: GoogleCloudStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that falls silent in the middle of a file is not asked again, and that is said in the log, once."""
    package = make_package(content=BIG)
    remote.publish(package, io.BytesIO(BIG))
    with remote.open(package) as stream:
        stream.read(1)
        monkeypatch.setattr(remote.store, "get", lambda *_: pytest.fail("it is asked again"))
        proxy.hang()
        with pytest.raises(BackendUnavailable, match="does not answer"):
            stream.read()
        proxy.resume()
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert message.startswith("storage.gcp_api_endpoint: Google Cloud Storage does not answer")


def test_slow_network(settings: Settings) -> None:
    """The time-outs are for a network that stands still, and not for one that is slow."""
    content = bytes(4 << 20)
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        place = Address("slow", f"http://{LOOPBACK}:{listener.getsockname()[1]}", settings[KEY_FILE], connect_timeout=1)
        storage = GoogleCloudStorage(store=Bucket(place))
        with ThreadPoolExecutor(1) as pool:
            received = pool.submit(receive_slowly, listener, len(content))
            storage._write("foo", io.BytesIO(content), len(content), {}, Condition.ANYTHING)
    assert received.result() > 1


def receive_slowly(listener: socket.socket, size: int) -> float:
    """How many seconds it took to take in a request with a body of this size, bit by bit."""
    began = time.monotonic()
    connection, _ = listener.accept()
    with connection:
        while size > 0:
            count = len(connection.recv(1 << 16))
            size -= count
            time.sleep(count / (2 << 20))
        took = time.monotonic() - began
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    return took


def test_rest_of_a_stream(settings: Settings) -> None:
    """What is stored begins where the stream stands, however large it is."""
    storage = storage_of(settings)
    for content in (b"x", BIG):
        package = make_package(version=str(len(content)), content=content)
        stream = io.BytesIO(b"before" + content)
        stream.seek(len(b"before"))
        storage.publish(package, stream)
        assert content_of(storage, package) == content


def test_damage(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that change on their way to the service are not left there."""
    storage = storage_of(settings)
    request = AuthorizedSession.request

    def damaged(session: Any, method: str, url: str, data: Any = None, **options: Any) -> Any:
        return request(session, method, url, data=bytes(len(data)) if method == "PUT" else data, **options)

    monkeypatch.setattr(AuthorizedSession, "request", damaged)
    with pytest.raises(BackendUnavailable, match="damaged on its way"):
        storage.publish(make_package(content=BIG), io.BytesIO(BIG))
    assert everything(settings) == {}


#: Prints how many bytes of memory it took to store a file of so many bytes and to read it again.
MEASURE: Final = """
import json, resource, sys, tempfile
from pypicloud.models import Package
from support.gcs import storage_of
storage, size = storage_of(json.loads(sys.argv[1])), int(sys.argv[2])
package = Package("foo", "1.0", "foo-1.0.zip")
def publish(size):
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        storage.publish(package, file, replace=True)
    with storage.open(package) as stream:
        while stream.read(1 << 16):
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
few = publish(1)
print(publish(size) - few)
"""


def test_memory(settings: Settings) -> None:
    """64 MB go up and down without being in memory."""
    command = [sys.executable, "-c", MEASURE, json.dumps(settings), str(64 << 20)]
    grown = int(subprocess.check_output(command, cwd=ROOT / "tests", text=True))
    assert grown < 40 << 20
    assert [len(content) for content in everything(settings).values()] == [64 << 20]
