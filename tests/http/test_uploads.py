"""Uploads that are taken: what clients send, what is kept, and what a second upload of one name does."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from support.builds import build_sdist, build_wheel, sdist_name, wheel_name
from support.wire import ERROR_KEYS, form, listed, part, post, refusal, send, stored, upload_form
from support.world import Index, sha256

WHEEL = wheel_name("acme", "1.0")


def row(index: Index, filename: str = WHEEL) -> dict[str, Any]:
    """A file's row, read without the backend."""
    with sqlite3.connect(index.directory / "db.sqlite") as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("SELECT * FROM packages WHERE filename = ?", (filename,)).fetchone()
    return {} if found is None else dict(found)


def path_of(index: Index, name: str = "acme", version: str = "1.0", filename: str = WHEEL) -> Path:
    """Where a file is stored."""
    return Path(index.settings["storage.dir"], name, version, filename)


# The form


@pytest.mark.parametrize("path", ["/", "/simple", "/simple/", "/pypi", "/pypi/"])
def test_every_documented_address_takes_uploads(index: Index, path: str) -> None:
    """With and without the slash, never with a redirect, which every client takes for an error."""
    answer = post(index, upload_form(build_wheel(), WHEEL, name="acme", version="1.0"), path)
    assert (answer.status_int, answer.json["filename"]) == (200, WHEEL)


@pytest.mark.parametrize("position", [0, 3, 6])
def test_fields_come_in_any_order(index: Index, position: int) -> None:
    """Fields count before, between and after the file (standards.md 1.8)."""
    content = build_wheel()
    fields = [
        part(":action", "file_upload"),
        part("protocol_version", "1"),
        part("name", "acme"),
        part("version", "1.0"),
        part("blake2_256_digest", hashlib.blake2b(content, digest_size=32).hexdigest()),
        part("sha256_digest", sha256(content)),
    ]
    fields.insert(position, part("content", content, WHEEL))
    assert post(index, form(*fields)).status_int == 200
    assert send(index, "GET", f"/api/package/acme/{WHEEL}").body == content


def test_unknown_and_empty_fields_do_not_count(index: Index) -> None:
    """What nobody asked for is ignored, and an empty field is none: the file name says what the form does not."""
    fields = [part(name, "") for name in (":action", "name", "version", "summary", "requires_python", "md5_digest")]
    more = [part("classifiers", "Topic :: One"), part("classifiers", "Topic :: Two"), part("attestations", "[]")]
    files = [part("content", build_wheel(), WHEEL), part("gpg_signature", b"signed", f"{WHEEL}.asc")]
    answer = post(index, form(*fields, *more, *files))
    assert (answer.status_int, answer.json["name"], answer.json["version"]) == (200, "acme", "1.0")
    assert answer.json["metadata"].keys() == {"hash_sha256", "hash_md5", "uploader"}
    assert [Path(path).suffix for path in stored(index)].count(".asc") == 0


def test_the_first_value_that_is_not_empty_counts(index: Index) -> None:
    """A field sent twice is not an error."""
    names = [part("name", ""), part("name", "acme"), part("name", "other"), part("version", "1.0")]
    assert post(index, form(*names, part("content", build_wheel(), WHEEL))).json["name"] == "acme"


@pytest.mark.parametrize("fields", [{"name": "wrong"}, {"version": "7.0"}, {}])
def test_name_and_version_count_together_or_not_at_all(index: Index, fields: dict[str, str]) -> None:
    """With one of them missing both come from the file name (compat.md 5.6)."""
    answer = post(index, upload_form(build_sdist("acme", "1.0"), sdist_name("acme", "1.0"), **fields))
    assert (answer.json["name"], answer.json["version"]) == ("acme", "1.0")


@pytest.mark.parametrize(
    ("filename", "name", "version", "stored_as"),
    [
        ("foo-bar-1.0.tar.gz", "foo-bar", "1.0", "foo-bar"),
        ("Foo.Bar-2.0rc1.tar.gz", "Foo.Bar", "2.0rc1", "foo-bar"),
        ("foo-2-1.0.tar.gz", "foo-2", "1.0", "foo-2"),
        ("zope.interface-5.0.tar.gz", "zope.interface", "5.0", "zope-interface"),
        ("foo-1.0.post1.dev2+gabc.tar.gz", "foo", "1.0.post1.dev2+gabc", "foo"),
        ("foo_bar-1.0-1-py3-none-any.whl", "foo-bar", "1.0", "foo-bar"),
        ("foo-1!2.0-py3-none-any.whl", "foo", "1!2.0", "foo"),
        ("Foo_Bar-1.0+abc.1-cp39-cp39-linux_x86_64.whl", "Foo_Bar", "1.0+abc.1", "foo-bar"),
        ("/some/where/foo-1.0.tar.gz", "foo", "1.0", "foo"),
    ],
)
def test_names_of_every_kind(index: Index, filename: str, name: str, version: str, stored_as: str) -> None:
    """The name is stored normalised, the version as it was sent, the file name as it is."""
    build = build_wheel if filename.endswith(".whl") else build_sdist
    content = build(name.replace(".", "_") if filename.endswith(".whl") else name, version)
    answer = post(index, upload_form(content, filename, name=name, version=version))
    assert answer.status_int == 200, answer.json
    plain = filename.rpartition("/")[2]
    assert (answer.json["name"], answer.json["version"], answer.json["filename"]) == (stored_as, version, plain)
    assert path_of(index, stored_as, version, plain).read_bytes() == content
    assert send(index, "GET", f"/api/package/{stored_as}/{plain}").body == content


