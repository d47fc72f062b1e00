"""How a command fails: one line on standard error and an exit status, no trace, for what the user can put right."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pypicloud.errors import PypicloudError, SettingError

#: The exit status of a command that was stopped with Ctrl-C, as shells have it.
INTERRUPTED: Final = 130


def told(name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a command tell of its failures: exit status 1 and one line that begins with the command's name."""

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def telling(argv: Sequence[str] | None = None) -> int:
            try:
                return command(argv)
            except PypicloudError as error:
                print(f"{name}: {error.message}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print(file=sys.stderr)
                return INTERRUPTED
            except BrokenPipeError:
                # Who read our output has enough. Python would complain once more while it flushes at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1

        return telling

    return decorate


@contextmanager
def explained(arguments: argparse.Namespace, failed: str = "") -> Iterator[None]:
    """Give whatever a backend raises the form that is told, after what has failed; ``--traceback`` lets it through."""
    try:
        yield
    except SettingError:
        raise
    except Exception as error:
        if arguments.traceback:
            raise
        # A backend may be anybody's, and raise anything.
        reason = in_words(error) if isinstance(error, PypicloudError) else f"{type(error).__name__}: {error}"
        raise PypicloudError(f"{failed}{reason}") from error


def in_words(error: PypicloudError) -> str:
    """What is wrong, with what a backend says to those who run the server, and not to clients."""
    reason = "" if isinstance(error, SettingError) else getattr(error, "reason", "")
    return f"{error.message}: {reason}" if reason else error.message
