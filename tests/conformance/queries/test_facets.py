"""Facets and the SQL of a query are the same as plain Python's, in every storage."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from afterimage.storage import Document, InvalidQueryError, SQLStorage
from tests.support.records import conversation

VALUES = ["a", "b", True, 1, 'q"', "", "é\n"]


@pytest.fixture
def filled(storage: Any) -> Any:
    storage.save_conversations(
        [
            conversation(
                f"question {n}",
                {
                    "kind": VALUES[n % 2],
                    "k.l": VALUES[4 + n % 3],
                    "many": n,
                    "long": "x" * 300,
                    "list": [n % 2],
                    **({"flag": n % 3 == 0} if n % 2 else {}),
                    **({"mixed": VALUES[2 + n % 2]} if n < 4 else {}),
                },
            )
            for n in range(20)
        ]
    )
    storage.save_documents([Document(id=str(n), metadata={"d": n % 2}) for n in range(3)])
    return storage


class TestFacets:
    def test_the_counts_are_those_of_plain_python(self, filled: Any) -> None:
        found = filled.facets()
        records = filled.load_conversations()
        for path, key in (
            ("metadata.kind", "kind"),
            ('metadata."k.l"', "k.l"),
            ("metadata.flag", "flag"),
        ):
            values = [each.metadata[key] for each in records if key in each.metadata]
            assert found[path] == Counter(values)
            for value, count in found[path].items():
                assert filled.count_conversations([(path, "==", value)]) == count
        assert found["messages.role"] == {"user": 20, "assistant": 20}

    def test_fields_with_many_long_or_odd_values_have_none(self, filled: Any) -> None:
        found = filled.facets()
        for key in ("many", "long", "list", "mixed"):
            assert found[f"metadata.{key}"] is None
        assert len(filled.facets(most_values=20)["metadata.many"]) == 20
        assert filled.facets(most_values=1)["metadata.kind"] is None

    def test_filters_and_kinds(self, filled: Any) -> None:
        found = filled.facets([("metadata.many", "<", 5)])
        assert found["metadata.kind"] == {"a": 3, "b": 2}
        assert filled.facets({"metadata.kind": "z"}) == {}
        assert filled.facets(kind="documents") == {"metadata.d": {0: 2, 1: 1}}
        for wrong in ({"most_values": 0}, {"kind": "records"}, {"filters": {"nowhere": 1}}):
            with pytest.raises(InvalidQueryError):
                filled.facets(**wrong)


FILTERS: list[Any] = [
    [("metadata.many", ">", 3), ("metadata.kind", "==", "a")],
    [("messages.content", "icontains", "QUESTION 1")],
    [[("metadata.flag", "==", True)], [('metadata."k.l"', "in", ['q"', "é\n"])]],
    [("metadata.kind", "!=", "it's 100% :x $1 ?")],
    [("final_score", "==", None)],
]


def test_the_sql_selects_the_same_records(filled: Any) -> None:
    sql = filled
    if not hasattr(filled, "engine"):
        sql = SQLStorage("duckdb:///:memory:")
        sql.save_conversations(filled.load_conversations())
    for filters in FILTERS:
        query = {"filters": filters, "order_by": "-metadata.many", "limit": 4, "offset": 1}
        expected = [each.metadata["many"] for each in filled.load_conversations(**query)]
        with sql.engine.connect() as connection:
            rows = connection.exec_driver_sql(filled.as_sql(**query)).mappings().all()
        assert [row["metadata"]["many"] for row in rows] == expected, filters
