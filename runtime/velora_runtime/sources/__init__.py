"""Where pictures and events come from."""
