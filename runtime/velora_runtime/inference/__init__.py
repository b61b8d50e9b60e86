"""From packed pairs to predictions and decisions."""
