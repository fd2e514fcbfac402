"""The protocol of Layotto."""
