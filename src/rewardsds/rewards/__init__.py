"""Rewards: what scores a preview against its prompt."""
