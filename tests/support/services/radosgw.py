"""A Ceph Object Gateway: a server of S3 that others run in earnest, on a store in memory."""

from __future__ import annotations

import itertools
import shutil
import socket
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from support.live import LOOPBACK
from support.services.s3 import S3Service, fetch, plain, policy
from support.services.service import Process, find

#: Where the servers of the store find a port each; other services look above.
_STORE_PORTS: Final = range(16000, 20000)

#: What all servers and tools of a cluster read.
_CONFIGURATION: Final = """
[global]
fsid={cluster}
mon host=v2:{loopback}:{port}/0
public addr={loopback}
cluster addr={loopback}
ms bind port min={ports.start}
ms bind port max={ports.stop}
keyring={directory}/keyring
run dir={directory}
admin socket={directory}/$name.$pid.asok
log file=
log to stderr=true
mon data={directory}/monitor
mon allow pool size one=true
# A full disk is no reason to end.
mon data avail crit=0
mon cluster log file=
mon cluster log to stderr=false
# Without these two the first start takes twelve seconds.
paxos propose interval=0.01
paxos min wait=0.01
osd objectstore=memstore
memstore device bytes=17179869184
osd crush chooseleaf type=0
osd pool default size=1
osd pool default min size=1
osd pool default pg num=1
osd pool default pgp num=1
osd pool default pg autoscale mode=off
# A gateway that was killed is forgotten soon: until then new buckets wait for its answer.
osd client watch timeout=2

[client.rgw.gateway]
rgw data={directory}
# Without tcp_nodelay every answer takes 44 ms.
rgw frontends=beast endpoint={loopback}:{gateway} tcp_nodelay=1
rgw thread pool size=64
rgw dynamic resharding=false
debug rgw=0
# What is deleted gives its memory back soon.
rgw gc obj min wait=1
rgw gc processor period=5
rgw crypt require ssl=false
rgw crypt s3 kms backend=testing
rgw crypt s3 kms encryption keys=a-key=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=
"""


_ROOT: Final = "root"


class _Monitor(Process):
    """What knows where everything in the cluster is; its directory has the configuration and the keys."""

    name: ClassVar[str] = "Ceph monitor"

    def __init__(self, gateway: int) -> None:
        self._program = find("ceph-mon", "ceph-mon")
        self._tools = {name: find(name, "ceph-common") for name in ("ceph", "ceph-authtool", "monmaptool")}
        super().__init__()
        self.configuration = self.directory / "ceph.conf"
        self._gateway = gateway

    def prepare(self) -> None:
        cluster = str(uuid.uuid4())
        self.configuration.write_text(
            _CONFIGURATION.format(
                cluster=cluster,
                loopback=LOOPBACK,
                port=self.port,
                ports=_STORE_PORTS,
                directory=self.directory,
                gateway=self._gateway,
            )
        )
        keyring, monitors = self.directory / "keyring", self.directory / "monitors"
        allowed = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"]
        for name in ("mon.", "client.admin", "client.rgw.gateway", "osd.0"):
            create = [] if keyring.exists() else ["--create-keyring"]
            self.run(self._tools["ceph-authtool"], *create, keyring, "--name", name, "--gen-key", *allowed)
        address = f"[v2:{LOOPBACK}:{self.port}]"
        self.run(self._tools["monmaptool"], "--create", "--fsid", cluster, "--addv", "a", address, monitors)
        self.run(*self.command(), "--mkfs", "--monmap", monitors, "--keyring", keyring)

    def command(self) -> list[str]:
        return [self._program, "--conf", str(self.configuration), "--id", "a", "--foreground"]

    def probe(self) -> None:
        with socket.create_connection((LOOPBACK, self.port), timeout=5):
            pass

    def admit(self) -> str:
        """The name of a new member of the cluster that will keep data."""
        member = str(uuid.uuid4())
        self.run(self._tools["ceph"], "--conf", self.configuration, "--connect-timeout", "30", "osd", "new", member)
        return member


class _Store(Process):
    """What keeps the bytes, in memory."""

    name: ClassVar[str] = "Ceph store"

    def __init__(self, monitor: _Monitor) -> None:
        self._program = find("ceph-osd", "ceph-osd")
        super().__init__()
        self._monitor = monitor

    def prepare(self) -> None:
        self.run(*self.command(), "--mkfs", "--osd-uuid", self._monitor.admit())

    def command(self) -> list[str]:
        data = str(self.directory / "data")
        (self.directory / "data").mkdir(exist_ok=True)
        configuration = str(self._monitor.configuration)
        return [self._program, "--conf", configuration, "--id", "0", "--osd-data", data, "--foreground"]

    def probe(self) -> None:
        """Whether it has work to do shows when the gateway gets to it."""


class RadosGW(S3Service, Process):
    """A Ceph Object Gateway in a cluster of its own.

    Whatever is done to it is done to the gateway alone: what it was given stays in the store until :meth:`remove`.
    """

    name: ClassVar[str] = "Ceph Object Gateway"

    def __init__(self) -> None:
        self._program = find("radosgw", "radosgw")
        self._admin = find("radosgw-admin", "radosgw")
        super().__init__()
        self._monitor = _Monitor(self.port)
        self._store = _Store(self._monitor)
        self._numbers = itertools.count(1)
        self._has_root = False

    def prepare(self) -> None:
        self._monitor.start()
        self._store.start()

    def command(self) -> list[str]:
        configuration = str(self._monitor.configuration)
        return [self._program, "--conf", configuration, "--name", "client.rgw.gateway", "--foreground"]

    def probe(self) -> None:
        fetch(self.url)

    def start(self) -> None:
        super().start()
        if not self._has_root:
            self._create_user(_ROOT, "--caps", "user-policy=*")
            self._has_root = True

    def remove(self) -> None:
        for process in (self, self._store, self._monitor):
            process.kill()
            shutil.rmtree(process.directory, ignore_errors=True)

    def log_tail(self) -> str:
        return "\n".join([self._monitor.log_tail(), self._store.log_tail(), super().log_tail()])

    def credentials(self) -> tuple[str, str]:
        return _ROOT, f"{_ROOT}-secret"

    def client(self) -> Any:
        """A client of the user who may do everything."""
        return plain(self.settings())

    def user(self, settings: Mapping[str, str], *statements: Mapping[str, Any]) -> dict[str, str]:
        """The settings with the credentials of a new user, who may do what a policy of these statements allows."""
        name = f"user{next(self._numbers)}"
        self._create_user(name)
        plain(settings, "iam").put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=policy(*statements))
        return {**settings, "storage.aws_access_key_id": name, "storage.aws_secret_access_key": f"{name}-secret"}

    def _create_user(self, name: str, *more: str) -> None:
        words = ["--uid", name, "--display-name", name, "--access-key", name, "--secret-key", f"{name}-secret", *more]
        self.run(self._admin, "--conf", self._monitor.configuration, "user", "create", *words)
