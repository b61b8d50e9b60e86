"""Recogniser and decisions: from packed pairs to predictions and actions."""
