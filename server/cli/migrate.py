"""`bax migrate`: bring the database's schema up to date."""

from __future__ import annotations

from server.cli.output import Failed


def migrate() -> None:
    """Create or update the tables of the database.

    It is the one of BAX_DATABASE_URL, or the data directory's. `bax serve` does this by itself.
    """
    from adapters.db.faults import DatabaseUnavailable
    from adapters.db.migrate import migrate as bring_up_to_date
    from server.cli.configuration import settings_from

    settings = settings_from()
    try:
        bring_up_to_date(settings.database)
    except DatabaseUnavailable as error:
        raise Failed(error.message) from error
    except (ValueError, OSError) as error:
        raise Failed(str(error)) from error
    print("the database is up to date")
