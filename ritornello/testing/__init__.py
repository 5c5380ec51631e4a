"""Conformance: what a layer or a kernel of ours, or of anyone's, has to satisfy. Nothing in the library imports it."""
