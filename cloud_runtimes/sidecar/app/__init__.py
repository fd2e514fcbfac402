"""The application beside the sidecar."""
