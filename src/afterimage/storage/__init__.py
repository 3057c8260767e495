"""Storage for LLM conversation datasets: JSONL files and DuckDB databases behind one API.

Names are imported on first use. A program that uses only the JSONL storage does not load DuckDB,
Arrow or SQLAlchemy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from afterimage.storage._version import __version__

if TYPE_CHECKING:
    from afterimage.storage.base import BaseStorage
    from afterimage.storage.chat import (
        ChatConversation,
        ChatEntry,
        ChatRole,
        PreferencePair,
    )
    from afterimage.storage.errors import (
        CorruptRecordError,
        DatabaseError,
        InvalidQueryError,
        InvalidRecordError,
        LockTimeoutError,
        MissingFileError,
        ReplacedFileError,
        SchemaMismatchError,
        StorageError,
        UnknownFieldError,
        UnsupportedFileError,
        UnsupportedURLError,
    )
    from afterimage.storage.jsonl.verify import verify_jsonl
    from afterimage.storage.jsonl_storage import JSONLStorage
    from afterimage.storage.models import (
        Conversation,
        ConversationEntry,
        ConversationWithContext,
        Document,
        EvaluatedConversationWithContext,
        EvaluationEntrySchema,
        EvaluationSchema,
        GradeSchema,
        PersonaEntry,
        Role,
    )
    from afterimage.storage.reports.differences import Diff
    from afterimage.storage.reports.faults import SkippedRecords, SkippedRecordsWarning
    from afterimage.storage.reports.imports import ImportCount
    from afterimage.storage.reports.snapshots import Snapshot
    from afterimage.storage.reports.statistics import Statistics
    from afterimage.storage.reports.verification import Verification
    from afterimage.storage.sql_storage import SQLStorage
    from afterimage.storage.stores.opening import open_storage

__all__ = [
    "BaseStorage",
    "ChatConversation",
    "ChatEntry",
    "ChatRole",
    "Conversation",
    "ConversationEntry",
    "ConversationWithContext",
    "CorruptRecordError",
    "DatabaseError",
    "Diff",
    "Document",
    "EvaluatedConversationWithContext",
    "EvaluationEntrySchema",
    "EvaluationSchema",
    "GradeSchema",
    "ImportCount",
    "InvalidQueryError",
    "InvalidRecordError",
    "JSONLStorage",
    "LockTimeoutError",
    "MissingFileError",
    "PersonaEntry",
    "PreferencePair",
    "ReplacedFileError",
    "Role",
    "SQLStorage",
    "SchemaMismatchError",
    "SkippedRecords",
    "SkippedRecordsWarning",
    "Snapshot",
    "Statistics",
    "StorageError",
    "UnknownFieldError",
    "UnsupportedFileError",
    "UnsupportedURLError",
    "Verification",
    "__version__",
    "open_storage",
    "verify_jsonl",
]

_MODULES = {
    "BaseStorage": "base",
    "ChatConversation": "chat",
    "ChatEntry": "chat",
    "ChatRole": "chat",
    "PreferencePair": "chat",
    "Diff": "reports.differences",
    "ImportCount": "reports.imports",
    "JSONLStorage": "jsonl_storage",
    "SQLStorage": "sql_storage",
    "Snapshot": "reports.snapshots",
    "Statistics": "reports.statistics",
    "SkippedRecords": "reports.faults",
    "SkippedRecordsWarning": "reports.faults",
    "Verification": "reports.verification",
    "open_storage": "stores.opening",
    "verify_jsonl": "jsonl.verify",
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "errors"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'models')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
