"""What clients send by mistake or on purpose: each with its status, its sentence, and no trace in the index."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.builds import build_sdist, build_wheel, metadata, sdist_name, wheel_name
from support.wire import BOUNDARY, MULTIPART, form, listed, part, post, refusal, send, stored, upload_form
from support.world import Index, sha256

WHEEL = wheel_name("acme", "2.0")
SDIST = sdist_name("acme", "2.0")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index with one file, which no test changes."""
    index = Index(tmp_path_factory.mktemp("house"))
    index.upload_wheel("acme", "1.0")
    return index


def refuse(
    index: Index, body: bytes, path: str = "/simple/", content_type: str = MULTIPART, user: str = "alice"
) -> tuple[int, str, str]:
    """Status, key and sentence of an upload that is refused and leaves nothing behind."""
    before = stored(index), listed(index)
    answer = post(index, body, path, user=user, headers={"Content-Type": content_type})
    assert (stored(index), listed(index)) == before
    return refusal(answer)


# The form


@pytest.mark.parametrize("cut", [1, 5, 20, 70, 200])
def test_a_form_that_is_cut_short(house: Index, cut: int) -> None:
    """400, wherever it ends: a file is stored whole or not at all."""
    body = upload_form(build_wheel("acme", "2.0"), WHEEL, name="acme", version="2.0")
    # The last line break is not needed.
    sentence = "the form is broken: Unexpected end of multipart stream (parser closed); "
    assert refuse(house, body[: -2 - cut]) == (
        400,
        "bad-request",
        sentence + "send it as multipart/form-data and whole",
    )


def test_a_form_that_is_cut_anywhere_is_never_stored(house: Index) -> None:
    """No prefix of an upload is one."""
    body = upload_form(build_wheel("acme", "2.0"), WHEEL, name="acme", version="2.0")
    before = stored(house)
    for length in range(0, len(body) - 4, 61):
        assert post(house, body[:length]).status_int == 400
    assert stored(house) == before


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("multipart/form-data; boundary=other", "Unexpected end of multipart stream (parser closed)"),
        ("multipart/form-data", "Empty boundary"),
        ("multipart/form-data; boundary=", "Empty boundary"),
        ('multipart/form-data; boundary="', "Empty boundary"),
        ("multipart/form-data; boundary=\xe9", "Empty boundary"),
        (f"{MULTIPART}, multipart/form-data; boundary=x", "Unexpected end of multipart stream (parser closed)"),
    ],
)
def test_a_wrong_boundary(house: Index, content_type: str, reason: str) -> None:
    """400 for a boundary that is not there, or not the body's; two headers of one name are one with a comma."""
    body = upload_form(build_wheel("acme", "2.0"), WHEEL)
    expected = (400, "bad-request", f"the form is broken: {reason}; send it as multipart/form-data and whole")
    assert refuse(house, body, content_type=content_type) == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Unexpected end of multipart stream (parser closed)"),
        (b"\x00\xff" * 500, "Unexpected end of multipart stream (parser closed)"),
        (b"x" + form(part("name", "acme")), "Unexpected byte in front of first boundary"),
        (form(part("name", "acme")).replace(b"\r\n", b"\n"), "Invalid line break after first boundary"),
        (form(b"\r\nacme\r\n"), "Missing Content-Disposition segment header"),
        (
            form(b"Content-Disposition: attachment\r\n\r\nx\r\n"),
            "Invalid Content-Disposition segment header: Wrong type",
        ),
        (form(b"no colon\r\n\r\nx\r\n"), "Malformed segment header"),
        (form(part("content", b"x", b"\xff\xfe-1.0.tar.gz")), "Segment header failed to decode"),
        (
            form(part("content", b"x", "acme-1.0.tar.gz", "Content-Length: 7")),
            "Segment size does not match Content-Length header",
        ),
    ],
)
def test_garbage_for_a_form(house: Index, body: bytes, reason: str) -> None:
    """400 with what is wrong with it, and nothing of how the parser says so inside."""
    expected = (400, "bad-request", f"the form is broken: {reason}; send it as multipart/form-data and whole")
    assert refuse(house, body) == expected


