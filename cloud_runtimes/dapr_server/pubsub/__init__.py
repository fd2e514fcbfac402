"""Publishing and subscribing: ``/v1.0/publish``, and events to the application. The block is in ``block.py``, since settings know ``types.py``."""
