from api_stage import shared, stage  # noqa: F401 - fixtures
