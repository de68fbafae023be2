"""Figures. Every function returns a matplotlib figure that pyplot does not know: nothing to close or to leak."""
