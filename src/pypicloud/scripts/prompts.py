"""Questions to whoever runs a command: a person at a terminal, or a script through a pipe.

Questions go to standard error, so that standard output holds nothing but the result.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from pypicloud.errors import PypicloudError

#: What stands for a default where there is none: None is one.
NO_DEFAULT: Final = object()

_NO_ANSWER: Final = "there is no answer to {question!r}: standard input is at its end"


def wrapped_input(msg: str) -> str:
    """The line that is typed, or piped in, after a question. Raises :class:`PypicloudError` at the end of input."""
    print(msg, end="", file=sys.stderr, flush=True)
    try:
        return input()
    except EOFError:
        raise PypicloudError(_NO_ANSWER.format(question=msg.strip())) from None


def prompt(msg: str, default: Any = NO_DEFAULT, validate: Callable[[str], bool] | None = None) -> Any:
    """The answer to a question, asked until it is valid; an empty answer means the default, if there is one."""
    while True:
        answer = wrapped_input(f"{msg} ").strip()
        if not answer and default is not NO_DEFAULT:
            return default
        if answer and (validate is None or validate(answer)):
            return answer


def prompt_option(text: str, choices: Sequence[str], default: Any = NO_DEFAULT) -> str:
    """The one of several choices whose number, or name, is the answer; asked again until it is one."""
    while True:
        for number, choice in enumerate(choices, 1):
            print(f"[{number}] {choice}", file=sys.stderr)
        answer: str = prompt(text, default=default)
        if answer in choices:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(choices):
            return choices[int(answer) - 1]
        print("Invalid choice\n", file=sys.stderr)


def promptyn(msg: str, default: bool | None = None) -> bool:
    """Whether the answer is yes; asked until it is yes or no, or empty where there is a default."""
    marks = {True: "Y/n", False: "y/N", None: "y/n"}[default]
    while True:
        answer = wrapped_input(f"{msg} [{marks}] ").strip().lower()
        if answer in {"y", "yes"}:
            return True
        if answer in {"n", "no"}:
            return False
        if not answer and default is not None:
            return default


def prompt_password() -> str:
    """A password that was typed twice alike, unseen; from a pipe, two lines that are alike."""
    while True:
        password = read_secret("Password: ")
        if not password:
            print("The password must not be empty", file=sys.stderr)
        elif password == read_secret("Password: "):
            return password
        else:
            print("Passwords do not match!", file=sys.stderr)


def read_secret(msg: str) -> str:
    """A line that does not appear on the terminal; without a terminal, the next line of standard input."""
    if not sys.stdin.isatty():
        return wrapped_input(msg)
    try:
        return getpass.getpass(msg, stream=sys.stderr)
    except EOFError:
        raise PypicloudError(_NO_ANSWER.format(question=msg.strip())) from None


def read_password_line() -> str:
    """The password in the first line of standard input, without its line end and nothing else taken off."""
    line = sys.stdin.readline()
    password = line.removesuffix("\n").removesuffix("\r")
    if not password:
        raise PypicloudError("there is no password on standard input")
    return password
