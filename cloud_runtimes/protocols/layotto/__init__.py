"""The protocol of Layotto: ``.proto`` files written for this project, with the packages, names and numbers of the sidecar's, and the classes made of them."""
