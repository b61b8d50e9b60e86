"""From what an event camera delivers to packets of events, queued and walked over."""
