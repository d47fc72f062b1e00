"""What the app is made of, top to bottom, like a table of contents.

Settings are checked, backends configured (access, then the cache, which configures the storage), the
shared things made, the edge and the URLs laid out, and the cache filled if it is empty.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from pypicloud import __version__, fallback, views
from pypicloud.access import get_access_impl
from pypicloud.access.options import DISALLOW_FALLBACK
from pypicloud.auth import REALM, Authenticator, PypicloudSecurityPolicy
from pypicloud.cache import get_cache_impl
from pypicloud.cache.base import CALCULATE_HASHES
from pypicloud.declared import check
from pypicloud.errors import PypicloudError
from pypicloud.fallback import Policy
from pypicloud.index import MAX_UPLOAD_SIZE
from pypicloud.locator import Upstream
from pypicloud.models import normalized
from pypicloud.outgoing import without_credentials
from pypicloud.pages import PAGE_CACHE_SIZE, Pages
from pypicloud.request import (
    CACHE_MAX_AGE,
    DEBUG,
    DOWNLOAD_URL,
    PACKAGE_MAX_AGE,
    RELOAD_TEMPLATES,
    STREAM_FILES,
    Application,
    PypicloudRequest,
    TrustedProxies,
    request_factory,
)
from pypicloud.route import ROUTES, Permission, Route
from pypicloud.settings import EnvironSettings

LOG: Final = logging.getLogger(__name__)


def make_app(settings: Mapping[str, Any]) -> Any:
    """The WSGI application for the values of an ini file."""
    config = Configurator(settings=dict(settings))
    config.include(set_up)
    return config.make_wsgi_app()


def set_up(config: Configurator) -> None:
    """Make a Pyramid configurator an index."""
    settings = _checked(EnvironSettings(config.registry.settings))
    application = _application(settings)
    config.registry.pypicloud = application
    config.registry.error_response = views.error_response
    _document_registry(config, application)
    config.add_directive("add_postfork_hook", _add_postfork_hook)
    config.set_request_factory(request_factory(application.trusted_proxies))
    config.set_security_policy(PypicloudSecurityPolicy())
    config.add_static_view(
        f"static/{__version__}", str(Path(__file__).parent / "static"), cache_max_age=CACHE_MAX_AGE.read(settings)
    )
    _lay_out_urls(config)
    application.cache_factory(None).reload_if_needed()
    _after_fork(config, application)


def _checked(settings: EnvironSettings) -> EnvironSettings:
    """The settings, with a warning for each oddity. Raises the first :class:`SettingError`, logs the others."""
    findings, errors = check(settings)
    for finding in findings:
        LOG.warning("setting %s %s", finding.key, finding.message)
    for error in errors[1:]:
        LOG.error("%s", error)
    if errors:
        raise errors[0]
    return settings


def _application(settings: EnvironSettings) -> Application:
    policy = _policy(settings)
    access_factory = get_access_impl(settings)
    cache_factory = get_cache_impl(settings)
    return Application(
        settings=settings,
        access_factory=access_factory,
        cache_factory=cache_factory,
        policy=policy,
        upstream=_upstream(settings),
        pages=Pages(PAGE_CACHE_SIZE.read(settings)),
        authenticator=Authenticator(),
        version=__version__,
        max_upload_size=MAX_UPLOAD_SIZE.read(settings),
        realm=REALM.read(settings),
        stream_files=STREAM_FILES.read(settings),
        package_max_age=PACKAGE_MAX_AGE.read(settings),
        files_are_immutable=not access_factory(None).allow_overwrite,
        json_indent=4 if RELOAD_TEMPLATES.read(settings) else None,
        shows_stacktrace=DEBUG.read(settings),
        download_url=DOWNLOAD_URL.read(settings),
        trusted_proxies=TrustedProxies.read(settings),
    )


def _policy(settings: EnvironSettings) -> Policy:
    """The fallback policy."""
    simple_url = fallback.simple_url(settings)
    return Policy(
        mode=fallback.Mode.read(settings),
        base_url=without_credentials(fallback.base_url(settings)),
        simple_url=None if simple_url is None else without_credentials(simple_url),
        disallowed=frozenset(map(normalized, DISALLOW_FALLBACK.read(settings))),
        redirect_private=fallback.REDIRECT_PRIVATE.read(settings),
        calculate_hashes=CALCULATE_HASHES.read(settings),
    )


def _upstream(settings: EnvironSettings) -> Upstream:
    """The upstream index."""
    base_url, simple_url = fallback.base_url(settings), fallback.simple_url(settings)
    return Upstream(base_url, simple_url, reads_legacy_json=fallback.reads_legacy_json(settings))


def _document_registry(config: Configurator, application: Application) -> None:
    """What plug-ins may read from ``request.registry`` and the request (compat.md 8.4)."""
    registry, settings = config.registry, application.settings
    registry.fallback = fallback.MODE.read(settings)
    registry.fallback_base_url = fallback.base_url(settings)
    registry.fallback_url = fallback.URL.read(settings)
    registry.always_show_upstream = fallback.ALWAYS_SHOW_UPSTREAM.read(settings)
    registry.locator = application.upstream
    registry.stream_files = application.stream_files
    registry.package_max_age = application.package_max_age
    registry.realm = application.realm
    registry.postfork_hooks = []


def _add_postfork_hook(config: Configurator, hook: Callable[[], Any]) -> None:
    """The directive ``config.add_postfork_hook``: call ``hook()`` in each process that a fork makes."""
    config.registry.postfork_hooks.append(hook)


def _after_fork(config: Configurator, application: Application) -> None:
    """Let backends renew what does not survive a fork, in every server that forks (compat.md 8.2)."""
    hooks = config.registry.postfork_hooks
    hooks += [
        _postfork(application.access_factory),
        _postfork(application.cache_factory),
        application.upstream.postfork,
    ]

    def call_hooks() -> None:
        for hook in hooks:
            hook()

    os.register_at_fork(after_in_child=call_hooks)
    _tell_uwsgi(call_hooks)


def _postfork(factory: Any) -> Callable[[], Any]:
    """What a configured backend wants called after a fork, with what its ``configure`` returned."""
    return functools.partial(factory.func.postfork, **factory.keywords)


def _tell_uwsgi(hook: Callable[[], None]) -> None:
    """Let uWSGI call a hook in each process it makes: it forks without letting Python know."""
    try:
        uwsgi: Any = importlib.import_module("uwsgi")
    except ImportError:
        # The module is there only inside of uWSGI.
        return
    # Others may want to be called, too: uWSGI's own decorators, or a second application.
    earlier = getattr(uwsgi, "post_fork_hook", lambda: None)

    def call_both() -> None:
        earlier()
        hook()

    uwsgi.post_fork_hook = call_both


def _lay_out_urls(config: Configurator) -> None:
    """One route and one view for each row of ``pypicloud.route``."""
    for row in ROUTES:
        config.add_route(row.name, row.pattern, factory=row.resource, request_method=row.methods, header=row.header)
        permission = "admin" if row.permission is Permission.ADMIN else NO_PERMISSION_REQUIRED
        config.add_view(_view(row), route_name=row.name, permission=permission)
        if row.slash:
            _add_slash(config, row)
    for kind in (Exception, PypicloudError):
        config.add_exception_view(views.format_exception, context=kind)
    config.add_notfound_view(views.format_exception)
    config.add_forbidden_view(views.format_exception)


def _add_slash(config: Configurator, row: Route) -> None:
    """Send a GET without the final slash to the address with it, query kept (compat.md 5.1)."""

    def to_slash(request: PypicloudRequest) -> Response:
        query = f"?{request.query_string}" if request.query_string else ""
        return HTTPFound(f"{request.path_url}/{query}")

    name = f"{row.name}_without_slash"
    config.add_route(name, row.pattern.removesuffix("/"), request_method=row.methods)
    config.add_view(to_slash, route_name=name, permission=NO_PERMISSION_REQUIRED)


def _view(row: Route) -> Any:
    module, _, function = row.view.partition(".")
    return getattr(importlib.import_module(f"pypicloud.views.{module}"), function)
