"""The settings of a store: its format, its keys, and markers of its state."""

from sasv.core.errors import SasvError
from sasv.store.database import Database


class Settings:
    """The table of settings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> bytes:
        """Return a value that every store has. Raises SasvError if it is missing."""
        value = self.find(name)
        if value is None:
            raise SasvError(
                f"{self._database.name}: this is not a store of sasv, or {name} was removed from it"
            )
        return value

    def find(self, name: str) -> bytes | None:
        """Return a value, or None if there is none."""
        found = self._database.execute("SELECT value FROM settings WHERE name = ?", (name,))
        return found[0][0] if found else None

    def set(self, name: str, value: bytes) -> None:
        """Write a value, replacing an earlier one."""
        self._database.execute(
            "INSERT INTO settings VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )
