"""Options that several commands take, by subject."""
