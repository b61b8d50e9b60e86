"""Where tokens and logits are computed."""