def test_headers_without_end(house: Index) -> None:
    """413 for a part of the form with too many headers, or a too long one."""
    for lines in ([f"X-{number}: 1" for number in range(20)], ["X: " + "1" * 10_000]):
        status, key, sentence = refuse(house, form(part("content", b"x", WHEEL, *lines)))
        assert (status, key) == (413, "too-large")
        assert sentence.startswith("the form is too large: Maximum segment header ")


def test_too_many_fields(house: Index) -> None:
    """413 for more than 8192 parts."""
    expected = (413, "too-large", "the form is too large: Maximum segment count exceeded")
    assert refuse(house, form(*[part("a", "")] * 8200)) == expected


def test_too_much_text(house: Index) -> None:
    """413 for more than 16 MiB of fields together, as they are held in memory."""
    fields = [part(f"field{number}", b"x" * (1 << 20)) for number in range(17)]
    expected = (413, "too-large", "the form's fields are larger than 16777216 bytes, without the file")
    assert refuse(house, form(*fields, part("content", b"x", WHEEL))) == expected


def test_a_body_shorter_than_it_says(house: Index) -> None:
    """400 for a client that hung up: that is its trouble, not the server's."""
    before = stored(house)
    body = upload_form(build_wheel("acme", "2.0"), WHEEL)
    not_buffered: dict[str, Any] = {"webob.is_body_seekable": False}
    answer = post(house, body, CONTENT_LENGTH=str(len(body) + 1), **not_buffered)
    sentence = "the body is shorter than its Content-Length says; send it whole"
    assert refusal(answer) == (400, "bad-request", sentence)
    assert stored(house) == before


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("application/json", "'application/json'"),
        ("application/x-www-form-urlencoded", "'application/x-www-form-urlencoded'"),
        (f"multipart/mixed; boundary={BOUNDARY}", "'multipart/mixed'"),
        ("text/xml", "'text/xml'"),
        ("nonsense", "'nonsense'"),
        (";;;", "of no type"),
        ("", "of no type"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/simple", "/api/package/acme/x"])
def test_an_unknown_content_type(house: Index, path: str, content_type: str, shown: str) -> None:
    """400: uploads are multipart forms and nothing else."""
    body = upload_form(build_wheel("acme", "2.0"), WHEEL)
    expected = (400, "bad-request", f"the body must be multipart/form-data, not {shown}")
    assert refuse(house, body, path, content_type) == expected


@pytest.mark.parametrize("action", ["submit", "doc_upload", "verify", "../x"])
def test_a_wrong_action(house: Index, action: str) -> None:
    """400 for what this index never did."""
    body = upload_form(build_wheel("acme", "2.0"), WHEEL, **{":action": action})
    assert refuse(house, body) == (
        400,
        "bad-request",
        f"Unknown action {action!r}; the only one is 'file_upload'",
    )


@pytest.mark.parametrize("path", ["/simple/", "/api/package/acme/x"])
@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([], "Missing argument 'content': send the file in it"),
        ([part("name", "acme"), part("version", "2.0")], "Missing argument 'content': send the file in it"),
        ([part("file", b"x", WHEEL)], "Missing argument 'content': send the file in it"),
        ([part(None, b"x", WHEEL)], "Missing argument 'content': send the file in it"),
        ([part("content", "text")], "Missing argument 'content': 'content' must be a file with a file name"),
        ([part("content", "")], "Missing argument 'content': 'content' must be a file with a file name"),
        ([part("content", b"x", "")], "the file in 'content' has no file name"),
        ([part("content", b"x", "folder/")], "the file in 'content' has no file name"),
        (
            [part("content", b"x", WHEEL), part("content", b"y", WHEEL)],
            "the form has two files in the field 'content'; send one",
        ),
        ([part("name", b"\xff\xfe"), part("content", b"x", WHEEL)], "the form field 'name' is not UTF-8 text"),
    ],
)
def test_missing_and_doubled_fields(house: Index, path: str, parts: list[bytes], sentence: str) -> None:
    """400 with the field that is wrong."""
    assert refuse(house, form(*parts), path) == (400, "bad-request", sentence)


