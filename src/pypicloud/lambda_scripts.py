"""Helpers for syncing packages into the cache in AWS Lambda; the documented names (compat.md 7)."""

from __future__ import annotations

from pypicloud.scripts.lambda_bundle import build_lambda_bundle, make_virtualenv
from pypicloud.scripts.lambda_sync import create_sync_scripts

__all__ = ["build_lambda_bundle", "create_sync_scripts", "make_virtualenv"]
