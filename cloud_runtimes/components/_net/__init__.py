"""Connections to servers, their engines, and notifications."""
