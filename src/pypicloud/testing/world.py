"""The small fixed world of the access contract, and its table of answers.

The world is in the format that access control data moves house in (compat.md 4.9), so any mutable backend
can load it, and the others are given it in their own way.
"""

from __future__ import annotations

from typing import Any, Final

#: The passwords are ``<user>-secret``; the hashes, of five different schemes, have few rounds to be quick.
WORLD: Final[dict[str, Any]] = {
    "allow_register": False,
    "version": "1.3.12",
    "groups": {"devs": ["alice", "bob"], "ops": ["bob"], "empty": []},
    "users": [
        {
            "username": "root",
            "admin": True,
            "password": "$pbkdf2-sha256$10$aC2FMOb8f8.ZE0LIuTemVA$ViZiH313b9AQXhOZVZI43Ofdc7ZCxBATnSfhqji0q2g",
        },
        {
            "username": "alice",
            "admin": False,
            "password": "$6$rounds=1000$hzmN1e.hi.FsAcqp$KmDF/fx5P76t0ErqG9peS4/u0kUK0AnkT6Yoy3Ge1Vt"
            "unz/bmJcrNQoVnzVNc/CVz0.ksedw22nEGXbD78JyI/",
        },
        {
            "username": "bob",
            "admin": False,
            "password": "$5$rounds=1000$CLsaz0.7l1q3HE87$3fD0/y.OTqRjnR6kK7NvxwKWnFrs.trIfx9V8txNRT2",
        },
        {
            "username": "carol",
            "admin": False,
            "password": "$pbkdf2-sha512$10$S0nJuTfm3Dtn7L33Pkfo3Q$.PS0KNA8b./ouBsU4y.gLo/eLjOZHU4s2954dDnFpRgZmgX"
            "EaaDAVA3idShpTvGdFWtbT2A3ruYXPBds.dJYEg",
        },
        {
            "username": "dotty.smith",
            "admin": False,
            "password": "$2b$04$c6hnTPDZefKXKm3.1irZAOx4JlFCFwLd8M0RIHgKTga23NIxnd9Qy",
        },
        {"username": "eve", "admin": False, "password": "in plain text"},
    ],
    "pending_users": [
        {
            "username": "pat",
            "password": "$5$rounds=1000$Z4fB15JC5IJZsoA.$pjIK9sn/Ly.0WIszA4LTk2a3ZPmhcCiuPwGg0TmY1t5",
        },
    ],
    "packages": {
        "users": {
            "private-lib": {"alice": ["read", "write"]},
            "drop-box": {"carol": ["write"]},
            "zope.interface": {"dotty.smith": ["read", "write"]},
        },
        "groups": {
            "open_lib": {"everyone": ["read"], "devs": ["read", "write"]},
            "team-lib": {"devs": ["read"], "ops": ["read", "write"]},
            "Members.Only": {"authenticated": ["read"]},
            "admins-only": {"admin": ["read"]},
            "sealed": {"ops": []},
        },
    },
}

#: What the world is configured with.
WORLD_SETTINGS: Final = {
    "pypi.default_read": "authenticated",
    "pypi.default_write": "ops",
    "pypi.cache_update": "devs",
    "pypi.allow_overwrite_groups": "ops admin",
    "pypi.allow_delete_groups": "authenticated",
    "pypi.disallow_fallback": "Team_Lib",
    "auth.scheme": "sha256_crypt",
    "auth.rounds": "1000",
    "auth.signing_key": "abc123",
}

#: Who may read (r) and write (w) what. The last two projects have no entries, and the last one no files either.
ANSWERS: Final = """
               anonymous  carol  alice  bob  dotty.smith  root
open-lib       r          r      rw     rw   r            rw
private-lib    -          -      rw     -    -            rw
team-lib       -          -      r      rw   -            rw
drop-box       -          w      -      -    -            rw
members-only   -          r      r      r    r            rw
admins-only    -          -      -      -    -            rw
zope-interface -          -      -      -    rw           rw
sealed         -          -      -      -    -            rw
plain-lib      -          r      r      rw   r            rw
no-such-lib    -          r      r      rw   r            rw
"""

#: The projects that have entries of their own.
EXPLICIT: Final = frozenset(
    {
        "open-lib",
        "private-lib",
        "team-lib",
        "drop-box",
        "members-only",
        "admins-only",
        "zope-interface",
        "sealed",
    }
)

#: Who may have files cached, overwritten and deleted.
GROUP_ANSWERS: Final = {
    "can_update_cache": {"alice", "bob"},
    "can_overwrite_package": {"bob", "root"},
    "can_delete_package": {"carol", "alice", "bob", "dotty.smith", "root"},
}

#: The principals of each caller (compat.md 4.6).
PRINCIPALS: Final = {
    None: {"system.Everyone"},
    "carol": {"system.Everyone", "system.Authenticated", "user:carol"},
    "alice": {"system.Everyone", "system.Authenticated", "user:alice", "group:devs"},
    "bob": {"system.Everyone", "system.Authenticated", "user:bob", "group:devs", "group:ops"},
    "dotty.smith": {"system.Everyone", "system.Authenticated", "user:dotty.smith"},
    "root": {"system.Everyone", "system.Authenticated", "user:root", "admin"},
}


def answers() -> dict[tuple[str | None, str], str]:
    """The table by caller (None for the anonymous one) and project: some of the letters ``r`` and ``w``."""
    head, *rows = (line.split() for line in ANSWERS.strip().splitlines())
    users = [None if name == "anonymous" else name for name in head]
    return {(user, row[0]): cell.strip("-") for row in rows for user, cell in zip(users, row[1:], strict=True)}
