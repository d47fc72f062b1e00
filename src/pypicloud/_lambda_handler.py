"""The function that AWS Lambda calls when the bucket changes (compat.md 7).

In the bundle this file is ``lambda_script.py``, and its settings are in the environment.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from pypicloud.cache import get_cache_impl
from pypicloud.cache.base import ICache
from pypicloud.events import follow, keys
from pypicloud.settings import EnvironSettings

#: The variable with the settings as a JSON object.
VARIABLE: Final = "PYPICLOUD_SETTINGS"


@functools.cache
def _cache_factory() -> Callable[[Any], ICache]:
    # Lambda itself gives the records somewhere to go, and lets only warnings through.
    logging.getLogger("pypicloud").setLevel(logging.INFO)
    return get_cache_impl(EnvironSettings(json.loads(os.environ[VARIABLE]), env={}))


def handle_s3_event(event: Mapping[str, Any], context: Any) -> str:  # noqa: ARG001 - as Lambda calls it
    """Make the cache agree with the bucket as to the objects of an event; what was done.

    Lambda repeats an event at which anything is raised.
    """
    return str(follow(_cache_factory()(None), keys(event)))
