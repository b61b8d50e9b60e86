"""Commands that run cameras or replay recordings: live, demo, record, cameras."""
