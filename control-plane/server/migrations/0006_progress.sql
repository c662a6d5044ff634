-- How far a command was when its device last said so, as JSON.
ALTER TABLE commands ADD COLUMN progress TEXT;
