"""The ini file: read as pserve reads it, and what is wrong with one in a sentence."""

from __future__ import annotations

import configparser
import importlib.metadata
from collections.abc import Mapping

from pypicloud.errors import SettingError
from pypicloud.settings import EnvironSettings


def load_ini(path: str, section: str = "main", variables: Mapping[str, str] | None = None) -> EnvironSettings:
    """The settings of an ini file's ``[app:<section>]``, as pserve hands them to the application.

    PasteDeploy reads the file, so ``%(here)s``, ``[DEFAULT]``, ``%%``, filters and pipelines behave as
    they do there (compat.md 1.1). ``variables`` are pserve's ``NAME=value`` arguments. Raises
    :class:`SettingError` with one sentence on what is wrong with the file.
    """
    from paste.deploy import loadwsgi  # Only the commands read a file themselves.

    given = dict(variables or {})
    try:
        loader = loadwsgi.ConfigLoader(path)
        loader.update_defaults(given, overwrite=False)
        context = loader.get_context(loadwsgi.APP, section, given)
    except OSError as error:
        raise SettingError(path, f"cannot be read: {error.strerror or error}") from error
    except (configparser.Error, LookupError, ImportError, AttributeError, ValueError) as error:
        raise SettingError(path, _broken_ini(error, section)) from error
    while context.object_type in {loadwsgi.PIPELINE, loadwsgi.FILTER_APP, loadwsgi.FILTER_WITH}:
        context = context.app_context if context.object_type is loadwsgi.PIPELINE else context.next_context
    return EnvironSettings({**context.global_conf, **context.local_conf})


def _broken_ini(error: Exception, section: str) -> str:
    """What is wrong with an ini file, without quoting its lines, which may hold secrets."""
    match error:
        case UnicodeDecodeError():
            reason = "is not a text file in UTF-8"
        case configparser.MissingSectionHeaderError():
            reason = f"line {error.lineno} stands before the first [section]"
        case configparser.ParsingError():
            reason = f"line {error.errors[0][0]} is neither a [section] nor key = value"
        case configparser.InterpolationMissingOptionError():
            reason = f"{error.option} in [{error.section}] uses %({error.reference})s, which is not set"
        case configparser.InterpolationError():
            reason = f"{error.option} in [{error.section}] has a percent sign of no %(name)s; write %% for one"
        case importlib.metadata.PackageNotFoundError():
            reason = f"uses the Python package {error.name!r}, which is not installed"
        case LookupError() if str(error).startswith("No section"):
            reason = f"has no [app:{section}] section"
        case LookupError() if str(error).startswith("No loader"):
            reason = f"has no line 'use = egg:pypicloud' in [app:{section}]"
        case _:
            reason = " ".join(str(error).split())
    return reason
