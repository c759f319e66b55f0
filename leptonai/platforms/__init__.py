"""The only rooms that touch the world. Each passes ``leptonai.testing.PlatformSuite``."""
