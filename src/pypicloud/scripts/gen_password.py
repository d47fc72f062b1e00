"""``ppc-gen-password``: the hash of a password, for a ``user.<name>`` line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pypicloud.errors import PypicloudError
from pypicloud.scripts import prompts
from pypicloud.scripts.failures import told


@told("ppc-gen-password")
def gen_password(argv: Sequence[str] | None = None) -> int:
    """Generate a salted password."""
    from pypicloud.access import passwords  # --help needs no backends.

    parser = argparse.ArgumentParser(prog="ppc-gen-password", description="Print the salted hash of a password.")
    parser.add_argument("-i", action="store_true", help="read the password from the first line of standard input")
    parser.add_argument("-r", type=int, help="number of rounds; more is slower, for attackers too")
    parser.add_argument(
        "-s",
        choices=passwords.SCHEMES,
        default=passwords.DEFAULT_SCHEME,
        help="hashing scheme (default %(default)s)",
    )
    arguments = parser.parse_args(argv)
    try:
        context = passwords.get_pwd_context(arguments.s, arguments.r)
    except ValueError as error:
        parser.error(f"-r {arguments.r}: {error}")
    password = prompts.read_password_line() if arguments.i else prompts.prompt_password()
    try:
        print(context.hash(password))
    except ValueError as error:
        # What the library says is about the password, a null byte for example.
        raise PypicloudError(f"this password cannot be hashed: {error}") from error
    return 0
