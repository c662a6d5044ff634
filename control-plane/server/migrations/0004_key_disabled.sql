-- Since when a key is disabled; nothing for one that is not.
ALTER TABLE keys ADD COLUMN disabled_at INTEGER;
