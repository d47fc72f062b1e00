"""The commands, one module each; the documented function names are here."""

from __future__ import annotations

from pypicloud.scripts.gen_password import gen_password
from pypicloud.scripts.make_config import bucket_validate, make_config, storage_account_name_validate
from pypicloud.scripts.migrate import migrate_packages
from pypicloud.scripts.prompts import prompt, prompt_option, promptyn, wrapped_input

__all__ = [
    "bucket_validate",
    "gen_password",
    "make_config",
    "migrate_packages",
    "prompt",
    "prompt_option",
    "promptyn",
    "storage_account_name_validate",
    "wrapped_input",
]