def test_a_body_over_the_limit(tmp_path: Path) -> None:
    """413 with the limit and its setting, nothing kept, and an upload of the right size works afterwards."""
    index = Index(tmp_path, pypi__max_upload_size="20000")
    before = stored(index)
    for size in (19_990, 30_000, 50_000, 5_000_000):
        answer = post(index, upload_form(b"x" * size, SDIST, name="acme", version="2.0"))
        sentence = "the body is larger than 20000 bytes (pypi.max_upload_size)"
        assert refusal(answer) == (413, "too-large", sentence)
    assert stored(index) == before
    index.upload_wheel("acme", "1.0")


# Names, versions, file names

NOT_NAMED = "is not named <project>-<version> and an ending; build it anew"
ODD = "holds characters that it may not hold"

LONG = "a" * 300

#: What may not stand in a name, a version or a file name, and how a sentence shows it.
TRICKS = [
    "../acme",
    "..",
    "/etc/acme",
    "acme/..",
    "a\\..\\acme",
    "ac\x00me",
    "acme\x07",
    "acme\x7f",
    "acme\x1b[31m",
    "acme\u202e",
    "acme\u200b",
    "acme\r\nX: y",
    " acme",
    "acme\u00a0",
]


@pytest.mark.parametrize("field", ["name", "version"])
@pytest.mark.parametrize("text", TRICKS)
def test_tricks_in_name_and_version(house: Index, field: str, text: str) -> None:
    """400: what is not one plain segment of a path is not looked at further."""
    fields = {"name": "acme", "version": "2.0", field: text}
    expected = (400, "invalid-upload", f"the {field} {text!r} holds characters that it may not hold")
    assert refuse(house, upload_form(build_wheel("acme", "2.0"), WHEEL, **fields)) == expected


@pytest.mark.parametrize("field", ["name", "version"])
def test_an_endless_name_or_version(house: Index, field: str) -> None:
    """400 for more than 200 bytes, of which the sentence shows the beginning."""
    fields = {"name": "acme", "version": "2.0", field: LONG}
    expected = (400, "invalid-upload", f"the {field} {'a' * 40!r}... is longer than 200 bytes")
    assert refuse(house, upload_form(build_wheel("acme", "2.0"), WHEEL, **fields)) == expected


@pytest.mark.parametrize(
    "name", [".acme", "-acme", "acme-", "_", "ac me", "acm\u00e9", "\uff41cme", "acme[x]", "a&b", "x'\"y"]
)
def test_a_name_that_is_none(house: Index, name: str) -> None:
    """400 for what PEP 508 does not know as a name."""
    expected = f"name {name!r} is not valid: use letters, digits, '.', '-' and '_' (PEP 508)"
    body = upload_form(build_wheel("acme", "2.0"), WHEEL, name=name, version="2.0")
    assert refuse(house, body) == (400, "invalid-upload", expected)


@pytest.mark.parametrize(
    "version", ["latest", "2.0-", "v", "2.0.x", "2'0", "2'\"0", ".2", "2.0+", "\u0662.0", "2.0po\u017ft1"]
)
def test_a_version_that_is_none(house: Index, version: str) -> None:
    """400 for what PEP 440 does not know as a version."""
    body = upload_form(build_wheel("acme", "2.0"), WHEEL, name="acme", version=version)
    assert refuse(house, body) == (400, "invalid-upload", f"version {version!r} is not valid (PEP 440)")


