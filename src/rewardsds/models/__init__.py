"""Pretrained models of others: what is known of them, getting them, converting and checking them."""
