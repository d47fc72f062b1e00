"""Stand-ins for Amazon's services: MiniStack, and Moto as a second opinion."""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from support.live import LOOPBACK
from support.services.s3 import REGION, S3Service, fetch, plain, policy
from support.services.service import ROOT, Process


class Emulator(S3Service, Process):
    """A program of ``.make/emulators`` that speaks the protocols of Amazon's services."""

    #: Whose environment the program is in, what it is called there, and where it answers once it is ready.
    environment_name: ClassVar[str]
    program: ClassVar[str]
    health: ClassVar[str]

    def __init__(self) -> None:
        self._program = ROOT / ".make" / "emulators" / self.environment_name / "bin" / self.program
        if not self._program.exists():
            raise AssertionError(f"there is no {self.name} here: run `make emulators`")
        super().__init__()
        self._numbers = itertools.count(1)

    def environment(self) -> dict[str, str]:
        # Nothing is to be left behind, and no containers of the developer are to be touched.
        return {
            **super().environment(),
            "TMPDIR": str(self.directory),
            "DOCKER_HOST": f"unix://{self.directory}/no-docker",
        }

    def probe(self) -> None:
        fetch(f"{self.url}{self.health}")

    def cache_settings(self) -> dict[str, str]:
        """What a DynamoDB cache without any table yet has in its ini."""
        access_key, secret = self.credentials()
        return {
            "db.region_name": REGION,
            "db.host": LOOPBACK,
            "db.port": str(self.port),
            "db.aws_access_key_id": access_key,
            "db.aws_secret_access_key": secret,
            "db.namespace": f"test{next(self._numbers)}-",
        }

    def credentials(self) -> tuple[str, str]:
        return self.access_key(), "test"

    def access_key(self) -> str:
        """The access key of somebody who may do everything in an account."""
        return "test"


class MiniStack(Emulator):
    """MiniStack: checks signatures and rights. What it keeps outlives :meth:`stop`; :meth:`kill` loses it."""

    name: ClassVar[str] = "MiniStack"
    environment_name: ClassVar[str] = "ministack"
    program: ClassVar[str] = "ministack"
    health: ClassVar[str] = "/_ministack/health"

    def __init__(self) -> None:
        super().__init__()
        self._state = self.directory / "state"

    def command(self) -> list[str]:
        return [str(self._program)]

    def kill(self) -> None:
        super().kill()
        # What an earlier stop() kept would come back otherwise, and be older than what was lost.
        shutil.rmtree(self._state, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "GATEWAY_PORT": str(self.port),
            # Without it the whole network could come in.
            "BIND_HOST": LOOPBACK,
            "AUTH": "true",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self._state),
        }

    def access_key(self) -> str:
        """The access key of a new account: an account is what has a key of twelve digits."""
        return str(secrets.randbelow(9 * 10**11) + 10**11)

    def user(self, settings: Mapping[str, str], *statements: Mapping[str, Any]) -> dict[str, str]:
        """The settings with the credentials of a new user, who may do what a policy of these statements allows."""
        name = f"user{next(self._numbers)}"
        iam = plain(settings, "iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=policy(*statements))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            **settings,
            "storage.aws_access_key_id": key["AccessKeyId"],
            "storage.aws_secret_access_key": key["SecretAccessKey"],
        }


class Moto(Emulator):
    """Moto: one account, no checks of signatures, and nothing is kept when it ends."""

    name: ClassVar[str] = "Moto"
    environment_name: ClassVar[str] = "moto"
    program: ClassVar[str] = "moto_server"
    health: ClassVar[str] = "/moto-api/"

    def command(self) -> list[str]:
        launcher = Path(__file__).with_name("quick_moto.py")
        return [str(self._program.with_name("python")), str(launcher), "--host", LOOPBACK, "--port", str(self.port)]
