-- Times are seconds since 1970. Secrets are stored as hashes or verifiers only.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE accounts (
    user         TEXT PRIMARY KEY COLLATE NOCASE,
    display_name TEXT NOT NULL,
    role         TEXT NOT NULL CHECK (role IN ('administrator', 'operator', 'auditor')),
    password     TEXT NOT NULL, -- Argon2id, PHC string
    created_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    hash       TEXT PRIMARY KEY, -- SHA-256
    user       TEXT NOT NULL COLLATE NOCASE REFERENCES accounts (user) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tokens_by_user ON tokens (user);

-- A device keeps its row for life; its ID and certificate change when it makes a new key.
CREATE TABLE devices (
    row                  INTEGER PRIMARY KEY AUTOINCREMENT,
    unit_id              TEXT NOT NULL,
    name                 TEXT NOT NULL,
    os                   TEXT NOT NULL DEFAULT '',
    agent_version        TEXT NOT NULL DEFAULT '',
    architecture         TEXT NOT NULL DEFAULT '',
    shadow_port          INTEGER,
    addresses            TEXT NOT NULL DEFAULT '[]',
    secure_mode          INTEGER NOT NULL DEFAULT 1,
    peer_address         TEXT,
    other_unit_id        TEXT,
    enrolled_at          INTEGER NOT NULL,
    enrolled_with        TEXT NOT NULL,
    last_seen            INTEGER,
    settings_values      TEXT NOT NULL DEFAULT '{}',
    settings_revision    INTEGER NOT NULL DEFAULT 0,
    settings_applied     INTEGER NOT NULL DEFAULT 0,
    settings_refused     TEXT NOT NULL DEFAULT '{}',
    conflict_fingerprint TEXT,
    conflict_der         BLOB,
    removed_at           INTEGER
) STRICT;
CREATE UNIQUE INDEX devices_on_file_by_unit ON devices (unit_id) WHERE removed_at IS NULL;

CREATE TABLE device_certificates (
    device      INTEGER NOT NULL REFERENCES devices (row),
    fingerprint TEXT NOT NULL,
    device_id   TEXT NOT NULL,
    der         BLOB NOT NULL,
    -- current: accepted; proposed: accepted, becomes current when the device uses it; former: replaced;
    -- removed: an administrator removed the device; left: the device asked to be removed.
    state       TEXT NOT NULL CHECK (state IN ('current', 'proposed', 'former', 'removed', 'left')),
    filed_at    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX certificates_accepted ON device_certificates (fingerprint)
    WHERE state IN ('current', 'proposed');
CREATE UNIQUE INDEX certificates_current ON device_certificates (device) WHERE state = 'current';
CREATE UNIQUE INDEX certificates_proposed ON device_certificates (device) WHERE state = 'proposed';
CREATE INDEX certificates_by_fingerprint ON device_certificates (fingerprint);
CREATE INDEX certificates_by_device_id ON device_certificates (device_id);

CREATE TABLE keys (
    id         TEXT PRIMARY KEY,
    stored_key BLOB NOT NULL, -- SCRAM's StoredKey and ServerKey: the key cannot be computed from them
    server_key BLOB NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('one_time', 'bound', 'mass')),
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER,
    quota      INTEGER,
    used       INTEGER NOT NULL DEFAULT 0,
    tag        TEXT NOT NULL DEFAULT '',
    revoked_at INTEGER,
    CHECK (quota IS NULL OR used <= quota)
) STRICT;

CREATE TABLE key_units (
    key     TEXT NOT NULL REFERENCES keys (id),
    unit_id TEXT NOT NULL,
    PRIMARY KEY (key, unit_id)
) STRICT;

CREATE TABLE key_uses (
    key         TEXT NOT NULL REFERENCES keys (id),
    fingerprint TEXT NOT NULL,
    unit_id     TEXT NOT NULL,
    device      INTEGER NOT NULL REFERENCES devices (row),
    at          INTEGER NOT NULL,
    PRIMARY KEY (key, fingerprint)
) STRICT;

CREATE TABLE commands (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    device     INTEGER NOT NULL REFERENCES devices (row),
    action     TEXT NOT NULL, -- JSON
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    state      TEXT,
    sentence   TEXT,
    facts      TEXT NOT NULL DEFAULT '{}',
    ended_at   INTEGER
) STRICT;
CREATE INDEX commands_by_device ON commands (device, number);
CREATE INDEX commands_waiting ON commands (device) WHERE state IS NULL;

CREATE TABLE sessions (
    number           INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT NOT NULL UNIQUE,
    device           INTEGER NOT NULL REFERENCES devices (row),
    device_id        TEXT NOT NULL,
    user             TEXT NOT NULL,
    operator         TEXT NOT NULL,
    reason           TEXT NOT NULL,
    control          INTEGER NOT NULL,
    clipboard        INTEGER NOT NULL,
    legacy           INTEGER NOT NULL,
    ticket_hash      TEXT UNIQUE,
    password_hash    TEXT NOT NULL UNIQUE,
    state            TEXT NOT NULL CHECK (state IN ('offered', 'allowed', 'running', 'ended', 'refused')),
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL,
    started_at       INTEGER,
    ended_at         INTEGER,
    end_code         TEXT,
    end_sentence     TEXT,
    end_asked_by     TEXT,
    duration_ms      INTEGER,
    bytes_to_device  INTEGER,
    bytes_to_console INTEGER
) STRICT;
CREATE INDEX sessions_by_device ON sessions (device, number);
CREATE INDEX sessions_offered ON sessions (expires_at) WHERE state = 'offered';

CREATE TABLE audit (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- INSERT OR REPLACE would delete without asking the trigger above.
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
