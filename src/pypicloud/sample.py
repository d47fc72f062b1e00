"""The commented ini file of a new server.

``ppc-make-config`` and the first ``pypicloud serve`` write it. Its comments are the help of the declared
settings, and every setting that it leaves alone stands in it, commented out, with its default.
"""

from __future__ import annotations

import base64
import secrets
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pypicloud.declared import settings_in_use
from pypicloud.settings import SIZE, EnvironSettings, Required, Setting

#: What an ini file calls the directory that it is in.
HERE: Final = "%(here)s"

#: Settings that are accepted for the sake of existing files only: no new file names them.
_LEFT_OUT: Final = frozenset({"db.graceful_reload"})

_HEAD: Final = """\
# The settings of a PyPICloud package index.
#
# A line that begins with # is a comment. The settings that are commented out have their defaults.
# An environment variable beats this file; its name is PPC_ and the key in capitals, with every dot as an
# underscore: PPC_PYPI_FALLBACK. Only what begins with user., group. and package. is read from here alone.
# %(here)s is the directory of this file. A percent sign is written %%.
#
# After a change, `pypicloud check-config FILE` tells whether the server will start with it.

[app:main]
use = egg:pypicloud
"""

_WAITRESS: Final = """\
# The server that `pserve FILE` starts. `pypicloud serve FILE` does not read this section.
[server:main]
use = egg:waitress#main
host = {host}
port = {port}
"""

_UWSGI: Final = """\
# The server that `uwsgi --ini-paste-logged FILE` starts. `pypicloud serve FILE` does not read this section.
[uwsgi]
paste = config:%p
paste-logger = %p
master = true
processes = 20
reload-mercy = 15
worker-reload-mercy = 15
max-requests = 1000
enable-threads = true
http = 0.0.0.0:8080
"""

_CONSOLE_LOG: Final = """\
# What is logged goes to standard error, as Python's logging.config describes.
[loggers]
keys = root, botocore, pypicloud

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

[logger_pypicloud]
level = {level}
qualname = pypicloud
handlers =

[logger_botocore]
level = WARN
qualname = botocore
handlers =

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic
"""

_FILE_LOG: Final = """\
# What is logged goes to a file, as Python's logging.config describes.
[loggers]
keys = root

[handlers]
keys = file

[formatters]
keys = generic

[logger_root]
level = WARN
handlers = file

[handler_file]
class = handlers.RotatingFileHandler
args = ('/var/log/pypicloud.log', 'a', 1000000, 5)
level = NOTSET
formatter = generic
"""

_LOG_FORMAT: Final = """
[formatter_generic]
format = %(levelname)s %(asctime)s [%(name)s] %(message)s
"""


@dataclass(frozen=True)
class Purpose:
    """What a file is for: the column of the table in compat.md 6."""

    server: str
    log: str = _CONSOLE_LOG.format(level="DEBUG")
    read: str = "everyone"
    write: str | None = "authenticated"
    directory: str = HERE
    reload_templates: bool = False
    is_secure: bool = False


PURPOSES: Final[Mapping[str, Purpose]] = {
    "dev": Purpose(_WAITRESS.format(host="0.0.0.0", port=6543), reload_templates=True),  # noqa: S104 - documented
    "test": Purpose(_WAITRESS.format(host="0.0.0.0", port=6543)),  # noqa: S104 - documented
    "prod": Purpose(_UWSGI, _FILE_LOG, "authenticated", None, is_secure=True),
    "docker": Purpose(f"{_UWSGI}uid = pypicloud\ngid = pypicloud\n", directory="/var/lib/pypicloud"),
    "serve": Purpose(
        _WAITRESS.format(host="127.0.0.1", port=8080), _CONSOLE_LOG.format(level="INFO"), "authenticated", None
    ),
}


def render_config(
    purpose: str,
    *,
    admin: str,
    password_hash: str,
    directory: str | None = None,
    storage: Mapping[str, str] | None = None,
    fallback: str | None = None,
) -> str:
    """The text of an ini file for one of ``PURPOSES``.

    ``directory`` is where packages and database lie; it may begin with ``%(here)s``. ``storage`` are the
    settings of a storage that is not the file storage. New keys for the web login are made every time.
    """
    kind = PURPOSES[purpose]
    place = _escaped(directory) if directory is not None else kind.directory
    values = {
        "pypi.default_read": kind.read,
        "pypi.storage": "file",
        "storage.dir": f"{place}/packages",
        "db.url": f"sqlite:///{place}/db.sqlite",
        "auth.admins": _escaped(admin),
        f"user.{admin}": _escaped(password_hash),
        "session.encrypt_key": _new_key(),
        "session.validate_key": _new_key(),
        "session.secure": str(kind.is_secure),
        "session.invalidate_corrupt": "true",
        "pyramid.reload_templates": str(kind.reload_templates),
        "pyramid.debug_authorization": "false",
        "pyramid.debug_notfound": "false",
        "pyramid.debug_routematch": "false",
        "pyramid.default_locale_name": "en",
    }
    if kind.write is not None:
        values["pypi.default_write"] = kind.write
    if fallback is not None:
        values["pypi.fallback"] = fallback
    if storage is not None:
        del values["storage.dir"]
        values |= {key: _escaped(value) for key, value in storage.items()}
    return "\n".join([_HEAD, *_application(values), f"\n{kind.server}", kind.log + _LOG_FORMAT])


def _application(values: dict[str, str]) -> Iterator[str]:
    """The lines of ``[app:main]``: the groups of settings, each with its help and its value or default."""
    groups = settings_in_use(EnvironSettings(values, env={}))
    rest = dict(values)
    for title, settings in groups:
        yield f"###\n# {title}\n###\n"
        for setting in settings:
            if not setting.deprecated and setting.key not in _LEFT_OUT:
                yield _entry(setting, rest)
        if title == "Backends":
            # The settings of a storage that is not here are nobody's; they follow the line that chooses it.
            foreign = [key for key in rest if key.startswith("storage.") and not _is_declared(key, groups)]
            yield from (f"{key} = {rest.pop(key)}\n" for key in foreign)


def _is_declared(key: str, groups: list[tuple[str, tuple[Setting[Any], ...]]]) -> bool:
    return any(setting.key == key for _, settings in groups for setting in settings)


def _entry(setting: Setting[Any], values: dict[str, str]) -> str:
    """A setting with its help, taken out of the values; a family with all its members."""
    comment = textwrap.fill(setting.help, 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    if setting.key.endswith("*"):
        members = [key for key in values if key.startswith(setting.key[:-1])]
        lines = [f"{key} = {values.pop(key)}" for key in members]
    elif setting.key in values:
        lines = [f"{setting.key} = {values.pop(setting.key)}"]
    else:
        lines = [f"#{setting.key} = {spelled(setting)}".rstrip()]
    return "\n".join([comment, *lines, ""])


def spelled(setting: Setting[Any]) -> str:
    """A setting's default as an ini file spells it; ``...`` for what has none."""
    value = setting.default
    if value is None or isinstance(value, Required):
        return "..."
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return _escaped(" ".join(map(str, value)))
    if setting.kind is SIZE:
        return _size(value)
    return _escaped(str(value))


def _size(size: int) -> str:
    for unit, letter in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def _escaped(value: str) -> str:
    """A value with its percent signs doubled, save in the name of the file's directory."""
    start = HERE if value.startswith(HERE) else ""
    return start + value[len(start) :].replace("%", "%%")


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
