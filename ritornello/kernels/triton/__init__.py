"""The triton backend: no op has a kernel in it yet, and on a GPU the torch backend runs."""
