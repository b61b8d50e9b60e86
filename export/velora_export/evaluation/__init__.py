"""An exported model run on a CPU: clips, sessions, parity, latency and the report."""
