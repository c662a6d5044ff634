-- Since when two machines take turns under one key.
ALTER TABLE devices ADD COLUMN clone_suspected_at INTEGER;

-- When a machine was first refused that still has the key which a new one replaced.
ALTER TABLE device_certificates ADD COLUMN refused_at INTEGER;