@pytest.mark.parametrize("filename", ["foo-1.0.egg", "foo-1.0-py3.8.egg", "foo-1.0.exe"])
def test_old_kinds_of_files(index: Index, filename: str) -> None:
    """Eggs and installers say nothing about themselves that is looked at, and are stored as they are."""
    answer = post(index, upload_form(b"anything", filename, name="foo", version="1.0", summary="Old"))
    assert (answer.status_int, answer.json["summary"]) == (200, "Old")


def test_the_archives_own_facts_come_first(index: Index) -> None:
    """Summary and requires-python of the metadata beat the form's, which count where the archive has none."""
    fields = {"name": "acme", "version": "1.0", "summary": "form", "requires_python": ">=2"}
    content = build_wheel(summary="archive", requires_python=">=3.9")
    answer = post(index, upload_form(content, WHEEL, **fields)).json
    assert (answer["summary"], answer["metadata"]["requires_python"]) == ("archive", ">=3.9")
    egg = post(index, upload_form(b"egg", "acme-1.0.egg", **fields)).json
    assert (egg["summary"], egg["metadata"]["requires_python"]) == ("form", ">=2")
    silent = post(index, upload_form(build_sdist("acme", "1.0"), sdist_name("acme", "1.0"), **fields)).json
    assert silent["summary"] == "form"
    assert "requires_python" not in silent["metadata"]


def test_what_is_kept_about_a_file(index: Index) -> None:
    """Digests, uploader and size; the answer is the package as the API shows it (compat.md 5.5)."""
    content = build_wheel(summary="One line")
    answer = post(index, upload_form(content, WHEEL, name="acme", version="1.0")).json
    assert answer == send(index, "GET", "/api/package/acme/").json["packages"][0]
    assert answer["url"] == f"http://localhost/api/package/acme/{WHEEL}#sha256={sha256(content)}"
    md5 = hashlib.md5(content).hexdigest()
    facts = {"summary": "One line", "hash_sha256": sha256(content), "hash_md5": md5, "uploader": "alice"}
    assert answer["metadata"] == facts


def test_digests_can_be_left_out(tmp_path: Path) -> None:
    """``pypi.calculate_package_hashes = false`` keeps none, and still compares bytes and what a client claims."""
    index = Index(tmp_path, pypi__calculate_package_hashes="false")
    content = index.upload_wheel()
    [package] = send(index, "GET", "/api/package/acme/").json["packages"]
    assert package["url"] == f"http://localhost/api/package/acme/{WHEEL}"
    assert package["metadata"] == {"uploader": "alice"}
    index.post(content=content, filename=WHEEL, name="acme", version="1.0", status=200)
    index.upload_wheel(summary="changed", status=409)
    status, key, _ = refusal(post(index, upload_form(build_wheel("b"), wheel_name("b", "1.0"), md5_digest="0" * 32)))
    assert (status, key) == (400, "digest-mismatch")


# Rights


@pytest.mark.parametrize(("user", "status"), [(None, 401), ("dave", 403), ("alice", 200), ("root", 200)])
@pytest.mark.parametrize("path", ["/simple/", "/api/package/acme/x"])
def test_who_may_upload(index: Index, path: str, user: str | None, status: int) -> None:
    """401 without credentials, 403 without the right, and nothing is kept then."""
    answer = post(index, upload_form(build_wheel(), WHEEL), path, user=user)
    assert answer.status_int == status
    assert bool(stored(index)) == (status == 200)
    if status == 403:
        sentence = "user 'dave' may not write acme; ask an administrator of this index"
        assert refusal(answer) == (403, "forbidden", sentence)
    if status == 401:
        assert answer.body == b""


# The same name again


def test_the_same_bytes_again_change_nothing(index: Index) -> None:
    """200 for every uploader, and neither file nor row is touched, its time and its uploader included."""
    content = index.upload_wheel(summary="Once")
    before, facts = stored(index), row(index)
    for user in ("alice", "bob", "carol", "root"):
        answer = post(index, upload_form(content, WHEEL, name="Acme", version="1.0.0", summary="Twice"), user=user)
        assert answer.status_int == 200
        assert answer.json == send(index, "GET", "/api/package/acme/").json["packages"][0]
    assert (stored(index), row(index)) == (before, facts)


