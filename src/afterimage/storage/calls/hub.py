"""Write a folder that the Hugging Face Hub and `load_dataset` take as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterimage.storage.calls.exports import ExportCalls
from afterimage.storage.calls.reports import ReportCalls
from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.query.arguments import Columns, Filters, OrderBy
from afterimage.storage.reports.exports import ExportCount
from afterimage.storage.reports.faults import OnError
from afterimage.storage.reports.progress import Progress
from afterimage.storage.system.interrupts import signal_safe
from afterimage.storage.system.targets import system_path
from afterimage.storage.transfer.remote import refuse_folder

if TYPE_CHECKING:  # importing the JSONL storage must not load the engine
    from afterimage.storage.transfer.training_formats import Reasoning

__all__ = ["HubCalls"]


class HubCalls(ExportCalls, ReportCalls):
    """The method for the Hugging Face Hub."""

    @signal_safe
    def export_hub(
        self,
        path: str | Path,
        *,
        format: str | None = "messages",  # noqa: A002  the usual word
        license: str | None = None,  # noqa: A002  the name that the Hub has for it
        title: str | None = None,
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        system_prompt: str | None = None,
        reasoning: Reasoning | None = None,
        lossy: bool = False,
        trim: bool = False,
        progress: Progress | bool | None = None,
        on_error: OnError = "raise",
        **split: Any,
    ) -> ExportCount:
        """Write conversations as a dataset folder: Parquet files, and a card with their figures.

        `datasets.load_dataset(path)` reads the folder without options, as the splits and the types
        are in the card. `hf upload` uploads it. The folder appears when it is complete. A folder of
        an earlier export is replaced; any other folder that has files is refused.

        Args:
            path: the folder. A URL is refused.
            format: see `export_parquet`; None writes whole records.
            license: the identifier of a license of the Hub, such as "cc-by-4.0", for the card.
            title: the heading of the card; the name of the folder by default.
            columns: see `export_parquet`.
            filters: see the class.
            order_by: see the class.
            limit: see the class.
            offset: see the class.
            system_prompt: see `export_jsonl`.
            reasoning: see `export_jsonl`.
            lossy: see `export_jsonl`.
            trim: see `export_jsonl`.
            progress: see `export_parquet`.
            on_error: see the class.
            split: `split`, `split_by` and `seed` of `export_parquet`; without them, all rows are in
                the split `train`.

        Returns:
            The number of rows written; see `export_jsonl`.

        Raises:
            InvalidQueryError: `path` exists and is not a folder of an earlier export.

        >>> import tempfile
        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> store.save_conversations([Conversation(conversations=talk)])
        >>> folder = Path(tempfile.mkdtemp(), "talks")
        >>> store.export_hub(folder, license="cc-by-4.0")
        1
        >>> sorted(file.name for file in folder.rglob("*") if file.is_file())
        ['README.md', 'train-00000-of-00001.parquet']
        """
        from afterimage.storage.transfer import hub  # noqa: PLC0415  loads Arrow

        for name, value in (("license", license), ("title", title)):
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise InvalidQueryError(f"{name} must be a text, not {shown(value, 40)}")
        refuse_folder(path)
        target = system_path(path)
        with hub.hub_folder(target) as folder:
            data = folder / hub.DATA
            written = self.export_parquet(
                data if split.get("split") else data / "train.parquet",
                format=format,
                columns=columns,
                filters=filters,
                order_by=order_by,
                limit=limit,
                offset=offset,
                system_prompt=system_prompt,
                reasoning=reasoning,
                lossy=lossy,
                trim=trim,
                progress=progress,
                on_error=on_error,
                **split,
            )
            text = hub.card(
                hub.rename_shards(data),
                title=title or target.name,
                license_name=license,
                description=self._figures(filters, on_error),
            )
            (folder / "README.md").write_text(text, encoding="utf-8")
        return written

    def _figures(self, filters: Filters, on_error: OnError) -> str:
        """Return the figures of the card, as Markdown."""
        figures = self.stats(filters, on_error=on_error)
        rows = {
            "conversations": f"{figures.conversations:,}",
            "messages": f"{figures.messages:,}",
            "messages in a conversation, median": _number(figures.turns.median),
            **{
                f"characters in a message of {role}, median": _number(each.median)
                for role, each in figures.characters.items()
            },
            "with reasoning": f"{figures.with_reasoning:,}",
            "with an evaluation": f"{figures.with_evaluation:,}",
            "duplicates": f"{figures.duplicates:,}",
        }
        lines = [f"| {name} | {value} |" for name, value in rows.items()]
        return "\n".join(["## Figures", "", "| | |", "|---|---:|", *lines])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}"
