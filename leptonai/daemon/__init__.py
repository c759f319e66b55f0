"""The processes of a platform on one machine: parent, control and ops. This room wires all others together."""
