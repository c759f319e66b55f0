"""The agent on a foreign machine: what it sees, kept on its disk until the platform has it."""
