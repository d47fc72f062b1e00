"""Storage backends: where the bytes of package files are kept."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pypicloud import plugins
from pypicloud.settings import EnvironSettings
from pypicloud.storage.base import IStorage

if TYPE_CHECKING:
    from pypicloud.storage.azure_blob import AzureBlobStorage
    from pypicloud.storage.files import FileStorage
    from pypicloud.storage.gcs import GoogleCloudStorage
    from pypicloud.storage.s3 import CloudFrontS3Storage, S3Storage

#: The built-in backends by short name.
BACKENDS: Final = {
    "file": "pypicloud.storage.files:FileStorage",
    "s3": "pypicloud.storage.s3:S3Storage",
    "cloudfront": "pypicloud.storage.s3:CloudFrontS3Storage",
    "gcs": "pypicloud.storage.gcs:GoogleCloudStorage",
    "azure-blob": "pypicloud.storage.azure_blob:AzureBlobStorage",
}

__all__ = [
    "BACKENDS",
    "AzureBlobStorage",
    "CloudFrontS3Storage",
    "FileStorage",
    "GoogleCloudStorage",
    "IStorage",
    "S3Storage",
    "get_storage_impl",
]


def get_storage_impl(settings: EnvironSettings) -> Callable[[Any], IStorage]:
    """The configured storage: a callable that takes the request, or None, and makes the backend for it."""
    backend = plugins.resolve(plugins.STORAGE, settings, BACKENDS, IStorage)
    return functools.partial(backend, **backend.configure(settings))


def __getattr__(name: str) -> Any:
    """A backend's class by its documented name, imported when it is first asked for."""
    for target in BACKENDS.values():
        module, _, class_name = target.partition(":")
        if class_name == name:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
