"""INSERT … ON CONFLICT for both databases.

SQLite took the clause over from PostgreSQL, and SQLAlchemy's SQLite compiler renders PostgreSQL's construct (not the
other way round), so one statement object serves both; tests/contract/test_unit_of_work.py runs each on both.
"""

from sqlalchemy.dialects.postgresql import insert as upsert

__all__ = ["upsert"]
