"""Towers, LoRA, fusion head: the VELoRA network in torch."""