@pytest.mark.parametrize(
    ("filename", "sentence"),
    [
        ("..", "the file name '..' " + ODD),
        (".", "the file name '.' " + ODD),
        ("/etc/..", "the file name '..' " + ODD),
        ("a\\..\\" + SDIST, f"the file name {'a' + chr(92) + '..' + chr(92) + SDIST!r} " + ODD),
        ("\x00" + SDIST, f"the file name {chr(0) + SDIST!r} " + ODD),
        (SDIST + "\x00", f"the file name {SDIST + chr(0)!r} " + ODD),
        ("\x1b" + SDIST, f"the file name {chr(27) + SDIST!r} " + ODD),
        ("\u202e" + SDIST, f"the file name {chr(0x202E) + SDIST!r} " + ODD),
        (" " + SDIST, f"the file name {' ' + SDIST!r} " + ODD),
        ("a" * 300 + SDIST, f"the file name {'a' * 40!r}... is longer than 200 bytes"),
        ("\u00e4" * 120 + SDIST, f"the file name {chr(228) * 40!r}... is longer than 200 bytes"),
        ("." + SDIST, f"{'.' + SDIST!r} " + NOT_NAMED),
        ("-" + SDIST, f"{'-' + SDIST!r} " + NOT_NAMED),
        ("acm\u00e9-2.0.tar.gz", "'acm\u00e9-2.0.tar.gz' " + NOT_NAMED),
        ("acme.tar.gz", "'acme.tar.gz' " + NOT_NAMED),
        ("acme-2.0.TAR.GZ", "'acme-2.0.TAR.GZ' " + NOT_NAMED),
        ("acme-2.0.whl", "'acme-2.0.whl' " + NOT_NAMED),
        ("ac-me-2.0-py3-none-any.whl", "'ac-me-2.0-py3-none-any.whl' " + NOT_NAMED),
        ("acme-v2.0-py3-none-any.whl", "'acme-v2.0-py3-none-any.whl' " + NOT_NAMED),
        (
            "acm\u00e9-2.0-py3-none-any.whl",
            "name 'acm\u00e9' is not valid: use letters, digits, '.', '-' and '_' (PEP 508)",
        ),
        ("acme-dev.tar.gz", "version 'dev' is not valid (PEP 440)"),
    ],
)
def test_tricks_in_the_file_name(house: Index, filename: str, sentence: str) -> None:
    """400 for a file name that is no plain name of a distribution; of a path only the last part counts."""
    assert refuse(house, form(part("content", build_sdist("acme", "2.0"), filename))) == (
        400,
        "invalid-upload",
        sentence,
    )


@pytest.mark.parametrize(
    "filename",
    [
        "acme-2.0.txt",
        "acme-2.0.py",
        "acme-2.0",
        "acme-2.0.tar.xz",
        "acme-2.0.rpm",
        "acme-2.0.whl.metadata",
        "acme-2.0.tar.gz.meta",
    ],
)
def test_a_wrong_ending(house: Index, filename: str) -> None:
    """400 with the endings that there are."""
    endings = ".egg, .exe, .tar, .tar.bz2, .tar.gz, .tbz, .tgz, .whl, .zip"
    expected = f"{filename!r} is no distribution file; its name must end in one of {endings}"
    body = upload_form(build_sdist("acme", "2.0"), filename, name="acme", version="2.0")
    assert refuse(house, body) == (400, "invalid-upload", expected)


@pytest.mark.parametrize("path", ["/simple/", "/api/package/{name}/x"])
@pytest.mark.parametrize(
    ("content", "filename", "name", "version", "sentence"),
    [
        (
            build_wheel("acme", "2.0"),
            WHEEL,
            "other",
            "2.0",
            f"file name {WHEEL!r} is not one of project 'other'; build it anew",
        ),
        (
            build_sdist("acme", "2.0"),
            SDIST,
            "acme-2",
            "2.0",
            f"file name {SDIST!r} is not one of project 'acme-2'; build it anew",
        ),
        (
            build_wheel("other", "2.0"),
            WHEEL,
            "acme",
            "2.0",
            "The wheel has a directory other-2.0.dist-info, which does not agree with its file name.",
        ),
        (
            build_wheel("acme", "2.0", core_metadata=metadata("other", "2.0")),
            WHEEL,
            "acme",
            "2.0",
            "the metadata inside says project 'other', not 'acme'; build it anew",
        ),
        (
            b"no archive to look into",
            "acme-2.0.egg",
            "acme-2",
            "2.0",
            "file name 'acme-2.0.egg' is not one of project 'acme-2'; build it anew",
        ),
        (
            b"no archive to look into",
            "acme-2-py3.egg",
            "acme-2",
            "2",
            "file name 'acme-2-py3.egg' is not one of project 'acme-2'; build it anew",
        ),
        (
            build_sdist("other", "2.0"),
            SDIST,
            "acme",
            "2.0",
            "the metadata inside says project 'other', not 'acme'; build it anew",
        ),
        (
            build_sdist("acme", "2.1"),
            SDIST,
            "acme",
            "2.0",
            "the metadata inside says version '2.1', not '2.0'; build it anew",
        ),
        (
            build_sdist("acme", "2.0", core_metadata=metadata("acme", "soon")),
            SDIST,
            "acme",
            "2.0",
            "the metadata inside says version 'soon', not '2.0'; build it anew",
        ),
    ],
)
def test_names_and_versions_that_disagree(
    house: Index, path: str, content: bytes, filename: str, name: str, version: str, sentence: str
) -> None:
    """400: URL or form, file name and metadata must speak of the same release."""
    body = upload_form(content, filename, name=name, version=version)
    key = "invalid-distribution" if sentence.startswith("The wheel") else "invalid-upload"
    assert refuse(house, body, path.format(name=name)) == (400, key, sentence)


