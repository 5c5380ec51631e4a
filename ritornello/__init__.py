"""Ritornello: recurrent sequence models, written once and run every way."""
