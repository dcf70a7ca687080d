"""Exports of trained models, their configuration, a client and a local server."""
