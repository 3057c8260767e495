"""Conversations in the formats of other tools: conversions between their rows and our records.

It imports `errors` and `records` and nothing else of this package, and reads and writes no files.

A *row* is a JSON object of another tool. A *record* is ours: `conversations` (messages with `role`,
`content` and what else they have), `tools` if there are any, and `metadata`; or a preference pair
with `prompt`, `chosen` and `rejected`. `registry.py` gives a format by its name or by the keys of
rows. Each format has a module with a `Conversion`: how its own keys become a record and how a
record becomes its keys. `shape.py` does for all formats what they have in common.

- Keys that a format does not name become keys of `metadata`. The column `metadata.*` brings them
  back. If the row has an object `metadata`, its keys become keys of the record's `metadata`.
- Many rows can be written in several ways: a role has several names, arguments are text or an
  object. A conversion writes one of them. What the row had instead is kept in `metadata`, under
  the key `source_format`: the format's name and the edits from what is written to what was read
  (`edits.py`). A row without such differences has no such key. The edits apply if the result still
  reads as the record, so an edited record is never written with what it said before.
  `source_format` is written in no other format, and in no column.

The invariants: A row is read and written again as the same row, except for the order of its keys,
and for null instead of an absent key. Nothing that a message says is left out unless `lossy`
allows it. The time is linear in the number of messages.
"""
