"""Entry point of a probe's process: `python -m velora_edge.doctor MODULE FUNCTION ARGS...`."""

import json
import sys

from velora_edge.doctor.probes import MARK, call_probe

print(f"\n{MARK}{json.dumps(call_probe(sys.argv[1], sys.argv[2], sys.argv[3:]))}", flush=True)
