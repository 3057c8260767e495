"""Give the space of deleted records back."""

from __future__ import annotations

from afterimage.storage.calls.shared import Calls
from afterimage.storage.system.interrupts import signal_safe

__all__ = ["CompactingCalls"]


class CompactingCalls(Calls):
    """The method that makes files smaller."""

    @signal_safe
    def compact(self) -> None:
        """Make the file as small as its records are.

        A database file is written again beside the old one, which it then replaces, if it is
        smaller: a process that is killed leaves the old file, and readers see either of them. It
        needs as much free space as the new file takes. Nobody else can use the file meanwhile, and
        it does not begin while another connection has the file open, of this process or of another.

        A JSONL file is as small as its records after every edit; what a killed edit left beside it
        is removed. In memory, nothing happens.

        Of a lake, small files are merged, and what no version of the last week needs is removed.
        Others can read and save meanwhile. Edits wait. Files of the last day are kept, because they
        may belong to saves that are not committed yet.

        Raises:
            LockTimeoutError: another connection had the file open for all of `lock_timeout`.
            StorageError: the file has hard links, or the disk is full. Nothing was changed.
            DatabaseError: the server of a lake cannot be reached.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from afterimage.storage import Conversation, SQLStorage
        >>> path = Path(tempfile.mkdtemp(), "talks.duckdb")
        >>> store = SQLStorage(path)
        >>> talk = Conversation(conversations=[], metadata={"text": "words " * 1000})
        >>> store.save_conversations([talk] * 2000)
        >>> before = path.stat().st_size
        >>> _ = store.delete_conversations([("id", ">", 10)])
        >>> store.compact()
        >>> path.stat().st_size < before
        True
        """
        self._backend.compact()
