-- The gateways that this server attaches to, in the order in which they were made. Their keys are not kept here.

CREATE TABLE gateways (
    row               INTEGER PRIMARY KEY AUTOINCREMENT,
    name              TEXT NOT NULL UNIQUE COLLATE NOCASE,
    internal          TEXT NOT NULL, -- HOST:PORT, for the server and consoles of its network
    external          TEXT NOT NULL, -- HOST:PORT, for devices and consoles outside
    hosts             TEXT NOT NULL DEFAULT '[]', -- further names in its certificate
    devices_most      INTEGER,
    roots             TEXT NOT NULL DEFAULT '[]', -- PEM, of a chain of its own; empty: this server's root
    certificate_until INTEGER,
    created_at        INTEGER NOT NULL,
    created_by        TEXT NOT NULL
) STRICT;