def test_a_version_that_is_not_the_file_names(house: Index) -> None:
    """400, also where the archive agrees with the form."""
    body = upload_form(build_wheel("acme", "2.0"), WHEEL, name="acme", version="2.1")
    sentence = f"file name {WHEEL!r} is not of version '2.1'; build it anew"
    assert refuse(house, body) == (400, "invalid-upload", sentence)


# The bytes


@pytest.mark.parametrize(
    ("field", "algorithm"), [("sha256_digest", "sha256"), ("md5_digest", "md5"), ("blake2_256_digest", "blake2_256")]
)
@pytest.mark.parametrize("last", [False, True])
def test_a_wrong_digest_of_each_kind(house: Index, field: str, algorithm: str, *, last: bool) -> None:
    """400 with both digests, wherever in the form the field stands."""
    content = build_wheel("acme", "2.0")
    found = {
        "sha256": sha256(content),
        "md5": hashlib.md5(content).hexdigest(),
        "blake2_256": hashlib.blake2b(content, digest_size=32).hexdigest(),
    }[algorithm]
    for claimed in ("0" * len(found), found[:-1], "nonsense", "\u00e9"):
        parts = [part(field, claimed), part("content", content, WHEEL)]
        sentence = f"the {algorithm} digest sent is {claimed!r}, but the bytes have {found!r}; upload again"
        assert refuse(house, form(*reversed(parts) if last else parts)) == (400, "digest-mismatch", sentence)


def zip_bomb() -> bytes:
    """A wheel of 66 MiB in 70 kB."""
    return build_wheel("acme", "2.0", members={"acme.py": bytes(66 << 20)})


def tar_bomb() -> bytes:
    """A source distribution of 66 MiB in 70 kB."""
    return build_sdist("acme", "2.0", members={"zeros": bytes(66 << 20)})


def slip() -> bytes:
    """A wheel with a member outside of where it is unpacked."""
    return build_wheel("acme", "2.0", members={"../../evil.py": b""})


