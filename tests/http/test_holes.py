"""The holes of 1.3.12 that are closed; each test fails on the old behaviour (compat.md 9.1)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from support.builds import build_sdist, build_wheel, sdist_name, wheel_name
from support.world import Index, sha256

SECRET = wheel_name("secret-plan", "1.0")


@pytest.fixture
def house(index: Index) -> Index:
    """User alice has stored a file of ``secret-plan``, which only she may touch, and one of ``acme``."""
    index.upload_wheel("secret-plan", "1.0", user="alice")
    index.upload_wheel("acme", "1.0", user="alice")
    return index


def stored(index: Index) -> dict[str, bytes]:
    """Every file of the storage directory with its bytes."""
    folder = index.directory / "packages"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("spelling", ["secret-plan", "Secret.Plan", "secret_plan"])
def test_s1_a_file_is_not_read_through_its_own_name(house: Index, spelling: str) -> None:
    """Without read on the project: 403, and 401 when anonymous, whatever the spelling."""
    for path in (f"/api/package/{spelling}/{SECRET}", f"/api/package/{spelling}/{SECRET}.metadata"):
        assert house.get(path, user="bob").status_int == 403
        assert house.get(path, user=None).status_int == 401
        assert house.get(path, user="alice").status_int == 200


@pytest.mark.parametrize("name", ["acme", "open-door", "nowhere"])
def test_s1_a_file_is_not_read_through_another_name(house: Index, name: str) -> None:
    """The right that counts is the one on the file's own project: through any other URL there is no file."""
    for path in (f"/api/package/{name}/{SECRET}", f"/api/package/{name}/{SECRET}.metadata"):
        assert house.get(path, user="bob").status_int == 404
        assert house.get(path, user="alice").status_int == 404


@pytest.mark.parametrize("name", ["acme", "open-door"])
def test_s1_a_file_is_not_deleted_through_another_name(house: Index, name: str) -> None:
    """Write on one project deletes nothing of another."""
    before = stored(house)
    headers = house.headers("bob", {})
    assert house.app.delete(f"/api/package/{name}/{SECRET}", headers=headers, expect_errors=True).status_int == 404
    assert house.app.delete(f"/api/package/secret-plan/{SECRET}", headers=headers, expect_errors=True).status_int == 403
    assert stored(house) == before
    assert house.get(f"/api/package/secret-plan/{SECRET}").status_int == 200


def test_s1_a_wheel_is_not_uploaded_into_another_project(house: Index) -> None:
    """The name in the URL is not taken for a right on the wheel's own project."""
    content = build_wheel("secret-plan", "2.0")
    path = f"/api/package/acme/{wheel_name('secret-plan', '2.0')}"
    house.post(path, content, wheel_name("secret-plan", "2.0"), user="bob", status=400)
    assert house.get("/api/package/secret-plan/", user="alice").json["packages"][0]["version"] == "1.0"


def test_s1_a_file_is_not_taken_over_by_another_project(house: Index) -> None:
    """A form that names another project than the file name is refused, with the overwrite right, too."""
    content = build_wheel("secret-plan", "1.0", summary="mine now")
    fields = {":action": "file_upload", "name": "acme", "version": "1.0"}
    house.post(content=content, filename=SECRET, user="carol", status=400, **fields)
    sdist = build_sdist("acme", "1.0")
    house.post(content=sdist, filename=sdist_name("secret-plan", "1.0"), user="carol", status=400, **fields)
    assert [row["name"] for row in house.get("/api/package/secret-plan/").json["packages"]] == ["secret-plan"]


def test_s1_lists_and_search_show_only_what_is_readable(house: Index) -> None:
    """The API's lists and XML-RPC search are filtered like the pages."""
    assert house.get("/api/package/", user="bob").json == {"packages": ["acme"]}
    verbose = house.get("/api/package/?verbose=true", user="bob").json["packages"]
    assert [row["name"] for row in verbose] == ["acme"]
    assert house.get("/api/package/secret-plan/", user="bob").status_int == 403
    assert house.get("/api/package/secret-plan/", user=None).status_int == 401


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("acme", "../../1.0"),
        ("acme", "/etc/1.0"),
        ("acme", "1.0/.."),
        ("acme", ".."),
        ("../acme", "1.0"),
        ("/tmp/acme", "1.0"),
        ("..", "1.0"),
        ("acme\\..", "1.0"),
        ("acme", "1.0\x00"),
        ("acme\n", "1.0"),
    ],
)
def test_s2_nothing_is_written_outside_the_storage(house: Index, name: str, version: str) -> None:
    """Name and version of the form never become a path: 400, and no file appears anywhere."""
    before = {path for path in house.directory.rglob("*") if "db.sqlite" not in path.name}
    answer = house.post(
        content=build_wheel("acme", "1.0"),
        filename=wheel_name("acme", "1.0"),
        status=400,
        name=name,
        version=version,
    )
    assert answer.json["error"] == "invalid-upload"
    assert {path for path in house.directory.rglob("*") if "db.sqlite" not in path.name} == before


