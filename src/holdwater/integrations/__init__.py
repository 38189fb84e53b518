"""Addresses that were documented before the packages they lead to now; they stay."""