def tar_slip() -> bytes:
    """A source distribution with a link out of its directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("acme-2.0/link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "../../etc/passwd"
        archive.addfile(entry)
    return buffer.getvalue()


def empty_zip() -> bytes:
    """A zip file without members."""
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    return buffer.getvalue()


DAMAGED = "The archive is damaged; build it anew."
NO_ZIP = "The archive is no zip file, or has a comment or other data after its end."


@pytest.mark.parametrize(
    ("make", "filename", "sentence"),
    [
        (zip_bomb, WHEEL, "The archive unpacks to more than 50 times its size."),
        (tar_bomb, SDIST, "The archive unpacks to more than 50 times its size."),
        (slip, WHEEL, "The zip file has a member with an unsafe name, '../../evil.py'."),
        (tar_slip, SDIST, "The tar archive has a link that leads out of its directory, 'acme-2.0/link'."),
        (lambda: build_wheel("acme", "2.0")[:-30], WHEEL, NO_ZIP),
        (
            lambda: build_wheel("acme", "2.0")[40:],
            WHEEL,
            "The zip file has data before its start or around its directory.",
        ),
        (lambda: build_wheel("acme", "2.0") + b"more", WHEEL, NO_ZIP),
        (lambda: build_sdist("acme", "2.0")[:-40], SDIST, DAMAGED),
        (lambda: build_sdist("acme", "2.0") + b"more", SDIST, DAMAGED),
        (lambda: b"not an archive", WHEEL, NO_ZIP),
        (lambda: b"not an archive", SDIST, DAMAGED),
        (lambda: b"not an archive", "acme-2.0.zip", NO_ZIP),
        (lambda: b"not an archive", "acme-2.0.tar.bz2", DAMAGED),
        (lambda: b"not an archive", "acme-2.0.tar", DAMAGED),
        (lambda: gzip.compress(b"no tar" * 200), SDIST, DAMAGED),
        (lambda: bz2.compress(b"no tar" * 200), "acme-2.0.tbz", DAMAGED),
        (lambda: b"", WHEEL, NO_ZIP),
        (lambda: b"", SDIST, DAMAGED),
        (lambda: build_sdist("acme", "2.0"), WHEEL, NO_ZIP),
        (lambda: build_wheel("acme", "2.0"), SDIST, "The archive is a tar archive and a zip archive at once."),
        (empty_zip, WHEEL, "The wheel must have exactly one .dist-info directory, but has 0."),
        (empty_zip, "acme-2.0.zip", "The source distribution must be one directory, but has [] at its top."),
        (
            lambda: build_wheel("acme", "2.0", core_metadata="Name: acme\n\n"),
            WHEEL,
            "The metadata must have exactly one Metadata-Version.",
        ),
        (
            lambda: build_wheel("acme", "2.0", core_metadata=metadata("acme", "2.0") + "Name: b\n"),
            WHEEL,
            "The metadata must have exactly one Name and one Version.",
        ),
    ],
)
def test_bad_archives(house: Index, make: Callable[[], bytes], filename: str, sentence: str) -> None:
    """400 for bombs, slips, what is cut short, what is no archive, and archives that say nothing sound."""
    body = upload_form(make(), filename, name="acme", version="2.0")
    assert refuse(house, body) == (400, "invalid-distribution", sentence)


# Small bodies


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            b"{",
            "the body is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (b"[1]", "the body must be a JSON object"),
        (b"null", "the body must be a JSON object"),
        (b"[" * 60_000, "the body is not valid JSON: maximum recursion depth exceeded"),
        (b"{}" + b" " * 65_536, "the body is larger than 65536 bytes"),
    ],
)
def test_malformed_json(house: Index, body: bytes, sentence: str) -> None:
    """400 for a body that is no JSON object, 413 for one that is too large."""
    answer = send(house, "GET", "/api/package/", body, headers={"Content-Type": "application/json"})
    status, _, message = refusal(answer)
    assert status == (413 if "larger" in sentence else 400)
    assert message.startswith(sentence)


def test_json_that_is_not_text(house: Index) -> None:
    """400 for bytes that are not UTF-8."""
    answer = send(house, "GET", "/api/package/", b'{"a": "\xff"}', headers={"Content-Type": "application/json"})
    status, key, message = refusal(answer)
    assert (status, key) == (400, "bad-request")
    assert message.startswith("the body is not valid JSON: ")


@pytest.mark.parametrize("path", ["/simple/", "/simple/acme/", "/api/package/"])
def test_a_query_that_is_not_text(house: Index, path: str) -> None:
    """400 for percent signs that do not make UTF-8."""
    headers = {"Accept": "application/json;q=0.5, text/html"}
    query = "format=%ff&verbose=%ff"
    if path != "/api/package/":
        headers["Accept"] = "application/json"
    answer = send(house, "GET", path, headers=headers, query=query)
    sentence = "the query string holds arguments that are not UTF-8 text"
    assert refusal(answer) == (400, "bad-request", sentence)


# Headers and paths


@pytest.mark.parametrize(
    "value",
    [
        "Basic /////w==",
        "Basic !!!",
        "Basic",
        "Basic YWxpY2U=",
        "Bearer x",
        "\xff\xfe",
        "Basic \xe9",
        "Basic YTpi, Basic YTpi",
        "",
    ],
)
def test_credentials_that_cannot_be_read(house: Index, value: str) -> None:
    """Such a caller is anonymous: 401 where that is not enough, 200 elsewhere, never an error."""
    headers = {"Authorization": value}
    assert send(house, "GET", "/simple/acme/", headers=headers).status_int == 401
    assert send(house, "GET", "/simple/", headers=headers).status_int == 200


@pytest.mark.parametrize(
    "value",
    [
        "bytes=-",
        "bytes=a-b",
        "bytes=9-3",
        "lines=1-2",
        "bytes",
        "bytes=1",
        "bytes=0-1,3-4",
        "=",
        "",
        "bytes=" + "9" * 30 + "-",
        "\xff",
    ],
)
@pytest.mark.parametrize("ending", ["", ".metadata"])
def test_range_nonsense(house: Index, value: str, ending: str) -> None:
    """A Range that is not understood, or is several, counts as none: the whole file."""
    path = f"/api/package/acme/{wheel_name('acme', '1.0')}{ending}"
    whole = send(house, "GET", path)
    answer = send(house, "GET", path, headers={"Range": value})
    assert (answer.status_int, answer.body) == (200, whole.body)


@pytest.mark.parametrize("value", ["bytes=99999-", "bytes=99999-100000", "bytes=-0"])
@pytest.mark.parametrize("ending", ["", ".metadata"])
def test_a_range_beyond_the_file(house: Index, value: str, ending: str) -> None:
    """416 with the size of the file, and no body."""
    path = f"/api/package/acme/{wheel_name('acme', '1.0')}{ending}"
    size = len(send(house, "GET", path).body)
    answer = send(house, "GET", path, headers={"Range": value})
    assert (answer.status_int, answer.body) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{size}"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("value", [";", "text/html;q=x", "*/*;q=-1", ",,,", "\xff", "a" * 5000, "text/html;q=0, */*"])
def test_accept_nonsense(house: Index, value: str) -> None:
    """Either a page or 406, and always the same for the same header."""
    statuses = {send(house, "GET", "/simple/acme/", headers={"Accept": value}).status_int for _ in range(2)}
    assert statuses in ({200}, {406})


@pytest.mark.parametrize("header", ["If-None-Match", "If-Modified-Since", "If-Range", "Accept-Encoding", "If-Match"])
@pytest.mark.parametrize("value", ["", '"', "\xff", "Friday", "9" * 30, ";q=;"])
def test_nonsense_in_conditions(house: Index, header: str, value: str) -> None:
    """A condition that cannot be read is none."""
    wheel = f"/api/package/acme/{wheel_name('acme', '1.0')}"
    for path in ("/simple/acme/", wheel, f"{wheel}.metadata"):
        assert send(house, "GET", path, headers={header: value, "Accept": "*/*"}).status_int == 200


@pytest.mark.parametrize("host", ["[", "[::1", "[zz]"])
def test_a_host_that_is_none(house: Index, host: str) -> None:
    """400 where the page shows the host."""
    answer = send(house, "GET", "/", headers={"Host": host, "Accept": "application/json"})
    assert refusal(answer) == (400, "bad-request", "the Host header does not name a host")


@pytest.mark.parametrize(
    "path",
    [
        b"/\xff",
        b"/simple/\xff/",
        b"/api/package/\xff/x",
        b"/static/\xff",
        b"/admin/\xff",
        b"/.well-known/\xff",
        b"/pypi/a/\xff/json",
    ],
)
def test_a_path_that_is_not_text(house: Index, path: bytes) -> None:
    """404 for bytes that are not UTF-8: no such thing can be stored."""
    answer = send(house, "GET", path, headers={"Accept": "application/json"})
    sentence = f"there is nothing at {path.decode('latin-1')!r}"
    assert refusal(answer) == (404, "not-found", sentence)


@pytest.mark.parametrize("name", ["..", "%00", "\x00", "a b", "\u00e9", "-", "[", "{0}", "<b>", "_" * 20_000])
def test_a_name_in_the_url_that_is_none(house: Index, name: str) -> None:
    """404 on every page of a project, for whoever asks."""
    for path in (
        f"/simple/{name}/",
        f"/pypi/{name}/json",
        f"/pypi/{name}/1.0/json",
        f"/{name}/",
        f"/api/package/{name}/",
        f"/api/package/{name}/x-1.0.tar.gz",
    ):
        for user in ("alice", None):
            assert send(house, "GET", path, user=user).status_int == 404, path


def test_a_very_long_path(house: Index) -> None:
    """404 for a project, a file and nothing at all with endless names, which are only words to look for."""
    for path in (f"/simple/{'a' * 20_000}/", f"/api/package/acme/{'a' * 20_000}.whl", f"/{'x/' * 10_000}"):
        answer = send(house, "GET", path)
        assert answer.status_int == 404
        assert len(answer.status) < 250


@pytest.mark.parametrize(
    "filename", ["..", "\x00", "a\x00.whl", "a" * 20_000, "\u00e9.whl", "a\\b", ".metadata", ".hidden.whl", "x\r\ny"]
)
def test_a_file_name_in_the_url_that_is_none(house: Index, filename: str) -> None:
    """404 for reading and for deleting."""
    for method in ("GET", "HEAD", "DELETE"):
        for ending in ("", ".metadata", "/"):
            answer = send(house, method, f"/api/package/acme/{filename}{ending}")
            assert answer.status_int == 404, (method, ending)


# XML-RPC


def call(index: Index, body: bytes, path: str = "/pypi") -> tuple[int, str]:
    """Status and text of the answer to an XML-RPC body."""
    answer = send(index, "POST", path, body, headers={"Content-Type": "text/xml", "Accept": "application/json"})
    return answer.status_int, answer.json["message"] if answer.content_type == "application/json" else answer.text


def method_call(*values: str, method: str = "search") -> bytes:
    """The body of a call."""
    params = "".join(f"<param><value>{value}</value></param>" for value in values)
    inside = f"<methodName>{method}</methodName><params>{params}</params>"
    return f"<?xml version='1.0'?><methodCall>{inside}</methodCall>".encode()


BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>"


@pytest.mark.parametrize(
    "body",
    [
        f"<?xml version='1.0'?>{BOMB}<methodCall><methodName>&b;</methodName></methodCall>".encode(),
        b"<!doctype html><html/>",
        b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><x/>",
        f"<?xml version='1.0' encoding='utf-16'?>{BOMB}<methodCall/>".encode("utf-16"),
        f"<?xml version='1.0' encoding='utf-16'?>{BOMB}<methodCall/>".encode("utf-16-be"),
    ],
)
def test_xml_with_a_document_type(house: Index, body: bytes) -> None:
    """400 in every encoding: entities are never expanded, nothing is ever fetched."""
    status, text = call(house, body)
    assert status == 400
    assert text in {"the XML has a document type, which is not allowed", "the body is not an XML-RPC call"}
    assert ("document type" in text) == (b"doctype html" not in body)


def test_xml_that_is_too_large(house: Index) -> None:
    """413 over 64 KiB."""
    body = method_call("<string>" + "x" * 70_000 + "</string>")
    assert call(house, body) == (413, "the body is larger than 65536 bytes")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not xml",
        b"\xff\xfe\x00",
        b"<methodCall>",
        b"<?xml version='1.0' encoding='utf-7'?><methodCall/>",
        method_call("<int>x</int>"),
        method_call("<bigdecimal>x</bigdecimal>"),
        method_call("<struct><member><name>a</name></member></struct>"),
        b"<methodResponse><fault><value><struct/></value></fault></methodResponse>",
    ],
)
def test_xml_that_is_no_call(house: Index, body: bytes) -> None:
    """400 with one sentence, whatever the reader of XML thought of it."""
    assert call(house, body) == (400, "the body is not an XML-RPC call")


def test_an_unknown_method(house: Index) -> None:
    """200 with fault -32601, as XML-RPC wants it."""
    for path in ("/pypi", "/pypi/"):
        status, text = call(house, method_call(method="system.listMethods"), path)
        assert status == 200
        assert "<int>-32601</int>" in text
        assert "<string>method 'system.listMethods' is not known; the only one is 'search'</string>" in text


STRUCT = "<struct><member><name>name</name><value>{}</value></member></struct>"


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("<string>acme</string>",),
        (STRUCT.format("acme"),),
        (STRUCT.format("acme"), "<string>xor</string>"),
        (STRUCT.format("acme"), "<string>or</string>", "<string>more</string>"),
        (STRUCT.format("<int>1</int>"), "<string>or</string>"),
        (STRUCT.format("<array><data><value><int>1</int></value></data></array>"), "<string>or</string>"),
        ("<nil/>", "<string>or</string>"),
    ],
)
def test_wrong_arguments_of_search(house: Index, values: tuple[str, ...]) -> None:
    """200 with fault -32602."""
    status, text = call(house, method_call(*values))
    assert status == 200
    assert "<int>-32602</int>" in text
    assert "<string>search takes a struct of lists of words and the operator 'or' or 'and'</string>" in text