def test_other_bytes_are_refused(index: Index) -> None:
    """409 whose text begins as clients look for, for everybody outside of the group, administrators included."""
    index.upload_wheel()
    before, facts = stored(index), row(index)
    for user in ("alice", "root"):
        answer = post(index, upload_form(build_wheel(summary="changed"), WHEEL), user=user)
        status, key, message = refusal(answer)
        assert (status, key) == (409, "file-exists")
        assert message == (
            f"File already exists: {WHEEL!r} is stored with other bytes, and you may not overwrite it; "
            "upload a new version"
        )
        assert answer.status.startswith("409 File already exists")
        plain = post(index, upload_form(build_wheel(summary="changed"), WHEEL), user=user, headers={"Accept": "*/*"})
        assert plain.text.startswith("File already exists")
    assert (stored(index), row(index)) == (before, facts)


def test_the_group_may_overwrite(index: Index) -> None:
    """Bytes, digest, summary, uploader and companion are the new ones, and nothing of the old stays."""
    index.upload_wheel(summary="old")
    content = build_wheel(summary="new")
    answer = post(index, upload_form(content, WHEEL, name="acme", version="1.0"), user="carol")
    assert (answer.status_int, answer.json["summary"], answer.json["metadata"]["uploader"]) == (200, "new", "carol")
    path = f"/api/package/acme/{WHEEL}"
    assert send(index, "GET", path).body == content
    assert b"Summary: new" in send(index, "GET", f"{path}.metadata").body
    assert len(listed(index)) == 1


def test_an_overwrite_stays_in_its_place(index: Index) -> None:
    """Another spelling of the same version does not leave a second file of one name behind."""
    index.upload_wheel("acme", "1.0")
    content = build_wheel(summary="new")
    assert post(index, upload_form(content, WHEEL, name="acme", version="1.0.0"), user="carol").status_int == 200
    assert [path for path in stored(index) if path.endswith(".whl")] == [f"acme/1.0/{WHEEL}"]
    assert path_of(index).read_bytes() == content


def test_a_file_without_a_row_is_adopted(index: Index) -> None:
    """After a crash between file and row the same bytes bring the row back; other bytes are refused."""
    content = index.upload_wheel()
    with sqlite3.connect(index.directory / "db.sqlite") as connection:
        connection.execute("DELETE FROM packages")
    assert listed(index) == []
    index.upload_wheel(summary="changed", status=409)
    assert listed(index) == []
    index.post(content=content, filename=WHEEL, name="acme", version="1.0", status=200)
    assert listed(index) == [WHEEL]
    assert path_of(index).read_bytes() == content


def test_a_row_without_a_file_is_filled_again(index: Index) -> None:
    """The same bytes bring a lost file back, for who may not overwrite, too; other bytes do not slip in."""
    content = index.upload_wheel()
    path_of(index).unlink()
    index.upload_wheel(summary="changed", status=409)
    assert send(index, "GET", f"/api/package/acme/{WHEEL}").status_int == 404
    index.post(content=content, filename=WHEEL, name="acme", version="1.0", status=200)
    assert send(index, "GET", f"/api/package/acme/{WHEEL}").body == content
    index.post(content=content, filename=WHEEL, name="acme", version="1.0", status=200)


def test_a_name_of_another_project_is_not_taken(index: Index) -> None:
    """409 when a file of this name is another project's, in the cache of an old server, say."""
    index.upload_wheel()
    with sqlite3.connect(index.directory / "db.sqlite") as connection:
        connection.execute("UPDATE packages SET name = 'elsewhere'")
    answer = post(index, upload_form(build_wheel(), WHEEL), user="carol")
    sentence = f"File already exists: {WHEEL!r} belongs to another project; rename yours"
    assert refusal(answer) == (409, "file-exists", sentence)


def test_nothing_temporary_is_left(index: Index) -> None:
    """After uploads, repeated and refused ones, only files, facts and companions are there."""
    content = index.upload_wheel()
    index.post(content=content, filename=WHEEL, name="acme", version="1.0")
    index.upload_wheel(summary="changed", status=409)
    index.upload_wheel(summary="changed", user="carol")
    assert len(stored(index)) == 3
    assert all(path.startswith(f"acme/1.0/{WHEEL}") for path in stored(index))


def test_an_upload_is_seen_everywhere_at_once(index: Index) -> None:
    """The next request finds it on the pages, in the lists and in the search."""
    for path in ("/simple/acme/", "/pypi/acme/json"):
        assert send(index, "GET", path).status_int == 404
    index.upload_wheel()
    for path in ("/simple/", "/simple/acme/", "/pypi/acme/json", "/packages/", "/api/package/", "/"):
        assert "acme" in send(index, "GET", path).text
    assert set(send(index, "GET", "/nowhere/", headers={"Accept": "application/json"}).json) == ERROR_KEYS
