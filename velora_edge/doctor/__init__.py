"""What `velora doctor` finds out: probes that run in processes of their own, and advice drawn from them."""
