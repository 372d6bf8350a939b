"""What tests of jobs share with those of tasks."""

from tests.tasks.conftest import instruments

__all__ = ["instruments"]
