"""The tables. `USER_VERSION` and `APPLICATION_ID` stand in the file's header and say whose it is."""

APPLICATION_ID = 0x4B42_4C47  # "KBLG"
USER_VERSION = 2

HOLDS = "state NOT IN ('CREATING', 'RELEASED', 'NOT_IMPORTED', 'ALREADY_BOUND', 'CREATED')"
"""HOLDS_CMK from its other side: a state that this version does not know holds the CMK too."""

IS_UNFINISHED = "state IN ('CREATING', 'CLAIMED', 'PREPARED', 'ACCEPTED')"
IS_TOMBSTONE = (
    "kind = 'CREATE' AND state IN ('IMPORTED', 'ENABLED_UNATTRIBUTED', 'NOT_IMPORTED', 'ALREADY_BOUND', 'CREATED')"
)

_AUDIT_DUE = """
CREATE TABLE audit_due (
  id TEXT PRIMARY KEY,
  sequence INTEGER NOT NULL,
  held INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX audit_due_in_order ON audit_due (sequence);
"""

# `sequence` is the version of the last write of the whole ledger. Instants are microseconds since 1970, UTC.
CREATE = f"""
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  ledger_id TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  restored INTEGER NOT NULL DEFAULT 0,
  restored_at INTEGER,
  audit_head TEXT NOT NULL DEFAULT ''
);
CREATE TABLE attempts (
  record_id TEXT PRIMARY KEY,
  caller TEXT NOT NULL,
  request_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  version INTEGER NOT NULL,
  account TEXT,
  region TEXT,
  key_id TEXT,
  tag TEXT,
  updated_at INTEGER NOT NULL,
  body TEXT NOT NULL,
  sealed_by TEXT,
  sealed_token BLOB,
  sealed_blob BLOB,
  UNIQUE (caller, request_id)
);
CREATE UNIQUE INDEX attempts_holding ON attempts (account, region, key_id) WHERE {HOLDS};
CREATE INDEX attempts_of_cmk ON attempts (account, region, key_id);
CREATE INDEX attempts_unfinished ON attempts (version) WHERE {IS_UNFINISHED};
CREATE INDEX attempts_by_tag ON attempts (tag) WHERE tag IS NOT NULL;
CREATE INDEX attempts_tombstones ON attempts (updated_at) WHERE {IS_TOMBSTONE};
CREATE TABLE handed_out (
  token_digest BLOB PRIMARY KEY,
  account TEXT NOT NULL,
  region TEXT NOT NULL,
  key_id TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  expires_at INTEGER NOT NULL
);
CREATE INDEX handed_out_of_cmk ON handed_out (account, region, key_id);
CREATE INDEX handed_out_expiring ON handed_out (expires_at);
{_AUDIT_DUE}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {USER_VERSION};
"""

MIGRATIONS = {
    1: f"""
ALTER TABLE meta ADD COLUMN audit_head TEXT NOT NULL DEFAULT '';
{_AUDIT_DUE}
PRAGMA user_version = 2;
"""
}
"""By the version that a file has: the statements that make it the next one."""
