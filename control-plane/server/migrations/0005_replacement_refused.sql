-- The replacement of a device's certificate that an administrator refused: it's not offered again.
ALTER TABLE devices ADD COLUMN refused_fingerprint TEXT;
