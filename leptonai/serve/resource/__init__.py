"""A service as a custom resource of a cluster, ``Service`` of ``leptonai.dev``: one more form of the text, one more way
to the door."""
