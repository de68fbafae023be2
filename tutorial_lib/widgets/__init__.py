"""Sliders and panels: one design for every method, redrawn as a control moves."""