@pytest.mark.parametrize(
    "filename", ["../../evil-1.0.tar.gz", "/tmp/evil-1.0.tar.gz", "..", "evil\\..\\evil-1.0.tar.gz", ".evil-1.0.tar.gz"]
)
def test_s2_a_file_name_is_one_segment(house: Index, filename: str) -> None:
    """Of a path in the file name only the last part counts, and it must be a plain one (compat.md 5.6)."""
    before = set(stored(house))
    answer = house.post(content=build_sdist("evil", "1.0"), filename=filename, status="*")
    new = set(stored(house)) - before
    assert all(path.startswith("evil/1.0/evil-1.0.tar.gz") for path in new)
    assert answer.status_int == (200 if new else 400)
    assert not list(house.directory.parent.glob("evil*"))


@pytest.mark.parametrize("word", ["false", "False", "no", "off", "0"])
def test_s3_allow_overwrite_false_means_false(tmp_path: Path, word: str) -> None:
    """The deprecated setting is a boolean now, and no text for no opens the index."""
    index = Index(tmp_path, pypi__allow_overwrite_groups=None, pypi__allow_overwrite=word)
    first = index.upload_wheel("acme", "1.0")
    index.upload_wheel("acme", "1.0", summary="changed", status=409)
    assert index.get(f"/api/package/acme/{wheel_name('acme', '1.0')}").body == first


@pytest.mark.parametrize("word", ["false", "no", "0"])
def test_s3_allow_delete_false_means_false(tmp_path: Path, word: str) -> None:
    """Nobody may delete then, administrators included."""
    index = Index(tmp_path, pypi__allow_delete=word)
    index.upload_wheel("acme", "1.0")
    for user in ("alice", "root"):
        path = f"/api/package/acme/{wheel_name('acme', '1.0')}"
        assert index.app.delete(path, headers=index.headers(user, {}), expect_errors=True).status_int == 403
    assert len(index.get("/api/package/acme/").json["packages"]) == 1


def test_s4_permissions_hold_for_names_with_dots_and_underscores(tmp_path: Path) -> None:
    """An ini key in any spelling makes its project private, although everyone may read by default."""
    index = Index(
        tmp_path,
        pypi__default_read="everyone",
        **{
            "package.My.Dotted_pkg.user.alice": "rw",
            "package.under_score.user.first.last": "rw",
            "user.first.last": None,
        },
    )
    for name in ("my-dotted-pkg", "My.Dotted_pkg", "under-score", "under_score"):
        assert index.get(f"/simple/{name}/", user=None).status_int == 401
        assert index.get(f"/simple/{name}/", user="dave").status_int == 404
        assert index.get(f"/api/package/{name}/", user="dave").status_int == 403
    index.upload_wheel("my-dotted-pkg", "1.0", user="alice")


@pytest.mark.parametrize(("field", "length"), [("sha256_digest", 64), ("md5_digest", 32), ("blake2_256_digest", 64)])
def test_s8_a_wrong_digest_is_refused(house: Index, field: str, length: int) -> None:
    """Each kind of digest that a client sends is compared, before or after the file: 400, nothing stored."""
    before = stored(house)
    answer = house.post(
        content=build_wheel("acme", "3.0"),
        filename=wheel_name("acme", "3.0"),
        status=400,
        name="acme",
        version="3.0",
        **{field: "0" * length},
    )
    assert answer.json["error"] == "digest-mismatch"
    assert stored(house) == before


def test_s8_the_right_digests_are_accepted(house: Index) -> None:
    """sha256 in capitals, md5 and blake2b of the bytes pass."""
    content = build_wheel("acme", "3.0")
    house.post(
        content=content,
        filename=wheel_name("acme", "3.0"),
        name="acme",
        version="3.0",
        sha256_digest=sha256(content).upper(),
        md5_digest=hashlib.md5(content).hexdigest(),
        blake2_256_digest=hashlib.blake2b(content, digest_size=32).hexdigest(),
    )
