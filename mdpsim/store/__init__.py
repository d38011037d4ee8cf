"""The store: crash-safe records in one sqlite3 file. The file and its format, opening, salvage, and what a run does with it."""

from mdpsim.store.file import StoreLostError, StoreWarning, is_full, trouble
from mdpsim.store.store import DEFAULT_PATH, Store, as_store, record_key

__all__ = ["DEFAULT_PATH", "Store", "StoreLostError", "StoreWarning", "as_store", "is_full", "record_key", "trouble"]
