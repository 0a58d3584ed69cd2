"""Helpers of several tests, and what tests run as scripts."""
