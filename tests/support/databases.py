"""Databases on servers, looked at and meddled with past the product."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2
import pymysql
from sqlalchemy import make_url


def look(url: str, query: str, *values: Any) -> list[Any]:
    """Run a statement; its rows, if it gives any."""
    address = make_url(url)
    where = {"host": address.host, "port": address.port, "user": address.username, "password": address.password}
    connection: Any
    if address.get_backend_name() == "postgresql":
        connection = psycopg2.connect(dbname=address.database, **where)
    else:
        connection = pymysql.connect(database=address.database, charset="utf8mb4", **where)
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(query, values)
        rows = list(cursor.fetchall()) if cursor.description else []
        connection.commit()
    return rows


def end_sessions(url: str) -> None:
    """End every other session of a database, as its administrator or a restart would."""
    if make_url(url).get_backend_name() == "postgresql":
        look(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        return
    query = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    for (number,) in look(url, query):
        look(url, f"KILL {number}")
