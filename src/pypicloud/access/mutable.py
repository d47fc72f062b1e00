"""IMutableAccessBackend: users, groups and permissions that can be changed while the server runs.

Here are the rules that hold wherever they are kept: how somebody signs up, what a password may be, how data of
another backend are taken in. A plug-in overrides the methods that raise ``NotImplementedError`` here.
"""

from __future__ import annotations

from typing import Any

from pypicloud.access import dumps, tokens
from pypicloud.access.backend import IAccessBackend
from pypicloud.errors import BadRequest


class IMutableAccessBackend(IAccessBackend):
    """Base class for access backends that can change user/group permissions.

    To override, besides what :class:`IAccessBackend` lists: ``_register``, ``_set_password_hash``,
    ``pending_users``, ``approve_user``, ``delete_user``, ``set_user_admin``, ``edit_user_group``,
    ``create_group``, ``delete_group``, ``edit_user_permission``, ``edit_group_permission``,
    ``allow_register``, ``set_allow_register``. Each is a transaction of its own.
    """

    mutable = True

    def need_admin(self) -> bool:
        """Find out if there are any admin users: True if there is none."""
        return not any(user["admin"] for user in self.user_data())

    def allow_register_token(self) -> bool:
        """Check if the backend allows registration via tokens."""
        return bool(self.signing_key)

    def register(self, username: str, password: str) -> None:
        """Register a new user, who is then pending admin approval.

        Raises :class:`BadRequest` for a name that exists, is pending or has a colon, and for an empty password.
        """
        if not username or ":" in username:
            raise BadRequest(f"The user name {username!r} is empty or has a colon; choose another")
        taken = {user["username"] for user in self.user_data()}.union(self.pending_users())
        if username in taken:
            raise BadRequest(f"The user name {username!r} is taken; choose another")
        self._register(username, self._hash(password))

    def edit_user_password(self, username: str, password: str) -> None:
        """Change a user's password. Raises :class:`BadRequest` for an empty one."""
        self._set_password_hash(username, self._hash(password))

    def _hash(self, password: str) -> str:
        if not password:
            raise BadRequest("The password is empty; choose another")
        try:
            return str(self.pwd_context.hash(password))
        except ValueError as error:
            raise BadRequest(
                "The password is too long or has characters that cannot be used; choose another"
            ) from error

    def get_signup_token(self, username: str) -> str:
        """Create a signup token. Raises :class:`BadRequest` without ``auth.signing_key`` or for an unusable name."""
        if not self.signing_key:
            raise BadRequest("There are no signup tokens on this server: auth.signing_key is not set")
        try:
            return tokens.issue(self.signing_key, username)
        except ValueError as error:
            raise BadRequest(f"No signup token: {error}") from error

    def validate_signup_token(self, token: str) -> str | None:
        """The user name of a token that is sound and not expired, else None."""
        return tokens.check(self.signing_key, token, self.token_expiration) if self.signing_key else None

    def _register(self, username: str, password: str) -> None:
        """Store a new pending user; ``password`` is the hash."""
        raise NotImplementedError

    def _set_password_hash(self, username: str, password_hash: str) -> None:
        """Replace a user's password hash."""
        raise NotImplementedError

    def _get_pending_hash(self, username: str) -> str | None:
        """The password hash of a pending user."""
        return self._get_password_hash(username)

    def pending_users(self) -> list[str]:
        """Retrieve a list of all users pending admin approval."""
        raise NotImplementedError

    def approve_user(self, username: str) -> None:
        """Mark a user as approved by the admin."""
        raise NotImplementedError

    def delete_user(self, username: str) -> None:
        """Delete a user, with memberships and permissions; a missing one counts as gone."""
        raise NotImplementedError

    def set_user_admin(self, username: str, admin: bool) -> None:
        """Grant or revoke admin permissions for a user."""
        raise NotImplementedError

    def edit_user_group(self, username: str, group: str, add: bool) -> None:
        """Add or remove a user to/from a group."""
        raise NotImplementedError

    def create_group(self, group: str) -> None:
        """Create a new group."""
        raise NotImplementedError

    def delete_group(self, group: str) -> None:
        """Delete a group, with memberships and permissions; a missing one counts as gone."""
        raise NotImplementedError

    def edit_user_permission(self, package_name: str, username: str, perm: str, add: bool) -> None:
        """Grant or revoke a permission (``read`` or ``write``) for a user on a package."""
        raise NotImplementedError

    def edit_group_permission(self, package_name: str, group: str, perm: str, add: bool) -> None:
        """Grant or revoke a permission (``read`` or ``write``) for a group on a package."""
        raise NotImplementedError

    def allow_register(self) -> bool:
        """Check if the backend allows registration."""
        raise NotImplementedError

    def set_allow_register(self, allow: bool) -> None:
        """Allow or disallow user registration."""
        raise NotImplementedError

    def dump(self) -> dict[str, Any]:
        """Dump all of the access control data to a universal format, pending users included."""
        data = super().dump()
        data["pending_users"] = [
            {"username": username, "password": self._get_pending_hash(username)} for username in self.pending_users()
        ]
        return data

    def load(self, data: Any) -> Any:
        """Idempotently load universal access control data: merged in, nothing is ever taken away but admin flags."""
        return dumps.load(self, data)
