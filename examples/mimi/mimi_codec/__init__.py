"""Kyutai's Mimi for blazen-codec."""
